"""Stops: faults that would make the rows of a run mean something else, found before the weights move.

Each is a way in which a real run misled its owner; the case is named beside it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

import numpy as np
from torch import nn

IDENTICAL = 3  # equal losses in a row; two can be chance at a coarse loss, three are a placeholder
PACE_STEPS = 20  # steps the median is taken over; none is judged before so many are known
QUICK = 0.2  # share of the median wall time; CASE-15's placeholder took a 700th
LITTLE = 0.1  # share of the least processor time of any step before; sharing two cores alone was seen to make 0.14


class Stopped(Exception):
    """A guard ended the run before the update of `step`."""

    def __init__(self, name: str, step: int, message: str):
        super().__init__(f"step {step}: {message} ({name})")
        self.name = name
        self.step = step
        self.message = message


class Guards:
    """What the latest steps were like, and the checks of the next one against it."""

    def __init__(self) -> None:
        self.ids: np.ndarray | None = None
        self.losses: deque[float] = deque(maxlen=IDENTICAL - 1)
        self.walls: deque[float] = deque(maxlen=PACE_STEPS)
        self.least_work = math.inf

    def batch(self, step: int, ids: np.ndarray, tokens: int) -> None:
        """Stop if nothing would be learned from a batch, or it is the previous one again (CASE-11, CASE-15)."""
        if tokens == 0:
            raise Stopped("no_targets", step, "not one target token of the batch is counted")
        if self.ids is not None and np.array_equal(self.ids, ids):
            raise Stopped("constant_batch", step, "the stream gave the same windows as in the step before")
        self.ids = ids

    def loss(self, step: int, loss: float, grad_norm: float) -> None:
        """Stop on a loss or gradient that is not finite, or on a loss no longer tied to data (CASE-15, CASE-20)."""
        if not math.isfinite(loss):
            raise Stopped("non_finite_loss", step, f"the loss is {loss}")
        if not math.isfinite(grad_norm):
            raise Stopped("non_finite_gradient", step, f"the gradient norm is {grad_norm}")
        if len(self.losses) == IDENTICAL - 1 and set(self.losses) == {loss}:
            raise Stopped(
                "identical_losses",
                step,
                f"the loss was {loss!r} {IDENTICAL} times in a row: a placeholder, or nothing moves",
            )
        self.losses.append(loss)

    def pace(self, step: int, wall: float, work: float) -> None:
        """Stop if a step took under a fifth of the usual wall time and a tenth of the least work before (CASE-15).

        `work` is in processor seconds. The wall clock alone would stop a run when other work leaves the machine;
        threads that spin for a busy core raise processor time too, hence the least of all steps, and the tenth.
        """
        if len(self.walls) == PACE_STEPS and wall < QUICK * median(self.walls) and work < LITTLE * self.least_work:
            usual = median(self.walls)
            raise Stopped(
                "quick_step", step, f"it took {wall:.4f} s, where {usual:.4f} s are usual: it skipped its work"
            )
        self.walls.append(wall)
        self.least_work = min(self.least_work, work)


def all_learn(step: int, model: nn.Module) -> None:
    """Stop if the backward pass does not reach a parameter that is meant to be trained."""
    unreached = [
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and (weight.grad is None or not weight.grad.any())
    ]
    if unreached:
        shown = ", ".join(unreached[:5]) + (f" and {len(unreached) - 5} more" if len(unreached) > 5 else "")
        raise Stopped("detached", step, f"no gradient reaches {shown}")


def rate_as_planned(step: int, planned: float, rates: Sequence[float]) -> float:
    """Return the one learning rate that the optimizer holds; stop if it is not the planned one (CASE-16)."""
    if set(rates) != {planned}:
        raise Stopped(
            "learning_rate", step, f"the optimizer holds {sorted(set(rates))} where the schedule says {planned!r}"
        )
    return rates[0]
