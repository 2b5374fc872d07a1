"""Degeneration: whether a sampled text repeats itself, by four signs that need no tokenizer and no reference.

Text is cut into pieces by GPT-2's split pattern (Radford et al. 2019), which stand in for tokens: the law has no
tokenizer. Compression is counted here and not by zlib, whose output differs between implementations: a measurement
must recompute on any machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import SampleRow
from sovereign.metrics.intervals import Interval, Unmeasurable, exact, ratio, wilson

# what a text that says something stays below; above any of them it has collapsed (CASE-25)
MOST_REPEATED = 0.2
MOST_RATIO = 3.2
MOST_RUN = 4
WORDS = 4  # of a repeated n-gram
PIECES = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


@dataclass(frozen=True)
class Signs:
    """What shows in a text that has collapsed into repetition."""

    length: int  # characters
    repeated: float  # share of the 4-grams of pieces that stood before
    ratio: float  # bytes over compressed bytes
    longest: int  # pieces, or letters, that are the same one after another

    @property
    def degenerate(self) -> bool:
        return self.repeated > MOST_REPEATED or self.ratio > MOST_RATIO or self.longest > MOST_RUN


@lru_cache(maxsize=8192)
def signs(text: str) -> Signs:
    """Return the signs of degeneration of one text; an empty one has none."""
    data = text.encode("utf-8", "surrogatepass")
    return Signs(len(text), repeated(text), len(data) / deflated(data) if data else 0.0, longest(text))


def pieces(text: str) -> list[str]:
    """Return the pieces of a text without the blanks before words; a run of blanks alone is one piece."""
    return [piece.lstrip(" ") or piece for piece in PIECES.findall(text)]


def repeated(text: str) -> float:
    """Return the share of 4-grams of pieces that are a repetition of an earlier one; 0 below four pieces."""
    found = [piece for piece in pieces(text) if piece.strip()]
    grams = [tuple(found[at : at + WORDS]) for at in range(len(found) - WORDS + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def longest(text: str) -> int:
    """Return the longest run of one piece, or of one letter within a word; blanks between do not count."""
    words = [piece for piece in pieces(text) if piece.strip()]
    of_pieces = max((len(list(same)) for _, same in groupby(words)), default=0)
    of_letters = max((len(list(same)) for letter, same in groupby(text) if letter.isalpha()), default=0)
    return max(of_pieces, of_letters)


WINDOW, SHORTEST, LONGEST = 32768, 3, 258  # of DEFLATE
# RFC 1951, 3.2.5: the first length of each code
LENGTHS = (
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    13,
    15,
    17,
    19,
    23,
    27,
    31,
    35,
    43,
    51,
    59,
    67,
    83,
    99,
    115,
    131,
    163,
    195,
    227,
    258,
)


def deflated(data: bytes) -> int:
    """Return how many bytes DEFLATE with fixed codes takes for the data (RFC 1951), matches taken greedily.

    It is what zlib's Z_FIXED strategy makes of it, to a few percent, with the two bytes before and four behind.
    """
    bits, at = 3 + 7, 0
    while at < len(data):
        length, distance = _match(data, at)
        if length < SHORTEST:
            bits += 8 if data[at] < 144 else 9
            at += 1
        else:
            bits += _length_bits(length) + _distance_bits(distance)
            at += length
    return (bits + 7) // 8 + 6


def _match(data: bytes, at: int) -> tuple[int, int]:
    """Return length and distance of the longest earlier stretch that goes on as the data do, the nearest of several."""
    length, place = SHORTEST - 1, -1
    start = max(0, at - WINDOW)
    while at + length < len(data) and length < LONGEST:
        found = data.rfind(data[at : at + length + 1], start, at + length)  # a match may run into itself
        if found < 0:
            break
        place = found
        length += 1
        while at + length < len(data) and length < LONGEST and data[place + length] == data[at + length]:
            length += 1
    return (length, at - place) if place >= 0 else (0, 0)


def _length_bits(length: int) -> int:
    code = max(index for index, first in enumerate(LENGTHS) if first <= length)
    extra = 0 if code < 8 or length == LONGEST else (code - 4) // 4
    return (7 if code < 23 else 8) + extra


def _distance_bits(distance: int) -> int:
    return 5 + max(0, (distance - 1).bit_length() - 2)


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────


def last_signs(observed: Observed) -> list[Signs]:
    """Return the signs of what the model wrote when it was last sampled, in order of the prompts."""
    rows = [row for row in observed.of(SampleRow) if row.sampler == "model"]
    if not rows:
        raise Unmeasurable("no samples by model")
    last = max(row.step for row in rows)
    return [signs(row.text) for row in sorted(rows, key=lambda row: row.prompt_id) if row.step == last]


def degenerate_rate(observed: Observed) -> Interval:
    """Return the share of samples that show any sign of collapse: repeated 4-grams, compression, or a long run."""
    found = last_signs(observed)
    return wilson(sum(one.degenerate for one in found), len(found))


def _mean(observed: Observed, of: Callable[[Signs], float]) -> Interval:
    values = np.array([of(one) for one in last_signs(observed)], dtype=np.float64)
    return ratio(values, np.ones(len(values)))


def repeated_4grams(observed: Observed) -> Interval:
    """Return the mean share of repeated 4-grams in a sample."""
    return _mean(observed, lambda one: one.repeated)


def compression_ratio(observed: Observed) -> Interval:
    """Return the mean compression ratio of a sample."""
    return _mean(observed, lambda one: one.ratio)


def sample_length(observed: Observed) -> Interval:
    """Return the mean length of a sample, in characters."""
    return _mean(observed, lambda one: float(one.length))


def longest_run(observed: Observed) -> Interval:
    """Return the longest run of one piece in any sample."""
    found = last_signs(observed)
    return exact(float(max(one.longest for one in found)), len(found), "maximum over samples")
