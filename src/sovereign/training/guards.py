"""Stops: faults that would make the rows of a run mean something else, found before the weights move.

Each is a way in which a real run misled its owner; the case is named beside it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from torch import nn

from sovereign.training.distributed import ALONE, Ranks, own

IDENTICAL = 3  # equal losses in a row; two can be chance at a coarse loss, three are a placeholder
PACE_STEPS = 20  # steps the median is taken over; none is judged before so many are known
QUICK = 0.2  # share of the median wall time; CASE-15's placeholder took a 700th
QUICK_SECONDS = 0.02  # usual steps below this are too short to be judged by the clock; equal losses still are
LITTLE = 0.1  # share of the least processor time of any step before; sharing two cores alone was seen to make 0.14
SPIKE_STEPS = 50  # losses that a spike is measured against; none is judged before PACE_STEPS are known
SPIKE_NATS = 0.5  # least height of a spike; or 8 median deviations where the losses are noisier than that
EXCUSED_STEPS = 10  # updates after which a weight must have had a gradient, whatever kept it from one at first


class Stopped(Exception):
    """A guard ended the run before the update of `step`."""

    def __init__(self, name: str, step: int, message: str):
        super().__init__(f"step {step}: {message} ({name})")
        self.name = name
        self.step = step
        self.message = message


@dataclass(frozen=True)
class Spike:
    """A loss far above those before it, and the least that would have counted as one."""

    step: int
    loss: float
    bound: float


class Guards:
    """What the latest steps were like, and the checks of the next one against it."""

    def __init__(self, losses: Iterable[float] = (), repeating: bool = False) -> None:
        """Begin as after steps with these losses, the latest ones at least: a resumed run remembers."""
        self.repeating = repeating
        self.ids: np.ndarray | None = None
        self.losses: deque[float] = deque(maxlen=SPIKE_STEPS)
        self.walls: deque[float] = deque(maxlen=PACE_STEPS)
        self.least_work = math.inf
        self.unreached: tuple[str, ...] | None = None
        self.spiking = False
        for loss in losses:
            self.spike(0, loss)

    def batch(self, step: int, ids: np.ndarray, tokens: int) -> None:
        """Stop if nothing would be learned from a batch, or it is the previous one again (CASE-11, CASE-15)."""
        if tokens == 0:
            raise Stopped("no_targets", step, "not one target token of the batch is counted")
        if not self.repeating and self.ids is not None and np.array_equal(self.ids, ids):
            raise Stopped("constant_batch", step, "the stream gave the same windows as in the step before")
        self.ids = ids

    def loss(self, step: int, loss: float, grad_norm: float) -> None:
        """Stop on a loss or gradient that is not finite, or on a loss no longer tied to data (CASE-15, CASE-20)."""
        if not math.isfinite(loss):
            raise Stopped("non_finite_loss", step, f"the loss is {loss}")
        if not math.isfinite(grad_norm):
            raise Stopped("non_finite_gradient", step, f"the gradient norm is {grad_norm}")
        latest = list(self.losses)[1 - IDENTICAL :]
        if len(latest) == IDENTICAL - 1 and set(latest) == {loss}:
            raise Stopped(
                "identical_losses",
                step,
                f"the loss was {loss!r} {IDENTICAL} times in a row: a placeholder, or nothing moves",
            )

    def spike(self, step: int, loss: float) -> Spike | None:
        """Remember a loss, and return it as a spike if it is the first of one; nothing is skipped on its account."""
        before, was = list(self.losses), self.spiking
        self.losses.append(loss)
        if len(before) < PACE_STEPS:
            return None
        usual = median(before)
        bound = usual + max(SPIKE_NATS, 8 * median(abs(one - usual) for one in before))
        self.spiking = loss > bound
        return Spike(step, loss, bound) if self.spiking and not was else None

    def pace(self, step: int, wall: float, work: float) -> None:
        """Stop if a step took under a fifth of the usual wall time and a tenth of the least work before (CASE-15).

        `work` is in processor seconds. The wall clock alone would stop a run when other work leaves the machine;
        threads that spin for a busy core raise processor time too, hence the least of all steps, and the tenth.
        """
        usual = median(self.walls) if len(self.walls) == PACE_STEPS else 0.0
        if usual >= QUICK_SECONDS and wall < QUICK * usual and work < LITTLE * self.least_work:
            raise Stopped(
                "quick_step", step, f"it took {wall:.4f} s, where {usual:.4f} s are usual: it skipped its work"
            )
        self.walls.append(wall)
        self.least_work = min(self.least_work, work)

    def reach(self, step: int, model: nn.Module, updates: int, ranks: Ranks = ALONE) -> None:
        """Stop if the backward pass does not reach a parameter that is meant to be trained.

        Two kinds may wait for some `updates`, of this process since it began: beside a factor that is all zero (the
        B of a fresh adapter) the other factor has no slope yet, and an expert may not have been chosen.
        """
        if self.unreached == ():
            return
        names = [
            name
            for name, weight in model.named_parameters()
            if weight.requires_grad and (self.unreached is None or name in self.unreached)
        ]
        reached = ranks.sums(*(_reached(model.get_parameter(name)) for name in names))
        unreached = tuple(name for name, times in zip(names, reached, strict=True) if not times)
        if self.unreached is None and unreached and updates == 0:
            zeros = any(not own(weight).any() for weight in model.parameters() if weight.requires_grad)
            excused = ranks.sums(float(zeros))[0] > 0 or all(".experts." in name for name in unreached)
        else:
            excused = updates < EXCUSED_STEPS
        if unreached and not excused:
            shown = ", ".join(unreached[:5]) + (f" and {len(unreached) - 5} more" if len(unreached) > 5 else "")
            raise Stopped("detached", step, f"no gradient reaches {shown}")
        self.unreached = unreached


def _reached(weight: nn.Parameter) -> float:
    return float(weight.grad is not None and bool(own(weight.grad).any()))


def agreed(fault: Stopped | None, ranks: Ranks) -> None:
    """Stop on every process where one of them must stop, for the reason of the lowest rank that gives one."""
    reasons = ranks.every((fault.name, fault.step, fault.message) if fault else None)
    for rank, reason in enumerate(reasons):
        if reason is not None:
            name, step, message = reason
            raise Stopped(name, step, message if ranks.size == 1 else f"{message} (on rank {rank})")


def rate_as_planned(step: int, planned: float, rates: Sequence[float]) -> float:
    """Return the one learning rate that the optimizer holds; stop if it is not the planned one (CASE-16)."""
    if set(rates) != {planned}:
        raise Stopped(
            "learning_rate", step, f"the optimizer holds {sorted(set(rates))} where the schedule says {planned!r}"
        )
    return rates[0]


def starts_as(expected: float, loss: float, share: float = 0.01) -> None:
    """Stop if a pretrained model does not begin at its parent's loss: its weights were not loaded (CASE-12, CASE-31)."""
    if not abs(loss - expected) <= share * expected:
        raise Stopped(
            "weights_not_loaded",
            0,
            f"the loss before the first update is {loss:.4f}, the parent's on the same documents is {expected:.4f}",
        )
