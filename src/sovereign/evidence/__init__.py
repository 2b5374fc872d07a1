"""What happened: the intent frozen before step 0, the rows observed, and the closing statement."""
