"""Early stopping: whether the validation loss has risen, by the same documents and beyond their noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sovereign.contract.training import EarlyStopping

LEAST = 8  # documents in a half; fewer give no interval worth acting on

Losses = Mapping[str, tuple[float, int]]  # document -> loss summed in nats, target tokens


@dataclass(frozen=True)
class Rise:
    """How far the loss at `step` lies above that at `best`, in nats per token, on documents that did not choose `best`."""

    step: int
    best: int
    value: float
    low: float  # one-sided, 95 %
    documents: int


def paired_rise(evaluations: Mapping[int, Losses], step: int) -> Rise | None:
    """Return the rise at `step` over the best evaluation before it; None where there is none, or too few documents.

    The best is chosen on one half of the documents and compared on the other, so that its luck does not count as a
    rise. The ratio of summed differences to tokens has the usual linearised standard error and Student's
    t with one degree less than there are documents (Cochran 1977, section 2.11).
    """
    from scipy.special import stdtrit  # here: it loads slowly, and gates read few runs that may stop early

    before = sorted(at for at in evaluations if at < step)
    documents = sorted(set.intersection(*(set(evaluations[at]) for at in [*before, step])))
    choosing, comparing = documents[::2], documents[1::2]  # documents are named by hash: any halves are random ones
    if not before or len(comparing) < LEAST:
        return None
    best = min(before, key=lambda at: sum(evaluations[at][document][0] for document in choosing))
    tokens = np.array([evaluations[step][document][1] for document in comparing], dtype=np.float64)
    risen = np.array([evaluations[step][one][0] - evaluations[best][one][0] for one in comparing])
    value = risen.sum() / tokens.sum()
    n = len(comparing)
    error = np.sqrt(n / (n - 1) * np.square(risen - value * tokens).sum()) / tokens.sum()
    return Rise(step, best, float(value), float(value - stdtrit(n - 1, 0.95) * error), n)


def enough(evaluations: Mapping[int, Losses], settings: EarlyStopping) -> Rise | None:
    """Return the latest rise if the last `patience` evaluations have all risen, else None: a function of all of them."""
    latest = sorted(evaluations)[-settings.patience :]
    rises = [paired_rise(evaluations, step) for step in latest]
    if len(rises) < settings.patience or any(rise is None or rise.low <= settings.rise for rise in rises):
        return None
    return rises[-1]


def stopped_at(evaluations: Mapping[int, Losses], settings: EarlyStopping) -> int | None:
    """Return the first step whose evaluation ends the run, by that one and those before it; None where none does."""
    for step in sorted(evaluations):
        if enough({at: found for at, found in evaluations.items() if at <= step}, settings):
            return step
    return None
