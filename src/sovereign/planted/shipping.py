"""What can be wrong in an export, in the engine that reads it, and in the check of both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sovereign.parity import check as checking
from sovereign.parity import llamacpp, localise, planting, rounding
from sovereign.parity import ship as shipping
from sovereign.parity.forward import Forward, forward
from sovereign.parity.llamacpp import LlamaCpp
from sovereign.planted.swapping import swapped
from sovereign.shipping import export as exporting
from sovereign.shipping.export import Exported, export_gguf
from sovereign.shipping.gguf_model import row_order
from sovereign.shipping.packing import pack
from sovereign.shipping.weights import EMBEDDING, HEAD, Weights, plain


def _edited(edit: Callable[[Weights, str], Tensor], chosen: Callable[[str], bool]) -> Callable[..., Exported]:
    """Return an exporter that puts another tensor where each chosen one belongs, and finds its own file sound."""

    def export(weights: Weights, *arguments: Any, **settings: Any) -> Exported:
        wrong = {name: plain("F32", edit(weights, name).contiguous()) for name in weights.stored if chosen(name)}
        assert wrong, "the model has no such tensor"
        return export_gguf(replace(weights, stored={**weights.stored, **wrong}), *arguments, **settings)

    return export


@contextmanager
def head_transposed() -> Iterator[None]:
    """Export the output matrix read row by row as if it were columns (the bug that a ratio of spreads let pass)."""

    def transposed(weights: Weights, name: str) -> Tensor:
        matrix = weights.tensor(name)
        return matrix.T.reshape(matrix.shape)

    wrong = _edited(transposed, lambda name: name in (HEAD, EMBEDDING))
    with swapped(shipping, "export_gguf", wrong):
        yield


@contextmanager
def rope_permutation_missing() -> Iterator[None]:
    """Export q and k with their rows in our order, where llama.cpp expects them in its own."""

    def unrotated(weights: Weights, name: str) -> Tensor:
        matrix = weights.tensor(name)
        order = row_order(len(matrix) // weights.shape.head_dim, weights.shape.head_dim)
        return matrix[torch.argsort(order)]

    wrong = _edited(unrotated, lambda name: name.endswith(("q_proj.weight", "k_proj.weight")))
    with swapped(shipping, "export_gguf", wrong):
        yield


@contextmanager
def tensor_scaled() -> Iterator[None]:
    """Export one matrix 2 % too large, which no loss shows."""
    wrong = _edited(lambda weights, name: weights.tensor(name) * 1.02, lambda name: name.endswith("layers.0.mlp.down_proj.weight"))  # fmt: skip
    with swapped(shipping, "export_gguf", wrong):
        yield


@contextmanager
def blocks_spoiled() -> Iterator[None]:
    """Pack Q4_K without the high bits of the scales of half its sub-blocks, as a reader of the layout does who stops at six bits."""

    def spoiled(kind: str, tensor: Tensor) -> Any:
        packed = pack(kind, tensor)
        if kind == "Q4_K":
            blocks = packed.reshape(-1, 144)
            blocks[:, 4:12] &= 63
        return packed

    with swapped(exporting, "pack", spoiled), swapped(exporting, "_require_same", lambda *given: None):
        yield


@contextmanager
def quantization_fell_back() -> Iterator[None]:
    """Write Q8_0 where Q4_K_M was asked for, as llama.cpp falls back without a word where rows do not divide."""

    def larger(weights: Weights, out: Path, quantize: str, *arguments: Any, **settings: Any) -> Exported:
        return export_gguf(weights, out, "q8_0", *arguments, **settings)

    with swapped(shipping, "export_gguf", larger):
        yield


@contextmanager
def tokenizer_of_another() -> Iterator[None]:
    """Export the tokenizer with its merges in another order: every text comes out, in other ids."""

    def other(weights: Weights, *arguments: Any, **settings: Any) -> Exported:
        assert weights.tokenizer is not None
        told = json.loads(weights.tokenizer.to_str())
        told["model"]["merges"].reverse()
        tokenizer = type(weights.tokenizer).from_str(json.dumps(told))
        return export_gguf(replace(weights, tokenizer=tokenizer), *arguments, **settings)

    with swapped(shipping, "export_gguf", other):
        yield


@contextmanager
def reference_coarse() -> Iterator[None]:
    """Let the reference's float32 forward hold its weights in bfloat16: an oracle that is not what it says."""

    def coarse(weights: Weights, **settings: Any) -> Forward:
        made = forward(weights, **settings)
        if made.dtype != torch.float32:
            return made
        return replace(made, tensors={name: one.bfloat16().float() for name, one in made.tensors.items()})

    with swapped(checking, "forward", coarse):
        yield


@contextmanager
def cache_forgets() -> Iterator[None]:
    """Decode token by token with an empty cache each time."""

    def forgetful(engine: LlamaCpp, sequences: Sequence[Sequence[int]]) -> list[Any]:
        return [np.concatenate([engine.prefill([token]) for token in ids]) for ids in sequences]

    with swapped(LlamaCpp, "stepwise", forgetful):
        yield


@contextmanager
def cache_halved() -> Iterator[None]:
    """Let llama.cpp keep keys and values in float16, as it does by default: it hides whatever is below a relative 3e-4."""
    with swapped(llamacpp, "CACHE", 1):
        yield


@contextmanager
def everything_tied() -> Iterator[None]:
    """Take every quotient for a tie: what is demanded of the others is then demanded of nothing."""
    with swapped(rounding, "TIE", 0.01), swapped(rounding, "DEVIATIONS", 1e4):
        yield


@contextmanager
def check_blind() -> Iterator[None]:
    """Allow every operation to be as wrong as it likes."""
    with swapped(localise, "TIMES_FLOOR", 1e9):
        yield


@contextmanager
def suspicion_astray() -> Iterator[None]:
    """Name the last operation that parts, and not the first."""
    locate = localise.locate

    def backwards(*given: Any) -> Any:
        found = locate(*given)
        return replace(found, first=found.locals[-1] if found.first else None)

    with swapped(planting, "locate", backwards):
        yield
