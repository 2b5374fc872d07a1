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
QUICK = 0.2  # share of the median; CASE-15's placeholder took a 700th


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
        self.paces: deque[tuple[float, float]] = deque(maxlen=PACE_STEPS)

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

    def pace(self, step: int, wall: float, processor: float) -> None:
        """Stop if a step took under a fifth of the usual time, by the wall clock and in processor seconds (CASE-15).

        Both, because other work leaving the machine quickens the wall clock alone, and the step is then
        the same work; a step that skipped its work is quick on both.
        """
        if len(self.paces) == PACE_STEPS:
            usual_wall, usual_processor = (median(clock) for clock in zip(*self.paces, strict=True))
            if wall < QUICK * usual_wall and processor < QUICK * usual_processor:
                raise Stopped(
                    "quick_step",
                    step,
                    f"it took {wall:.4f} s where {usual_wall:.4f} s are usual: it cannot have done the work",
                )
        self.paces.append((wall, processor))


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
