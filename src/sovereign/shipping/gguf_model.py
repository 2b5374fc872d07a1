"""A decoder in a GGUF file of llama.cpp's `llama` architecture, written and read.

llama.cpp turns neighbouring pairs (2i, 2i + 1) of a head by one angle, where ours turns (i, i + head dim / 2): the
rows of q and k stand in another order in the file, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, TokenType
from pydantic import ValidationError
from torch import Tensor

from sovereign.canonical import Malformed, Problem
from sovereign.contract.model import Decoder as Shape
from sovereign.shipping.gguf_file import GgufFile, Held, read_gguf
from sovereign.shipping.weights import HEAD, Raw, Specials, Stored, Weights, require_fit

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", HEAD: "output.weight"}  # fmt: skip
PRE_TOKENIZER = "gpt-2"
CONTEXT_LIMIT = 1 << 24
Value = TypeVar("Value", str, int, float, bool, list)


def file_name(name: str) -> str:
    """Return llama.cpp's name of one of our tensors."""
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{PARTS[part]}.weight"


def our_name(name: str) -> str:
    """Return our name of one of llama.cpp's tensors; one that is no tensor of ours keeps its own."""
    whole = {theirs: ours for ours, theirs in WHOLE.items()}
    if name in whole:
        return whole[name]
    parts = {theirs: ours for ours, theirs in PARTS.items()}
    words = name.split(".")
    if len(words) == 4 and words[0] == "blk" and words[2] in parts and words[3] == "weight" and words[1].isdecimal():
        return f"model.layers.{int(words[1])}.{parts[words[2]]}.weight"
    return name


def rotated_heads(name: str, shape: Shape) -> int:
    """Return how many heads of a tensor are turned by their position: those of q and k, and of nothing else."""
    if name.endswith("q_proj.weight"):
        return shape.heads
    return shape.kv_heads if name.endswith("k_proj.weight") else 0


def row_order(heads: int, head_dim: int) -> Tensor:
    """Return, for each row of the file, which of our rows it is: halves of a head become neighbours."""
    return torch.arange(heads * head_dim).view(heads, 2, head_dim // 2).transpose(1, 2).reshape(-1)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────

Pack = Callable[[str, Tensor], Raw]  # type, float32 matrix -> bytes, [rows, bytes a row]


def write_gguf(
    path: Path, weights: Weights, kinds: Mapping[str, str], pack: Pack, file_type: int, about: Mapping[str, str]
) -> None:
    """Write `weights` to `path` with each tensor in the type that `kinds` gives it.

    `about` are facts of the model card under GGUF's keys (`general.name`, `general.license`). Raises ValueError for
    a tokenizer that GGUF cannot say.
    """
    shape = weights.shape
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in about.items():
        writer.add_string(key, value)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(weights.vocabulary)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, weights)
    for name, kind in kinds.items():
        tensor = weights.tensor(name)
        heads = rotated_heads(name, shape)
        if heads:
            tensor = tensor[row_order(heads, shape.head_dim)]
        if kind == "F32":
            writer.add_tensor(file_name(name), tensor.contiguous().numpy())
        else:
            writer.add_tensor(file_name(name), pack(kind, tensor), raw_dtype=GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, weights: Weights) -> None:
    entries, merges, control = byte_level(weights)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(entries)
    writer.add_token_types([TokenType.CONTROL if number in control else TokenType.NORMAL for number in range(len(entries))])  # fmt: skip
    writer.add_token_merges(merges)
    if weights.specials.begin is not None:
        writer.add_bos_token_id(weights.specials.begin)
    if weights.specials.end is not None:
        writer.add_eos_token_id(weights.specials.end)
    writer.add_add_bos_token(weights.specials.add_begin)
    writer.add_add_eos_token(weights.specials.add_end)


