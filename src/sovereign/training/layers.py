"""The repeated layers of a decoder, and how they train: as they stand, computing inner values twice, or compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Forward = Callable[..., Any]


def layers(model: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of a decoder: the longest list of modules in it."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    return list(max(lists, key=lambda one: sum(weight.numel() for weight in one.parameters()), default=[]))


@contextmanager
def training_layers(model: nn.Module, *, recomputed: bool = False, compiled: bool = False) -> Iterator[None]:
    """Have every layer of `model` train in another way, with the same names, values and gradients, while this is open.

    `recomputed`: inner values are computed again in the backward pass instead of kept (Chen et al. 2016). `compiled`:
    torch.compile makes one forward and one backward pass for all layers of a kind. The model compiled as a whole is the
    same code over again, which costs each layer's time and memory. Where no gradient is asked for nothing changes: an
    evaluation, or a text sampled, has too many shapes to compile. A copy of the model taken within is not one of its own.
    """
    changed = layers(model) if recomputed or compiled else []
    before = [vars(layer).get("forward") for layer in changed]
    for layer in changed:
        plain = training = layer.forward
        if compiled:
            training = _compiled(training)
        if recomputed:  # around what is compiled: a break in the graph within would leave the layer as it was
            training = _recomputed(training)
        layer.forward = _with_gradients(training, plain)
    try:
        yield
    finally:
        for layer, own in zip(changed, before, strict=True):
            if own is None:
                del layer.forward
            else:
                layer.forward = own


def _recomputed(forward: Forward) -> Forward:
    return lambda *given, **named: checkpoint(forward, *given, use_reentrant=False, **named)


def _compiled(forward: Forward) -> Forward:
    from torch._functorch import config  # it comes with the compiler, which is a second to load

    fast = torch.compile(forward)

    def compiled(*given: Any, **named: Any) -> Any:
        # what a product of the backward pass takes is made once more from less: a quarter of all that would be kept
        with config.patch(ban_recompute_materialized_backward=False):
            return fast(*given, **named)

    return compiled


def _with_gradients(training: Forward, otherwise: Forward) -> Forward:
    return lambda *given, **named: (training if torch.is_grad_enabled() else otherwise)(*given, **named)
