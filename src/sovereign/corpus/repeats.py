"""Repeats: the longest runs of tokens that stand more than once in a run of documents.

Suffixes are sorted by their first 1, 2, 4, ... tokens until none are alike (Manber & Myers 1993), and the rank of every
suffix is kept at each length, from which the length that two neighbours share is put together bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sovereign.corpus.scoring import Ids

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Repeat:
    """A run of `length` tokens that begins at two places of the documents given, counted over all of them in a row."""

    length: int
    first: int
    second: int


def longest_repeats(documents: Sequence[Ids], most: int) -> list[Repeat]:
    """Return at most so many of the longest repeats, longest first, each of which begins outside those before it.

    A run never crosses from one document to the next; its two places may overlap, as in a row of dashes. Memory
    is some 8 bytes a token, times the logarithm of the longest repeat.
    """
    if not documents or not sum(map(len, documents)):
        return []
    largest = max(int(ids.max()) for ids in documents if len(ids))
    # a different end after each document, so that no two runs agree across one
    ends = np.arange(largest + 1, largest + 1 + len(documents), dtype=np.int64)
    tokens = np.concatenate([np.append(ids.astype(np.int64), end) for ids, end in zip(documents, ends, strict=True)])
    levels, order = _ranked(tokens)
    shared = _shared(levels, order[:-1], order[1:])

    starts = np.cumsum([0] + [len(ids) + 1 for ids in documents])
    covered = np.zeros(len(tokens), dtype=bool)
    found: list[Repeat] = []
    for at in np.argsort(-shared, kind="stable").tolist():
        length = int(shared[at])
        if length == 0 or len(found) == most:
            break
        first, second = sorted((int(order[at]), int(order[at + 1])))
        if covered[first] or covered[second]:
            continue
        covered[first : first + length] = covered[second : second + length] = True
        # counted without the ends that were put in
        found.append(Repeat(length, *(place - int(np.searchsorted(starts, place, "right")) + 1 for place in (first, second))))  # fmt: skip
    return found


def _ranked(tokens: Places) -> tuple[list[Places], Places]:
    """Return the rank of each suffix by its first 1, 2, 4, ... tokens, and the order in which none are alike."""
    rank = np.unique(tokens, return_inverse=True)[1].astype(np.int64)
    levels = [rank]
    length = 1
    while True:
        beyond = np.zeros(len(rank), dtype=np.int64)
        beyond[:-length] = rank[length:] + 1
        both = rank * (int(rank.max()) + 2) + beyond
        order = np.argsort(both, kind="stable")
        ordered = both[order]
        rank = np.empty_like(rank)
        rank[order] = np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])])
        if int(rank.max()) == len(rank) - 1:
            return levels, order
        levels.append(rank)
        length *= 2


def _shared(levels: Sequence[Places], first: Places, second: Places) -> Places:
    """Return how many tokens the suffixes at each pair of places share."""
    size = len(levels[0])
    shared = np.zeros(len(first), dtype=np.int64)
    for level in range(len(levels) - 1, -1, -1):
        inside = np.maximum(first, second) + shared + (1 << level) <= size
        here, there = np.minimum(first + shared, size - 1), np.minimum(second + shared, size - 1)
        shared += np.where(inside & (levels[level][here] == levels[level][there]), 1 << level, 0)
    return shared
