"""Q4_K: 256 weights in 144 bytes, weight = d * scale * q - dmin * minimum, with q of 4 bits (llama.cpp, block_q4_K).

    bytes     0-1   d, float16          bytes 4-15   eight 6-bit scales and eight 6-bit minima, one of each for 32 weights
              2-3   dmin, float16             16-143  q: of sub-blocks 2j and 2j + 1 together 32 bytes, 2j in the low nibbles

The 12 bytes hold scales 0-3 and minima 0-3 in their low six bits, then scales 4-7 and minima 4-7 as low and high
nibbles; the two high bits of the latter stand above the former. Numbers are little-endian.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sovereign.quantization.arithmetic import (
    SUPER,
    aligned,
    byte_rows,
    finite_quotient,
    float32_rows,
    half,
    in_chunks,
    quotient,
    root,
    running_sum,
)

WEIGHTS, BYTES = SUPER, 144  # of a super-block
TOP = 15  # the largest q
SIXES, TOPS, NIBBLES, LOW_NIBBLES = 0x3F3F3F3F, 0x30303030, 0x0F0F0F0F, 0x0F0F0F0F0F0F0F0F  # masks of bytes in words
REACH = "weights from -4.1e6 up, 6.2e7 from the smallest to the largest, can be held"
# how many steps above the smallest weight the largest is put: the plain guess, then 21 trials, in float32 as C counts
TRIALS = [float(np.float32(-1) + np.float32(0.1) * np.float32(trial) + np.float32(TOP)) for trial in range(21)]


@dataclass(frozen=True)
class Blocks:
    """Super-blocks, unpacked; n of them in a row."""

    d: Tensor  # float16 [..., n], what a scale of 1 stands for
    dmin: Tensor  # float16 [..., n]
    scales: Tensor  # uint8 [..., n, 8], 0 to 63
    minima: Tensor  # uint8 [..., n, 8], 0 to 63
    quants: Tensor  # uint8 [..., n, 8, 32], 0 to 15


def quantize(weights: Tensor) -> Tensor:
    """Return weights [..., k] as packed super-blocks, uint8 [..., k / 256 * 144]: the bytes that llama.cpp writes.

    The weights are float32, float16 or bfloat16, finite, and their rows a multiple of 256 long. Raises
    TypeError or ValueError with the place otherwise, and where a scale exceeds float16 (about 6.2e7 of range).
    """
    return pack(fit(weights))


def fit(weights: Tensor) -> Blocks:
    """Return the super-blocks that the reference search finds for weights [..., k]; see `quantize`."""
    flat = float32_rows(weights, WEIGHTS, "q4_k")
    n, device = len(flat), weights.device
    d, dmin = (torch.empty(n, dtype=torch.float16, device=device) for _ in range(2))
    scales, minima = (torch.empty(n, 8, dtype=torch.uint8, device=device) for _ in range(2))
    quants = torch.empty(n, 8, 32, dtype=torch.uint8, device=device)

    def work(part: slice) -> None:
        found = _fit_columns(flat[part].view(-1, 32).T.contiguous(), part.start)
        for whole, mine in zip((d, dmin, scales, minima, quants), found, strict=True):
            whole[part] = mine

    in_chunks(work, n, WEIGHTS, device)
    lead = (*weights.shape[:-1], weights.shape[-1] // WEIGHTS)
    return Blocks(
        d.view(lead), dmin.view(lead), scales.view(*lead, 8), minima.view(*lead, 8), quants.view(*lead, 8, 32)
    )


def _fit_columns(x: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return d, dmin, scales, minima and quants of sub-blocks x [32, 8 n], the first being super-block `first`."""
    search = Search(x)
    for steps in torch.tensor(TRIALS, device=x.device).unbind():
        search.attempt(steps)
    scale, low = search.scale.view(-1, 8), (-search.minimum).view(-1, 8)
    largest, lowest = scale.amax(1), low.amax(1).add_(0.0)  # no negative zero: its sign would stand in the bytes
    scales, minima = (
        finite_quotient(63.0, most)[:, None].mul(each).round_().clamp_(0, 63)
        for each, most in ((scale, largest), (low, lowest))
    )
    d = half(quotient(largest, 63.0), "q4_k", first, REACH)
    dmin = half(quotient(lowest, 63.0), "q4_k", first, REACH)
    step, offset = (d.float()[:, None] * scales).view(-1), (dmin.float()[:, None] * minima).view(-1)
    quants = torch.add(x, offset).div_(step).round_().clamp_(0, TOP)
    stuck = step == 0
    if bool(stuck.any()):  # nothing to divide by: the reference leaves what the search had
        quants[:, stuck] = search.quants()[:, stuck]
    return d, dmin, scales.byte(), minima.byte(), quants.byte().T.reshape(-1, 8, 32)


