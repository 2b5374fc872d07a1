"""Faults planted in the code that runs, so that a criterion is seen to fail: a right function swapped for a wrong one."""
