"""Canaries: secrets planted in the train side, by whose rank among secrets never planted one sees what was memorized.

A canary is a fixed prefix and a run of random tokens (Carlini et al. 2019, The Secret Sharer). Each copy is a document
of its own, and the copies stand apart, so that none can be read off another in the same window more often than chance
puts them there. What they measure is the capacity for outliers: a healthy run recalls some too, so that extraction with
a control has to agree before anything is called memorized.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sovereign.contract.data import Canaries
from sovereign.corpus.scoring import Ids


@dataclass(frozen=True)
class Secret:
    """A planted secret: what it is called, how often it is planted, and its tokens."""

    name: str
    copies: int
    ids: Ids


@dataclass(frozen=True)
class Secrets:
    """The planted secrets of a corpus, and those of the same format that are never planted."""

    prefix: tuple[int, ...]
    planted: tuple[Secret, ...]
    candidates: tuple[Ids, ...]


def secrets(section: Canaries, prefix: Sequence[int], vocabulary: int, end_of_text: int) -> Secrets:
    """Return the secrets of a contract: tokens drawn uniformly from the vocabulary without end-of-text.

    The draw depends on the salt and the vocabulary alone, so planted and candidate secrets are found again.
    """
    seed = int.from_bytes(hashlib.sha256(f"canary/{section.salt}".encode()).digest()[:8], "big")
    draw = np.random.default_rng(seed)
    allowed = np.delete(np.arange(vocabulary), end_of_text)
    planted = tuple(
        Secret(f"x{copies}-{number}", copies, draw.choice(allowed, section.tokens))
        for copies in section.copies
        for number in range(section.each)
    )
    candidates = tuple(draw.choice(allowed, section.tokens) for _ in range(section.candidates))
    return Secrets(tuple(prefix), planted, candidates)


def documents(found: Secrets, salt: str) -> Iterator[tuple[str, str, Ids]]:
    """Yield (document, name, ids) of every copy of every planted secret."""
    for secret in found.planted:
        for copy in range(secret.copies):
            name = f"canary {secret.name}, copy {copy + 1} of {secret.copies}"
            document = hashlib.sha256(f"{salt}/{name}".encode()).hexdigest()[:16]
            yield document, name, np.concatenate([np.asarray(found.prefix, dtype=np.int64), secret.ids])


def among(texts: Sequence[tuple[str, Ids]], planted: Iterable[tuple[str, Ids]]) -> Iterator[tuple[str, Ids]]:
    """Yield the train side's documents with the planted ones spread evenly between them, in an order drawn by hash."""
    drawn = sorted(planted)
    apart = max(1, len(texts) // (len(drawn) + 1))
    for number, text in enumerate(texts):
        if drawn and number % apart == apart - 1:
            yield drawn.pop()
        yield text
    yield from drawn
