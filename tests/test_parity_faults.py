"""Planted faults: each is seen, and the tensor it was planted in is named first; sound exports are never accused.

Every fault is written into a GGUF file of a trained decoder and carried out by llama.cpp where it is installed, and
by our own forward in float32 where it is not; the reference is the sound file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_edit import Array, rewritten
from trained import SHAPES, prompts, trained

from sovereign.parity.forward import forward
from sovereign.parity.llamacpp import LlamaCpp, Missing, library
from sovereign.parity.localise import Located, locate
from sovereign.parity.observed import Implementation, of_llamacpp, of_torch
from sovereign.shipping.export import export_gguf
from sovereign.shipping.gguf_model import read_gguf_model, row_order
from sovereign.shipping.weights import plain

try:
    library()
    ENGINE = True
except Missing:
    ENGINE = False


@dataclass(frozen=True)
class Fault:
    """What is done to a file, the tensor (or operation) to be named, and words of the suspicion that must stand."""

    name: str
    quantize: str
    names: str
    said: str = ""
    edit: dict[str, Any] = field(default_factory=dict)
    model: str = "tied"
    engine_only: bool = False  # our reader refuses the file, which is its way of seeing it


def heads_swapped(dim: int) -> Callable[[Array], Array]:
    def swap(rows: Array) -> Array:
        rows = rows.copy()
        rows[:dim], rows[dim : 2 * dim] = rows[dim : 2 * dim].copy(), rows[:dim].copy()
        return rows

    return swap


def columns(edit: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda rows: edit(rows.T).T


def unrotated(rows: Array) -> Array:
    """Put rows of q or k back into our order, as an exporter that forgets the permutation leaves them."""
    return rows[np.argsort(row_order(len(rows) // 64, 64).numpy())]


def changed(row: int, edit: Callable[[Array], Any]) -> Callable[[Array], Array]:
    def apply(rows: Array) -> Array:
        rows = rows.copy()
        rows[row] = edit(rows[row])
        return rows

    return apply


def one_weight(rows: Array) -> Array:
    rows = rows.copy()
    rows[3, 5] += 0.05
    return rows


def reshaped(rows: Array) -> Array:
    return rows.T.copy().reshape(rows.shape)


def blocks(edit: Callable[[Array], None], only: int | None = None, size: int = 144) -> Callable[[Array], Array]:
    """Edit packed blocks [n, bytes], all of them or one."""

    def apply(rows: Array) -> Array:
        packed = rows.copy().reshape(-1, size)
        edit(packed if only is None else packed[only : only + 1])
        return packed.reshape(rows.shape)

    return apply


def half(packed: Array, at: int) -> Array:
    return packed[:, at : at + 2].copy().view(np.float16)


def doubled(at: int) -> Callable[[Array], None]:
    def edit(packed: Array) -> None:
        packed[:, at : at + 2] = (half(packed, at) * np.float16(2)).view(np.uint8)

    return edit


def nibbles_swapped(packed: Array) -> None:
    packed[:, 16:] = packed[:, 16:] >> 4 | packed[:, 16:] << 4


def minima_zeroed(packed: Array) -> None:
    packed[:, 2:4] = 0


def scales_exchanged(packed: Array) -> None:
    packed[:, 0:4] = packed[:, [2, 3, 0, 1]]


def high_bits_lost(packed: Array) -> None:
    packed[:, 4:12] &= 63


def one_bit(packed: Array) -> None:
    packed[:, 40] ^= 8


def scale_off_by_one(packed: Array) -> None:
    packed[:, 5] ^= 1


def sign_of_a_scale(packed: Array) -> None:
    packed[:, 195] = -packed[:, 195].view(np.int8).view(np.uint8)


def layer(index: int, part: str) -> str:
    return f"model.layers.{index}.{part}.weight"


Q, K, V, OUT = "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"
GATE, UP, DOWN, ATTN_NORM, FFN_NORM = "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm"  # fmt: skip
HEAD, EMBEDDING, NORM = "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"


def edits(**tensors: Callable[[Array], Array]) -> dict[str, Any]:
    """Name a tensor's edit as blk_1_attn_q=..., or whole_output=..."""
    named = {}
    for key, edit in tensors.items():
        parts = key.split("_", 2)
        named[f"blk.{parts[1]}.{parts[2]}.weight" if parts[0] == "blk" else key.removeprefix("whole_") + ".weight"] = (
            edit
        )
    return {"tensors": named}


