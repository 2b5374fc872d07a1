"""Steps repeated from a checkpoint, to show that resuming is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sovereign.contract.training import Training
from sovereign.training import checkpoint
from sovereign.training.device import Precision
from sovereign.training.distributed import ALONE, Ranks, shard
from sovereign.training.loop import Stream, train
from sovereign.training.optimizer import optimizer_for


@dataclass(frozen=True)
class Replayed:
    """Where steps repeated from a checkpoint led."""

    checkpoint: int
    step: int
    loss: float
    digest: str


def replay(
    path: Path,
    until: int,
    build: Callable[[], nn.Module],
    stream: Stream,
    settings: Training,
    *,
    device: torch.device,
    precision: Precision,
    seed: int,
    ignore: int | None = None,
    ranks: Ranks = ALONE,
) -> Replayed:
    """Return the loss of step `until` and the digest of the weights after it, from the checkpoint at `path`.

    `build` gives a fresh model, whatever its weights; all else must be as in the straight run, whose loss and
    `weights_digest` of the same step are to be compared. Random state is put back.
    """
    losses: dict[int, float] = {}

    def remember(kind: str, **row: Any) -> None:
        if kind == "step":
            losses[row["step"]] = row["loss"]

    model = build().to(device)
    shard(model, ranks, settings.distributed, device)
    optimizer = optimizer_for(model, settings.optimizer)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        done = checkpoint.load(path, model, optimizer)["step"]
        train(
            model,
            optimizer,
            stream,
            settings,
            device=device,
            precision=precision,
            seed=seed,
            evaluate_every=settings.steps,
            log=remember,
            done=done,
            until=until,
            ignore=ignore,
            ranks=ranks,
        )
    return Replayed(done, until, losses[until], checkpoint.weights_digest(model))
