"""Float32 arithmetic with the roundings of llama.cpp's reference quantizers, which are compiled without fused operations.

A search that keeps the best of many trials turns a last-digit difference into another block, so four things are as
they are there: sums run from left to right, a quotient is one division, a root is correctly rounded, and
products and sums round one after the other. Blocks stand in columns, [weights of a block, blocks], so that
adding two weights of every block is one contiguous operation.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

SUPER = 256  # weights of a super-block, and what a row's length must be a multiple of
HELD = 2**19  # weights a thread takes at once: of fewer it waits for the interpreter, and more leave the cache
SHARED = 2**16  # weights that are worth more than one thread


def float32_rows(weights: Tensor, multiple: int, what: str) -> Tensor:
    """Return finite weights [..., k] as contiguous float32 [n, multiple], or say what is wrong with them.

    Raises TypeError for a dtype that float32 does not hold exactly, ValueError for a shape or a value.
    """
    if weights.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"{what}: weights are {weights.dtype}; float32, float16 or bfloat16 would be right")
    if weights.dim() == 0 or weights.shape[-1] == 0 or weights.shape[-1] % multiple:
        raise ValueError(f"{what}: shape {list(weights.shape)}: a row's length must be a multiple of {multiple}")
    flat = weights.detach().reshape(-1, multiple).float().contiguous()
    if not bool(torch.isfinite(flat.sum(dtype=torch.float64))):  # one pass: a sum in float64 cannot overflow by itself
        at = int((~torch.isfinite(flat)).flatten().nonzero()[0])
        row, column = divmod(at, weights.shape[-1])
        raise ValueError(f"{what}: row {row}, column {column} is {float(flat.flatten()[at])}; weights must be finite")
    return flat


def byte_rows(packed: Tensor, block: int, what: str) -> Tensor:
    """Return packed blocks [..., bytes] as [n, block], or raise TypeError or ValueError where they are none."""
    if packed.dtype != torch.uint8:
        raise TypeError(f"{what}: packed weights are {packed.dtype}; uint8 would be right")
    if packed.dim() == 0 or packed.shape[-1] == 0 or packed.shape[-1] % block:
        raise ValueError(f"{what}: shape {list(packed.shape)}: a row's bytes must be a multiple of {block}")
    return packed.reshape(-1, block)


def aligned(packed: Tensor, size: int) -> Tensor:
    """Return bytes without gaps at an address that words of `size` bytes may be read from; a copy where need be."""
    if packed.is_contiguous() and packed.storage_offset() % size == 0:
        return packed
    return packed.clone(memory_format=torch.contiguous_format)


def quotient(numerator: float | Tensor, denominator: float | Tensor) -> Tensor:
    """Return numerator / denominator rounded once, one of them a tensor.

    Torch turns a number over a tensor, and on a GPU a tensor over a number, into a product with a rounded reciprocal.
    """
    if isinstance(denominator, Tensor):
        if not isinstance(numerator, Tensor):
            numerator = torch.full((), numerator, dtype=denominator.dtype, device=denominator.device)
        return numerator / denominator
    assert isinstance(numerator, Tensor)
    return numerator / torch.full((), denominator, dtype=numerator.dtype, device=numerator.device)


def finite_quotient(numerator: float, denominator: Tensor) -> Tensor:
    """Return numerator / denominator, and 0 where that is infinite.

    In C the products with an infinite factor are inf or nan, and both end as 0 on their way to a small integer.
    """
    result = quotient(numerator, denominator)
    return result.masked_fill_(torch.isinf(result), 0)


def root(x: Tensor) -> Tensor:
    """Return the square root of float32 x correctly rounded; torch's own is a digit off for one value in five."""
    return x.double().sqrt().float()


def half(x: Tensor, what: str, first: int, reach: str) -> Tensor:
    """Return x [blocks] as float16, or raise ValueError naming the block, counted from `first`, that it cannot hold."""
    small = x.half()
    if bool(torch.isinf(small).any()):
        at = int(torch.isinf(small).nonzero()[0])
        raise ValueError(
            f"{what}: block {first + at} needs the scale {float(x[at]):.6g}, but float16 ends at 65504: {reach}"
        )
    return small


def running_sum(terms: Tensor) -> Tensor:
    """Return terms [m, ...] summed over the first axis from left to right. The terms may be overwritten."""
    m = len(terms)
    if m in (16, 32) and terms[0].numel() % 64 == 0 and terms.device.type == "cpu" and torch_sums_in_order():
        if m == 32:
            terms[16] = terms[:17].sum(0)
        return terms[m - 16 :].sum(0)
    return _added_one_by_one(terms)


def _added_one_by_one(terms: Tensor) -> Tensor:
    total = terms[0].clone()
    for term in terms[1:]:
        total += term
    return total


@functools.cache
def torch_sums_in_order() -> bool:
    """Return whether torch's sum over up to 17 rows on this CPU goes from left to right, tried out once.

    It does where rows fill its vectors, since its cascade starts a second level after 16 rows only.
    """
    draw = torch.Generator().manual_seed(0)
    tried = (torch.randn(m, 3, n, generator=draw) for m in (16, 17) for n in (64, 192, 4096))
    return all(
        torch.equal(_added_one_by_one(terms), terms.sum(0))
        for each in tried
        for terms in (each, each[:, 0], each[:, 0].contiguous())
    )


def in_chunks(work: Callable[[slice], None], blocks: int, weights: int, device: torch.device, larger: int = 1) -> None:
    """Do `work` on every slice of so many blocks of so many weights, in as many threads as torch has on a CPU.

    Each thread works on chunks of its own, all alike, of up to `larger` times HELD weights, and runs torch's operations alone: shared
    out among threads, operations this short would mostly wait for one another. Torch's own number of threads is set
    to 1 meanwhile. The first failure, in order of the blocks, is raised.
    """
    cpu = device.type == "cpu"
    threads = torch.get_num_threads() if cpu and blocks * weights > SHARED else 1
    shares = -(-blocks * weights // (larger * (HELD if cpu else 2**25)))
    size = max(1, -(-blocks // (-(-shares // threads) * threads or 1)))
    chunks = [slice(start, min(start + size, blocks)) for start in range(0, blocks, size)]
    if threads == 1:
        for chunk in chunks:
            work(chunk)
        return
    torch.set_num_threads(1)
    try:
        list(_threads(threads).map(work, chunks))
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Return threads that stay: to start them takes as long as a small matrix."""
    return ThreadPoolExecutor(count)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # threads are not there in a child
