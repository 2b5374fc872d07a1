"""A Llama-family decoder whose weights are those of `transformers.LlamaForCausalLM`, name by name.

RMSNorm, SwiGLU, rotary positions in the half-rotation layout, and grouped-query attention (Touvron et
al. 2023, Ainslie et al. 2023). Weights and the residual stream stay in the dtype they were built in;
under `torch.autocast` the matrix products run in its dtype, each input cast once rather than once a product.

Shapes are written with b sequences, t positions, n = b * t positions, h hidden size, v vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sovereign.contract.model import Decoder as Shape
from sovereign.model.kernels import attention, linear_cross_entropy, token_losses

Rotation = tuple[Tensor, Tensor]  # cosines and sines, [t, head dim / 2] or [b, 1, t, head dim / 2]


class Linear(nn.Linear):
    """A matrix without bias, applied in the dtype of its input."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class RMSNorm(nn.Module):
    """Root-mean-square normalisation (Zhang & Sennrich 2019), computed in the weight's dtype."""

    def __init__(self, hidden: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class Attention(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.head_dim = shape.head_dim
        self.q_proj = Linear(shape.hidden, shape.heads * shape.head_dim)
        self.k_proj = Linear(shape.hidden, shape.kv_heads * shape.head_dim)
        self.v_proj = Linear(shape.hidden, shape.kv_heads * shape.head_dim)
        self.o_proj = Linear(shape.heads * shape.head_dim, shape.hidden)

    def forward(self, x: Tensor, rotation: Rotation, cache: Cache | None, layer: int) -> Tensor:
        b, t, _ = x.shape
        q = rotate(self.q_proj(x).view(b, t, -1, self.head_dim).transpose(1, 2), rotation)
        k = rotate(self.k_proj(x).view(b, t, -1, self.head_dim).transpose(1, 2), rotation)
        v = self.v_proj(x).view(b, t, -1, self.head_dim).transpose(1, 2)
        if cache is None:
            mixed = attention(q, k, v)
        else:
            mixed = cache.attend(layer, q, k, v)
        return self.o_proj(mixed.transpose(1, 2).reshape(b, t, -1))


class FeedForward(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.gate_proj = Linear(shape.hidden, shape.ffn)
        self.up_proj = Linear(shape.hidden, shape.ffn)
        self.down_proj = Linear(shape.ffn, shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden, shape.norm_epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.norm_epsilon)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, rotation: Rotation, cache: Cache | None, layer: int) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x).to(product_dtype(x)), rotation, cache, layer)
        return x + self.mlp(self.post_attention_layernorm(x).to(product_dtype(x)))


class Trunk(nn.Module):
    """Everything below the output head: token ids to normalised hidden states."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, vocabulary: int):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden, shape.norm_epsilon)
        cos, sin = rotation_table(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        t = ids.shape[1]
        x = self.embed_tokens(ids)
        if cache is None:
            rotation = (self.cos[:t], self.sin[:t])
        else:
            rotation = (self.cos[cache.positions(t)][:, None], self.sin[cache.positions(t)][:, None])
        for index, layer in enumerate(self.layers):
            x = layer(x, rotation, cache, index)
        return self.norm(x).to(product_dtype(x))


class Decoder(nn.Module):
    """The language model: `forward` gives logits, `loss` is trained on, `step` continues text."""

    def __init__(self, shape: Shape, vocabulary: int):
        super().__init__()
        self.shape = shape
        self.vocabulary = vocabulary
        self.model = Trunk(shape, vocabulary)
        self.lm_head = Linear(shape.hidden, vocabulary)
        if shape.tied_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits [b, t, v] for the token after each of `ids` [b, t]."""
        return self.lm_head(self.model(ids))

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of `targets` [b, t] given `inputs` [b, t]: a scalar in nats, summed over all but IGNORED."""
        return linear_cross_entropy(self.model(inputs).flatten(0, 1), self.lm_head.weight, targets.flatten())

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each target [b, t] in nats, without a gradient; IGNORED loses 0."""
        hidden = self.model(inputs).flatten(0, 1)
        return token_losses(hidden, self.lm_head.weight, targets.flatten()).view_as(targets)

    def step(self, ids: Tensor, cache: Cache) -> Tensor:
        """Return logits [b, t, v] for the token after each of `ids` [b, t], which continue what `cache` holds.

        The cache keeps the new keys and values, but counts them only when told so: `cache.lengths += t`.
        """
        return self.lm_head(self.model(ids, cache))


class Cache:
    """Keys and values of every layer, and how many positions of each sequence are filled.

    Slots behind a sequence's own length are never attended to: sequences of different lengths stand
    side by side, padded on the right, and each writes over its padding as it grows.
    """

    def __init__(self, model: Decoder, sequences: int, positions: int):
        shape, weight = model.shape, model.lm_head.weight
        room = (shape.layers, sequences, shape.kv_heads, positions, shape.head_dim)
        self.keys = torch.zeros(room, dtype=weight.dtype, device=weight.device)
        self.values = torch.zeros(room, dtype=weight.dtype, device=weight.device)
        self.lengths = torch.zeros(sequences, dtype=torch.int64, device=weight.device)

    def positions(self, t: int) -> Tensor:
        """Return where the next `t` tokens of each sequence stand, [b, t]."""
        return self.lengths[:, None] + torch.arange(t, device=self.lengths.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return attention [b, heads, t, head dim] of q to what is kept and to k and v, which are kept from now on."""
        positions = self.positions(q.shape[2])
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        self.keys[layer][rows, :, positions] = k.transpose(1, 2).to(self.keys.dtype)
        self.values[layer][rows, :, positions] = v.transpose(1, 2).to(self.values.dtype)
        filled = int(positions.max()) + 1
        keys, values = self.keys[layer, :, :, :filled], self.values[layer, :, :, :filled]
        seen = torch.arange(filled, device=positions.device) <= positions[:, None, :, None]
        return F.scaled_dot_product_attention(q, keys.to(q.dtype), values.to(q.dtype), attn_mask=seen, enable_gqa=True)


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype matrix products run in: autocast's where it is on, else that of `x`."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def rotation_table(shape: Shape) -> Rotation:
    """Return cosines and sines of every position and pair, [context, head dim / 2] float32 (Su et al. 2021)."""
    frequencies = shape.rope_base ** -(torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim)
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Return x [b, heads, t, head dim] with pair (i, i + head dim / 2) turned by its position's angle."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def build(shape: Shape, vocabulary: int, seed: int) -> Decoder:
    """Return a decoder with fresh float32 weights, the same for the same seed whatever ran before.

    Normal with deviation 0.02; the matrices that write into the residual stream are narrower by the square
    root of how many there are, so that depth does not raise its variance (Radford et al. 2019, section 2.3).
    The first loss is then within 0.5 of ln(vocabulary).
    """
    with torch.random.fork_rng(
        devices=[]
    ):  # torch's own initialisation, overwritten below, draws from the global state
        model = Decoder(shape, vocabulary)
    draw = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        with torch.no_grad():
            if weight.dim() == 1:
                weight.fill_(1.0)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.normal_(0.0, 0.02 / (2 * shape.layers) ** 0.5, generator=draw)
            else:
                weight.normal_(0.0, 0.02, generator=draw)
    return model


def hf_config(shape: Shape, vocabulary: int) -> dict[str, Any]:
    """Return the config.json with which `transformers` loads the decoder's weights as a LlamaForCausalLM."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_base},
        "rms_norm_eps": shape.norm_epsilon,
        "tie_word_embeddings": shape.tied_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "torch_dtype": "float32",
        "dtype": "float32",
    }
