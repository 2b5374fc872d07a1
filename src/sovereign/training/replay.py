"""Steps repeated from a checkpoint, to show that resuming is exact."""

from __future__ import annotations

from collections.abc import Callable, Collection
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
from sovereign.training.scaling import LossScale


@dataclass(frozen=True)
class Replayed:
    """Where steps repeated from a checkpoint led."""

    checkpoint: int
    step: int
    loss: float
    digest: str


def replay(
    path: Path,
    steps: Collection[int],
    build: Callable[[], nn.Module],
    stream: Stream,
    settings: Training,
    *,
    device: torch.device,
    precision: Precision,
    seed: int,
    ignore: int | None = None,
    ranks: Ranks = ALONE,
) -> list[Replayed]:
    """Return the loss of each of `steps` and the digest of the weights after it, all in one go from `path`.

    `build` gives a fresh model, whatever its weights; all else must be as in the straight run, whose loss and
    `weights_digest` of the same steps are to be compared. Random state is put back.
    """
    found: list[Replayed] = []

    def remember(kind: str, **row: Any) -> None:
        if kind == "step" and row["step"] in steps:
            found.append(Replayed(done, row["step"], row["loss"], checkpoint.weights_digest(model)))

    model = build().to(device)
    shard(model, ranks, settings.distributed, device)
    optimizer = optimizer_for(model, settings.optimizer)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        state = checkpoint.load(path, model, optimizer)
        done, scale = state["step"], state.get("loss_scale")
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
            until=max(steps),
            ignore=ignore,
            ranks=ranks,
            loss_scale=LossScale(*scale) if scale else None,
        )
    return found
