"""Matrices that run from packed weights: dequantized piece by piece, or in the integers of llama.cpp.

Shapes are written with n positions, k inputs, m outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sovereign.quantization import q4k, q6k, q8_0, q8k
from sovereign.quantization.arithmetic import SUPER
from sovereign.quantization.formats import FORMATS


class PackedLinear(nn.Module):
    """A matrix [m, k] kept as packed rows, uint8 [m, row bytes], the bytes a GGUF file holds.

    With `as_llama` off, forward is x @ dequantized weights.T in the dtype of x, with a gradient for x. With it on,
    forward is what llama.cpp's CPU computes: activations quantized for the format of the weights, integer
    sums, float32 scales; a float32 result without a gradient, which is an error to ask for.
    """

    packed: Tensor
    bias: Tensor | None

    def __init__(self, packed: Tensor, kind: str, bias: Tensor | None = None, as_llama: bool = False):
        super().__init__()
        if packed.dim() != 2 or packed.dtype != torch.uint8 or packed.shape[1] % FORMATS[kind].bytes:
            raise ValueError(
                f"{kind}: packed weights are {packed.dtype} {list(packed.shape)}; "
                f"uint8 [m, multiple of {FORMATS[kind].bytes}] would be right"
            )
        self.kind, self.as_llama = kind, as_llama
        self.register_buffer("packed", packed)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, weight: Tensor, kind: str, bias: Tensor | None = None, as_llama: bool = False) -> PackedLinear:
        """Return the module that holds a float matrix [m, k] quantized to the format `kind`."""
        return PackedLinear(FORMATS[kind].quantize(weight), kind, None if bias is None else bias.detach(), as_llama)

    @property
    def outputs(self) -> int:
        return self.packed.shape[0]

    @property
    def inputs(self) -> int:
        return self.packed.shape[1] // FORMATS[self.kind].bytes * FORMATS[self.kind].block

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., m] of x [..., k]; ValueError for another k."""
        if x.shape[-1] != self.inputs:
            raise ValueError(f"x is {list(x.shape)}; a last axis of {self.inputs} would be right")
        if self.as_llama:
            y = llama_product(x, self.packed, self.kind)
        else:
            y = _Product.apply(x, self.packed, self.kind)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, outputs={self.outputs}, kind={self.kind}, as_llama={self.as_llama}"


class Q4KLinear(PackedLinear):
    """A matrix kept as Q4_K, 4.5 bits a weight; see `PackedLinear`."""

    def __init__(self, packed: Tensor, bias: Tensor | None = None, as_llama: bool = False):
        super().__init__(packed, "q4_k", bias, as_llama)

    @classmethod
    def from_linear(cls, linear: nn.Linear, as_llama: bool = False) -> Q4KLinear:
        """Return the module that holds a linear layer's weights quantized to Q4_K, and its bias as it was."""
        bias = None if linear.bias is None else linear.bias.detach()
        return cls(q4k.quantize(linear.weight), bias, as_llama)


