"""Faults planted in copies of an export, so that a run shows, on its own model, that the check would have seen them.

Each is one that an exporter has made or could make: a tensor put down otherwise, packed blocks spoiled, a setting in the
metadata. The file is edited where it stands; nothing of it moves, and its reader finds nothing wrong with it.
"""

from __future__ import annotations

import filecmp
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sovereign.parity.compare import Incomparable, Logits, every, require_comparable
from sovereign.parity.forward import Forward, forward
from sovereign.parity.llamacpp import LlamaCpp, Unloadable
from sovereign.parity.localise import locate
from sovereign.parity.observed import of_llamacpp, of_torch
from sovereign.shipping.gguf_file import Held, read_gguf
from sovereign.shipping.gguf_model import file_name, read_gguf_model, row_order
from sovereign.shipping.weights import EMBEDDING, HEAD, Weights

Rows = NDArray[np.uint8]  # [rows, bytes a row]
Edit = Callable[[Rows], Rows]
PROMPTS, TOKENS = 2, 48
ROPE_BASE, EPSILON = "llama.rope.freq_base", "llama.attention.layer_norm_rms_epsilon"
POSITIONS = "positions"  # the precondition that the comparison of all tokens with the last one breaks


@dataclass(frozen=True)
class Fault:
    """What is done to a copy, and where that must be seen: a tensor's name, or an operation's."""

    name: str
    where: str
    tensors: tuple[tuple[str, Edit], ...] = ()
    setting: tuple[str, float] | None = None
    exchanged: tuple[str, str] | None = None


@dataclass(frozen=True)
class Found:
    """What the check made of a faulty copy."""

    fault: str
    planted: str
    seen: bool
    named: str
    right: bool
    said: str


def planted(sound: Weights, path: Path, prompts: Sequence[Sequence[int]], out: Path, engine: bool) -> Iterator[Found]:
    """Yield what the check makes of each fault in a copy of the export at `path`, which holds `sound`; `out` is such a copy.

    The copy is carried out by llama.cpp, or by our own forward in float32 without `engine`.
    """
    exact, few = forward(sound, engine_like=True), [list(ids)[:TOKENS] for ids in prompts[:PROMPTS]]
    yield _of_other_positions(exact, few[0])
    for fault in faults(sound, few[0]):
        try:
            if write(path, out, fault):
                yield _looked_at(fault, exact, out, few, engine)
        finally:
            out.unlink(missing_ok=True)


def _looked_at(fault: Fault, exact: Forward, out: Path, prompts: Sequence[Sequence[int]], engine: bool) -> Found:
    with ExitStack() as stack:
        if engine:
            try:
                run = of_llamacpp(stack.enter_context(LlamaCpp(out, TOKENS)), exact.shape)
            except Unloadable as reason:
                return Found(fault.name, fault.where, True, "the file", False, str(reason))
        else:
            run = of_torch(forward(read_gguf_model(out), engine_like=True, dtype=torch.float32))
        located = locate(exact, run, prompts)
    first = located.first
    if first is None:
        return Found(fault.name, fault.where, False, "", False, located.sentence)
    named = first.tensor or first.name
    return Found(fault.name, fault.where, True, named, fault.where in (first.tensor, first.name), located.sentence)


def _of_other_positions(exact: Forward, ids: Sequence[int]) -> Found:
    """Compare the logits of all tokens with those of the last one: a refusal is what sees it."""
    logits = exact.run(ids)
    name = "all tokens against the last one"
    try:
        require_comparable(every(ids, logits), Logits(tuple(ids), (len(ids) - 1,), logits[-1:]))
    except Incomparable as reason:
        named = str(reason).partition(":")[0]
        return Found(name, POSITIONS, True, named, named == POSITIONS, str(reason))
    return Found(name, POSITIONS, False, "", False, "was compared")


def write(path: Path, out: Path, fault: Fault) -> bool:
    """Write a copy of a GGUF file with a fault in it; false where the file is the same for it, and so no fault is there."""
    shutil.copyfile(path, out)
    held = read_gguf(path)
    with out.open("r+b") as file:
        for name, edit in fault.tensors:
            _put(file, held.tensors[file_name(name)], edit(np.array(held.tensors[file_name(name)].rows)))
        if fault.exchanged:
            one, two = (held.tensors[file_name(name)] for name in fault.exchanged)
            _put(file, one, two.rows)
            _put(file, two, one.rows)
        if fault.setting:
            key, value = fault.setting
            length = struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", 6)  # a float32
            at = path.read_bytes().index(length) + len(length)
            file.seek(at)
            file.write(struct.pack("<f", value))
    return not filecmp.cmp(path, out, shallow=False)


def _put(file: object, held: Held, rows: Rows) -> None:
    assert rows.nbytes == held.rows.nbytes
    file.seek(held.offset)  # type: ignore[attr-defined]
    file.write(np.ascontiguousarray(rows).tobytes())  # type: ignore[attr-defined]


# ── the faults ───────────────────────────────────────────────────────────────────────────────────


