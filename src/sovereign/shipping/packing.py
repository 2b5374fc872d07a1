"""Which type each tensor of an export gets, and its bytes."""

from __future__ import annotations

import gguf
import numpy as np
from gguf.constants import GGMLQuantizationType
from torch import Tensor

from sovereign.contract.model import Decoder as Shape
from sovereign.shipping.weights import Raw, expected

RECIPES = ("q4_k_m", "q4_k", "q8_0", "f16", "f32")


def recipe(name: str, shape: Shape, vocabulary: int) -> dict[str, str]:
    """Return the type of every tensor under a recipe; raises ValueError where rows do not divide into its blocks."""
    kind = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0"}[name]
    return {one: kind if len(size) == 2 else "F32" for one, size in expected(shape, vocabulary).items()}


def pack(kind: str, tensor: Tensor) -> Raw:
    """Return a float32 matrix in a type's bytes, [rows, bytes a row]."""
    found = gguf.quants.quantize(tensor.contiguous().numpy(), GGMLQuantizationType[kind])
    return np.ascontiguousarray(found).view(np.uint8)
