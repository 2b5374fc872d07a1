"""Q8_0: 32 weights in 34 bytes, weight = d * q: d as float16, then q as int8 (llama.cpp, block_q8_0)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sovereign.quantization.arithmetic import byte_rows, finite_quotient, float32_rows, half, in_chunks, quotient

WEIGHTS, BYTES = 32, 34


@dataclass(frozen=True)
class Blocks:
    """Blocks, unpacked; n of them in a row."""

    d: Tensor  # float16 [..., n]
    quants: Tensor  # int8 [..., n, 32]


def quantize(weights: Tensor) -> Tensor:
    """Return weights [..., k] as packed blocks, uint8 [..., k / 32 * 34]: the bytes that llama.cpp writes to files.

    Halves are rounded away from zero, as there. (Activations, which meet Q8_0 weights as Q8_0 too, are rounded
    to even.) Takes and refuses what `q4k.quantize` does, but rows are multiples of 32.
    """
    flat = float32_rows(weights, WEIGHTS, "q8_0")
    packed = torch.empty(len(flat), BYTES, dtype=torch.uint8, device=weights.device)

    def work(part: slice) -> None:
        x = flat[part]
        step = quotient(x.abs().amax(1), 127.0)
        scaled = x * finite_quotient(1.0, step)[:, None]
        # floor(|x| + 1/2) would round a value just below a half upwards
        whole = scaled.trunc()
        away = whole + torch.where((scaled - whole).abs() >= 0.5, scaled.sign(), 0.0)
        d = half(step, "q8_0", part.start, "weights up to 8.3e6 can be held")
        packed[part] = pack(Blocks(d, away.to(torch.int8))).view(-1, BYTES)

    in_chunks(work, len(flat), WEIGHTS, weights.device)
    return packed.view(*weights.shape[:-1], -1)


def quantize_activations(x: Tensor) -> Blocks:
    """Return activations [..., k] as llama.cpp rounds them to meet Q8_0 weights on x86: halves to even, and the
    quants counted in steps of amax / 127 before that is rounded to float16. Takes what `quantize` does.
    """
    flat = float32_rows(x, WEIGHTS, "q8_0")
    largest = flat.abs().amax(1)
    quants = flat.mul(finite_quotient(127.0, largest)[:, None]).round_().to(torch.int8)
    d = half(quotient(largest, 127.0), "q8_0", 0, "activations up to 8.3e6 can be held")
    lead = (*x.shape[:-1], x.shape[-1] // WEIGHTS)
    return Blocks(d.view(lead), quants.view(*lead, WEIGHTS))


def pack(blocks: Blocks) -> Tensor:
    """Return blocks as bytes, uint8 [..., n * 34]."""
    d = blocks.d.unsqueeze(-1).view(torch.uint8)
    return torch.cat((d, blocks.quants.view(torch.uint8)), dim=-1).flatten(-2)


def unpack(packed: Tensor) -> Blocks:
    """Return the blocks that stand in bytes [..., n * 34]. Raises TypeError or ValueError for other shapes."""
    byte_rows(packed, BYTES, "q8_0")
    rows = packed.unflatten(-1, (-1, BYTES))
    d, quants = rows[..., :2].contiguous().view(torch.float16).squeeze(-1), rows[..., 2:].contiguous().view(torch.int8)
    return Blocks(d, quants)


def dequantize(packed: Tensor) -> Tensor:
    """Return packed [..., n * 34] as weights, float32 [..., n * 32], bit for bit those of `gguf`."""
    rows = byte_rows(packed, BYTES, "q8_0")
    weights = torch.empty(len(rows), WEIGHTS, device=packed.device)
    in_chunks(lambda part: dequantize_rows(rows[part], weights[part]), len(rows), WEIGHTS, packed.device)
    return weights.view(*packed.shape[:-1], -1)


def dequantize_rows(rows: Tensor, weights: Tensor) -> None:
    """Write blocks [n, 34] into weights, float32 [n, 32]."""
    blocks = unpack(rows)
    weights.copy_(blocks.quants.view(-1, WEIGHTS)).mul_(blocks.d.float())
