"""The tensor formats that an export may hold: how many bytes a block takes, and the way there and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sovereign.quantization import q4k, q6k, q8_0
from sovereign.quantization.arithmetic import aligned, byte_rows, float32_rows


@dataclass(frozen=True)
class Format:
    """A tensor format of GGUF; `name` in lower case is the name of its type there."""

    name: str
    block: int  # weights
    bytes: int  # of a block
    quantize: Callable[[Tensor], Tensor]  # float [..., k] -> uint8 [..., k / block * bytes]
    dequantize: Callable[[Tensor], Tensor]  # uint8 [..., k / block * bytes] -> float32 [..., k]


def _as(name: str, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    def quantize(weights: Tensor) -> Tensor:
        narrow = float32_rows(weights, 1, name).to(dtype)
        if bool(torch.isinf(narrow).any()):
            row, column = divmod(int(torch.isinf(narrow).nonzero()[0, 0]), weights.shape[-1])
            value = float(weights.reshape(-1, weights.shape[-1])[row, column])
            raise ValueError(f"{name}: row {row}, column {column} is {value:.6g}; weights up to 65504 can be held")
        return narrow.view(torch.uint8).view(*weights.shape[:-1], -1)

    return quantize


def _from(name: str, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    def dequantize(packed: Tensor) -> Tensor:
        byte_rows(packed, dtype.itemsize, name)
        return aligned(packed, dtype.itemsize).view(dtype).float()

    return dequantize


FORMATS = {
    each.name: each
    for each in (
        Format("f32", 1, 4, _as("f32", torch.float32), _from("f32", torch.float32)),
        Format("f16", 1, 2, _as("f16", torch.float16), _from("f16", torch.float16)),
        Format("q8_0", q8_0.WEIGHTS, q8_0.BYTES, q8_0.quantize, q8_0.dequantize),
        Format("q6_k", q6k.WEIGHTS, q6k.BYTES, q6k.quantize, q6k.dequantize),
        Format("q4_k", q4k.WEIGHTS, q4k.BYTES, q4k.quantize, q4k.dequantize),
    )
}
