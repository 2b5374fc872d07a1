"""Intervals: cluster bootstrap over documents, t for few of them, Wilson and Newcombe for shares.

Resampling indices come from SplitMix64, written out here, and not from numpy's generators, whose
streams may change between versions: an interval must recompute on any machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 2000
FEW = 100  # below this, percentile intervals are too short (84 % coverage at n = 12): use Student's t
CONFIDENCE = 0.95


class Unmeasurable(Exception):
    """Rows that a measurement needs are missing or too few; the message says which."""


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its two-sided 95 % interval, the number of units, and the method."""

    value: float
    low: float
    high: float
    n: int
    method: str


@dataclass(frozen=True)
class Word:
    """A word of a closed set, as a measurement: it has no interval, so both of its ends are itself."""

    value: str
    n: int
    method: str

    @property
    def low(self) -> str:
        return self.value

    @property
    def high(self) -> str:
        return self.value


@lru_cache(maxsize=8)
def resampled(n: int, stream: int) -> NDArray[np.int64]:
    """Return bootstrap indices, shape [RESAMPLES, n], the same on every machine (SplitMix64; Steele et al. 2014)."""
    return drawn(n, stream, 0, RESAMPLES)


def drawn(n: int, stream: int, first: int, last: int) -> NDArray[np.int64]:
    """Return the indices of resamples `first` to `last`, shape [last - first, n]."""
    with np.errstate(over="ignore"):
        z = np.arange(first * n + 1, last * n + 1, dtype=np.uint64) + np.uint64(stream) * np.uint64(0x632BE59BD9B4E019)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    # the top 32 bits scaled to n: bias below n / 2^32
    return (((z >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32)).astype(np.int64).reshape(last - first, n)


def ratio(sums: Floats, weights: Floats) -> Interval:
    """Return sum(sums) / sum(weights), resampling documents: the loss per token of a set of documents."""
    n = _enough(len(sums), 2)
    value = float(sums.sum() / weights.sum())
    if n < FEW:
        return Interval(value, *around(value, influence(sums, weights)), n, "t over documents")
    index = resampled(n, 1)
    low, high = _percentiles(sums[index].sum(axis=1) / weights[index].sum(axis=1))
    return Interval(value, min(low, value), max(high, value), n, "cluster bootstrap over documents")


def linear_ratio(sums: Floats, weights: Floats) -> Interval:
    """Return sum(sums) / sum(weights) with Student's t interval of the linearised ratio: for curves of many points."""
    n = _enough(len(sums), 2)
    value = float(sums.sum() / weights.sum())
    return Interval(value, *around(value, influence(sums, weights)), n, "t over documents")


def ratio_difference(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> Interval:
    """Return ratio(first) - ratio(second) for two independent sets of documents; n is the smaller set's."""
    n = _enough(min(len(first[0]), len(second[0])), 2)
    value = float(first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum())
    if n < FEW:
        spread = [influence(*side) for side in (first, second)]
        return Interval(value, *around(value, *spread), n, "Welch's t over documents")
    draws = []
    for stream, (sums, weights) in enumerate((first, second), 1):
        index = resampled(len(sums), stream)
        draws.append(sums[index].sum(axis=1) / weights[index].sum(axis=1))
    low, high = _percentiles(draws[0] - draws[1])
    return Interval(value, min(low, value), max(high, value), n, "independent cluster bootstraps over documents")


def paired_ratio_difference(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> Interval:
    """Return ratio(first) - ratio(second) for two measurements of the same documents, in the same order."""
    n = _enough(len(first[0]), 2)
    value = float(first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum())
    if n < FEW:
        return Interval(value, *around(value, influence(*first) - influence(*second)), n, "paired t over documents")
    index = resampled(n, 1)
    one, other = (sums[index].sum(axis=1) / weights[index].sum(axis=1) for sums, weights in (first, second))
    low, high = _percentiles(one - other)
    return Interval(value, min(low, value), max(high, value), n, "paired cluster bootstrap over documents")


def influence(sums: Floats, weights: Floats) -> Floats:
    """Return each document's influence on the ratio (the delta method), shape [documents]."""
    found: Floats = (sums - sums.sum() / weights.sum() * weights) / weights.mean()
    return found


def around(value: float, *influences: Floats, tail: float = (1 - CONFIDENCE) / 2) -> tuple[float, float]:
    """Return the ends of Student's t interval (Welch's, for independent samples) that leave `tail` on either side."""
    from scipy.special import stdtrit  # here: it loads slowly, and many measurements are counts

    variances = [float(np.var(one, ddof=1)) / len(one) for one in influences]
    total = sum(variances)
    if total == 0:
        return value, value
    # Welch-Satterthwaite; for one sample it is n - 1
    shares = [(variance / total, len(one) - 1) for variance, one in zip(variances, influences, strict=True)]
    freedom = 1 / sum(share**2 / n for share, n in shares if share)
    reach = float(stdtrit(freedom, 1 - tail)) * math.sqrt(total)
    return value - reach, value + reach


def _percentiles(draws: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def _enough(n: int, least: int) -> int:
    if n < least:
        raise Unmeasurable(f"{n} documents have no interval; {least} or more do")
    return n


Z = 1.959963984540054  # the normal quantile at 0.975


def wilson(successes: int, n: int, z: float = Z) -> Interval:
    """Return a share with Wilson's score interval (Wilson 1927)."""
    if n < 1:
        raise Unmeasurable("no trials")
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, min(p, max(0.0, centre - reach)), max(p, min(1.0, centre + reach)), n, "Wilson")


def newcombe(first: tuple[int, int], second: tuple[int, int], z: float = Z) -> Interval:
    """Return the difference of two shares (successes, n) with Newcombe's hybrid score interval (1998, method 10)."""
    one, two = wilson(*first, z), wilson(*second, z)
    value = one.value - two.value
    low = value - math.hypot(one.value - one.low, two.high - two.value)
    high = value + math.hypot(one.high - one.value, two.value - two.low)
    return Interval(value, low, high, min(first[1], second[1]), "Newcombe")


def clopper_pearson(successes: int, n: int) -> Interval:
    """Return a share with its exact interval (Clopper & Pearson 1934), which never covers less than it says."""
    from scipy.special import betaincinv  # here: it loads slowly, and many measurements are counts

    if n < 1:
        raise Unmeasurable("no trials")
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return Interval(successes / n, low, high, n, "Clopper-Pearson")


def auc(members: Floats, others: Floats) -> Interval:
    """Return the probability that a member scores above another, ties half, with DeLong's interval (1988)."""
    n = _enough(min(len(members), len(others)), 10)
    # placements: the share of the other side that each one stands above
    placed = [_above(members, others), 1 - _above(others, members)]
    value = float(placed[0].mean())
    reach = Z * math.sqrt(sum(float(np.var(one, ddof=1)) / len(one) for one in placed))
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach), n, "DeLong")


def _above(these: Floats, those: Floats) -> Floats:
    ranked = np.sort(those)
    less, not_more = np.searchsorted(ranked, these, "left"), np.searchsorted(ranked, these, "right")
    found: Floats = (less + not_more) / (2 * len(ranked))
    return found


def exact(value: float, n: int, method: str = "count") -> Interval:
    """Return a value that is known and not estimated: its interval is itself."""
    return Interval(value, value, value, n, method)
