"""The training loop: one function, read from top to bottom."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from sovereign.contract.training import Adamw, Training
from sovereign.model.kernels import IGNORED
from sovereign.training.device import Precision, keep_freed_memory
from sovereign.training.guards import Guards, all_learn, rate_as_planned

FIRST_LOSS_MARGIN = 0.5  # nats between the first loss and the expected one before it is remarked on


class Batch(Protocol):
    @property
    def ids(self) -> np.ndarray: ...  # int64 [windows, context + 1]: a window's tokens, and the one after them

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
    evaluate: Callable[[int], None] = lambda step: None,
    checkpoint: Callable[[int], None] = lambda step: None,
    progress: Callable[[int, float, int, float], None] = lambda step, loss, tokens, seconds: None,
    done: int = 0,
    until: int | None = None,
    clock: float = 0.0,
    expected_loss: float | None = None,
    ignore: int | None = None,
) -> None:
    """Move the weights of `model`, in place, by `settings.steps` optimizer updates.

    The model's `loss(inputs, targets)` is the summed loss of the targets in nats; targets equal to the
    token `ignore` are not counted. Every update is one `log("step", ...)` with the fields of a StepRow, taken
    from what was applied. `evaluate(step)` is called at 0, every `evaluate_every` steps and at the last;
    `checkpoint(step)` every `settings.checkpoint_every` and at the last, after that step's row and evaluation;
    `progress(step, loss, tokens, seconds)` after each step.

    To resume, load a checkpoint into model and optimizer and give its step as `done` and its `clock`; `until`
    ends early, under the schedule of the whole. Raises guards.Stopped before an update that must not happen.
    """
    last = settings.steps if until is None else until
    if device.type == "cpu":
        keep_freed_memory()
    summed_loss: Callable[..., torch.Tensor] = model.loss  # type: ignore[assignment]
    if settings.compile:
        summed_loss = torch.compile(summed_loss)
    guards = Guards()
    if done == 0:
        torch.manual_seed(seed)
        evaluate(0)

    for step in range(done + 1, last + 1):
        began, began_processor = time.perf_counter(), time.process_time()
        model.train()
        batch = stream.batch(step)
        ids = torch.from_numpy(batch.ids).to(device)
        inputs, targets = ids[:, :-1], ids[:, 1:]
        if ignore is not None:
            targets = targets.masked_fill(targets == ignore, IGNORED)
        tokens = int((targets != IGNORED).sum())
        guards.batch(step, batch.ids, tokens)

        total = torch.zeros((), device=device)
        size = settings.micro_batch or len(ids)
        for some_inputs, some_targets in zip(inputs.split(size), targets.split(size), strict=True):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                summed = summed_loss(some_inputs, some_targets)
            # by the tokens of the whole step: a mean of micro-batch means would weigh tokens unevenly (CASE-19)
            (summed / tokens).backward()
            total += summed.detach()
        loss = total.item() / tokens
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip).item()

        guards.loss(step, loss, grad_norm)
        guards.pace(step, time.perf_counter() - began, time.process_time() - began_processor)
        if step == done + 1:
            all_learn(step, model)
        planned = settings.schedule.rate(step, settings.steps)
        for group in optimizer.param_groups:
            group["lr"] = planned
        applied = rate_as_planned(step, planned, [group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        seconds = time.perf_counter() - began
        clock += seconds
        if step == 1 and expected_loss is not None and abs(loss - expected_loss) > FIRST_LOSS_MARGIN:
            log("notice", **first_loss_notice(loss, expected_loss))
        log(
            "step",
            step=step,
            loss=loss,
            tokens=tokens,
            learning_rate=applied,
            grad_norm=grad_norm,
            seconds=seconds,
            clock=clock,
            windows=windows_digest(batch.windows),
            passed=batch.passed,
        )
        progress(step, loss, tokens, seconds)
        if step % evaluate_every == 0 or step == last:
            evaluate(step)
        if step % settings.checkpoint_every == 0 or step == last:
            checkpoint(step)


def adamw(model: nn.Module, settings: Adamw) -> torch.optim.AdamW:
    """Return fused AdamW over the trainable parameters; weight decay falls on matrices, not on gains.

    The learning rate is set by the loop before each update.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = {"params": [weight for weight in trained if weight.dim() >= 2], "weight_decay": settings.weight_decay}
    gains = {"params": [weight for weight in trained if weight.dim() < 2], "weight_decay": 0.0}
    groups = [group for group in (matrices, gains) if group["params"]]
    return torch.optim.AdamW(groups, lr=0.0, betas=(settings.beta1, settings.beta2), eps=settings.epsilon, fused=True)


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
