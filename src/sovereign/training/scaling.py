"""Loss scaling: what keeps small gradients alive in float16, and what is done when they grow too large for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sovereign.training.distributed import whole
from sovereign.training.optimizer import gradient_unit

FIRST = 2.0**16
PATIENCE = 2000  # updates without an overflow after which twice the scale is tried; torch's GradScaler waits as long


@dataclass
class LossScale:
    """What the loss is multiplied by before its gradient is taken, and the gradient divided by before it is applied.

    Float16 ends at 65504 and below 6e-8 it is 0, where many a gradient lies (Micikevicius et al. 2018, section 3.2). The
    scale is a power of two, which rounds nothing. A gradient that overflows halves it, and is then taken again, from
    the same batch: where others skip such a step, no step and no batch is skipped here.
    """

    value: float = FIRST
    clean: int = 0  # updates since it last changed

    def too_large(self, grad_norm: float) -> bool:
        """Say whether the gradient is to be taken again, with half the scale; at a scale of 1 nothing is left to halve."""
        if math.isfinite(grad_norm) or self.value <= 1.0:
            return False
        self.value, self.clean = self.value / 2, 0
        return True

    def applied(self) -> None:
        """Note that an update was made with this scale."""
        self.clean += 1
        if self.clean == PATIENCE:
            self.value, self.clean = self.value * 2, 0


def clipped(model: nn.Module, most: float, scale: float) -> float:
    """Divide the gradients by `scale`, clip them to a norm of `most`, in place, and return their norm before clipping.

    Those of float16 weights are left in units of `optimizer.gradient_unit`, in which the optimizer takes them.
    """
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    if not gradients:
        return 0.0
    norm = _norm(gradients) / scale
    # one factor, and so one rounding: divided by the scale first, small ones would be 0 in float16
    factor = min(1.0, most / (norm + 1e-6)) / scale * gradient_unit(model.parameters())
    if factor != 1.0:  # most gradients are short enough, and a pass over all is a hundredth of a small model's step
        torch._foreach_mul_(gradients, factor)
    return norm


def _norm(gradients: list[Tensor]) -> float:
    """Return the norm of all gradients, taken in float32: that of float16 ones is soon beyond float16."""
    if gradients[0].dtype == torch.float16:
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2, torch.float32))).item()
    return whole(nn.utils.get_total_norm(gradients)).item()
