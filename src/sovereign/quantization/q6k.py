"""Q6_K: 256 weights in 210 bytes, weight = d * scale * (q - 32), with q of 6 bits (llama.cpp, block_q6_K).

bytes   0-127   low four bits of q: for each half of 128, 32 bytes with weights 0-31 (low nibble) and 64-95 (high),
                then 32 bytes with 32-63 and 96-127
      128-191   high two bits: for each half 32 bytes, weights 0-31 in bits 0-1, 32-63 in 2-3, 64-95 in 4-5, 96-127 in 6-7
      192-207   sixteen int8 scales, one for 16 weights
      208-209   d, float16
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sovereign.quantization.arithmetic import (
    SUPER,
    byte_rows,
    finite_quotient,
    float32_rows,
    half,
    in_chunks,
    quotient,
    running_sum,
)

WEIGHTS, BYTES = SUPER, 210
MIDDLE = 32  # q of a weight of zero
NOTHING = 1e-15  # weights smaller than this count as zero (GROUP_MAX_EPS)
TRIALS = [float(np.float32(MIDDLE) + np.float32(0.1) * np.float32(trial)) for trial in range(-9, 10) if trial]


@dataclass(frozen=True)
class Blocks:
    """Super-blocks, unpacked; n of them in a row."""

    d: Tensor  # float16 [..., n]
    scales: Tensor  # int8 [..., n, 16]
    quants: Tensor  # uint8 [..., n, 16, 16], 0 to 63


def quantize(weights: Tensor) -> Tensor:
    """Return weights [..., k] as packed super-blocks, uint8 [..., k / 256 * 210]: the bytes that llama.cpp writes.

    Takes and refuses what `q4k.quantize` does.
    """
    flat = float32_rows(weights, WEIGHTS, "q6_k")
    packed = torch.empty(len(flat), BYTES, dtype=torch.uint8, device=weights.device)

    def work(part: slice) -> None:
        packed[part] = pack(_fit_columns(flat[part].view(-1, 16).T.contiguous(), part.start)).view(-1, BYTES)

    in_chunks(work, len(flat), WEIGHTS, weights.device)
    return packed.view(*weights.shape[:-1], -1)


def _fit_columns(x: Tensor, first: int) -> Blocks:
    """Return the super-blocks of groups x [16, 16 n], the first being super-block `first`."""
    scale, quants = search(x)
    scale = scale.view(-1, 16)
    steepest = _first_largest(scale.T)
    empty = steepest.abs() < NOTHING
    factor = finite_quotient(-128.0, steepest).masked_fill_(empty, 0)
    d = half(quotient(1.0, factor).masked_fill_(empty, 0), "q6_k", first, "weights up to 2.6e8 can be held")
    scales = factor[:, None].mul(scale).round_().clamp_(-128, 127)
    step = (d.float()[:, None] * scales).view(-1)
    rounded = torch.div(x, step).round_().clamp_(-MIDDLE, MIDDLE - 1).add_(MIDDLE)
    # nothing to divide by: the reference leaves what the search had
    rounded = torch.where(step == 0, quants, rounded)
    rounded = rounded.view(16, -1, 16).masked_fill_(empty[None, :, None], 0)
    return Blocks(d, scales.to(torch.int8), rounded.byte().permute(1, 2, 0).contiguous())


def search(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale [n] and q [16, n] that the reference search finds for groups x [16, n] (make_qx_quants).

    The weight of largest magnitude is put near -32, at 19 places; of each rounding the least-squares scale, weighted
    by the squares, is taken, and the best by explained weighted sum of squares is kept.
    """
    extreme = _first_largest(x)
    zero = extreme.abs() < NOTHING
    moment = torch.mul(x, x)
    importance = moment.clone()
    moment.mul_(x)
    rounded, room = torch.empty_like(x), torch.empty_like(x)

    def attempt(steps: float) -> tuple[Tensor, Tensor, Tensor]:
        factor = finite_quotient(-steps, extreme)
        torch.mul(x, factor, out=rounded).round_().clamp_(-MIDDLE, MIDDLE - 1)
        qx = running_sum(torch.mul(moment, rounded, out=room))
        qq = running_sum(torch.mul(importance, rounded, out=room).mul_(rounded))
        return factor, qx, qq

    kept, qx, qq = attempt(float(MIDDLE))
    scale = torch.where(qq != 0, qx / qq, 0.0)
    best = scale * qx
    for steps in TRIALS:
        factor, qx, qq = attempt(steps)
        better = (qq > 0) & (qx * qx > best * qq)
        found = qx / qq
        scale = torch.where(better, found, scale)
        best = torch.where(better, found * qx, best)
        kept = torch.where(better, factor, kept)
    quants = torch.mul(x, kept).round_().clamp_(-MIDDLE, MIDDLE - 1).add_(MIDDLE)
    return scale.masked_fill_(zero, 0), quants.masked_fill_(zero, 0)


