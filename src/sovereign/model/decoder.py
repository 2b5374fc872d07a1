"""A Llama-family decoder whose weights are those of `transformers.LlamaForCausalLM`, name by name.

RMSNorm, SwiGLU, rotary positions in the half-rotation layout, and grouped-query attention (Touvron et
al. 2023, Ainslie et al. 2023). By choice a sliding window (Mistral), experts (Mixtral), attention sinks
(gpt-oss), and attention that ends where a document does; none of them touches a decoder without it. Weights and the residual stream stay in the dtype they were built in;
under `torch.autocast` the matrix products run in its dtype, each input cast once rather than once a product.

Shapes are written with b sequences, t positions, n = b * t positions, h hidden size, v vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from sovereign.contract.model import Decoder as Shape
from sovereign.contract.model import Experts as Expertise
from sovereign.model.kernels import IGNORED, attention, linear_cross_entropy, rms_norm, rotate, token_losses

Rotation = tuple[Tensor, Tensor]  # cosines and sines as `rotate` takes them
WIDE = 2**18  # a CPU multiplies long rows faster, so each head has its own table while so many cosines fit its cache


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
        return rms_norm(x, self.weight, self.epsilon)


class Attention(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.head_dim = shape.head_dim
        self.q_proj = Linear(shape.hidden, shape.heads * shape.head_dim)
        self.k_proj = Linear(shape.hidden, shape.kv_heads * shape.head_dim)
        self.v_proj = Linear(shape.hidden, shape.kv_heads * shape.head_dim)
        self.o_proj = Linear(shape.heads * shape.head_dim, shape.hidden)
        self.sinks = nn.Parameter(torch.zeros(shape.heads)) if shape.sinks else None

    def forward(self, x: Tensor, rotation: Rotation, seen: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        b, t, _ = x.shape
        q = rotate(self.q_proj(x).view(b, t, -1, self.head_dim), *rotation).transpose(1, 2)
        k = rotate(self.k_proj(x).view(b, t, -1, self.head_dim), *rotation).transpose(1, 2)
        v = self.v_proj(x).view(b, t, -1, self.head_dim).transpose(1, 2)
        if cache is None:
            mixed = attention(q, k, v, seen, self.sinks)
        else:
            mixed = cache.attend(layer, q, k, v, self.sinks)
        return self.o_proj(mixed.transpose(1, 2).reshape(b, t, -1))


class FeedForward(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.gate_proj = Linear(shape.hidden, shape.ffn)
        self.up_proj = Linear(shape.hidden, shape.ffn)
        self.down_proj = Linear(shape.ffn, shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Expert(nn.Module):
    """One feed-forward network of several, its matrices under Mixtral's names."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.w1 = Linear(shape.hidden, shape.ffn)
        self.w3 = Linear(shape.hidden, shape.ffn)
        self.w2 = Linear(shape.ffn, shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Experts(nn.Module):
    """A router, and the networks among which it chooses a few for each token (Jiang et al. 2024, section 2.1)."""

    def __init__(self, shape: Shape, settings: Expertise):
        super().__init__()
        self.active = settings.active
        self.gate = Linear(shape.hidden, settings.count)
        self.experts = nn.ModuleList(Expert(shape) for _ in range(settings.count))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixture [b, t, h] for x [b, t, h], and how unevenly each sequence was routed, [b].

        Unevenness is experts x sum(share of tokens x mean probability) as in Switch (Fedus et al. 2021, eq. 4) and
        Mixtral: `active` where all is even, up to `experts`. It is taken a sequence at a time, so that it
        does not depend on how a step is cut into micro-batches.
        """
        b, t, _ = x.shape
        count, tokens = len(self.experts), x.flatten(0, 1)
        logits = self.gate(tokens)
        probability = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
        weights, chosen = probability.topk(self.active, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)

        # a token stands once for each of its experts, sorted by expert, and is put back in place afterwards: no two
        # results are ever added in an order that a device could choose, and an expert without tokens has a gradient, 0
        order = chosen.flatten().argsort(stable=True)
        parts = tokens[order // self.active].split(tokens_of_each(chosen.flatten(), count))
        done = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
        back = done[order.argsort()].view(b * t, self.active, -1)
        mixed = (back * weights.to(back.dtype).unsqueeze(-1)).sum(1)

        routed = F.one_hot(chosen, count).to(probability.dtype).view(b, -1, count).sum(1) / t
        uneven = count * (routed * probability.view(b, t, count).mean(1)).sum(-1)
        return mixed.view_as(x), uneven


class Layer(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden, shape.norm_epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.norm_epsilon)
        if shape.experts:
            self.block_sparse_moe = Experts(shape, shape.experts)
        else:
            self.mlp = FeedForward(shape)

    def forward(
        self, x: Tensor, rotation: Rotation, seen: Tensor | None, cache: Cache | None, layer: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return the residual stream after the layer, and the unevenness of its routing where it has experts."""
        x = x + self.self_attn(self.input_layernorm(x).to(product_dtype(x)), rotation, seen, cache, layer)
        narrow = self.post_attention_layernorm(x).to(product_dtype(x))
        if hasattr(self, "mlp"):
            return x + self.mlp(narrow), None
        mixed, uneven = self.block_sparse_moe(narrow)
        return x + mixed, uneven


class Trunk(nn.Module):
    """Everything below the output head: token ids to normalised hidden states."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, vocabulary: int, end_of_text: int | None = None):
        super().__init__()
        self.shape = shape
        self.end_of_text = end_of_text
        self.embed_tokens = nn.Embedding(vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden, shape.norm_epsilon)
        cos, sin = rotation_table(shape, shape.context)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Tensor | None]:
        """Return hidden states [b, t, h], and the mean unevenness of routing [b] where there are experts."""
        t = ids.shape[1]
        x = self.embed_tokens(ids)
        seen = None
        if cache is None:
            heads = self.shape.heads if x.device.type == "cpu" else 1
            rotation = self.rotation(t, product_dtype(x), heads if t * heads * self.shape.head_dim <= WIDE else 1)
            seen = self.seen(ids)
        else:
            cos, sin = self.rotation(cache.room, product_dtype(x))
            rotation = cos[cache.positions(t)], sin[cache.positions(t)]
            cache.note(ids, self.end_of_text)
        uneven = []
        for index, layer in enumerate(self.layers):
            x, one = layer(x, rotation, seen, cache, index)
            uneven.append(one)
        balance = torch.stack(uneven).mean(0) if self.shape.experts else None
        return self.norm(x).to(product_dtype(x)), balance

    def rotation(self, positions: int, dtype: torch.dtype, heads: int = 1) -> Rotation:
        """Return cosines and sines of the first positions as `rotate` takes them, [positions, heads, head dim].

        Beyond the trained context they are computed anew.
        """
        tables = self.cos, self.sin
        if positions > len(self.cos):
            tables = rotation_table(self.shape, positions)
        cos, sin = (part[:positions, None].to(self.cos.device, dtype) for part in tables)
        return cos.repeat(1, heads, 2), torch.cat((-sin, sin), -1).repeat(1, heads, 1)

    def seen(self, ids: Tensor) -> Tensor | None:
        """Return which tokens each of `ids` [b, t] may attend to, [b or 1, 1, t, t]; None where plainly causal."""
        t, shape = ids.shape[1], self.shape
        window = shape.window if shape.window is not None and shape.window < t else None
        if window is None and not shape.sinks and not shape.within_documents:
            return None
        places = torch.arange(t, device=ids.device)
        seen = (places <= places[:, None])[None, None]
        if window is not None:
            seen = seen & (places > places[:, None] - window)
        if shape.within_documents:
            document = documents(ids, self.end_of_text)
            seen = seen & (document[:, None, None, :] == document[:, None, :, None])
        return seen


class Decoder(nn.Module):
    """The language model: `forward` gives logits, `loss` is trained on, `step` continues text."""

    def __init__(self, shape: Shape, vocabulary: int, end_of_text: int | None = None):
        super().__init__()
        self.shape = shape
        self.vocabulary = vocabulary
        self.model = Trunk(shape, vocabulary, end_of_text)
        self.lm_head = Linear(shape.hidden, vocabulary)
        if shape.tied_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits [b, t, v] for the token after each of `ids` [b, t]."""
        return self.lm_head(self.model(ids)[0])

    @property
    def context(self) -> int:
        """Positions that the model is trained on."""
        return self.shape.context

    def hidden(self, ids: Tensor) -> Tensor:
        """Return normalised hidden states [b, t, h]."""
        return self.model(ids)[0]

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of `targets` [b, t] given `inputs` [b, t]: a scalar in nats, summed over all but IGNORED.

        With experts its gradient is that of the loss and of the load-balancing loss, its value that of the loss alone.
        """
        hidden, uneven = self.model(inputs)
        summed = linear_cross_entropy(hidden.flatten(0, 1), self.lm_head.weight, targets.flatten())
        if uneven is None or self.shape.experts is None:
            return summed
        balance = self.shape.experts.balance * (uneven * (targets != IGNORED).sum(1)).sum()
        return summed + (balance - balance.detach())

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each target [b, t] in nats, without a gradient; IGNORED loses 0."""
        hidden = self.model(inputs)[0].flatten(0, 1)
        return token_losses(hidden, self.lm_head.weight, targets.flatten()).view_as(targets)

    def cache(self, sequences: int, positions: int) -> Cache:
        """Return room for the keys and values of so many sequences."""
        return Cache(self, sequences, positions)

    def step(self, ids: Tensor, cache: Cache) -> Tensor:
        """Return logits [b, t, v] for the token after each of `ids` [b, t], which continue what `cache` holds.

        The cache keeps the new keys and values, but counts them only when told so: `cache.lengths += t`.
        """
        return self.lm_head(self.model(ids, cache)[0])


class Cache:
    """Keys and values of every layer, and how many positions of each sequence are filled.

    Slots behind a sequence's own length are never attended to: sequences of different lengths stand
    side by side, padded on the right, and each writes over its padding as it grows.
    """

    def __init__(self, model: Decoder, sequences: int, positions: int):
        shape, weight = model.shape, model.lm_head.weight
        held = (shape.layers, sequences, shape.kv_heads, positions, shape.head_dim)
        self.shape, self.room = shape, positions
        self.keys = torch.zeros(held, dtype=weight.dtype, device=weight.device)
        self.values = torch.zeros(held, dtype=weight.dtype, device=weight.device)
        self.lengths = torch.zeros(sequences, dtype=torch.int64, device=weight.device)
        # one slot before the first token, so that the document a sequence is in is always the one behind its last
        self.documents = torch.zeros(sequences, positions + 1, dtype=torch.int64, device=weight.device)

    def positions(self, t: int) -> Tensor:
        """Return where the next `t` tokens of each sequence stand, [b, t]."""
        return self.lengths[:, None] + torch.arange(t, device=self.lengths.device)

    def note(self, ids: Tensor, end_of_text: int | None) -> None:
        """Remember which document each of the next tokens [b, t] belongs to, where that decides what they see."""
        if self.shape.within_documents:
            positions = self.positions(ids.shape[1])
            before = self.documents.gather(1, self.lengths[:, None])
            self.documents.scatter_(1, positions + 1, before + documents(ids, end_of_text))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None) -> Tensor:
        """Return attention [b, heads, t, head dim] of q to what is kept and to k and v, which are kept from now on."""
        positions = self.positions(q.shape[2])
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        self.keys[layer][rows, :, positions] = k.transpose(1, 2).to(self.keys.dtype)
        self.values[layer][rows, :, positions] = v.transpose(1, 2).to(self.values.dtype)
        filled = int(positions.max()) + 1
        keys, values = self.keys[layer, :, :, :filled], self.values[layer, :, :, :filled]
        places, own = torch.arange(filled, device=positions.device), positions[:, None, :, None]
        seen = places <= own
        if self.shape.window is not None:
            seen = seen & (places > own - self.shape.window)
        if self.shape.within_documents:
            owners = self.documents[:, 1:].gather(1, positions)
            seen = seen & (self.documents[:, None, None, 1 : filled + 1] == owners[:, None, :, None])
        return attention(q, keys.to(q.dtype), values.to(q.dtype), seen, sinks)


