"""Speed: what the device can do at best, and what a few steps take."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from sovereign.contract.training import Training
from sovereign.training.device import DTYPES, Precision
from sovereign.training.loop import Stream, train
from sovereign.training.optimizer import optimizer_for


@dataclass(frozen=True)
class Peak:
    """The best of several products of two square matrices: its operations, and its time."""

    flops: float
    seconds: float


def matrix_peak(device: torch.device, precision: Precision, seconds: float = 0.5) -> Peak:
    """Return the best matrix product that was seen in some `seconds`, in the precision that the run multiplies in."""
    size = 8192 if device.type == "cuda" else 1024
    # not drawn from the random state of the run
    matrix = torch.linspace(-1, 1, size * size, device=device).view(size, size).to(DTYPES[precision])
    best, began = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return Peak(2.0 * size**3, best)


def step_seconds(
    model: nn.Module,
    stream: Stream,
    settings: Training,
    *,
    device: torch.device,
    precision: Precision,
    seconds: float = 20.0,
    steps: int = 4,
) -> float:
    """Return the median time of a step after the first, over a few real ones or some `seconds`; they move `model`."""
    taken: list[float] = []

    class Enough(Exception):
        pass

    def remember(step: int, loss: float, tokens: int, wall: float) -> None:
        taken.append(wall)
        if sum(taken) > seconds:
            raise Enough

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), suppress(Enough):
        train(
            model, optimizer_for(model, settings.optimizer), stream, settings, device=device,
            precision=precision, seed=0, evaluate_every=settings.steps + 1, log=lambda *_, **__: None,
            progress=remember, until=min(steps, settings.steps),
        )  # fmt: skip
    return median(taken[1:] or taken)
