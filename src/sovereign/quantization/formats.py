"""The tensor formats that an export may hold: how many bytes a block takes, and the way there and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sovereign.quantization import q4k, q6k, q8_0


@dataclass(frozen=True)
class Format:
    """A tensor format of GGUF; `name` in lower case is the name of its type there."""

    name: str
    block: int  # weights
    bytes: int  # of a block
    quantize: Callable[[Tensor], Tensor]  # float [..., k] -> uint8 [..., k / block * bytes]
    dequantize: Callable[[Tensor], Tensor]  # uint8 [..., k / block * bytes] -> float32 [..., k]

    def row_bytes(self, weights: int) -> int:
        """Return the bytes of a row of so many weights; ValueError where blocks do not fill it."""
        if weights <= 0 or weights % self.block:
            raise ValueError(f"{self.name}: a row of {weights} weights; it must be a multiple of {self.block}")
        return weights // self.block * self.bytes


def _as(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda weights: weights.detach().to(dtype).contiguous().view(torch.uint8)


def _from(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda packed: packed.contiguous().view(dtype).float()


FORMATS = {
    each.name: each
    for each in (
        Format("f32", 1, 4, _as(torch.float32), _from(torch.float32)),
        Format("f16", 1, 2, _as(torch.float16), _from(torch.float16)),
        Format("q8_0", q8_0.WEIGHTS, q8_0.BYTES, q8_0.quantize, q8_0.dequantize),
        Format("q6_k", q6k.WEIGHTS, q6k.BYTES, q6k.quantize, q6k.dequantize),
        Format("q4_k", q4k.WEIGHTS, q4k.BYTES, q4k.quantize, q4k.dequantize),
    )
}
