"""Rows to measurements: pure functions with intervals, that any machine can repeat from what is in git."""