class Search:
    """The reference search for scale and minimum of sub-blocks x [32, n] (make_qkx2_quants without importances).

    `attempt` spreads the weights over so many steps, fits scale and minimum to the rounded result by weighted least
    squares, and keeps them where the weighted squared error falls. What decides the bytes: the spread starts from
    the best minimum so far, not from the smallest weight.
    """

    def __init__(self, x: Tensor):
        self.x = x
        self.rounded, self.room = torch.empty_like(x), torch.empty_like(x)
        self.products = x.new_empty(32, 3, x.shape[1])
        spread = root(running_sum(torch.mul(x, x, out=self.room)) / 32)
        self.importance = x.abs().add_(spread)
        self.total = running_sum(self.room.copy_(self.importance))
        self.first_moment = running_sum(torch.mul(self.importance, x, out=self.room))
        self.minimum, self.high = x.amin(0).clamp_(max=0), x.amax(0)
        # what the best quants were made with, to make them again
        self.steps_each, self.start = quotient(float(TOP), self.high - self.minimum), self.minimum
        self.scale = quotient(1.0, self.steps_each)
        self._round(self.steps_each)
        self.error = self._error(self.scale, self.minimum)

    def attempt(self, steps: Tensor) -> None:
        """Try one spread on every sub-block, and keep the better; `steps` is a scalar."""
        steps_each = steps / (self.high - self.minimum)
        q, (weighted, squares, cross) = self._round(steps_each), self.products.unbind(1)
        torch.mul(self.importance, q, out=weighted)
        torch.mul(weighted, q, out=squares)
        torch.mul(weighted, self.x, out=cross)
        q1, qq, qx = running_sum(self.products)
        determinant = self.total * qq - q1 * q1
        scale = (self.total * qx - self.first_moment * q1).div_(determinant)
        minimum = (qq * self.first_moment - q1 * qx).div_(determinant)
        above = minimum > 0
        scale, minimum = torch.where(above, qx / qq, scale), minimum.masked_fill_(above, 0)
        error = self._error(scale, minimum)
        # false where anything is nan: an infinite spread, or nothing to tell the weights apart
        better = (determinant > 0) & (error < self.error)
        self.error = torch.where(better, error, self.error)
        self.scale = torch.where(better, scale, self.scale)
        self.start = torch.where(better, self.minimum, self.start)
        self.steps_each = torch.where(better, steps_each, self.steps_each)
        self.minimum = torch.where(better, minimum, self.minimum)

    def quants(self) -> Tensor:
        """Return q [32, n] as the search left it, float32."""
        # an infinite spread gives 0 everywhere in C, where inf and nan become 0 on their way to a small integer
        steps_each = self.steps_each.masked_fill(torch.isinf(self.steps_each), 0)
        return torch.sub(self.x, self.start).mul_(steps_each).round_().clamp_(0, TOP)

    def _round(self, steps_each: Tensor) -> Tensor:
        return torch.sub(self.x, self.minimum, out=self.rounded).mul_(steps_each).round_().clamp_(0, TOP)

    def _error(self, scale: Tensor, minimum: Tensor) -> Tensor:
        apart = torch.mul(self.rounded, scale, out=self.room).add_(minimum).sub_(self.x)
        return running_sum(apart.mul_(apart).mul_(self.importance))


def pack(blocks: Blocks) -> Tensor:
    """Return super-blocks as bytes, uint8 [..., n * 144]."""
    lead = blocks.d.shape
    scales, minima = blocks.scales, blocks.minima
    packed = torch.empty(*lead, BYTES, dtype=torch.uint8, device=blocks.d.device)
    packed[..., 0:2] = blocks.d.unsqueeze(-1).view(torch.uint8)
    packed[..., 2:4] = blocks.dmin.unsqueeze(-1).view(torch.uint8)
    packed[..., 4:8] = scales[..., :4] | (scales[..., 4:] >> 4) << 6
    packed[..., 8:12] = minima[..., :4] | (minima[..., 4:] >> 4) << 6
    packed[..., 12:16] = (scales[..., 4:] & 15) | (minima[..., 4:] & 15) << 4
    pairs = blocks.quants.unflatten(-2, (4, 2))
    torch.add(pairs[..., 0, :], pairs[..., 1, :], alpha=16, out=packed[..., 16:].unflatten(-1, (4, 32)))
    return packed.flatten(-2)


def unpack(packed: Tensor) -> Blocks:
    """Return the super-blocks that stand in bytes [..., n * 144]. Raises TypeError or ValueError for other shapes."""
    byte_rows(packed, BYTES, "q4_k")
    rows = packed.unflatten(-1, (-1, BYTES))
    scales, minima = _scales(rows)
    nibbles = rows[..., 16:].unflatten(-1, (4, 1, 32))
    quants = torch.cat((nibbles & 15, nibbles >> 4), dim=-2).flatten(-3, -2)
    return Blocks(_half(rows[..., 0:2]), _half(rows[..., 2:4]), scales, minima, quants)


def _half(pairs: Tensor) -> Tensor:
    return pairs.contiguous().view(torch.float16).squeeze(-1)