def copied(**tensors: str) -> dict[str, Any]:
    return {"copies": {key.replace("__", ".") + ".weight": value + ".weight" for key, value in tensors.items()}}


ONES = np.ones_like
USED = prompts(4, 64)[0][5]  # a token that a prompt holds: a row that none touches shows in no forward pass
FAULTS = [
    Fault("attention output transposed", "f32", layer(1, OUT), "transposed", edits(blk_1_attn_output=lambda w: w.T)),
    Fault("head transposed", "f32", HEAD, "transposed", edits(whole_output=reshaped), "untied"),
    Fault("q and k permutation missing", "f32", layer(0, Q), "rope permutation missing",
          edits(**{f"blk_{at}_attn_{part}": unrotated for at in (0, 1) for part in "qk"})),
    Fault("q permutation missing, one layer", "f32", layer(1, Q), "rope permutation missing", edits(blk_1_attn_q=unrotated)),
    Fault("k permutation missing, one layer", "f32", layer(1, K), "rope permutation missing", edits(blk_1_attn_k=unrotated)),
    Fault("rope base 500,000", "f32", "layer 0 q_rope", "rope base 500000 instead of 10000$", {"metadata": {"llama.rope.freq_base": 500000.0}}),
    Fault("rope base 5 % off", "f32", "layer 0 q_rope", "rope base 10500 instead of 10000$", {"metadata": {"llama.rope.freq_base": 10500.0}}),
    Fault("norm epsilon 1e-3", "f32", layer(0, ATTN_NORM), "epsilon 0.001", {"metadata": {"llama.attention.layer_norm_rms_epsilon": 1e-3}}),
    Fault("norm epsilon 1e-6", "f32", layer(0, ATTN_NORM), "epsilon 1e-06", {"metadata": {"llama.attention.layer_norm_rms_epsilon": 1e-6}}),
    Fault("key heads swapped", "f32", layer(1, K), r"order \[1, 0", edits(blk_1_attn_k=heads_swapped(64))),
    Fault("heads swapped on the way out", "f32", layer(1, OUT), "heads 0 and 1 swapped", edits(blk_1_attn_output=columns(heads_swapped(64)))),
    Fault("gate and up swapped", "f32", layer(0, GATE), "holds another tensor: .*up_proj", copied(blk__0__ffn_gate="blk.0.ffn_up", blk__0__ffn_up="blk.0.ffn_gate")),
    Fault("k and v swapped", "f32", layer(0, K), r"holds another tensor: .*layers\.0\..*v_proj", copied(blk__0__attn_k="blk.0.attn_v", blk__0__attn_v="blk.0.attn_k")),
    Fault("another layer's q", "f32", layer(1, Q), r"holds another tensor: .*layers\.0\..*q_proj", copied(blk__1__attn_q="blk.0.attn_q")),
    Fault("a norm replaced by ones", "f32", layer(1, ATTN_NORM), "by ones", edits(blk_1_attn_norm=ONES)),
    Fault("the last norm replaced by ones", "f32", NORM, "by ones", edits(whole_output_norm=ONES)),
    Fault("two norms swapped", "f32", layer(1, ATTN_NORM), "holds another tensor: .*post_attention", copied(blk__1__attn_norm="blk.1.ffn_norm", blk__1__ffn_norm="blk.1.attn_norm")),
    Fault("one tensor scaled by 1.02", "f32", layer(0, DOWN), "factor of 1.02", edits(blk_0_ffn_down=lambda w: w * np.float32(1.02))),
    Fault("a sign lost", "f32", layer(1, V), "factor of -1", edits(blk_1_attn_v=lambda w: -w)),
    Fault("embedding scaled", "f32", EMBEDDING, "factor of 16", edits(whole_token_embd=lambda w: w * np.float32(16)), "untied"),
    Fault("one row zeroed", "f32", layer(1, UP), "rows zeroed: 7", edits(blk_1_ffn_up=changed(7, np.zeros_like))),
    Fault("one weight off", "f32", layer(1, UP), "few rows wrong: 3", edits(blk_1_ffn_up=one_weight)),
    Fault("one embedding row wrong", "f32", EMBEDDING, f"of tokens {USED}", edits(whole_token_embd=changed(USED, lambda row: row[::-1])), "untied"),
    Fault("rows in reverse", "f32", layer(0, V), "reverse|permuted", edits(blk_0_attn_v=lambda w: w[::-1])),
    Fault("columns in reverse", "f32", layer(1, DOWN), "columns in reverse", edits(blk_1_ffn_down=lambda w: w[:, ::-1])),
    Fault("head lost, embedding stands in", "f32", HEAD, "tied head|holds another", {"without": ("output.weight",)}, "untied"),
    Fault("bias added", "f32", layer(0, Q), "bias", {"added": {"blk.0.attn_q.bias": np.linspace(-1, 1, 256, dtype=np.float32)}}, engine_only=True),
    Fault("block scale doubled, one block", "q4_k", layer(1, GATE), "", edits(blk_1_ffn_gate=blocks(doubled(0), 9))),
    Fault("block scale doubled, all", "q4_k", layer(1, GATE), "", edits(blk_1_ffn_gate=blocks(doubled(0)))),
    Fault("nibbles swapped, one block", "q4_k", layer(0, UP), "", edits(blk_0_ffn_up=blocks(nibbles_swapped, 100))),
    Fault("nibbles swapped, all", "q4_k", layer(0, UP), "", edits(blk_0_ffn_up=blocks(nibbles_swapped))),
    Fault("minima zeroed", "q4_k", layer(1, OUT), "", edits(blk_1_attn_output=blocks(minima_zeroed))),
    Fault("d and dmin swapped", "q4_k", layer(1, V), "", edits(blk_1_attn_v=blocks(scales_exchanged))),
    Fault("high scale bits lost", "q4_k", layer(0, DOWN), "", edits(blk_0_ffn_down=blocks(high_bits_lost))),
    Fault("one bit of one nibble", "q4_k", layer(1, DOWN), "few rows wrong: 17", edits(blk_1_ffn_down=blocks(one_bit, 17))),
    Fault("one scale off by one", "q4_k", layer(1, K), "few rows wrong: 2", edits(blk_1_attn_k=blocks(scale_off_by_one, 4))),
    Fault("the sign of a Q6_K scale", "q4_k_m", layer(1, V), "few rows wrong: 4", edits(blk_1_attn_v=blocks(sign_of_a_scale, 4, 210))),
    Fault("a Q8_0 scale doubled", "q8_0", layer(1, UP), "few rows wrong: 1", edits(blk_1_ffn_up=blocks(doubled(0), 8, 34))),
]  # fmt: skip


