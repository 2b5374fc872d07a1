"""Which tensor of a GGUF file gets which format: what `llama_model_quantize` decides, written out and checked.

Where a row does not fill blocks, llama.cpp quietly takes another format and says so in a log only. Here it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sovereign.quantization.formats import FORMATS

RECIPES = ("q4_k_m", "q4_k", "q8_0", "f16", "f32")
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
_MATRICES = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}
_MORE_BITS = {"attn_v", "ffn_down"}  # what Q4_K_M spends six bits on, in some layers


def tensor_types(shapes: Mapping[str, tuple[int, ...]], recipe: str) -> dict[str, str]:
    """Return the format name of every tensor of a Llama-family model, by its GGUF name, in the order of `shapes`.

    Shapes are torch's, [outputs, inputs], so that the last number is the length of a row. Vectors (norms, biases)
    stay float32. `q4_k` is what llama.cpp calls pure: every matrix, embeddings and output too. `q4_k_m` gives six
    bits to the output, or to the embeddings where they are the output too, and to attn_v and ffn_down of the
    first and last eighth of the layers and every third between. `f32`, `f16` and `q8_0` hold for every matrix.

    Raises ValueError for an unknown recipe, a row that blocks do not fill, and, with `q4_k_m`, for tensors of
    which llama.cpp thinks otherwise than is written here; each names the tensor.
    """
    if recipe not in RECIPES:
        raise ValueError(f"{recipe!r} is no recipe; known are {', '.join(RECIPES)}")
    layers = 1 + max((int(found[1]) for name in shapes if (found := _LAYER.fullmatch(name))), default=-1)
    types = {}
    for name, shape in shapes.items():
        if len(shape) < 2:
            types[name] = "f32"
            continue
        chosen = _mixed(name, layers, "output.weight" in shapes) if recipe == "q4_k_m" else recipe
        block = FORMATS[chosen].block
        if shape[-1] % block:
            raise ValueError(
                f"{name}: rows of {shape[-1]} weights cannot be {chosen}, which holds {block} in a block; "
                f"choose sizes that are multiples of {block}, or the recipe f16"
            )
        types[name] = chosen
    return types


def _mixed(name: str, layers: int, output: bool) -> str:
    """Return the format that Q4_K_M gives a matrix of a model with so many layers."""
    if name == "output.weight" or (name == "token_embd.weight" and not output):
        return "q6_k"
    if name == "token_embd.weight":
        return "q4_k"
    found = _LAYER.fullmatch(name)
    if found is None or found[2] not in _MATRICES:
        raise ValueError(f"{name}: q4_k_m is known here for Llama's matrices: token_embd, output, {sorted(_MATRICES)}")
    if layers == 80 and found[2] == "attn_v":
        raise ValueError(f"{name}: with 80 layers llama.cpp takes the model for a 70B and attn_v becomes q5_k")
    return "q6_k" if found[2] in _MORE_BITS and more_bits(int(found[1]), layers) else "q4_k"


def more_bits(layer: int, layers: int) -> bool:
    """Return whether Q4_K_M gives this layer's attn_v and ffn_down six bits."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
