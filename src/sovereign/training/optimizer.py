"""Optimizers: which one moves which weight, and what each keeps of a weight between updates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sovereign.contract.training import Adamw, Adamw8bit, Muon, Optimizer

UNIT = 1024.0  # what gradients of float16 weights are multiplied by, for the optimizer as well
TABLES = ("qmap1", "qmap2")  # bitsandbytes: the 256 values that 8 bits stand for; the same for every weight


class Unavailable(Exception):
    """An optimizer that was asked for and is not installed here, or not in this version of torch."""


class Together(torch.optim.Optimizer):
    """Several optimizers as one, each with groups of its own; groups and state are those of the parts."""

    def __init__(self, *parts: torch.optim.Optimizer):
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        for part in parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step(closure)


def optimizer_for(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer of the trainable parameters; weight decay falls on matrices, not on gains.

    The learning rate is set by the loop before each update. Raises Unavailable.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    if isinstance(settings, Adamw):
        return _adamw(trained, settings)
    if isinstance(settings, Adamw8bit):
        return _adamw_8bit(trained, settings)
    return _muon(model, trained, settings)


def gradient_unit(weights: Iterable[Tensor]) -> float:
    """Return what the gradients of weights are multiplied by where the optimizer takes them: 1 but in float16.

    There many would be 0 at their own size. AdamW's update does not depend on it as long as its epsilon is as large.
    """
    return UNIT if any(weight.dtype == torch.float16 and weight.requires_grad for weight in weights) else 1.0


def check_available(settings: Optimizer) -> None:
    """Raise Unavailable, saying what brings it, where the optimizer cannot be had."""
    optimizer_for(nn.Linear(1, 1), settings)


def _adamw(weights: list[nn.Parameter], settings: Adamw) -> torch.optim.AdamW:
    groups, betas = _decayed(weights, settings.weight_decay), (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=settings.epsilon, fused=True)


def _adamw_8bit(weights: list[nn.Parameter], settings: Adamw8bit) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim.adamw import AdamW8bit  # five seconds, for those who ask for it
    except ImportError as error:
        raise Unavailable(
            f"optimizer adamw8bit needs bitsandbytes ({error}): pip install 'sovereign[bitsandbytes]'"
        ) from None
    groups, betas = _decayed(weights, settings.weight_decay), (settings.beta1, settings.beta2)
    return AdamW8bit(groups, lr=0.0, betas=betas, eps=settings.epsilon * gradient_unit(weights))


def _muon(model: nn.Module, weights: list[nn.Parameter], settings: Muon) -> torch.optim.Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise Unavailable(f"optimizer muon: torch {torch.__version__} has none; 2.9 brought it")
    apart = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = getattr(model, "lm_head", None)
    apart |= {id(head.weight)} if head is not None else set()
    matrices = [weight for weight in weights if weight.dim() == 2 and id(weight) not in apart]
    moved = {id(weight) for weight in matrices}
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        parts.append(
            torch.optim.Muon(
                matrices, lr=0.0, weight_decay=settings.weight_decay, momentum=settings.momentum,
                nesterov=settings.nesterov, ns_steps=settings.iterations, adjust_lr_fn="match_rms_adamw",
            )
        )  # fmt: skip
    rest = [weight for weight in weights if id(weight) not in moved]
    if rest:
        parts.append(_adamw(rest, settings.rest))
    return Together(*parts)


def _decayed(weights: list[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    matrices = {"params": [weight for weight in weights if weight.dim() >= 2], "weight_decay": decay}
    gains = {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0}
    return [group for group in (matrices, gains) if group["params"]]


# ── what is kept of a weight ─────────────────────────────────────────────────────────────────────


def kept(optimizer: torch.optim.Optimizer, weight: Tensor) -> dict[str, Tensor]:
    """Return what the optimizer keeps of a weight, as tensors to be saved."""
    return _as_tensors(optimizer.state[weight])


def expected(optimizer: torch.optim.Optimizer, weight: Tensor) -> dict[str, Tensor]:
    """Return tensors of the shapes and dtypes that the optimizer keeps of a weight; nothing is changed."""
    part = next(one for one in _parts(optimizer) if any(weight is own for own in _weights(one)))
    if isinstance(part, torch.optim.AdamW):
        return {"step": torch.empty(()), "exp_avg": weight, "exp_avg_sq": weight}
    if hasattr(torch.optim, "Muon") and isinstance(part, torch.optim.Muon):
        return {"momentum_buffer": weight}
    return _as_tensors(_fresh_8bit(part, weight))


def restore(optimizer: torch.optim.Optimizer, weight: Tensor, saved: dict[str, Tensor]) -> None:
    """Put in place what was kept of a weight."""
    part = next(one for one in _parts(optimizer) if any(weight is own for own in _weights(one)))
    if not hasattr(part, "init_state"):
        optimizer.state[weight] = saved
        return
    state = _fresh_8bit(part, weight) | saved
    state["step"] = int(saved["step"])
    optimizer.state[weight] = state


def _parts(optimizer: torch.optim.Optimizer) -> tuple[torch.optim.Optimizer, ...]:
    return getattr(optimizer, "parts", (optimizer,))


def _weights(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (weight for group in optimizer.param_groups for weight in group["params"])


def _fresh_8bit(optimizer: Any, weight: Tensor) -> dict[str, Any]:
    before = optimizer.state.pop(weight, None)
    for at, group in enumerate(optimizer.param_groups):
        for index, own in enumerate(group["params"]):
            if own is weight:
                optimizer.init_state(group, weight, at, index)
    fresh: dict[str, Any] = optimizer.state.pop(weight)
    if before is not None:
        optimizer.state[weight] = before
    return fresh


def _as_tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {
        key: value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.int64)
        for key, value in state.items()
        if key not in TABLES
    }