@cache
def sound(model: str, quantize: str, folder: Path) -> Path:
    return export_gguf(trained(model), folder / f"{model}-{quantize}.gguf", quantize, {"general.name": model}).path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sound")


@contextmanager
def carried_out(path: Path, model: str) -> Iterator[Implementation]:
    """Carry a file out by llama.cpp, or where that is missing by our forward in float32."""
    if not ENGINE:
        yield of_torch(forward(read_gguf_model(path), engine_like=True, dtype=torch.float32))
        return
    with LlamaCpp(path, 128) as engine:
        yield of_llamacpp(engine, SHAPES[model])


def located(fault: Fault, folder: Path, out: Path, model: str) -> Located:
    clean = sound(model, fault.quantize, folder)
    faulty = rewritten(clean, out / "faulty.gguf", **fault.edit)
    with carried_out(faulty, model) as candidate:
        return locate(forward(read_gguf_model(clean), engine_like=True), candidate, prompts(4, 64))


@pytest.mark.parametrize("fault", [one for one in FAULTS if ENGINE or not one.engine_only], ids=lambda one: one.name)
def test_a_planted_fault_is_seen_and_named(fault: Fault, folder: Path, tmp_path: Path) -> None:
    """The first operation that parts is that of the tensor that was edited, and where a suspicion is due, it stands first."""
    found = located(fault, folder, tmp_path, fault.model)

    assert found.first is not None, "the fault was not seen"
    assert fault.names in (found.first.tensor, found.first.name), found.sentence
    if fault.said:
        assert any(re.search(fault.said, one.what) for one in found.suspicions[:2]), (found.sentence, found.suspicions)


