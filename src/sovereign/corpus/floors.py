"""Floors: what counting alone would score on the tokens that a model is scored on.

With c the counts over the train side and V the vocabulary, where every train token is counted once
as a target and once as what precedes the next:

    unigram  p(w)     = (c(w) + 1) / (N + V)                              add-one
    bigram   p(w | h) = (c(h, w) + t(h) p(w)) / (c(h) + t(h))             Witten & Bell 1991

t(h) is the number of distinct tokens seen after h: the more kinds have followed, the likelier is a new
one. Nothing is tuned, so validation has no say in its own floor. After a history never seen, p(w) stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sovereign.corpus.scoring import Ids, scored

Nats = NDArray[np.float64]


@dataclass(frozen=True)
class Floor:
    """What counting scores on one validation document; the fields of a floor row."""

    document: str
    tokens: int
    unigram_nll: float
    bigram_nll: float


@dataclass(frozen=True)
class BigramModel:
    """Counts of the train side: of each id, and of each pair that occurs, sorted; about 32 bytes a token to make."""

    vocabulary: int
    unigrams: NDArray[np.int64]  # count of each id, shape [vocabulary]
    pairs: NDArray[np.int64]  # first id x vocabulary + second id, ascending
    counts: NDArray[np.int64]  # of each of these pairs
    starts: NDArray[np.int64]  # where the pairs of each first id begin, shape [vocabulary + 1]

    @classmethod
    def count(cls, train_tokens: Ids, vocabulary: int, end_of_text: int) -> BigramModel:
        """Return the counts over tokens as the shards hold them; an end-of-text id precedes the first."""
        if not len(train_tokens):
            raise ValueError("there is no train token to count")
        targets = train_tokens.astype(np.int64)
        histories = np.concatenate([[end_of_text], targets[:-1]])
        pairs, counts = np.unique(histories * vocabulary + targets, return_counts=True)
        starts = np.searchsorted(pairs, np.arange(vocabulary + 1, dtype=np.int64) * vocabulary)
        return cls(vocabulary, np.bincount(targets, minlength=vocabulary), pairs, counts, starts)

    def unigram(self) -> Nats:
        """Return the add-one probability of every id."""
        return (self.unigrams + 1) / (self.unigrams.sum() + self.vocabulary)

    def unigram_nll(self, sequence: NDArray[np.int64]) -> float:
        """Return the nats that a scored sequence's targets cost one by one."""
        return float(-np.log(self.unigram()[sequence[1:]]).sum())

    def bigram_nll(self, sequence: NDArray[np.int64]) -> float:
        """Return the nats that a scored sequence's targets cost, each after the id before it."""
        histories, targets = sequence[:-1], sequence[1:]
        wanted = histories * self.vocabulary + targets
        at = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
        together = np.where(self.pairs[at] == wanted, self.counts[at], 0)
        before, kinds = self._totals[histories], np.diff(self.starts)[histories]
        alone = self.unigram()[targets]
        seen = before > 0
        chance = np.where(seen, (together + kinds * alone) / np.maximum(before + kinds, 1), alone)
        return float(-np.log(chance).sum())

    @property
    def _totals(self) -> NDArray[np.int64]:
        """How often each id precedes another."""
        running = np.concatenate([[0], np.cumsum(self.counts)])
        return np.diff(running[self.starts])

    def sample(self, prompt_last_id: int, n: int, rng: np.random.Generator) -> list[int]:
        """Return n ids drawn one after another from the bigram, the first after `prompt_last_id`."""
        running = np.cumsum(self.unigram())
        ids: list[int] = []
        history = prompt_last_id
        for _ in range(n):
            low, high = int(self.starts[history]), int(self.starts[history + 1])
            counts = np.cumsum(self.counts[low:high])
            kinds = high - low
            # Witten-Bell as a mixture: a follower already seen, or, kinds times in total + kinds, the unigram
            drawn = rng.random() * (counts[-1] + kinds) if kinds else 0.0
            if kinds and drawn < counts[-1]:
                history = int(self.pairs[low + np.searchsorted(counts, drawn, side="right")] % self.vocabulary)
            else:
                place = np.searchsorted(running, rng.random() * running[-1], side="right")
                history = min(int(place), self.vocabulary - 1)
            ids.append(history)
        return ids


def floors(
    train_tokens: Ids, vocabulary: int, end_of_text: int, held_out: Sequence[tuple[str, Ids]], limit: int
) -> list[Floor]:
    """Return the floors of each (document, ids), over exactly the targets that `scored` gives."""
    model = BigramModel.count(train_tokens, vocabulary, end_of_text)
    rows: list[Floor] = []
    for document, ids in held_out:
        sequence = scored(ids, end_of_text, limit)
        rows.append(Floor(document, len(sequence) - 1, model.unigram_nll(sequence), model.bigram_nll(sequence)))
    return rows
