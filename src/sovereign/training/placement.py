"""Placement: where the tensors of a training run lie, asked of the tensors and not of the settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from sovereign.training.distributed import own
from sovereign.training.optimizer import kept


def placement(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[dict[str, Any]]:
    """Yield the fields of a DeviceRow for every kind of device that weights or moments of this process lie on.

    On a GPU the bytes its allocator has given out stand beside them: two witnesses. Counters of steps are left out,
    which optimizers keep on the CPU by design.
    """
    weights = list(model.parameters())
    moments = [
        one for weight in weights if weight in optimizer.state for one in kept(optimizer, weight).values() if one.dim()
    ]
    for what, tensors in (("weights", weights), ("moments", moments)):
        sizes: Counter[str] = Counter()
        for one in map(own, tensors):
            sizes[one.device.type] += one.nbytes
        yield from ({"what": what, "device": device, "bytes": size} for device, size in sorted(sizes.items()))
    for device in sorted({one.device for one in weights if one.device.type == "cuda"}, key=str):
        yield {"what": "allocated", "device": "cuda", "bytes": torch.cuda.memory_allocated(device)}
