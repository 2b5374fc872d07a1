"""How weights are moved, scored, sampled from and kept. Takes values and callables; knows no spec and no evidence."""
