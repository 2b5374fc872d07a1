"""Which type each tensor of an export gets, and its bytes."""

from __future__ import annotations

from torch import Tensor

from sovereign.contract.model import Decoder as Shape
from sovereign.quantization.formats import FORMATS
from sovereign.quantization.recipe import tensor_types
from sovereign.shipping.gguf_model import file_name
from sovereign.shipping.weights import Raw, expected


def recipe(name: str, shape: Shape, vocabulary: int) -> dict[str, str]:
    """Return ggml's type of every tensor under a recipe; raises ValueError where rows do not divide into its blocks."""
    sizes = {file_name(one): (one, size) for one, size in expected(shape, vocabulary).items()}
    types = tensor_types({theirs: size for theirs, (_, size) in sizes.items()}, name)
    return {sizes[theirs][0]: kind.upper() for theirs, kind in types.items()}


def pack(kind: str, tensor: Tensor) -> Raw:
    """Return a float32 matrix in a type's bytes, [rows, bytes a row]."""
    found: Raw = FORMATS[kind.lower()].quantize(tensor.contiguous()).numpy()
    return found
