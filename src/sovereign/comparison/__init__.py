"""Runs beside each other: what differed, what it can be said to have done, and where nothing can be said."""
