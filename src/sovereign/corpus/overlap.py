"""Overlap: how much of each held-out document stands word for word in the train side.

A token counts as covered when an n-gram that holds it stands anywhere in a train document. 13 tokens are a
phrase (Brown et al. 2020 clean their benchmarks by it), 50 are a copied passage (Lee et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sovereign.corpus.scoring import Ids
from sovereign.corpus.shards import Shards

BASE = 0x9E3779B97F4A7C15  # odd, so that no power of it vanishes modulo 2^64
BLOCK = 1 << 20  # train tokens hashed at once: some 50 MB of arrays
SIEVE_BITS = 27  # at most 128 MB, of which 25 million held-out n-grams fill a sixth

Tokens = NDArray[np.uint32]
Places = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Overlapped:
    """What the train side holds of one held-out document; the fields of an overlap row."""

    document: str
    split: str
    tokens: int
    covered_13: int
    covered_50: int


def overlap(train: Shards, held_out: Sequence[tuple[str, str, Ids]]) -> list[Overlapped]:
    """Return the overlap of each held-out document, given as (document, split, ids), in the order given."""
    documents = [ids for _, _, ids in held_out]
    phrases, passages = covered(train, documents, 13).tolist(), covered(train, documents, 50).tolist()
    return [
        Overlapped(document, split, len(ids), phrase, passage)
        for (document, split, ids), phrase, passage in zip(held_out, phrases, passages, strict=True)
    ]


def covered(
    train: Shards, documents: Sequence[Ids], length: int, base: int = BASE, block: int = BLOCK
) -> NDArray[np.int64]:
    """Return, for each document, how many of its tokens an n-gram of `length` that stands in `train` covers.

    The documents' n-grams are hashed and sorted once; the train side goes by in blocks, and whatever shares
    a hash is compared token for token, so the answer is exact for any `base`: a bad one only costs time.
    Memory is some 45 bytes for each held-out token and a block of the train side, however large that is.
    """
    tokens, starts = _joined(documents, train.end_of_text)
    places = _whole(tokens, length, train.end_of_text)
    if not len(places):
        return np.zeros(len(documents), dtype=np.int64)
    hashes = rolling(tokens, length, base)[places]
    order = np.argsort(hashes)
    hashes, places = hashes[order], places[order]
    del order

    # n-grams that repeat are looked for once: a licence header in every file would be compared with every other
    distinct = np.ones(len(places), dtype=bool)
    distinct[1:] = hashes[1:] != hashes[:-1]
    again = np.flatnonzero(~distinct)
    distinct[again] = ~_same(tokens, places[again - 1], tokens, places[again], length)
    sought = Sought(tokens, places[distinct], hashes[distinct], length)
    del hashes, again

    for at in range(0, train.tokens - length + 1, block):
        passing = train.read(at, min(at + block + length - 1, train.tokens)).astype(np.uint32)
        sought.find(passing, rolling(passing, length, base))

    edges = np.zeros(len(tokens) + 1, dtype=np.int8)
    hits = places[sought.found[np.cumsum(distinct) - 1]]
    edges[hits] += 1
    edges[hits + length] -= 1
    inside = np.cumsum(edges, dtype=np.int32) > 0
    total = np.concatenate([[0], np.cumsum(inside, dtype=np.int64)])
    return np.diff(total[starts])


class Sought:
    """N-grams in order of their hashes, and which of them were found; one that stands twice is looked for twice."""

    def __init__(self, tokens: Tokens, places: Places, hashes: Hashes, length: int):
        self.tokens, self.places, self.hashes, self.length = tokens, places, hashes, length
        self.found = np.zeros(len(places), dtype=bool)
        # one look at the top bits of a hash turns most of the train side away before any search
        bits = min(SIEVE_BITS, len(places).bit_length() + 3)
        self._shift = np.uint64(64 - bits)
        self._sieve = np.zeros(1 << bits, dtype=bool)
        self._sieve[hashes >> self._shift] = True

    def find(self, passing: Tokens, hashes: Hashes) -> None:
        """Mark as found what stands in a run of train tokens, given the hashes of its n-grams."""
        here = np.flatnonzero(self._sieve[hashes >> self._shift])
        here = here[np.argsort(hashes[here])]  # sorted questions share cache lines of the sorted answers
        hashes = hashes[here]
        rank = np.searchsorted(self.hashes, hashes)
        # one round, and one more for each further n-gram that has the same hash
        while len(rank):
            alike = self.hashes[np.minimum(rank, len(self.hashes) - 1)] == hashes
            alike &= rank < len(self.hashes)
            here, hashes, rank = here[alike], hashes[alike], rank[alike]
            unknown = ~self.found[rank]
            matches = _same(passing, here[unknown], self.tokens, self.places[rank[unknown]], self.length)
            self.found[rank[unknown][matches]] = True
            rank = rank + 1


def rolling(tokens: Tokens, length: int, base: int = BASE) -> Hashes:
    """Return the polynomial hash of every run of `length` tokens, shape [len(tokens) - length + 1].

    The sum of tokens[i + j] x base^j modulo 2^64 (Karp & Rabin 1987), built from sums over half the
    length, so that a run of 50 takes 7 additions and not 49.
    """
    if len(tokens) < length:
        return np.empty(0, dtype=np.uint64)
    ids = tokens.astype(np.uint64)
    sums, size = ids, 1
    for bit in f"{length:b}"[1:]:
        sums = sums[:-size] + sums[size:] * np.uint64(pow(base, size, 1 << 64))
        size *= 2
        if bit == "1":
            sums = ids[: len(sums) - 1] + sums[1:] * np.uint64(base)
            size += 1
    return sums


def _joined(documents: Sequence[Ids], end_of_text: int) -> tuple[Tokens, Places]:
    """Return the documents as one run, an end-of-text after each, and where each starts, the end of all last."""
    tokens = np.full(sum(len(ids) + 1 for ids in documents), end_of_text, dtype=np.uint32)
    starts = np.cumsum([0] + [len(ids) + 1 for ids in documents], dtype=np.int64)
    for start, ids in zip(starts[:-1].tolist(), documents, strict=True):
        tokens[start : start + len(ids)] = ids
    return tokens, starts


def _whole(tokens: Tokens, length: int, end_of_text: int) -> Places:
    """Return where the n-grams begin that hold no end-of-text.

    A train n-gram that crosses a boundary holds one, so it equals none of these: one side is checked for both.
    """
    ends = np.flatnonzero(tokens == end_of_text)
    whole = np.ones(len(tokens), dtype=bool)
    for back in range(length):
        whole[np.maximum(0, ends - back)] = False  # where 0 is reached, the first document is too short
    return np.flatnonzero(whole)


def _same(one: Tokens, here: Places, other: Tokens, there: Places, length: int) -> NDArray[np.bool_]:
    """Return which pairs of places begin the same `length` tokens."""
    same = np.ones(len(here), dtype=bool)
    for step in range(length):
        same &= one[here + step] == other[there + step]
    return same
