"""What a run promises: the criteria it claims, and everything that decides what it does."""
