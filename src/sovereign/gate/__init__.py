"""Criteria x evidence -> status: pure functions of values, that open no file and keep no clock."""