@pytest.mark.parametrize("quantize", ["f32", "f16", "q8_0", "q4_k", "q4_k_m"])
@pytest.mark.parametrize("model", SHAPES)
def test_a_sound_export_is_not_accused(model: str, quantize: str, folder: Path) -> None:
    """On sound files no operation of any layer parts: llama.cpp and float64 agree within 4 float32 floors."""
    clean = sound(model, quantize, folder)
    with carried_out(clean, model) as candidate:
        found = locate(forward(read_gguf_model(clean), engine_like=True), candidate, prompts(4, 64))

    assert (None, ()) == (found.first, found.unseen), found.sentence
    assert all(one.worst <= 4 * max(one.floor, 2**-23) for one in found.locals)


@pytest.mark.slow
@pytest.mark.parametrize("model", SHAPES)
def test_faults_are_named_in_every_model(model: str, folder: Path, tmp_path: Path) -> None:
    """In each model every planted fault is seen, and the tensor named first is the right one for 90 % of them."""
    tied = SHAPES[model].tied_embeddings
    fitting = [
        one for one in FAULTS if (ENGINE or not one.engine_only) and not (tied and "output.weight" in str(one.edit))
    ]
    fitting = [one for one in fitting if SHAPES[model].kv_heads > 1 or one.name != "key heads swapped"]
    fitting = [
        one for one in fitting if SHAPES[model].layers == 2 or one.quantize != "q4_k_m"
    ]  # its Q6_K lie elsewhere
    seen, named = 0, 0
    for number, fault in enumerate(fitting):
        out = tmp_path / str(number)
        out.mkdir()
        found = located(fault, folder, out, model)
        seen += found.first is not None
        named += found.first is not None and fault.names in (found.first.tensor, found.first.name)

    assert len(fitting) >= 24
    assert seen == len(fitting)
    assert named >= 0.9 * len(fitting)


@pytest.mark.slow
def test_fifty_sound_exports_are_not_accused(tmp_path: Path) -> None:
    """Of 60 sound exports (three models, five recipes, four sets of weights each) none is accused."""
    accused = []
    for model in SHAPES:
        weights = trained(model)
        for seed in range(4):
            draw = torch.Generator().manual_seed(seed)
            stored = {
                name: plain("F32", tensor * (1 + 0.05 * seed * torch.randn(tensor.shape, generator=draw)))
                for name in weights.stored
                for tensor in (weights.tensor(name),)
            }
            for quantize in ("f32", "f16", "q8_0", "q4_k", "q4_k_m"):
                path = tmp_path / "a.gguf"
                export_gguf(replace(weights, stored=stored), path, quantize, {"general.name": model}, force=True)
                with carried_out(path, model) as candidate:
                    found = locate(forward(read_gguf_model(path), engine_like=True), candidate, prompts(4, 64))
                accused += [(model, seed, quantize, found.sentence)] if found.first else []

    assert [] == accused


def test_no_value_goes_unseen(folder: Path) -> None:
    """Every operation of every layer is looked at: a renamed tensor in a new engine is no blind spot."""
    clean = sound("deep", "f32", folder)
    with carried_out(clean, "deep") as candidate:
        found = locate(forward(read_gguf_model(clean), engine_like=True), candidate, prompts(1, 8))

    assert (3 * 15 + 3, ()) == (len(found.locals), found.unseen)
