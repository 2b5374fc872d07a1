"""Probes before a long run: questions whose answers say whether it is worth beginning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sovereign.contract.training import Schedule, Training
from sovereign.training.device import Precision
from sovereign.training.distributed import ALONE, Ranks, shard
from sovereign.training.guards import Stopped
from sovereign.training.loop import Batch, Stream, train
from sovereign.training.optimizer import optimizer_for


class _OneBatch:
    """A stream that gives its first batch for ever."""

    def __init__(self, stream: Stream):
        self.stream = stream

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        return self.stream.batch(1, rank, world)


def overfit_one_batch(
    build: Callable[[], nn.Module],
    stream: Stream,
    settings: Training,
    *,
    device: torch.device,
    precision: Precision,
    seed: int,
    ignore: int | None = None,
    ranks: Ranks = ALONE,
) -> list[tuple[float, int]]:
    """Return loss and target tokens of `settings.overfit_one_batch` updates on the first batch alone, at the peak rate.

    A model of its own is trained, from `build`; random state is put back. Raises guards.Stopped when the loss has not
    fallen: what cannot learn eight windows by heart will not learn a corpus.
    """
    found: list[tuple[float, int]] = []
    steps = settings.overfit_one_batch
    again = settings.model_copy(
        update={"steps": steps, "schedule": Schedule(kind="constant", peak=settings.schedule.peak), "compile": False}
    )

    def remember(kind: str, **row: Any) -> None:
        if kind == "step":
            found.append((row["loss"], row["tokens"]))

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = build().to(device)
        shard(model, ranks, settings.distributed, device)
        train(
            model, optimizer_for(model, settings.optimizer), _OneBatch(stream), again, device=device, precision=precision,
            seed=seed, evaluate_every=steps + 1, log=remember, ignore=ignore, ranks=ranks, repeating=True,
        )  # fmt: skip
    if steps > 1 and not found[-1][0] < found[0][0]:
        raise Stopped(
            "cannot_overfit", 0, f"{steps} updates on one batch took its loss from {found[0][0]:.4f} to {found[-1][0]:.4f}"
        )  # fmt: skip
    return found
