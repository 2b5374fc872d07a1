"""Thresholds of the claims: losses in nats per token; each is a starting value, checked on small models only."""

from __future__ import annotations

EQUAL = 1e-5  # losses this close, three in a row, are one number
FAST = 0.2  # of the median wall time
PATHS = {"fp32": 1e-5, "bf16": 1e-3, "fp16": 1e-3}  # beyond reduction noise for 1,000 tokens or more
BELOW_UNIGRAM = 0.1  # a model counts as having learned once it is this far below counting single tokens
UNKNOWN_SPREAD = 0.3  # 256 sequences make a scalar uncertain by 0.2; one without documents must clear more
ARTIFACT = 0.05
DROPOUT_ALLOWANCE = 0.5  # nats a train-mode loss may lie above, per unit of dropout; it only makes something likely
POSITION = (8, 0.3, 0.05)  # evaluations, R squared, p
SPIKE = (0.5, 8.0, 0.02)  # nats, MADs, share of steps
STAYS_UP = 0.2
ABOVE_UNIGRAM = 0.5
EXCESS = 0.01  # share of documents, and of passages
EFFECT = 0.02  # about 2 % of perplexity; below it seeds and sampling dominate
SHIFTED = 0.25
CEILING = 0.3
PASSAGES = 300  # none of 300 gives an upper bound of 1.0 %
CANARIES = (16, 0.01, 0.1)  # how many, p that counts, p that clears
RISES = (0.05, 2)  # Prechelt's GL5 with two successive rises
SMALL_GAP, LARGE_GAP = 0.10, 0.30
BEYOND_ARTIFACTS = 1.0  # no lag, dropout or small sample makes a gap like this
MEMORY_LIKE = 3.0
FLAT = 0.01  # nats per tenth of the tokens
MOVES = 0.01  # share of the weights that an update must change before a result counts as one of training
POWER = 0.05
IMPROVED = 0.05
POINTS = 3  # a trend has three
