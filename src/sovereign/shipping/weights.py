"""Weights as they were found: a shape, a vocabulary, a tokenizer, and tensors in our decoder's names and layout.

A run of ours, a Hugging Face folder and a GGUF file all become one value, so that whatever compares
two of them never asks where they came from. Tensors stay as stored until they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sovereign.canonical import Malformed, Problem
from sovereign.contract.model import Decoder as Shape
from sovereign.model.decoder import Decoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
Raw = NDArray[np.uint8]


@dataclass(frozen=True)
class Stored:
    """One tensor as its file holds it; `kind` is ggml's name of the type, and also ours."""

    kind: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor] = field(repr=False)
    raw: Callable[[], Raw] = field(repr=False)  # the stored bytes, [rows, bytes a row], rows in the decoder's order


@dataclass(frozen=True)
class Specials:
    """Which tokens stand around a text, and whether they are put there: both sides must agree on it."""

    begin: int | None
    end: int | None
    add_begin: bool
    add_end: bool = False


@dataclass(frozen=True)
class Weights:
    """A model as found at `origin`."""

    origin: str
    shape: Shape
    vocabulary: int
    stored: Mapping[str, Stored] = field(repr=False)
    specials: Specials
    tokenizer: Tokenizer | None = field(repr=False, default=None)

    def tensor(self, name: str) -> Tensor:
        """Return one tensor in float32, dequantized; the head of a tied model is its embedding."""
        return self.stored[self.holder(name)].read()

    def holder(self, name: str) -> str:
        """Return the name under which a tensor stands in the file: a tied head stands under the embedding's."""
        return EMBEDDING if name == HEAD and self.shape.tied_embeddings else name

    @property
    def kinds(self) -> dict[str, str]:
        """Return the type of every tensor."""
        return {name: stored.kind for name, stored in self.stored.items()}

    def decoder(self, dtype: torch.dtype = torch.float32) -> Decoder:
        """Return the decoder with these weights, dequantized, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            model = Decoder(self.shape, self.vocabulary, self.specials.end)
        model.load_state_dict({name: self.tensor(name) for name in self.stored}, strict=not self.shape.tied_embeddings)
        return model.to(dtype).eval()


def expected(shape: Shape, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that a decoder of this shape has, a tied head left out."""
    kv = shape.kv_heads * shape.head_dim
    found: dict[str, tuple[int, ...]] = {EMBEDDING: (vocabulary, shape.hidden)}
    for index in range(shape.layers):
        for part, size in {
            "input_layernorm": (shape.hidden,),
            "self_attn.q_proj": (shape.hidden, shape.hidden),
            "self_attn.k_proj": (kv, shape.hidden),
            "self_attn.v_proj": (kv, shape.hidden),
            "self_attn.o_proj": (shape.hidden, shape.hidden),
            "post_attention_layernorm": (shape.hidden,),
            "mlp.gate_proj": (shape.ffn, shape.hidden),
            "mlp.up_proj": (shape.ffn, shape.hidden),
            "mlp.down_proj": (shape.hidden, shape.ffn),
        }.items():
            found[f"model.layers.{index}.{part}.weight"] = size
    found["model.norm.weight"] = (shape.hidden,)
    if not shape.tied_embeddings:
        found[HEAD] = (vocabulary, shape.hidden)
    return found


def require_fit(stored: Mapping[str, Stored], shape: Shape, vocabulary: int, origin: str) -> None:
    """Raise Malformed naming every tensor that is missing, unknown, or of another shape than the decoder's.

    A decoder with options of its own is refused by their names: what reads these weights would compute without them.
    """
    wanted = expected(shape, vocabulary)
    options = [name for name in ("window", "sinks", "experts") if getattr(shape, name)]
    if options:
        raise Malformed(
            [Problem(origin, f"model.{', model.'.join(options)}: only the plain decoder is exported and compared")]
        )
    problems = [Problem(origin, f"tensor {name} is missing") for name in wanted if name not in stored]
    problems += [Problem(origin, f"tensor {name} is not part of this decoder") for name in stored if name not in wanted]
    problems += [
        Problem(origin, f"tensor {name} is {list(stored[name].shape)}, where the configuration asks for {list(size)}")
        for name, size in wanted.items()
        if name in stored and stored[name].shape != size
    ]
    if problems:
        raise Malformed(problems)


def plain(kind: str, tensor: Tensor) -> Stored:
    """Return a tensor that is held in memory, unquantized, as stored."""

    def raw() -> Raw:
        rows = tensor.reshape(tensor.shape[0], -1).contiguous()
        return rows.view(torch.uint8).numpy()

    return Stored(kind, tuple(tensor.shape), lambda: tensor.float(), raw)