def faults(sound: Weights, ids: Sequence[int]) -> Iterator[Fault]:
    """Yield the faults that a file of this shape and these types can have; `ids` is a prompt that it is asked."""
    shape, last, kinds = sound.shape, sound.shape.layers - 1, sound.kinds
    yield Fault("rope base 5 % off", "layer 0 q_rope", setting=(ROPE_BASE, shape.rope_base * 1.05))
    yield Fault("norm epsilon 1e-3", layer(0, "input_layernorm"), setting=(EPSILON, 1e-3))
    yield _edited("a norm replaced by ones", layer(last, "input_layernorm"), floats(np.ones_like))
    same = kinds[layer(0, "mlp.gate_proj")] == kinds[layer(0, "mlp.up_proj")]
    if same:
        pair = (layer(0, "mlp.gate_proj"), layer(0, "mlp.up_proj"))
        yield Fault("gate and up exchanged", pair[0], exchanged=pair)
    q, k = layer(last, "self_attn.q_proj"), layer(0, "self_attn.k_proj")
    yield _edited(
        "rope permutation missing, q", q, lambda rows: rows[np.argsort(row_order(shape.heads, shape.head_dim))]
    )
    yield _edited(
        "rope permutation missing, k", k, lambda rows: rows[np.argsort(row_order(shape.kv_heads, shape.head_dim))]
    )
    if shape.kv_heads > 1:
        yield _edited("key heads exchanged", k, lambda rows: np.roll(rows, shape.head_dim, axis=0))
    yield _edited("rows in reverse", layer(0, "self_attn.v_proj"), lambda rows: rows[::-1])
    if all(kind == "F32" for kind in kinds.values()):
        yield from _of_floats(sound, ids)
    for name, kind in kinds.items():
        if kind == "Q4_K" and name == layer(last, "mlp.up_proj"):
            yield from _of_blocks(name)
    sixes = [name for name, kind in kinds.items() if kind == "Q6_K" and name.startswith("model.layers")]
    for name in sixes[:1]:
        yield _edited("the sign of a Q6_K scale", name, blocks(_signed, 210, 4))


def layer(index: int, part: str) -> str:
    return f"model.layers.{index}.{part}.weight"


def _edited(name: str, tensor: str, edit: Edit) -> Fault:
    return Fault(name, tensor, ((tensor, edit),))


def _of_floats(sound: Weights, ids: Sequence[int]) -> Iterator[Fault]:
    last, used = sound.shape.layers - 1, ids[len(ids) // 2]

    def row(at: int, edit: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Edit:
        def apply(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
            matrix[at] = edit(matrix[at])
            return matrix

        return floats(apply)

    yield _edited("attention output transposed", layer(last, "self_attn.o_proj"), floats(lambda w: w.T))
    yield _edited("columns in reverse", layer(last, "mlp.down_proj"), floats(lambda w: w[:, ::-1]))
    yield _edited("one tensor scaled by 1.02", layer(0, "mlp.down_proj"), floats(lambda w: w * np.float32(1.02)))
    yield _edited("a sign lost", layer(last, "self_attn.v_proj"), floats(lambda w: -w))
    yield _edited("one row zeroed", layer(last, "mlp.up_proj"), row(7, np.zeros_like))
    yield _edited("one weight off", layer(last, "mlp.up_proj"), row(3, _nudged))
    yield _edited("the last norm replaced by ones", "model.norm.weight", floats(np.ones_like))
    if not sound.shape.tied_embeddings:
        yield _edited("head transposed", HEAD, floats(lambda w: w.T.copy().reshape(w.shape)))
        yield _edited("one embedding row wrong", EMBEDDING, row(used, lambda one: one[::-1].copy()))


def _nudged(row: NDArray[np.float32]) -> NDArray[np.float32]:
    row[5] += np.float32(0.05)
    return row


def floats(edit: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Edit:
    """Return the edit of stored rows that does `edit` to the float32 matrix in them."""

    def apply(rows: Rows) -> Rows:
        made = np.ascontiguousarray(edit(rows.view(np.float32)), dtype=np.float32)
        return made.reshape(len(rows), -1).view(np.uint8)

    return apply


def blocks(edit: Callable[[Rows], None], size: int, only: int | None = None) -> Edit:
    """Return the edit of stored rows that does `edit` to their packed blocks [n, size], all of them or one."""

    def apply(rows: Rows) -> Rows:
        packed = rows.reshape(-1, size)
        edit(packed if only is None else packed[only : only + 1])
        return packed.reshape(rows.shape)

    return apply


def _of_blocks(name: str) -> Iterator[Fault]:
    """Yield the faults of a tensor in Q4_K: 2 bytes d, 2 dmin, 12 of scales and minima, 128 of nibbles."""
    for what, edit in {
        "block scale doubled": _doubled, "nibbles exchanged": _nibbles, "minima zeroed": _without_minima,
        "d and dmin exchanged": _scales_exchanged, "high bits of the scales lost": _high_bits_lost,
    }.items():  # fmt: skip
        yield _edited(f"{what}, every block", name, blocks(edit, 144))
        yield _edited(f"{what}, one block", name, blocks(edit, 144, 9))
    yield _edited("one bit of one nibble", name, blocks(_one_bit, 144, 17))
    yield _edited("one scale off by one", name, blocks(_one_scale, 144, 4))


def _doubled(packed: Rows) -> None:
    packed[:, 0:2] = (packed[:, 0:2].copy().view(np.float16) * np.float16(2)).view(np.uint8)


def _nibbles(packed: Rows) -> None:
    packed[:, 16:] = packed[:, 16:] >> 4 | packed[:, 16:] << 4


def _without_minima(packed: Rows) -> None:
    packed[:, 2:4] = 0


def _scales_exchanged(packed: Rows) -> None:
    packed[:, 0:4] = packed[:, [2, 3, 0, 1]]


def _high_bits_lost(packed: Rows) -> None:
    packed[:, 4:12] &= 63


def _one_bit(packed: Rows) -> None:
    packed[:, 40] ^= 8


def _one_scale(packed: Rows) -> None:
    packed[:, 5] ^= 1


def _signed(packed: Rows) -> None:
    packed[:, 195] = -packed[:, 195].view(np.int8).view(np.uint8)
