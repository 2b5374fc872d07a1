"""Memorization: what the model gives back of its train text, beyond what it gives of text that it never saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import CanaryRow, ExtractionRow, MembershipRow
from sovereign.metrics.intervals import Interval, Unmeasurable, auc, newcombe, ratio

Probe = TypeVar("Probe", CanaryRow, ExtractionRow, MembershipRow)


def _last(rows: Sequence[Probe], what: str) -> list[Probe]:
    if not rows:
        raise Unmeasurable(f"no {what} rows")
    step = max(row.step for row in rows)
    return [row for row in rows if row.step == step]


def extraction_excess(observed: Observed) -> Interval:
    """Return the share of train passages continued word for word, above the share of control passages (E1)."""
    rows = _last(observed.of(ExtractionRow), "extraction")
    sides = [[row.matched >= row.continued for row in rows if row.side == side] for side in ("train", "control")]
    if not all(sides):
        raise Unmeasurable("extraction needs passages of the train side and of the control")
    return newcombe((sum(sides[0]), len(sides[0])), (sum(sides[1]), len(sides[1])))


def exposure(observed: Observed) -> Interval:
    """Return the mean exposure of canaries planted once, in bits; 1.44 is what luck gives (E3)."""
    rows = [row for row in _last(observed.of(CanaryRow), "canary") if row.copies == 1]
    if not rows:
        raise Unmeasurable("no canary was planted exactly once")
    bits = np.array([math.log2(row.candidates + 1) - math.log2(row.rank) for row in rows])
    return ratio(bits, np.ones(len(bits)))


def membership(observed: Observed) -> Interval:
    """Return how often a train document is more familiar to the model than one of the control: an AUC (E5)."""
    rows = _last(observed.of(MembershipRow), "membership")
    sides = [np.array([row.score for row in rows if row.side == side]) for side in ("train", "control")]
    return auc(sides[0], sides[1])
