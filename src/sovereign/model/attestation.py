"""What can be sworn to of a live model: how many parameters move, and that the others did not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def trainable_parameters(model: nn.Module) -> int:
    """Return how many parameters move, each counted once."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def frozen_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor that must not change: frozen parameters, buffers, and what stands behind four-bit weights."""
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            yield name, weight
            for part, tensor in _behind(getattr(weight, "quant_state", None)):
                yield f"{name}.{part}", tensor
    yield from model.named_buffers()


def _behind(state: object) -> Iterator[tuple[str, Tensor]]:
    if state is None:
        return
    for part in ("absmax", "code", "offset"):
        tensor = getattr(state, part, None)
        if isinstance(tensor, Tensor):
            yield part, tensor
    for part, tensor in _behind(getattr(state, "state2", None)):
        yield f"nested.{part}", tensor


def frozen_digest(model: nn.Module) -> str:
    """Return `sha256:...` over name, dtype, shape and raw bytes of all that must not change, in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(frozen_tensors(model)):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return "sha256:" + digest.hexdigest()