def _scales(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales and minima, uint8 [..., 8] each, of super-blocks [..., 144]."""
    return _of_words(*rows[..., 4:16].contiguous().view(torch.int32).unbind(-1))


def _of_words(low: Tensor, middle: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales and minima, uint8 [..., 8] each, of the three int32 that hold those of a super-block."""
    scales = torch.stack((low & SIXES, (rest & NIBBLES) | (low >> 2 & TOPS)), dim=-1)
    minima = torch.stack((middle & SIXES, (rest >> 4 & NIBBLES) | (middle >> 2 & TOPS)), dim=-1)
    return scales.view(torch.uint8), minima.view(torch.uint8)


def dequantize(packed: Tensor, out: Tensor | None = None, compiled: bool = False) -> Tensor:
    """Return packed [..., n * 144] as weights, float32 [..., n * 256], bit for bit those of `gguf`.

    They are written into `out` where it is given; on a CPU, asking the system for fresh memory is what takes longest.
    With `compiled` each weight is made in one pass, by kernels that torch compiles when they are first asked for: half a
    minute once, on a CPU with a C++ compiler, and the same bits four times as fast from then on.
    """
    rows = aligned(byte_rows(packed, BYTES, "q4_k"), 8)  # nibbles are read in words of 8 bytes
    shape = (*packed.shape[:-1], packed.shape[-1] // BYTES * WEIGHTS)
    if out is None:
        out = torch.empty(shape, device=packed.device)
    elif out.shape != shape or out.dtype != torch.float32 or not out.is_contiguous():
        raise ValueError(f"out is {out.dtype} {list(out.shape)}; contiguous float32 {list(shape)} would be right")
    if compiled and packed.device.type != "cpu":
        raise ValueError(f"q4_k: packed weights are on {packed.device}; the compiled kernel is for a CPU")
    weights = out.view(-1, WEIGHTS)
    if compiled:
        fused()(rows, weights)
    else:
        in_chunks(lambda part: dequantize_rows(rows[part], weights[part]), len(rows), WEIGHTS, packed.device, 2)
    return out


def dequantize_rows(rows: Tensor, weights: Tensor) -> None:
    """Write super-blocks [n, 144], aligned to 8 bytes, into weights, float32 [n, 256]."""
    steps, offsets = _steps(rows)
    steps.view(-1, 4, 2)[:, :, 1] /= 16  # high nibbles stay where they are, 16 times as large
    steps, offsets, words = steps[..., None], offsets[..., None], rows.view(torch.int64)[:, 2:]
    size = min(len(rows), 1024) if rows.device.type == "cpu" else len(rows)
    nibbles, values = words.new_empty(size, 16), weights.new_empty(size, 8, 32)
    for start in range(0, len(rows), size):
        part = slice(start, min(start + size, len(rows)))
        some, here = nibbles[: part.stop - start], values[: part.stop - start]
        pairs = here.view(-1, 4, 2, 32)
        for at, mask in enumerate((LOW_NIBBLES, ~LOW_NIBBLES)):
            pairs[:, :, at] = torch.bitwise_and(words[part], mask, out=some).view(torch.uint8).view(-1, 4, 32)
        # d * scale * q is exact in float32 (21 bits), so the one rounding is that of the difference, here as in gguf
        torch.sub(here.mul_(steps[part]), offsets[part], out=weights[part].view(-1, 8, 32))


def _steps(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return d * scale and dmin * minimum, float32 [n, 8] each, of aligned super-blocks [n, 144]."""
    # as columns, each operation is one run over all; a copy even of a single row, which has strides of its own
    halves, *words = rows.view(torch.int32)[:, :4].t().clone(memory_format=torch.contiguous_format)
    d, dmin = halves.view(torch.float16).view(-1, 2).t().float()
    scales, minima = (each.float() for each in _of_words(*words))
    return scales.mul_(d[:, None]), minima.mul_(dmin[:, None])


@functools.cache
def fused() -> Callable[[Tensor, Tensor], None]:
    """Return `dequantize_rows` as a kernel that makes each weight in one pass, in torch's threads; torch compiles it here."""
    kernel = torch.compile(_spread, dynamic=True, fullgraph=True)
    masks, shares = torch.tensor([TOP, TOP << 4], dtype=torch.uint8), torch.tensor([1, 1 / 16])

    def write(rows: Tensor, weights: Tensor) -> None:
        kernel(rows, rows.view(torch.int32), rows.view(torch.float16), masks, shares, weights.view(-1, 4, 2, 32))

    write(torch.zeros(2, BYTES, dtype=torch.uint8), torch.empty(2, WEIGHTS))
    return write


def _spread(rows: Tensor, words: Tensor, halves: Tensor, masks: Tensor, shares: Tensor, weights: Tensor) -> None:
    """Write super-blocks [n, 144], also seen as words [n, 36] and halves [n, 72], into weights [n, 4, 2, 32]."""
    scales, minima = (each.float() for each in _of_words(*words[:, 1:4].unbind(-1)))
    steps = halves[:, 0].float().view(-1, 1, 1, 1) * scales.view(-1, 4, 2, 1) * shares.view(2, 1)
    offsets = halves[:, 1].float().view(-1, 1, 1, 1) * minima.view(-1, 4, 2, 1)
    weights.copy_((rows[:, 16:].view(-1, 4, 1, 32) & masks.view(2, 1)).float() * steps - offsets)