def byte_level(weights: Weights) -> tuple[list[str], list[str], set[int]]:
    """Return a byte-level BPE's entries in id order, its merges as GGUF spells them, and its control tokens.

    Raises ValueError naming what the tokenizer does that llama.cpp's `gpt-2` does not.
    """
    import json

    if weights.tokenizer is None:
        raise ValueError(f"{weights.origin}: has no tokenizer, and a GGUF file needs one")
    told = json.loads(weights.tokenizer.to_str())
    model, pre = told["model"], told["pre_tokenizer"] or {}
    faults = []
    if model["type"] != "BPE":
        faults.append(f"its model is {model['type']}, not BPE")
    if (pre.get("type"), pre.get("add_prefix_space"), pre.get("use_regex", True)) != ("ByteLevel", False, True):
        faults.append("it does not split as GPT-2 does (ByteLevel, no added space)")
    if told["normalizer"]:
        faults.append(f"it normalises text ({told['normalizer']['type']})")
    if not model.get("merges"):
        faults.append("it has no merges, without which llama.cpp loads no vocabulary")
    if faults:
        raise ValueError(f"{weights.origin}: the tokenizer cannot stand in a GGUF file: {'; '.join(faults)}")
    ids = weights.tokenizer.get_vocab(with_added_tokens=True)
    entries = [text for text, _ in sorted(ids.items(), key=lambda one: one[1])]
    if sorted(ids.values()) != list(range(weights.vocabulary)):
        raise ValueError(
            f"{weights.origin}: the tokenizer has {len(ids)} ids up to {max(ids.values())}, the model {weights.vocabulary}"
        )
    merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
    return entries, merges, {one["id"] for one in told["added_tokens"] if one["special"]}


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def read_gguf_model(path: Path) -> Weights:
    """Return the model in a GGUF file; raises Malformed for what is not a whole decoder of our family."""
    file = read_gguf(path)
    shape, vocabulary = _shape(file)
    stored = {our_name(name): _stored(our_name(name), held, shape) for name, held in file.tensors.items()}
    require_fit(stored, shape, vocabulary, file.path)
    return Weights(file.path, shape, vocabulary, stored, _specials(file, vocabulary), _tokenizer(file, vocabulary))


def _value(file: GgufFile, key: str, kind: type[Value], default: Value | None = None) -> Value:
    found = file.metadata.get(key, default)
    if found is None:
        raise Malformed([Problem(file.path, f"metadata {key} is missing")])
    if kind is float and type(found) is int:
        found = float(found)
    if type(found) is not kind:
        raise Malformed([Problem(file.path, f"metadata {key} is {found!r:.60}, not a {kind.__name__}")])
    return found


