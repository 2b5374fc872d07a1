"""Parity: whether what ships computes what was trained, how far apart the two are, and where they part."""