def documents(ids: Tensor, end_of_text: int | None) -> Tensor:
    """Return the number of the document that each of `ids` [b, t] belongs to, counted from the start of its sequence.

    An end-of-text belongs to the document after it, whose first token it predicts: so every document is trained
    on as it is scored, from one end-of-text to the next.
    """
    assert end_of_text is not None  # `build` has seen to it
    return (ids == end_of_text).cumsum(1)


def tokens_of_each(chosen: Tensor, count: int) -> list[int]:
    """Return how many of `chosen` [n] are 0, 1, ... up to `count`; evenly many where there are shapes and no values."""
    if isinstance(chosen, FakeTensor):  # memory is predicted without computing anything
        share, rest = divmod(len(chosen), count)
        return [share + (at < rest) for at in range(count)]
    return chosen.bincount(minlength=count).tolist()


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype matrix products run in: autocast's where it is on, else that of `x`."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def rotation_table(shape: Shape, positions: int) -> Rotation:
    """Return cosines and sines of each position and pair, [positions, head dim / 2] float32 (Su et al. 2021)."""
    frequencies = shape.rope_base ** -(torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim)
    angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


def build(shape: Shape, vocabulary: int, seed: int, end_of_text: int | None = None) -> Decoder:
    """Return a decoder with fresh float32 weights, the same for the same seed whatever ran before.

    Normal with deviation 0.02; the matrices that write into the residual stream are narrower by the square
    root of how many there are, so that depth does not raise its variance (Radford et al. 2019, section 2.3).
    The first loss is then within 0.5 of ln(vocabulary). Sinks begin at 0, as one more key that fits nobody.
    Raises ValueError where attention is to end at documents and nobody says what ends them.
    """
    if shape.within_documents and end_of_text is None:
        raise ValueError("within_documents needs the end-of-text id, which stands between documents")
    with torch.random.fork_rng(
        devices=[]
    ):  # torch's own initialisation, overwritten below, draws from the global state
        model = Decoder(shape, vocabulary, end_of_text)
    draw = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        with torch.no_grad():
            if weight.dim() == 1:
                weight.fill_(0.0 if name.endswith("sinks") else 1.0)
            elif name.endswith(("o_proj.weight", "down_proj.weight", "w2.weight")):
                weight.normal_(0.0, 0.02 / (2 * shape.layers) ** 0.5, generator=draw)
            else:
                weight.normal_(0.0, 0.02, generator=draw)
    return model


def hf_config(shape: Shape, vocabulary: int) -> dict[str, Any]:
    """Return the config.json with which `transformers` loads the decoder's weights: a LlamaForCausalLM.

    With a sliding window it is a MistralForCausalLM, with experts a MixtralForCausalLM. Attention within documents
    is no matter of weights. Raises ValueError for sinks, which only gpt-oss has, with other layers around them.
    """
    if shape.sinks:
        raise ValueError("transformers has no Llama with attention sinks; leave model.sinks out to export")
    name, kind = "LlamaForCausalLM", "llama"
    chosen: dict[str, Any] = {}
    if shape.window is not None:
        name, kind = "MistralForCausalLM", "mistral"
        chosen |= {"sliding_window": shape.window}
    if shape.experts is not None:
        name, kind = "MixtralForCausalLM", "mixtral"
        chosen |= {
            "num_local_experts": shape.experts.count,
            "num_experts_per_tok": shape.experts.active,
            "router_aux_loss_coef": shape.experts.balance,
        }
    return {
        "architectures": [name],
        "model_type": kind,
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
        **chosen,
    }
