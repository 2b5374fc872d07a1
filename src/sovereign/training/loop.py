"""The training loop: one function, read from top to bottom."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sovereign.contract.training import Training
from sovereign.corpus.stream import PADDED_TO, Exhausted
from sovereign.model.kernels import IGNORED
from sovereign.training.device import Precision, keep_freed_memory, multiplying
from sovereign.training.distributed import ALONE, Ranks, shared_loss
from sovereign.training.guards import Guards, Spike, Stopped, agreed, rate_as_planned
from sovereign.training.layers import training_layers
from sovereign.training.memory import settle
from sovereign.training.movement import Before
from sovereign.training.scaling import LossScale, clipped
from sovereign.training.watchdog import Watchdog

SETTLING = (
    3  # steps whose freed memory goes back to the system: a compiler's leavings lie where no tensor will fit again
)
FIRST_LOSS_MARGIN = 0.5  # nats between the first loss and the expected one before it is remarked on


class Batch(Protocol):
    @property
    def inputs(self) -> np.ndarray: ...  # int64 [windows, t]

    @property
    def targets(self) -> np.ndarray: ...  # int64 [windows, t], what the model loses on at each input; IGNORED: nothing

    @property
    def windows(self) -> np.ndarray: ...  # int64 [windows], which windows of the corpus these are

    @property
    def passed(self) -> int: ...  # the pass over the corpus that the first window belongs to


class Stream(Protocol):
    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch: ...


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    stream: Stream,
    settings: Training,
    *,
    device: torch.device,
    precision: Precision,
    seed: int,
    evaluate_every: int,
    log: Callable[..., None],
    evaluate: Callable[[int], bool | None] = lambda step: None,
    checkpoint: Callable[[int], None] = lambda step: None,
    progress: Callable[[int, float, int, float], None] = lambda step, loss, tokens, seconds: None,
    stalled: Callable[[int, float], None] | None = None,
    done: int = 0,
    until: int | None = None,
    clock: float = 0.0,
    losses: Sequence[float] = (),
    expected_loss: float | None = None,
    ignore: int | None = None,
    repeating: bool = False,
    loss_scale: LossScale | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Move the weights of `model`, in place, by `settings.steps` optimizer updates.

    The model's `loss(inputs, targets)` is the summed loss of the targets in nats; targets equal to the
    token `ignore` are not counted. Every update is one `log("step", ...)` with the fields of a StepRow, taken
    from what was applied. `evaluate(step)` is called at 0, every `evaluate_every` steps and at the last; where it
    returns true the run has had enough, and ends there. `checkpoint(step)` is called every
    `settings.checkpoint_every` and at the end, after that step's row and evaluation; `progress(step, loss,
    tokens, seconds)` after each step; `stalled(step, seconds)`, from another thread, when nothing has happened for
    `settings.stall_seconds` (a notice by default).

    To resume, load a checkpoint into model and optimizer and give its step as `done`, its `clock`, and the
    `losses` of the steps before it, the last fifty at least; `until` ends early, under the schedule of the whole.
    A stream that gives its batch again stops the run, unless `repeating` says that it is meant to. In fp16 the loss is
    scaled, by a fresh `loss_scale` where none is given, and a gradient that overflows is taken again at half of it.
    With several processes each calls this with its own `ranks`, and all that is called here is called on each of
    them, at the same step. Raises guards.Stopped, on each, before an update that must not happen.
    """
    last = settings.steps if until is None else until
    if device.type == "cpu":
        keep_freed_memory()
    summed_loss, exchanging = shared_loss(model, ranks)
    by_layer = settings.compile and device.type == "cpu"  # where the head is written out; a GPU's is compiled as well
    if settings.compile and not by_layer:
        summed_loss = torch.compile(summed_loss)
    if loss_scale is None and precision == "fp16":
        loss_scale = LossScale()
    guards = Guards(losses, repeating)

    with (
        training_layers(model, recomputed=settings.activation_checkpointing, compiled=by_layer),
        Watchdog(settings.stall_seconds, stalled or (lambda *silence: log("notice", **stall_notice(*silence)))) as dog,
    ):

        def backward(parts: Sequence[tuple[Tensor, Tensor, int]], divisor: float) -> float:
            """Add the gradient of the loss summed over all parts, over `divisor`; return that sum."""
            total = torch.zeros((), device=device)
            for number, (some_inputs, some_targets, length) in enumerate(parts, 1):
                with exchanging(number == len(parts)):
                    with multiplying(precision, device.type):
                        summed = summed_loss(some_inputs[:, :length], some_targets[:, :length])
                    (summed / divisor).backward()
                total += summed.detach()
                del summed  # it holds on to the graph, a quarter of the memory of the next step
                dog.beat(step)
            return total.item()

        if done == 0:
            torch.manual_seed(seed)
            if evaluate(0):
                return

        for step in range(done + 1, last + 1):
            dog.beat(step)
            began, began_processor = time.perf_counter(), time.process_time()
            model.train()
            try:
                batch = stream.batch(step, ranks.rank, ranks.size)
            except Exhausted as reason:
                raise Stopped("exhausted", step, f"the stream has no more: {reason}") from None
            inputs, targets = (torch.from_numpy(ids).to(device) for ids in (batch.inputs, batch.targets))
            if ignore is not None:
                targets = targets.masked_fill(targets == ignore, IGNORED)
            tokens = int(ranks.sums(int((targets != IGNORED).sum()))[0])
            agreed(_fault(guards.batch, step, batch.inputs, tokens), ranks)

            size = settings.micro_batch or len(inputs)
            parts = list(zip(inputs.split(size), targets.split(size), lengths(batch.targets, size), strict=True))
            overflows = 0
            while True:
                scale = loss_scale.value if loss_scale else 1.0
                # by the tokens of the whole step: a mean of micro-batch means would weigh tokens unevenly (CASE-19); over
                # processes a mean is taken, hence their number
                summed = backward(parts, tokens / (ranks.size * scale))
                loss = ranks.sums(summed)[0] / tokens
                grad_norm = clipped(model, settings.clip, scale)
                if loss_scale is None or not math.isfinite(loss) or not loss_scale.too_large(grad_norm):
                    break
                overflows += 1
                optimizer.zero_grad(set_to_none=True)

            guards.loss(step, loss, grad_norm)
            wall, work = time.perf_counter() - began, time.process_time() - began_processor
            agreed(_fault(guards.pace, step, wall, work), ranks)
            guards.reach(step, model, step - done - 1, ranks)
            planned = settings.schedule.rate(step, settings.steps)
            for group in optimizer.param_groups:
                group["lr"] = planned
            applied = rate_as_planned(step, planned, [group["lr"] for group in optimizer.param_groups])
            measured = settings.measure_updates_every and (
                step % settings.measure_updates_every == 0 or step == settings.steps
            )
            before = Before(model) if measured else None
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            movement = before.movement(ranks) if before else None
            scaled = {"loss_scale": scale, "overflows": overflows} if loss_scale else {}
            if loss_scale:
                loss_scale.applied()
            if by_layer and step <= done + SETTLING:
                settle()
            seconds = time.perf_counter() - began
            clock += seconds

            if step == 1 and expected_loss is not None and abs(loss - expected_loss) > FIRST_LOSS_MARGIN:
                log("notice", **first_loss_notice(loss, expected_loss))
            spike = guards.spike(step, loss)
            if spike:
                log("notice", **spike_notice(spike))
            moved = {"update_ratio": movement.ratio, "changed": movement.changed} if movement else {}
            log(
                "step",
                step=step,
                loss=loss,
                tokens=tokens,
                learning_rate=applied,
                grad_norm=grad_norm,
                seconds=seconds,
                clock=clock,
                windows=windows_digest(np.concatenate(ranks.every(batch.windows))),
                passed=ranks.from_first(batch.passed),
                **moved,
                **scaled,
            )
            progress(step, loss, tokens, seconds)
            had_enough = bool(evaluate(step)) if step % evaluate_every == 0 or step == last else False
            dog.beat(step)
            if step % settings.checkpoint_every == 0 or step == last or had_enough:
                checkpoint(step)
            if had_enough:
                return


