"""Whether an evaluation computes the loss that training optimises, and sees no further than it may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn

from sovereign.training.device import Precision, multiplying
from sovereign.training.evaluation import evaluate, evaluating

Order = Literal["permuted", "random"]


def both_paths(
    model: nn.Module, ids: np.ndarray, *, context: int, precision: Precision, device: torch.device
) -> tuple[float, float]:
    """Return the summed loss of one batch of windows, ids [windows, context + 1], by training's path and evaluation's.

    In nats, with the same weights, dropout off in both; more than rounding between them is a fault of one.
    """
    on_device = torch.from_numpy(ids).to(device)
    with evaluating(model), multiplying(precision, device.type):
        trained = sum(
            model.loss(one[None, :-1], one[None, 1:]).double().item()  # type: ignore[operator]
            for one in on_device
        )
    windows = [(str(number), window) for number, window in enumerate(ids)]
    found = evaluate(model, windows, batch=len(ids), context=context, precision=precision, device=device)
    return trained, sum(nll for _, nll, _ in found)


def disordered(ids: np.ndarray, order: Order, vocabulary: int, seed: int) -> np.ndarray:
    """Return a scored sequence with its targets shuffled, or drawn uniformly; its first token stays."""
    draw = np.random.default_rng(seed)
    targets = draw.permutation(ids[1:]) if order == "permuted" else draw.integers(0, vocabulary, len(ids) - 1)
    return np.concatenate([ids[:1], targets]).astype(ids.dtype)


def on_disordered(
    model: nn.Module, sequences: Sequence[tuple[str, np.ndarray]], order: Order, vocabulary: int, seed: int, *,
    batch: int, context: int, precision: Precision, device: torch.device,
) -> list[tuple[str, float, int]]:  # fmt: skip
    """Return (document, loss in nats, target tokens) of each sequence put out of order.

    A model that sees only the past scores no better here than counting words does, or ln V on random tokens.
    """
    shuffled = [
        (document, disordered(ids, order, vocabulary, seed + number))
        for number, (document, ids) in enumerate(sequences)
    ]
    return evaluate(model, shuffled, batch=batch, context=context, precision=precision, device=device)
