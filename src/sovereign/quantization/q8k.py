"""Q8_K: what llama.cpp makes of the activations that meet K-quantized weights (block_q8_K); it stands in no file.

256 activations become int8 with a float32 scale: x = scale * q, where the activation of largest magnitude is -127.
Sixteen sums of 16 quants each go with them, since a weight's minimum multiplies the sum only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sovereign.quantization.arithmetic import SUPER, finite_quotient, quotient

ACTIVATIONS = SUPER  # of a block


@dataclass(frozen=True)
class Activations:
    """Blocks of activations; n of them in a row."""

    quants: Tensor  # int8 [..., n, 256], -127 to 127
    scales: Tensor  # float32 [..., n]; negative where the largest magnitude belongs to a positive value
    sums: Tensor  # int16 [..., n, 16], of 16 quants each


def quantize(x: Tensor) -> Activations:
    """Return activations [..., k], k a multiple of 256, as llama.cpp quantizes them on the way into a product.

    Float32, float16 and bfloat16 go as float32; float64 is refused with TypeError, since it would be rounded
    first. Raises ValueError for a length that is no multiple of 256 and for values that are not finite.
    """
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"q8_k: activations are {x.dtype}; float32, float16 or bfloat16 would be right")
    blocks = _blocks(x.float())
    extreme = _extreme(blocks)
    # an infinite factor (all subnormal) ends as quants of 0 there, and its reciprocal is the scale 0
    factor = quotient(-127.0, extreme)
    quants = blocks.mul(finite_quotient(-127.0, extreme)).round_().clamp_(-128, 127)
    scales = quotient(1.0, factor).masked_fill_(extreme == 0, 0)
    return Activations(
        quants.to(torch.int8), scales.squeeze(-1), quants.unflatten(-1, (16, 16)).sum(-1).to(torch.int16)
    )


def dequantize(activations: Activations) -> Tensor:
    """Return the values that stand for the activations, float32 [..., n * 256]."""
    return (activations.quants * activations.scales[..., None]).flatten(-2)


def ties(x: Tensor, within: float = 1e-4) -> Tensor:
    """Return which activations [..., k] fall within so much of the boundary between two quants: bool [..., k].

    The quotient is taken in float64, so give x as exact as it is known. Two sound implementations may put such a
    value on either side; one that is not marked they must agree on, so long as their inputs agree to
    about within / 127 of the block's largest magnitude. A block in which two magnitudes rival for the
    largest, with opposite signs, is marked as a whole: which of them comes first decides every sign.
    """
    scaled = quotients(x).unflatten(-1, (-1, ACTIVATIONS))
    near = (scaled - scaled.floor() - 0.5).abs() <= within
    rival = (scaled > 127 - within).any(-1, keepdim=True).expand_as(near)
    return (near | rival).flatten(-2)


def quotients(x: Tensor) -> Tensor:
    """Return what is rounded of activations [..., k], in float64: -127 for each block's extreme, 0 in a block of zeros."""
    blocks = _blocks(x.double())
    return (blocks * -127.0 / _extreme(blocks)).nan_to_num_(0.0).flatten(-2)


def _blocks(x: Tensor) -> Tensor:
    if x.dim() == 0 or x.shape[-1] == 0 or x.shape[-1] % ACTIVATIONS:
        raise ValueError(f"q8_k: shape {list(x.shape)}: the last axis must be a multiple of {ACTIVATIONS}")
    if not bool(torch.isfinite(x.sum(dtype=torch.float64))):
        at = int((~torch.isfinite(x)).flatten().nonzero()[0])
        row, column = divmod(at, x.shape[-1])
        raise ValueError(f"q8_k: row {row}, column {column} is {float(x.flatten()[at])}; activations must be finite")
    return x.detach().unflatten(-1, (-1, ACTIVATIONS))


def _extreme(blocks: Tensor) -> Tensor:
    """Return each block's value of largest magnitude, the first of several: [..., n, 1]."""
    # argmax gives no promise about the first of equals, so it is asked for the first that is equal to the maximum
    magnitude = blocks.abs()
    largest = magnitude == magnitude.amax(-1, keepdim=True)
    places = torch.arange(ACTIVATIONS, 0, -1, device=blocks.device, dtype=torch.int16)
    first = (largest * places).argmax(-1, keepdim=True)
    return blocks.gather(-1, first)
