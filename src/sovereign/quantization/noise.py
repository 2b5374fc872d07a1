"""How large quantization error ought to be, told from the packed blocks alone.

A weight rounded to steps of s is wrong by s^2 / 12 on average, squared, where many weights fall between two steps. A search
does better, since it moves the steps towards the weights; how much better is measured once for each format, on normal weights.
Weights that are nearly all zero, or small beside an outlier of their block, share one step: there the expectation
is too high, never too low. What is measured far above it was not quantized from these weights.

Shapes are written with rows of k weights.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from sovereign.quantization import q4k, q6k, q8_0
from sovereign.quantization.formats import FORMATS


def measured(weights: Tensor, packed: Tensor, kind: str) -> float:
    """Return the root-mean-square error of packed weights relative to that of the weights [..., k] themselves."""
    exact = weights.detach().double()
    power = float(exact.square().sum())
    wrong = float((FORMATS[kind].dequantize(packed).double() - exact).square().sum())
    return (wrong / power) ** 0.5 if power else float("inf") if wrong else 0.0


def expected(packed: Tensor, kind: str) -> float:
    """Return the relative root-mean-square error that packed weights [..., row bytes] ought to have; 0 where all are 0."""
    power = float(FORMATS[kind].dequantize(packed).double().square().sum())
    return (float(variances(packed, kind).double().sum()) / power) ** 0.5 if power else 0.0


def variances(packed: Tensor, kind: str) -> Tensor:
    """Return the expected squared error of each packed weight, float32 [..., k]."""
    return steps(packed, kind).square_().mul_(_gain(kind) / 12)


def steps(packed: Tensor, kind: str) -> Tensor:
    """Return the distance between neighbouring values that each packed weight could have had, float32 [..., k]."""
    if kind == "q4_k":
        four = q4k.unpack(packed)
        return (four.d.float()[..., None] * four.scales).repeat_interleave(32, -1).flatten(-2)
    if kind == "q6_k":
        six = q6k.unpack(packed)
        return (six.d.float()[..., None] * six.scales).abs_().repeat_interleave(16, -1).flatten(-2)
    if kind == "q8_0":
        return q8_0.unpack(packed).d.float().repeat_interleave(q8_0.WEIGHTS, -1)
    weights = FORMATS[kind].dequantize(packed)
    if kind == "f32":
        return torch.zeros_like(weights)
    exponent = torch.frexp(weights).exponent.clamp(min=-13)  # below that float16 is subnormal, its step 2^-24
    return torch.ldexp(torch.ones_like(weights), exponent - 11)


@functools.cache
def _gain(kind: str) -> float:
    """Return the mean squared error of 2^17 normal weights over that of rounding at random."""
    weights = torch.randn(128, 1024, generator=torch.Generator().manual_seed(0))
    packed = FORMATS[kind].quantize(weights)
    by_chance = float(steps(packed, kind).square().sum()) / 12
    return float((FORMATS[kind].dequantize(packed) - weights).square().sum()) / by_chance if by_chance else 0.0