class _Product(torch.autograd.Function):
    """x [..., k] @ dequantized weights.T, and its gradient for x; a piece of the weights exists at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, kind: str) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.kind = kind
        y = x.new_empty(*x.shape[:-1], len(packed))
        for rows in pieces(packed, kind):
            y[..., rows] = F.linear(x, FORMATS[kind].dequantize(packed[rows]).to(x.dtype))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (packed,) = ctx.saved_tensors
        total: Tensor | None = None
        for rows in pieces(packed, ctx.kind):
            part = slope[..., rows] @ FORMATS[ctx.kind].dequantize(packed[rows]).to(slope.dtype)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total, None, None


def pieces(packed: Tensor, kind: str) -> list[slice]:
    """Return the rows [m, row bytes] in slices of about 2^20 weights on a CPU, 2^24 elsewhere: 4 and 64 MiB of float32."""
    row = packed.shape[1] // FORMATS[kind].bytes * FORMATS[kind].block
    step = max(1, (2**20 if packed.device.type == "cpu" else 2**24) // row)
    return [slice(start, min(start + step, len(packed))) for start in range(0, len(packed), step)]


def llama_product(x: Tensor, packed: Tensor, kind: str) -> Tensor:
    """Return float32 [..., m] of activations x [..., k] and packed weights [m, row bytes] as llama.cpp's CPU computes it.

    K-quantized weights meet Q8_K activations, Q8_0 meet Q8_0, F16 meet F16. Of each block the integer sum of products
    is exact; it is multiplied by the product of both scales, and the blocks are added in order, in float32. What is
    left out is the order in which the engine's vector instructions add: a few 1e-7 of the result. Raises RuntimeError
    where a gradient is wanted of it.
    """
    if x.requires_grad and torch.is_grad_enabled():
        raise RuntimeError("rounded activations have no gradient: use torch.no_grad(), or as_llama=False")
    flat = x.detach().reshape(-1, x.shape[-1])
    y = flat.new_empty(len(flat), len(packed), dtype=torch.float32)
    round_activations, product = _LLAMA[kind]
    with torch.autocast(x.device.type, enabled=False):  # which would round the integers
        activations = round_activations(flat)
        for rows in pieces(packed, kind):
            y[:, rows] = product(activations, packed[rows])
    return y.view(*x.shape[:-1], -1)


def _q4k_product(activations: q8k.Activations, packed: Tensor) -> Tensor:
    blocks, scales = q4k.unpack(packed), activations.scales
    d, dmin = blocks.d.float(), blocks.dmin.float()
    # a half block's sum of scale * q * activation stays below 2^24, so that float32 products of matrices are exact
    weights = (blocks.quants * blocks.scales[..., None].float()).flatten(-2)
    minima, sums = blocks.minima.float(), activations.sums.unflatten(-1, (8, 2)).sum(-1).float()
    y, low = (scales.new_zeros(len(scales), len(packed)) for _ in range(2))
    for block in range(d.shape[1]):
        q, scale = activations.quants[:, block].float(), scales[:, block, None]
        y += scale * d[:, block] * _exact(q, weights[:, block], SUPER // 2)
        low += scale * dmin[:, block] * (sums[:, block] @ minima[:, block].T)
    return y - low


def _q6k_product(activations: q8k.Activations, packed: Tensor) -> Tensor:
    blocks, scales = q6k.unpack(packed), activations.scales
    d = blocks.d.float()
    # sums of scale * (q - 32) * activation reach 2^27: float64 holds them
    weights = ((blocks.quants.double() - q6k.MIDDLE) * blocks.scales[..., None]).flatten(-2)
    y = scales.new_zeros(len(scales), len(packed))
    for block in range(d.shape[1]):
        dots = (activations.quants[:, block].double() @ weights[:, block].T).float()
        y += scales[:, block, None] * d[:, block] * dots
    return y


def _q8_0_product(activations: q8_0.Blocks, packed: Tensor) -> Tensor:
    blocks = q8_0.unpack(packed)
    weights, d, steps = blocks.quants.float(), blocks.d.float(), activations.d.float()
    y = steps.new_zeros(len(steps), len(packed))
    for block in range(d.shape[1]):
        dots = activations.quants[:, block].float() @ weights[:, block].T
        y += steps[:, block, None] * d[:, block] * dots
    return y


def _plain_product(activations: Tensor, packed: Tensor, kind: str) -> Tensor:
    return F.linear(activations, FORMATS[kind].dequantize(packed))


def _exact(a: Tensor, b: Tensor, depth: int) -> Tensor:
    """Return a [n, k] @ b.T [k, m] of integers in float32, summed exactly over `depth` at a time."""
    total = a[:, :depth] @ b[:, :depth].T
    for start in range(depth, a.shape[1], depth):
        total += a[:, start : start + depth] @ b[:, start : start + depth].T
    return total


# format -> what it makes of the activations, and the product with that
_LLAMA: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any, Tensor], Tensor]]] = {
    "q4_k": (q8k.quantize, _q4k_product),
    "q6_k": (q8k.quantize, _q6k_product),
    "q8_0": (q8_0.quantize_activations, _q8_0_product),
    "f16": (lambda x: x.half().float(), partial(_plain_product, kind="f16")),
    "f32": (lambda x: x.float(), partial(_plain_product, kind="f32")),
}