def _first_largest(x: Tensor) -> Tensor:
    """Return of each column of x [m, n] the value of largest magnitude, the first where several are: [n]."""
    largest = x[0].clone()
    for row in x[1:]:
        torch.where(row.abs() > largest.abs(), row, largest, out=largest)
    return largest


def pack(blocks: Blocks) -> Tensor:
    """Return super-blocks as bytes, uint8 [..., n * 210]."""
    lead = blocks.d.shape
    packed = torch.empty(*lead, BYTES, dtype=torch.uint8, device=blocks.d.device)
    halves = blocks.quants.reshape(*lead, 2, 4, 32)
    low, high = halves & 15, halves >> 4
    packed[..., 0:128] = (low[..., :2, :] | low[..., 2:, :] << 4).flatten(-3)
    two = high[..., 0, :] | high[..., 1, :] << 2 | high[..., 2, :] << 4 | high[..., 3, :] << 6
    packed[..., 128:192] = two.flatten(-2)
    packed[..., 192:208] = blocks.scales.view(torch.uint8)
    packed[..., 208:210] = blocks.d.unsqueeze(-1).view(torch.uint8)
    return packed.flatten(-2)


def unpack(packed: Tensor) -> Blocks:
    """Return the super-blocks that stand in bytes [..., n * 210]. Raises TypeError or ValueError for other shapes."""
    byte_rows(packed, BYTES, "q6_k")
    rows = packed.unflatten(-1, (-1, BYTES))
    low = rows[..., 0:128].unflatten(-1, (2, 1, 64))
    low = torch.cat((low & 15, low >> 4), dim=-2).unflatten(-1, (2, 32)).flatten(-3, -2)
    two = rows[..., 128:192].unflatten(-1, (2, 1, 32))
    high = torch.cat((two & 3, two >> 2 & 3, two >> 4 & 3, two >> 6), dim=-2)
    quants = (low | high << 4).flatten(-3).unflatten(-1, (16, 16))
    scales = rows[..., 192:208].contiguous().view(torch.int8)
    return Blocks(rows[..., 208:210].contiguous().view(torch.float16).squeeze(-1), scales, quants)


def dequantize(packed: Tensor) -> Tensor:
    """Return packed [..., n * 210] as weights, float32 [..., n * 256], bit for bit those of `gguf`."""
    rows = byte_rows(packed, BYTES, "q6_k")
    weights = torch.empty(len(rows), WEIGHTS, device=packed.device)
    in_chunks(lambda part: dequantize_rows(rows[part], weights[part]), len(rows), WEIGHTS, packed.device)
    return weights.view(*packed.shape[:-1], -1)


def dequantize_rows(rows: Tensor, weights: Tensor) -> None:
    """Write super-blocks [n, 210] into weights, float32 [n, 256]."""
    blocks = unpack(rows)
    steps = blocks.d.float() * blocks.scales.squeeze(1).float()
    groups = weights.view(-1, 16, 16)
    groups.copy_(blocks.quants.view(-1, 16, 16))
    groups.sub_(MIDDLE).mul_(steps[..., None])