def _shape(file: GgufFile) -> tuple[Shape, int]:
    architecture = _value(file, "general.architecture", str)
    if architecture != "llama":
        raise Malformed([Problem(file.path, f"general.architecture is {architecture!r}; llama is read")])
    for key, same in {"llama.expert_count": 0, "llama.rope.scaling.type": "none"}.items():
        if file.metadata.get(key, same) != same:
            raise Malformed(
                [Problem(file.path, f"metadata {key} is {file.metadata[key]!r:.60}; only {same!r} is read")]
            )
    heads = _value(file, "llama.attention.head_count", int)
    hidden = _value(file, "llama.embedding_length", int)
    layers = _value(file, "llama.block_count", int)
    context = _value(file, "llama.context_length", int)
    if not 1 <= layers <= len(file.tensors) or not 1 <= heads <= hidden or context > CONTEXT_LIMIT:
        message = f"{layers} layers, {heads} heads, hidden {hidden} and context {context} are no shape of this file"
        raise Malformed([Problem(file.path, message)])
    for key in ("llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count"):
        if _value(file, key, int, hidden // heads) * heads != hidden:
            raise Malformed([Problem(file.path, f"metadata {key} is not hidden / heads = {hidden}/{heads}")])
    embedding = file.tensors.get("token_embd.weight")
    try:
        shape = Shape(
            hidden=hidden, layers=layers, heads=heads,
            kv_heads=_value(file, "llama.attention.head_count_kv", int, heads),
            ffn=_value(file, "llama.feed_forward_length", int),
            context=context,
            rope_base=shortest(_value(file, "llama.rope.freq_base", float, 10000.0)),
            norm_epsilon=shortest(_value(file, "llama.attention.layer_norm_rms_epsilon", float)),
            tied_embeddings="output.weight" not in file.tensors,
        )  # fmt: skip
    except ValidationError as error:
        raise Malformed(
            [Problem(file.path, f"metadata: {one['loc']}: {one['msg']}") for one in error.errors()]
        ) from None
    vocabulary = embedding.shape[0] if embedding else 0
    told = _value(file, "llama.vocab_size", int, vocabulary)
    if told != vocabulary:
        raise Malformed(
            [Problem(file.path, f"llama.vocab_size is {told}, and token_embd.weight has {vocabulary} rows")]
        )
    return shape, vocabulary


def shortest(value: float) -> float:
    """Return the number a float32 was written for: 1e-5 and not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _stored(name: str, held: Held, shape: Shape) -> Stored:
    heads = rotated_heads(name, shape)
    order = None
    if heads and held.shape[0] == heads * shape.head_dim:
        order = torch.argsort(row_order(heads, shape.head_dim)).numpy()

    def raw() -> Raw:
        rows = np.asarray(held.rows) if len(held.shape) > 1 else held.rows.reshape(held.shape[0], -1)
        return rows if order is None else rows[order]

    def read() -> Tensor:
        return unpacked(held.kind, raw() if len(held.shape) > 1 else held.rows).reshape(held.shape)

    return Stored(held.kind, held.shape, read, raw)


def unpacked(kind: str, rows: Raw) -> Tensor:
    """Return the weights of packed rows [rows, bytes a row] as float32 [rows, weights a row]."""
    if GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0] == 1:
        width: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
        if kind == "BF16":
            wide = np.ascontiguousarray(rows).view(np.uint16).astype(np.uint32) << 16
            return torch.from_numpy(wide.view(np.float32))
        if kind not in width:
            raise Malformed([Problem("GGUF", f"tensors of type {kind} hold no weights")])
        return torch.from_numpy(np.ascontiguousarray(rows).view(width[kind]).astype(np.float32))
    return torch.from_numpy(gguf.quants.dequantize(np.ascontiguousarray(rows), GGMLQuantizationType[kind]))


def _specials(file: GgufFile, vocabulary: int) -> Specials:
    found: dict[str, int | None] = {}
    for ours, theirs in {"begin": "tokenizer.ggml.bos_token_id", "end": "tokenizer.ggml.eos_token_id"}.items():
        token = _value(file, theirs, int) if theirs in file.metadata else None
        if token is not None and not 0 <= token < vocabulary:
            raise Malformed([Problem(file.path, f"{theirs} is {token}, outside a vocabulary of {vocabulary}")])
        found[ours] = token
    return Specials(
        found["begin"], found["end"],
        _value(file, "tokenizer.ggml.add_bos_token", bool, False),
        _value(file, "tokenizer.ggml.add_eos_token", bool, False),
    )  # fmt: skip


def _tokenizer(file: GgufFile, vocabulary: int) -> Tokenizer | None:
    """Return the byte-level BPE that a file holds, or None where its tokenizer is of another kind."""
    if file.metadata.get("tokenizer.ggml.model") != "gpt2" or file.metadata.get("tokenizer.ggml.pre") != PRE_TOKENIZER:
        return None
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    entries = _value(file, "tokenizer.ggml.tokens", list)
    merges = _value(file, "tokenizer.ggml.merges", list)
    types = _value(file, "tokenizer.ggml.token_type", list)
    problems = []
    if len(entries) != vocabulary or len(types) != vocabulary:
        problems.append(f"{len(entries)} tokens and {len(types)} token types for a vocabulary of {vocabulary}")
    if not all(isinstance(one, str) for one in (*entries, *merges)) or len(set(entries)) != len(entries):
        problems.append("tokens or merges are not strings, or a token is given twice")
    elif any(one.count(" ") != 1 for one in merges):
        problems.append("a merge is not two tokens with one space between them")
    if problems:
        raise Malformed([Problem(file.path, f"tokenizer: {one}") for one in problems])
    control = [text for text, kind in zip(entries, types, strict=True) if kind == TokenType.CONTROL]
    try:
        model = models.BPE({text: id_ for id_, text in enumerate(entries)}, [tuple(one.split(" ")) for one in merges])
    except Exception as error:  # the library raises bare Exception: a merge of what is no token
        raise Malformed([Problem(file.path, f"tokenizer: {error}")]) from None
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in control])
    return tokenizer
