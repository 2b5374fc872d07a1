"""Which type each tensor of an export gets, and its bytes."""

from __future__ import annotations

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from sovereign.contract.model import Decoder as Shape
from sovereign.quantization.formats import FORMATS
from sovereign.shipping.weights import EMBEDDING, HEAD, Raw, expected

PLAIN = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0", "q4_k": "Q4_K"}  # every matrix alike
RECIPES = (*PLAIN, "q4_k_m")


def recipe(name: str, shape: Shape, vocabulary: int) -> dict[str, str]:
    """Return the type of every tensor under a recipe, vectors in F32.

    Raises ValueError where a row does not divide into its type's blocks: llama.cpp's own tool would then take another
    type and go on.
    """
    sizes = expected(shape, vocabulary)
    kinds = {one: _kind(name, one, shape) if len(size) == 2 else "F32" for one, size in sizes.items()}
    wrong = {one: GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0] for one, kind in kinds.items()}
    faults = [
        f"rows of {one} have {sizes[one][-1]} weights, not a multiple of {block}, which {kinds[one]} needs"
        for one, block in wrong.items()
        if sizes[one][-1] % block
    ]
    if faults:
        more = f", as {len(faults) - 1} others do" if faults[1:] else ""
        raise ValueError(faults[0] + more)
    return kinds


def _kind(name: str, tensor: str, shape: Shape) -> str:
    if name in PLAIN:
        return PLAIN[name]
    # Q4_K_M: more bits for the head, and for v and down of the layers in which an error costs most
    # (llama.cpp, llama_tensor_get_type and use_more_bits)
    head = EMBEDDING if shape.tied_embeddings else HEAD
    if tensor == head:
        return "Q6_K"
    if tensor.endswith(("v_proj.weight", "down_proj.weight")):
        layer, eighth = int(tensor.split(".")[2]), shape.layers // 8
        if layer < eighth or layer >= 7 * shape.layers // 8 or (layer - eighth) % 3 == 2:
            return "Q6_K"
    return "Q4_K"


def pack(kind: str, tensor: Tensor) -> Raw:
    """Return a float32 matrix in a type's bytes, [rows, bytes a row]."""
    found: Raw = FORMATS[kind.lower()].quantize(tensor.contiguous()).numpy()
    return found
