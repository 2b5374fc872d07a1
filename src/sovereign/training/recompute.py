"""Activation checkpointing: a layer's inner values are computed again in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sovereign.training.distributed import layers


def recompute_layers(model: nn.Module) -> None:
    """Make every layer of `model` recompute (Chen et al. 2016), in place; names, values and gradients stay the same."""
    for layer in layers(model):
        layer.forward = _recomputed(layer.forward)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def recomputed(*given: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*given, **named)
        return checkpoint(forward, *given, use_reentrant=False, **named)

    return recomputed
