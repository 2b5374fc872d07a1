"""Rows, or another trainer's log, to claims: what a run shows, what it does not, and what would settle the rest."""