def _fault(check: Callable[..., None], *given: Any) -> Stopped | None:
    """Return why a check of this process stops the run, to be told to the others, or None."""
    try:
        check(*given)
    except Stopped as fault:
        return fault
    return None


def lengths(targets: np.ndarray, size: int) -> list[int]:
    """Return how many columns of `targets` [b, t] each micro-batch of `size` needs: up to its last target.

    A batch is padded to its longest example; attention is causal, so what stands behind the last target changes nothing.
    Windows of running text need all. What is left is a multiple of PADDED_TO.
    """
    ends = np.where((targets != IGNORED).any(1), targets.shape[1] - (targets[:, ::-1] != IGNORED).argmax(1), 1)
    longest = np.maximum.reduceat(ends, np.arange(0, len(ends), size))
    return [int(one) for one in -(-longest // PADDED_TO) * PADDED_TO]


def windows_digest(windows: Iterable[int] | np.ndarray) -> str:
    """Return the first 16 hex digits of the sha256 of window ids in order, as little-endian int64."""
    return hashlib.sha256(np.asarray(windows).astype("<i8").tobytes()).hexdigest()[:16]


def first_loss_notice(loss: float, expected: float) -> dict[str, Any]:
    """Return the fields of a notice that the loss before any update is not what fresh or parent weights should give."""
    return {
        "step": 0,
        "name": "first_loss",
        "asked": f"within {FIRST_LOSS_MARGIN} of {expected:.4f}",
        "got": f"{loss:.4f}",
        "message": "the loss before the first update is far from that of a uniform guess or of the parent",
    }


def spike_notice(spike: Spike) -> dict[str, Any]:
    """Return the fields of a notice that the loss leapt up; the update was made like any other."""
    return {
        "step": spike.step,
        "name": "loss_spike",
        "asked": f"at most {spike.bound:.4f}",
        "got": f"{spike.loss:.4f}",
        "message": "the loss lies far above those of the steps before; no step and no batch was skipped",
    }


def stall_notice(step: int, seconds: float) -> dict[str, Any]:
    """Return the fields of a notice that nothing has happened for a while."""
    return {
        "step": step,
        "name": "stalled",
        "got": f"{seconds:.0f} s",
        "message": "neither an update nor an evaluation has ended for that long",
    }
