"""Novelty: how much of a text stands in the train side, in n-grams and in its longest run (McCoy et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sovereign.corpus.overlap import BASE, BLOCK, Sought, covered, rolling
from sovereign.corpus.scoring import Ids
from sovereign.corpus.shards import Shards


@dataclass(frozen=True)
class Seen:
    """What the train side holds of one text; fields of a novelty row."""

    tokens: int
    seen_4: float
    seen_10: float
    longest: int


def novelty(train: Shards, texts: Sequence[Ids]) -> list[Seen]:
    """Return what the train side holds of each text: shares of its 4- and 10-grams, and its longest run of tokens."""
    four, ten, longest = shares(train, texts, 4), shares(train, texts, 10), longest_runs(train, texts)
    return [
        Seen(len(ids), float(one), float(other), int(run))
        for ids, one, other, run in zip(texts, four, ten, longest, strict=True)
    ]


def shares(train: Shards, texts: Sequence[Ids], length: int) -> NDArray[np.float64]:
    """Return the share of each text's n-grams that stand in `train`; 0 for a text shorter than `length`."""
    found = np.zeros(len(texts))
    tokens = [np.asarray(ids, dtype=np.uint32) for ids in texts]
    hashes = [rolling(ids, length) for ids in tokens]
    total = sum(len(one) for one in hashes)
    if not total:
        return found
    joined = np.concatenate(tokens)
    starts = np.cumsum([0] + [len(ids) for ids in tokens])
    places = np.concatenate([start + np.arange(len(one)) for start, one in zip(starts, hashes, strict=False)])
    flat = np.concatenate(hashes)
    order = np.argsort(flat, kind="stable")
    sought = Sought(joined, places[order], flat[order], length)
    for at in range(0, train.tokens - length + 1, BLOCK):
        passing = train.read(at, min(at + BLOCK + length - 1, train.tokens)).astype(np.uint32)
        sought.find(passing, rolling(passing, length, BASE))
    hit = np.zeros(total, dtype=bool)
    hit[order] = sought.found
    ends = np.cumsum([len(one) for one in hashes])
    for number, (end, one) in enumerate(zip(ends, hashes, strict=True)):
        found[number] = hit[end - len(one) : end].mean() if len(one) else 0.0
    return found


def longest_runs(train: Shards, texts: Sequence[Ids]) -> NDArray[np.int64]:
    """Return the length of each text's longest run of tokens that stands in `train`.

    Whatever holds a run holds its beginning, so the length is found by halving, all texts at once.
    """
    low = np.zeros(len(texts), dtype=np.int64)
    high = np.array([len(ids) for ids in texts], dtype=np.int64)
    while (low < high).any():
        middle = (low + high + 1) // 2
        held = np.zeros(len(texts), dtype=bool)
        for length in np.unique(middle[low < high]).tolist():
            mine = np.flatnonzero((middle == length) & (low < high))
            held[mine] = covered(train, [texts[one] for one in mine.tolist()], length) > 0
        open_ = low < high
        low = np.where(open_ & held, middle, low)
        high = np.where(open_ & ~held, middle - 1, high)
    return low
