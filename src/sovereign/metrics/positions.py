"""Positions: what a model makes of the context it was trained on, and of more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import PositionRow
from sovereign.metrics.intervals import Floats, Interval, Unmeasurable, paired_ratio_difference


def late_gain(observed: Observed) -> Interval:
    """Return how much lower the loss is in the second half of the trained length than in the first, in nats per token."""
    half = observed.intent.promise.context // 2
    return _between(
        observed,
        lambda row: row.stop <= half,
        lambda row: half <= row.start < observed.intent.promise.context,
    )


def beyond_rise(observed: Observed) -> Interval:
    """Return how much higher the loss is beyond the trained length than in the second half of it, in nats per token."""
    context = observed.intent.promise.context
    return _between(observed, lambda row: row.start >= context, lambda row: context // 2 <= row.start < context)


def _between(
    observed: Observed, first: Callable[[PositionRow], bool], second: Callable[[PositionRow], bool]
) -> Interval:
    """Return the loss of one run of positions above that of another, over the documents that hold both."""
    rows = list(observed.of(PositionRow))
    if not rows:
        raise Unmeasurable("no position rows: the contract asks for no evaluation.long_context")
    last = max(row.step for row in rows)
    sides = [_sums([row for row in rows if row.step == last and chosen(row)]) for chosen in (first, second)]
    both = sorted(sides[0].keys() & sides[1].keys())
    if len(both) < 2:
        raise Unmeasurable(f"{len(both)} documents reach both runs of positions")
    columns: list[tuple[Floats, Floats]] = [
        (np.array([side[one][0] for one in both]), np.array([side[one][1] for one in both], dtype=np.float64))
        for side in sides
    ]
    return paired_ratio_difference(columns[0], columns[1])


def _sums(rows: list[PositionRow]) -> dict[str, tuple[float, int]]:
    found: dict[str, tuple[float, int]] = {}
    for row in rows:
        nll, tokens = found.get(row.document, (0.0, 0))
        found[row.document] = (nll + row.nll, tokens + row.tokens)
    return found
