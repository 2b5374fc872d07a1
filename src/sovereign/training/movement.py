"""How far an update moved the weights, measured on a sample of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sovereign.training.distributed import ALONE, Ranks, own

SAMPLED = 4096  # elements of one tensor, at most: evenly spaced


@dataclass(frozen=True)
class Movement:
    """What one update did: its size beside the weights', and the share of elements that it changed (CASE-26)."""

    ratio: float
    changed: float


class Before:
    """Trainable weights as they stood before an update: evenly spaced elements of each, some 4,096 at most."""

    def __init__(self, model: nn.Module):
        self.sampled = [(_sample(weight).clone(), weight) for weight in model.parameters() if weight.requires_grad]

    def movement(self, ranks: Ranks = ALONE) -> Movement:
        """Return how far the sampled elements have moved since."""
        moved, size, changed, counted = torch.zeros(4, dtype=torch.float64)
        for before, weight in self.sampled:
            after, start = _sample(weight).double(), before.double()
            moved += (after - start).square().sum().cpu()
            size += start.square().sum().cpu()
            changed += (after != start).sum().cpu()
            counted += len(start)
        moved_sum, size_sum, changed_sum, counted_sum = ranks.sums(*map(float, (moved, size, changed, counted)))
        return Movement((moved_sum / size_sum) ** 0.5 if size_sum else 0.0, changed_sum / max(1.0, counted_sum))


def _sample(weight: Tensor) -> Tensor:
    flat = own(weight.detach()).flatten()
    return flat[:: max(1, -(-len(flat) // SAMPLED))]
