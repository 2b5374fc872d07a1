"""Recipes: the formats that llama.cpp's own quantizer gives, and an error where it would quietly give another."""

import collections
import ctypes
import re

import gguf
import numpy as np
import pytest

from sovereign.quantization.recipe import RECIPES, tensor_types


def shapes(layers, tied=False, hidden=256, ffn=512, vocabulary=300):
    """Return the tensors of a Llama of that size by their GGUF names, shapes as torch has them."""
    found = {"token_embd.weight": (vocabulary, hidden), "output_norm.weight": (hidden,)}
    if not tied:
        found["output.weight"] = (vocabulary, hidden)
    for layer in range(layers):
        square = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (hidden, hidden))
        wide = {"ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden), "ffn_down": (hidden, ffn)}
        norms = dict.fromkeys(("attn_norm", "ffn_norm"), (hidden,))
        found |= {f"blk.{layer}.{name}.weight": shape for name, shape in (square | wide | norms).items()}
    return found


def test_four_layers_have_25_matrices_of_four_bits_and_5_of_six():
    """Q4_K_M of four layers is what was counted in llama.cpp's output, norms float32."""
    types = tensor_types(shapes(4), "q4_k_m")

    assert {"q4_k": 25, "q6_k": 5, "f32": 9} == collections.Counter(types.values())
    assert {"output.weight"} | {
        f"blk.{layer}.{name}.weight" for layer in (2, 3) for name in ("attn_v", "ffn_down")
    } == {name for name, kind in types.items() if kind == "q6_k"}


@pytest.mark.parametrize("recipe", ["q4_k", "q8_0", "f16", "f32"])
def test_a_pure_recipe_holds_for_every_matrix(recipe):
    """Everything but q4_k_m gives every matrix the same, and vectors float32."""
    types = tensor_types(shapes(3), recipe)

    assert {recipe} == {types[name] for name, shape in shapes(3).items() if len(shape) == 2}
    assert {"f32"} == {types[name] for name, shape in shapes(3).items() if len(shape) == 1}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 4, 9, 17])
def test_llama_cpp_gives_the_same_types(layers, tied, tmp_path):
    """llama_model_quantize, asked for the same recipe, writes every tensor in the type given here."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama_model_quantize of llama-cpp-python")
    source, target = tmp_path / "f32.gguf", tmp_path / "quantized.gguf"
    write(source, shapes(layers, tied), layers)
    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    for recipe, number in {"q4_k_m": 15, "q4_k": 15, "q8_0": 7, "f16": 1}.items():  # of llama_ftype
        asked = llama_cpp.llama_model_quantize_default_params()
        asked.ftype, asked.pure, asked.nthread = number, recipe == "q4_k", 1
        assert 0 == llama_cpp.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(asked))
        written = {each.name: each.tensor_type.name.lower() for each in gguf.GGUFReader(target).tensors}

        assert written == tensor_types(shapes(layers, tied), recipe)


def write(path, tensors, layers):
    """Write a GGUF file of a Llama with random weights, just enough for llama.cpp to quantize it."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(128)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(512)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{token}" for token in range(300)])
    writer.add_token_types([1] * 300)
    writer.add_token_merges([])
    draw = np.random.default_rng(0)
    for name, shape in tensors.items():
        writer.add_tensor(name, draw.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(("recipe", "block"), [("q4_k_m", 256), ("q4_k", 256), ("q8_0", 32)])
def test_a_row_that_blocks_do_not_fill_is_an_error(recipe, block):
    """The tensor, its row and the multiple are named, where llama.cpp would take another type in silence."""
    with pytest.raises(ValueError, match=rf"^blk.0.ffn_down.weight: rows of 520 .* multiples of {block}"):
        tensor_types(shapes(1, ffn=520), recipe)


def test_what_is_not_known_is_refused():
    """A misspelt recipe, and with q4_k_m a matrix or a depth for which llama.cpp has rules of its own, are errors."""
    with pytest.raises(ValueError, match=re.escape("'q4_k_s' is no recipe; known are " + ", ".join(RECIPES))):
        tensor_types(shapes(1), "q4_k_s")
    with pytest.raises(ValueError, match=r"^blk\.0\.attn_qkv\.weight: "):
        tensor_types({"blk.0.attn_qkv.weight": (768, 256)}, "q4_k_m")
    with pytest.raises(ValueError, match="70B"):
        tensor_types(shapes(80), "q4_k_m")
