"""Bounds: one-sided 95 % ends for everything that is scored by document, and what the data could have detected.

The unit is a document. Two verdicts that only a bootstrap seed tells apart are none, so every bound takes a seed;
rows are put in order by their values first, so that neither the order nor the names of documents matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from sovereign.metrics.intervals import (
    FEW,
    RESAMPLES,
    Floats,
    Interval,
    Unmeasurable,
    around,
    drawn,
    influence,
    newcombe,
)

LEAST = 10  # documents; an interval of fewer says nothing (84 % coverage of a nominal 95 % at 12, by the bootstrap)
TAIL = 0.05  # each end holds for itself
Z_TAIL = 1.6448536269514722  # the normal quantile at 0.95
BLOCK = 50  # resamples counted at once; RESAMPLES is a multiple
MOST = 1_000_000  # units; where it takes more to decide, no number is told
Columns = tuple[Floats, Floats]  # sums and weights, shape [documents] each
Share = tuple[int, int]  # how many, of how many


def ordered(columns: Columns) -> Columns:
    """Return documents in an order that only their values decide."""
    sums, weights = columns
    order = np.lexsort((sums, weights))
    return sums[order], weights[order]


def ratio_bounds(columns: Columns, seed: int) -> Interval:
    """Return sum(sums) / sum(weights) with both one-sided 95 % ends, resampling documents."""
    sums, weights = ordered(columns)
    n = _enough(len(sums))
    value = _ratio(sums, weights)
    if n < FEW:
        return Interval(value, *around(value, influence(sums, weights), tail=TAIL), n, "t over documents")
    return _percentiles(value, _draws(sums, weights, seed), n, "cluster bootstrap over documents", seed)


def difference_bounds(first: Columns, second: Columns, seed: int) -> Interval:
    """Return ratio(first) - ratio(second) of two independent sets of documents; n is the smaller set's."""
    one, two = ordered(first), ordered(second)
    n = _enough(min(len(one[0]), len(two[0])))
    value = _ratio(*one) - _ratio(*two)
    if n < FEW:
        return Interval(
            value, *around(value, influence(*one), influence(*two), tail=TAIL), n, "Welch's t over documents"
        )
    draws = _draws(*one, seed) - _draws(*two, seed + 1000)
    return _percentiles(value, draws, n, "independent cluster bootstraps over documents", seed)


def share_difference(first: tuple[int, int], second: tuple[int, int]) -> Interval:
    """Return the difference of two shares (successes, n) with Newcombe's ends, one-sided 95 % each."""
    _enough(min(first[1], second[1]))
    return newcombe(first, second, Z_TAIL)


def detectable(columns: Columns) -> float:
    """Return the smallest true contrast that these documents show 4 times in 5, in a two-sided 5 % test."""
    pulls = influence(*columns)
    return 2.8 * float(np.std(pulls, ddof=1)) / math.sqrt(len(pulls)) if len(pulls) > 1 else math.inf


def units_to_decide(found: Interval, edges: Sequence[float]) -> int | None:
    """Return how many units would bring the interval between the edges beside its value, if the value stays as it is.

    An interval's reach falls with the root of what is counted. None where there is no edge to stay clear of, or the value
    lies so close to one that no number is worth naming.
    """
    times = 1.0
    for edge in edges:
        reach, room = (
            (found.value - found.low, found.value - edge)
            if edge < found.value
            else (found.high - found.value, edge - found.value)
        )
        if room <= 1e-3 * reach:  # a million times as many units, and more
            return None
        times = max(times, (reach / room) ** 2)
    return _told(found.n * times) if edges and times > 1 else None


def shares_to_decide(first: Share, second: Share, edge: float) -> int | None:
    """Return how many units on each side would show a difference of shares on one side of `edge`.

    A difference above the edge is taken as it is; below it, both sides are supposed to share what they have together.
    """
    one, two = first[0] / first[1], second[0] / second[1]
    beyond = one - two > edge
    if not beyond:
        one = two = (first[0] + second[0]) / (first[1] + second[1])
    n = float(min(first[1], second[1]))
    while n <= MOST:
        interval = share_difference((round(one * n), round(n)), (round(two * n), round(n)))
        if interval.low > edge if beyond else interval.high < edge:
            return _told(n)
        n *= 1.05
    return None


def _told(units: float) -> int | None:
    """Return a number of units to two digits, rounded up; None beyond what anybody would count."""
    if units > MOST:
        return None
    digits = int(10 ** max(0, math.floor(math.log10(units)) - 1))
    return math.ceil(units / digits) * digits


def rank_sum(ranks: Floats, candidates: Floats) -> float:
    """Return p that planted secrets rank this low by luck, among candidates never planted (rank-sum, one-sided)."""
    above = ranks - 1
    n = len(ranks)
    expected, variance = float((candidates / 2).sum()), float((candidates * (n + candidates + 1) / 12).sum())
    z = (float(above.sum()) - expected) / math.sqrt(variance)
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _ratio(sums: Floats, weights: Floats) -> float:
    return float(sums.sum() / weights.sum())


def _draws(sums: Floats, weights: Floats, seed: int) -> Floats:
    drawn: Floats = _times(len(sums), seed) @ np.column_stack([sums, weights])
    found: Floats = drawn[:, 0] / drawn[:, 1]
    return found


@lru_cache(maxsize=6)
def _times(n: int, seed: int) -> Floats:
    """Return how often each resample draws each document, shape [RESAMPLES, n]: a bootstrap is then one product."""
    found = np.empty((RESAMPLES, n))
    for first in range(0, RESAMPLES, BLOCK):  # small arrays stay in the cache
        rows = np.arange(BLOCK, dtype=np.int64)[:, None] * n
        counted = np.bincount((drawn(n, seed, first, first + BLOCK) + rows).ravel(), minlength=BLOCK * n)
        found[first : first + BLOCK] = counted.reshape(BLOCK, n)
    return found


def _percentiles(value: float, draws: Floats, n: int, method: str, seed: int) -> Interval:
    low, high = np.percentile(draws, [100 * TAIL, 100 * (1 - TAIL)])
    return Interval(value, min(float(low), value), max(float(high), value), n, f"{method}, B={RESAMPLES}, seed {seed}")


def _enough(n: int) -> int:
    if n < LEAST:
        raise Unmeasurable(f"{n} documents: no interval below {LEAST}")
    return n
