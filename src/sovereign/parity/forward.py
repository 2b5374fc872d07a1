"""The decoder's forward pass as a list of named operations, each of which can be asked for alone.

An operation takes what came before it and gives what llama.cpp, too, gives a name; so it can be fed with what
another implementation had at that place, and held against what that one made of it. Arithmetic is float64, to be
the reference that others err from; with `engine_like` each matrix product first rounds its input as llama.cpp
does for weights of that type (Q8_K for K-quants, Q8_0 for Q8_0, F16 for F16).

Shapes: t positions of one sequence, h hidden, v vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sovereign.contract.model import Decoder as Shape
from sovereign.quantization import q8_0, q8k
from sovereign.shipping.weights import EMBEDDING, HEAD, Weights

Place = tuple[int, str]  # layer and operation; the embedding stands in layer -1, norm and head in layer `layers`
Trace = dict[Place, Tensor]  # place -> [t, ...]
K_QUANTS = frozenset({"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"})


@dataclass(frozen=True)
class Operation:
    """One step: its name, the values it takes, and the tensor that it multiplies by, if any."""

    name: str
    takes: tuple[str, ...]
    tensor: str = ""


LAYER = (
    Operation("attn_norm", ("x",), "input_layernorm"),
    Operation("q", ("attn_norm",), "self_attn.q_proj"),
    Operation("k", ("attn_norm",), "self_attn.k_proj"),
    Operation("v", ("attn_norm",), "self_attn.v_proj"),
    Operation("q_rope", ("q",)),
    Operation("k_rope", ("k",)),
    Operation("attention", ("q_rope", "k_rope", "v")),
    Operation("output", ("attention",), "self_attn.o_proj"),
    Operation("attn_residual", ("x", "output")),
    Operation("ffn_norm", ("attn_residual",), "post_attention_layernorm"),
    Operation("gate", ("ffn_norm",), "mlp.gate_proj"),
    Operation("up", ("ffn_norm",), "mlp.up_proj"),
    Operation("activation", ("gate", "up")),
    Operation("down", ("activation",), "mlp.down_proj"),
    Operation("out", ("attn_residual", "down")),
)
EMBED = Operation("embedding", (), EMBEDDING)
NORM = Operation("norm", ("x",), "model.norm.weight")
LOGITS = Operation("head", ("norm",), HEAD)
PRODUCTS = frozenset({"q", "k", "v", "output", "gate", "up", "down", "head"})


def places(layers: int) -> list[tuple[Place, Operation]]:
    """Return every operation of a decoder in the order in which it is carried out."""
    inner = [((layer, one.name), one) for layer in range(layers) for one in LAYER]
    return [((-1, EMBED.name), EMBED), *inner, ((layers, NORM.name), NORM), ((layers, LOGITS.name), LOGITS)]


def tensor_of(place: Place, operation: Operation) -> str:
    """Return the full name of the tensor that an operation uses, or nothing."""
    if not operation.tensor or operation.tensor.endswith(".weight"):
        return operation.tensor
    return f"model.layers.{place[0]}.{operation.tensor}.weight"


@dataclass(frozen=True)
class Forward:
    """A decoder's weights with the arithmetic to carry it out."""

    shape: Shape
    tensors: Mapping[str, Tensor] = field(repr=False)  # the head under its own name, even where it is tied
    kinds: Mapping[str, str] = field(repr=False)
    engine_like: bool = False
    dtype: torch.dtype = torch.float64
    pairs: str = "halves"  # which dimensions of a head are turned together; "neighbours" is a fault that is looked for

    def apply(self, place: Place, operation: Operation, values: Sequence[Tensor], ids: Sequence[int]) -> Tensor:
        """Return what one operation makes of its inputs, [t, ...]."""
        name, tensor = operation.name, tensor_of(place, operation)
        given = [value.to(self.dtype) for value in values]
        if name == "embedding":
            return self.tensors[tensor][torch.tensor(ids)]
        if name in PRODUCTS:
            return self.product(tensor, given[0])
        if name in ("attn_norm", "ffn_norm", "norm"):
            x = given[0]
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.shape.norm_epsilon) * self.tensors[tensor]
        if name in ("q_rope", "k_rope"):
            return self._turned(given[0])
        if name == "attention":
            return self._mixed(*given)
        if name == "activation":
            return F.silu(given[0]) * given[1]
        return given[0] + given[1]

    def product(self, tensor: str, x: Tensor) -> Tensor:
        """Return x times a matrix, x first rounded as the engine rounds it where this forward is like the engine."""
        if self.engine_like:
            x = rounded(self.kinds[tensor], x).to(self.dtype)
        return x @ self.tensors[tensor].T

    def run(self, ids: Sequence[int], seen: Callable[[Place, Tensor], None] | None = None) -> Tensor:
        """Return logits [t, v] for the token after each of `ids`; `seen` is shown every value on the way."""
        x = self.apply((-1, EMBED.name), EMBED, [], ids)
        if seen is not None:
            seen((-1, EMBED.name), x)
        for layer in range(self.shape.layers + 1):
            x = self.carry(layer, x, ids, seen)
        return x

    def carry(
        self, layer: int, x: Tensor, ids: Sequence[int], seen: Callable[[Place, Tensor], None] | None = None,
        instead: Mapping[str, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Return what a layer makes of x [t, h]; behind the last layer stand the norm and the head, which give logits.

        Values named in `instead` are shown as they come out here, and then go on as given there.
        """
        values = {"x": x}
        for operation in LAYER if layer < self.shape.layers else (NORM, LOGITS):
            place = (layer, operation.name)
            values[operation.name] = self.apply(place, operation, [values[one] for one in operation.takes], ids)
            if seen is not None:
                seen(place, values[operation.name])
            if instead and operation.name in instead:
                values[operation.name] = instead[operation.name].to(self.dtype)
        return values[operation.name]

    def trace(self, ids: Sequence[int]) -> Trace:
        """Return every value on the way from ids to logits."""
        found: Trace = {}
        self.run(ids, found.__setitem__)
        return found

    def _turned(self, x: Tensor) -> Tensor:
        t, dim = len(x), self.shape.head_dim
        if self.dtype == torch.float64:
            frequencies = self.shape.rope_base ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
            angles = torch.outer(torch.arange(t, dtype=torch.float64), frequencies)
        else:  # one factor a pair, in float32, as engines do: the error grows with the position
            factors = torch.full((t, dim // 2), self.shape.rope_base ** (-2 / dim), dtype=torch.float32)
            factors[:, 0] = torch.arange(t)
            angles = factors.cumprod(1)
        cos, sin = angles.cos().to(self.dtype)[:, None], angles.sin().to(self.dtype)[:, None]
        heads = x.view(t, -1, dim)
        if self.pairs == "neighbours":
            first, second = heads[..., 0::2], heads[..., 1::2]
            return torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).reshape(t, -1)
        first, second = heads.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).reshape(t, -1)

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        t, dim = len(q), self.shape.head_dim
        group = self.shape.heads // self.shape.kv_heads
        q = q.view(t, -1, dim).transpose(0, 1)
        k, v = (one.view(t, -1, dim).transpose(0, 1).repeat_interleave(group, 0) for one in (k, v))
        scores = q @ k.transpose(1, 2) / math.sqrt(dim)
        later = torch.ones(t, t, dtype=torch.bool).triu(1)
        return (scores.masked_fill(later, -torch.inf).softmax(-1) @ v).transpose(0, 1).reshape(t, -1)


def forward(weights: Weights, *, engine_like: bool = False, dtype: torch.dtype = torch.float64) -> Forward:
    """Return the forward pass of a model as it is stored, weights dequantized."""
    names = [*weights.stored, HEAD]
    tensors = {name: weights.tensor(name).to(dtype) for name in weights.stored}
    tensors.setdefault(HEAD, tensors[weights.holder(HEAD)])
    kinds = {name: weights.stored[weights.holder(name)].kind for name in names}
    return Forward(weights.shape, tensors, kinds, engine_like, dtype)


def in_float32(given: Forward) -> Forward:
    """Return the same forward with its weights and its arithmetic in float32."""
    return replace(given, tensors={name: one.float() for name, one in given.tensors.items()}, dtype=torch.float32)


def with_tensor(given: Forward, name: str, tensor: Tensor) -> Forward:
    """Return a forward with one tensor replaced."""
    return replace(given, tensors={**given.tensors, name: tensor.to(given.dtype)})


def rounded(kind: str, x: Tensor) -> Tensor:
    """Return x [t, k] as llama.cpp has it when it meets a matrix of a type: exact for F32, in float64 otherwise."""
    if kind in K_QUANTS:
        found = q8k.quantize(x.float())
        return (found.quants.double() * found.scales.double()[..., None]).flatten(-2)
    if kind == "Q8_0":
        blocks = q8_0.quantize_activations(x.float())
        return (blocks.quants.double() * blocks.d.double()[..., None]).flatten(-2)
    if kind == "F16":
        return x.half().double()
    if kind == "BF16":
        return x.bfloat16().double()
    return x


def ties(kind: str, x: Tensor, within: float) -> Tensor:
    """Return which positions hold an activation that two sound implementations may round differently, bool [t]."""
    if kind not in K_QUANTS:
        return torch.zeros(len(x), dtype=torch.bool)
    return q8k.ties(x, within).any(-1)
