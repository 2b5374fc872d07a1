"""Tensors as stored, against the reference's in the same type: byte by byte, since no prompt touches every weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray
from torch import Tensor

from sovereign.quantization import noise
from sovereign.quantization.formats import FORMATS
from sovereign.shipping.packing import pack
from sovereign.shipping.weights import Raw, Weights

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class TensorParity:
    """One tensor of a candidate against the reference's."""

    tensor: str
    type: str
    relative_error: float
    expected_error: float
    blocks: int
    differing: int
    suspicion: str


def tensors(reference: Weights, candidate: Weights) -> Iterator[TensorParity]:
    """Yield every tensor that both sides store, in order; a type that is not quantized here counts all blocks as other."""
    for name, stored in candidate.stored.items():
        if name not in reference.stored:
            continue
        wanted, found = reference.tensor(name), stored.read()
        theirs = np.ascontiguousarray(stored.raw())
        size = GGML_QUANT_SIZES[GGMLQuantizationType[stored.kind]][1]
        error = float((found.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-300))
        ours = packed(stored.kind, wanted)
        if ours is None:
            yield TensorParity(name, stored.kind, error, 0.0, theirs.size // size, theirs.size // size, "a type that is not quantized here")  # fmt: skip
            continue
        first, second = ours.reshape(-1, size), theirs.reshape(-1, size)
        other = (first != second).any(axis=1)
        quantized = stored.kind.lower() in ("q4_k", "q6_k", "q8_0", "f16")
        expected = noise.expected(torch.from_numpy(ours), stored.kind.lower()) if quantized else 0.0
        said = suspicion(stored.kind, wanted, first, second, other) if other.any() else ""
        yield TensorParity(name, stored.kind, error, expected, len(other), int(other.sum()), said)


def packed(kind: str, tensor: Tensor) -> Raw | None:
    """Return a reference's tensor in a type's bytes, or None for a type that we only read."""
    if kind == "BF16":
        return tensor.reshape(tensor.shape[0], -1).bfloat16().contiguous().view(torch.uint8).numpy()
    if kind.lower() not in FORMATS:
        return None
    return pack(kind, tensor.reshape(tensor.shape[0], -1))


def suspicion(kind: str, wanted: Tensor, ours: Bytes, theirs: Bytes, other: NDArray[np.bool_]) -> str:
    """Return what, done to our blocks, gives theirs; or how many differ where nothing known does."""
    count = f"{int(other.sum())} of {len(other)} blocks"
    for what, made in _made(
        kind, wanted, ours[other] if kind == "Q4_K" else ours, theirs[other] if kind == "Q4_K" else theirs
    ):
        if np.array_equal(made, theirs[other] if kind == "Q4_K" else theirs):
            return f"{what} in {count}" if kind == "Q4_K" else what
    bits = int(np.unpackbits(ours[other] ^ theirs[other]).sum())
    first = int(other.nonzero()[0][0])
    return f"{bits} bits differ, in {count}, the first in block {first}" if bits <= 8 else f"{count} differ"


def _made(kind: str, wanted: Tensor, ours: Bytes, theirs: Bytes) -> Iterator[tuple[str, Bytes]]:
    if kind == "Q4_K":
        yield from _made_q4k(ours, theirs)
    matrix = wanted.reshape(wanted.shape[0], -1)
    if kind != "Q4_K" and matrix.shape[1] > 1:
        block = ours.shape[1]
        for what, changed in {
            "transposed": matrix.T.contiguous().reshape(matrix.shape),
            "rows in reverse order": matrix.flip(0),
            "sign changed": -matrix,
        }.items():
            made = packed(kind, changed)
            if made is not None:
                yield what, made.reshape(-1, block)


def _made_q4k(ours: Bytes, theirs: Bytes) -> Iterator[tuple[str, Bytes]]:
    def edited(columns: slice | list[int], values: NDArray[Any]) -> Bytes:
        made = ours.copy()
        made[:, columns] = values
        return made

    with np.errstate(all="ignore"):
        before, after = (one[:, 0:2].copy().view(np.float16).astype(np.float64) for one in (ours, theirs))
        factor = float(np.nanmedian(after / before))
        scaled = (before * factor).astype(np.float16).view(np.uint8)
    yield f"block scale wrong by a factor of {factor:.4g}", edited(slice(0, 2), scaled)
    yield "minima zeroed", edited(slice(2, 4), np.zeros((len(ours), 2), np.uint8))
    yield "d and dmin swapped", edited([0, 1, 2, 3], ours[:, [2, 3, 0, 1]])
    yield "high bits of the scales lost", edited(slice(4, 12), ours[:, 4:12] & 63)
    yield "nibbles swapped", edited(slice(16, 144), ours[:, 16:] >> 4 | ours[:, 16:] << 4)
    yield "only nibbles differ", edited(slice(16, 144), theirs[:, 16:])
    yield "only scales and minima differ", edited(slice(4, 16), theirs[:, 4:16])
