"""Floors: what counting alone scores on held-out documents, so that a loss can be told from a good one.

The unigram is add-one smoothed. The bigram is interpolated with it by Witten-Bell smoothing (Witten & Bell 1991,
method C; as Chen & Goodman 1998 write it): lambda(h) = c(h) / (c(h) + T(h)), where T(h) is the number of distinct
followers of h, and p(w|h) = lambda(h) c(h,w) / c(h) + (1 - lambda(h)) p(w), which is
(c(h,w) + T(h) p(w)) / (c(h) + T(h)). A history never followed has lambda 0 and is left to the unigram.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sovereign.corpus.scoring import Ids
from sovereign.corpus.shards import Shards

BLOCK = 1 << 21  # train tokens counted at once: some 100 MB of arrays

Integers = NDArray[np.int64]
Counted = tuple[Integers, Integers]  # sorted distinct codes, and how often each occurs


@dataclass(frozen=True)
class Floor:
    """What two counting models score on one document; the fields of a floor row."""

    document: str
    tokens: int
    unigram_nll: float
    bigram_nll: float


def floors(train: Shards, held_out: Sequence[tuple[str, Ids]]) -> list[Floor]:
    """Return the floors of documents given as `scoring.scored` sequences: inputs are `[:-1]`, targets `[1:]`."""
    model = BigramModel.count(train)
    return [
        Floor(document, len(sequence) - 1, model.unigram_nll(sequence), model.nll(sequence))
        for document, sequence in held_out
    ]


@dataclass(frozen=True, eq=False)
class BigramModel:
    """Counts of the train side, end-of-text ids included; 32 bytes for each distinct pair."""

    singles: Integers  # [vocabulary]
    codes: Integers  # pair (h, w) as h x vocabulary + w, sorted, [pairs]
    counts: Integers  # [pairs]

    @classmethod
    def count(cls, train: Shards, block: int = BLOCK) -> BigramModel:
        """Return the model of a whole run of shards; documents meet at their end-of-text, as they do in training."""
        singles = np.zeros(train.vocabulary, dtype=np.int64)
        merged = _no_pairs()
        waiting: list[Counted] = []
        for at in range(0, train.tokens, block):
            ids = train.read(at, min(at + block + 1, train.tokens)).astype(np.int64)
            singles += np.bincount(ids[:block], minlength=train.vocabulary)
            waiting.append(_distinct(ids[:-1] * train.vocabulary + ids[1:]))
            # merged only when as much waits as there is, so that a pair is moved a few times and not once a block
            if sum(len(codes) for codes, _ in waiting) > len(merged[0]):
                merged, waiting = _merge([merged, *waiting]), []
        codes, counts = _merge([merged, *waiting])
        return cls(singles, codes, counts)

    @property
    def vocabulary(self) -> int:
        return len(self.singles)

    def unigram_nll(self, sequence: Ids) -> float:
        """Return the nats that the unigram spends on the targets of a sequence."""
        return float(-np.log(self._unigram(sequence[1:])).sum())

    def nll(self, sequence: Ids) -> float:
        """Return the nats that the interpolated bigram spends on the targets of a sequence."""
        return float(-np.log(self.probability(sequence[:-1], sequence[1:])).sum())

    def probability(self, history: Ids, following: Ids) -> NDArray[np.float64]:
        """Return p(following | history) elementwise."""
        h, w = np.asarray(history, dtype=np.int64), np.asarray(following, dtype=np.int64)
        seen, followers = self._contexts[h], self._followers[h]
        p = self._unigram(w)
        mixed = (self._pairs(h * self.vocabulary + w) + followers * p) / np.maximum(1, seen + followers)
        return np.where(seen > 0, mixed, p)

    def sample(self, last_id: int, n: int, rng: np.random.Generator) -> list[int]:
        """Return `n` ids, each drawn from p( . | the one before it), the first after `last_id`."""
        drawn: list[int] = []
        for _ in range(n):
            seen, followers = int(self._contexts[last_id]), int(self._followers[last_id])
            # of c(h) + T(h) lots, c(h) belong to the pairs counted and the rest to the unigram
            lot = int(rng.integers(seen + followers)) if seen else 0
            if lot < seen:
                before = int(self._totals[self._rows[last_id]])
                pair = int(np.searchsorted(self._totals, before + lot, side="right")) - 1
                last_id = int(self.codes[pair]) % self.vocabulary
            else:
                shares = self._shares
                last_id = int(np.searchsorted(shares, rng.integers(shares[-1]), side="right"))
            drawn.append(last_id)
        return drawn

    def _unigram(self, ids: Ids) -> NDArray[np.float64]:
        p: NDArray[np.float64] = (self.singles[ids] + 1) / self._shares[-1]
        return p

    def _pairs(self, codes: Integers) -> Integers:
        if not len(self.codes):
            return np.zeros_like(codes)
        at = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return np.where(self.codes[at] == codes, self.counts[at], 0)

    @cached_property
    def _shares(self) -> Integers:
        """Running total of every id's count and one."""
        return np.cumsum(self.singles + 1)

    @cached_property
    def _totals(self) -> Integers:
        """Pairs counted before each code, and all of them last, [pairs + 1]."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    @cached_property
    def _rows(self) -> Integers:
        """Where the pairs of each history begin, [vocabulary + 1]."""
        return np.searchsorted(self.codes, np.arange(self.vocabulary + 1) * self.vocabulary).astype(np.int64)

    @cached_property
    def _contexts(self) -> Integers:
        """c(h): one less than its count for the very last id, which nothing follows."""
        return np.diff(self._totals[self._rows])

    @cached_property
    def _followers(self) -> Integers:
        """T(h): distinct ids that follow h."""
        return np.diff(self._rows)


def _no_pairs() -> Counted:
    return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)


def _distinct(codes: Integers) -> Counted:
    found, counts = np.unique(codes, return_counts=True)
    return found, counts.astype(np.int64)


def _merge(parts: Sequence[Counted]) -> Counted:
    """Return the counts of several parts added up."""
    codes = np.concatenate([codes for codes, _ in parts])
    counts = np.concatenate([counts for _, counts in parts])
    if not len(codes):
        return _no_pairs()
    order = np.argsort(codes, kind="stable")  # parts are sorted already, and a stable sort merges runs
    codes, counts = codes[order], counts[order]
    first = np.flatnonzero(np.diff(codes, prepend=-1))
    return codes[first], np.add.reduceat(counts, first)
