"""A decoder in a Hugging Face folder: safetensors, config.json and tokenizer files, written and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, processors
from torch import Tensor

from sovereign.canonical import Malformed, Problem, parse_json, pretty, read
from sovereign.contract.model import Decoder as Shape
from sovereign.model.decoder import hf_config
from sovereign.shipping.weights import EMBEDDING, HEAD, Raw, Specials, Stored, Weights, require_fit

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
MOST_JSON = 1 << 26  # bytes of a configuration or tokenizer file
# settings by which another decoder hides behind the same tensors, and the values under which it is ours
SAME = {
    "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "rope_scaling": None,
    "sliding_window": None, "pretraining_tp": 1, "quantization_config": None,
}  # fmt: skip


# ── writing ──────────────────────────────────────────────────────────────────────────────────────


def write_folder(folder: Path, weights: Weights, kind: str, card: bytes) -> None:
    """Write a folder that `transformers` loads as a LlamaForCausalLM, every matrix in `kind` (F32, F16, BF16)."""
    tensors = {name: weights.tensor(name).to(DTYPES[kind]).contiguous() for name in weights.stored}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    specials = {"bos_token_id": weights.specials.begin, "eos_token_id": weights.specials.end}
    given = {key: value for key, value in specials.items() if value is not None}
    config = hf_config(weights.shape, weights.vocabulary) | given | {"torch_dtype": NAMES[kind], "dtype": NAMES[kind]}
    (folder / "config.json").write_bytes(pretty(config))
    (folder / "generation_config.json").write_bytes(pretty({"_from_model_config": True, **given}))
    (folder / "README.md").write_bytes(card)
    if weights.tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer_with(weights.tokenizer, weights.specials).to_str(pretty=True))
        (folder / "tokenizer_config.json").write_bytes(pretty(_tokenizer_config(weights)))


def tokenizer_with(tokenizer: Tokenizer, specials: Specials) -> Tokenizer:
    """Return a copy of the tokenizer that puts the special tokens around a text, as the model was trained."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    begin = _token(tokenizer, specials.begin) if specials.add_begin else None
    end = _token(tokenizer, specials.end) if specials.add_end else None
    if begin or end:
        single = " ".join(filter(None, (begin, "$A", end)))
        pair = " ".join(filter(None, (begin, "$A", end, begin and f"{begin}:1", "$B:1", end and f"{end}:1")))
        around = {text: tokenizer.token_to_id(text) for text in (begin, end) if text}
        copy.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=list(around.items())
        )
    return copy


def _token(tokenizer: Tokenizer, number: int | None) -> str | None:
    return None if number is None else str(tokenizer.id_to_token(number))


def _tokenizer_config(weights: Weights) -> dict[str, Any]:
    assert weights.tokenizer is not None
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": weights.shape.context,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": weights.specials.add_begin,
        "add_eos_token": weights.specials.add_end,
        "bos_token": _token(weights.tokenizer, weights.specials.begin),
        "eos_token": _token(weights.tokenizer, weights.specials.end),
    }
    return {key: value for key, value in config.items() if value is not None}


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def read_folder(folder: Path) -> Weights:
    """Return the model in a Hugging Face folder; raises Malformed for what is not a whole decoder of our family."""
    config = _json(folder / "config.json")
    shape, vocabulary = _shape(config, str(folder / "config.json"))
    file = folder / "model.safetensors"
    if not file.exists() and (folder / "model.safetensors.index.json").exists():
        raise Malformed(
            [Problem(str(folder), "the weights are split over several files; one model.safetensors is read")]
        )
    stored = read_safetensors(file)
    if shape.tied_embeddings and HEAD in stored and EMBEDDING in stored:
        if not torch.equal(stored[HEAD].read(), stored[EMBEDDING].read()):
            raise Malformed([Problem(str(file), f"embeddings are tied by config.json, and {HEAD} is another tensor")])
        del stored[HEAD]
    require_fit(stored, shape, vocabulary, str(file))
    tokenizer = _tokenizer(folder / "tokenizer.json")
    return Weights(str(folder), shape, vocabulary, stored, _specials(config, tokenizer, str(folder)), tokenizer)


def read_safetensors(file: Path) -> dict[str, Stored]:
    """Return every tensor of a safetensors file, none of them read yet; raises Malformed for a file that is not whole.

    The library holds the header to the file's size, and refuses overlaps and gaps, before it gives anything out.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            headers = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
            listed = {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in headers.items()}
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise Malformed([Problem(str(file), f"not a whole safetensors file: {error}")]) from None
    wrong = [f"tensor {name} is {dtype}; {', '.join(DTYPES)} are read" for name, (dtype, _) in listed.items() if dtype not in DTYPES]  # fmt: skip
    if wrong:
        raise Malformed([Problem(str(file), one) for one in wrong])
    return {name: _stored(file, name, dtype, size) for name, (dtype, size) in listed.items()}


def _stored(file: Path, name: str, dtype: str, size: tuple[int, ...]) -> Stored:
    def tensor() -> Tensor:
        with safe_open(file, framework="pt") as opened:
            found: Tensor = opened.get_tensor(name)
        return found

    def raw() -> Raw:
        return tensor().reshape(size[0], -1).contiguous().view(torch.uint8).numpy()

    return Stored(dtype, size, lambda: tensor().float(), raw)


def _json(file: Path) -> Mapping[str, Any]:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise Malformed([Problem(str(file), f"cannot be read: {error.strerror}")]) from None
    if size > MOST_JSON:
        raise Malformed([Problem(str(file), f"has {size} bytes; a configuration has at most {MOST_JSON}")])
    value = read(file).value
    if not isinstance(value, dict):
        raise Malformed([Problem(str(file), "is not a JSON object")])
    return value


def _shape(config: Mapping[str, Any], origin: str) -> tuple[Shape, int]:
    rope = config.get("rope_parameters") or {}
    problems = [
        Problem(origin, f"{key} is {config[key]!r:.60}; only {same!r} is read")
        for key, same in SAME.items()
        if config.get(key, same) != same
    ]
    if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
        problems.append(Problem(origin, f"rope_parameters are {rope!r:.80}; only rope_type default is read"))
        rope = {}
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    if isinstance(heads, int) and isinstance(hidden, int) and config.get("head_dim", hidden // max(heads, 1)) != hidden // max(heads, 1):  # fmt: skip
        problems.append(
            Problem(origin, f"head_dim is {config['head_dim']!r:.60}, not hidden_size / num_attention_heads")
        )
    vocabulary = config.get("vocab_size")
    if type(vocabulary) is not int or not 1 <= vocabulary <= 1 << 24:
        problems.append(Problem(origin, f"vocab_size is {vocabulary!r:.60}, not a number of tokens"))
    if problems:
        raise Malformed(problems)
    base = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    values = {
        "hidden": hidden, "layers": config.get("num_hidden_layers"), "heads": heads,
        "kv_heads": config.get("num_key_value_heads", heads), "ffn": config.get("intermediate_size"),
        "context": config.get("max_position_embeddings"), "rope_base": base,
        "norm_epsilon": config.get("rms_norm_eps", 1e-6), "tied_embeddings": config.get("tie_word_embeddings", False),
    }  # fmt: skip
    try:
        shape = Shape.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise Malformed([Problem(origin, f"{one['loc'][0]}: {one['msg']}" if one["loc"] else one["msg"]) for one in error.errors()]) from None  # fmt: skip
    if shape.layers > 1 << 12:
        raise Malformed([Problem(origin, f"num_hidden_layers is {shape.layers}; at most 4096 are read")])
    assert isinstance(vocabulary, int)
    return shape, vocabulary


def _tokenizer(file: Path) -> Tokenizer | None:
    if not file.exists():
        return None
    if file.stat().st_size > MOST_JSON:
        raise Malformed([Problem(str(file), f"has {file.stat().st_size} bytes; a tokenizer has at most {MOST_JSON}")])
    try:
        text = file.read_bytes()
        parse_json(text, str(file))
        return Tokenizer.from_str(text.decode())
    except Malformed:
        raise
    except Exception as error:  # the library raises bare Exception for every fault
        raise Malformed([Problem(str(file), f"not a tokenizer.json: {error}")]) from None


def _specials(config: Mapping[str, Any], tokenizer: Tokenizer | None, origin: str) -> Specials:
    ids: list[int | None] = []
    for key in ("bos_token_id", "eos_token_id"):
        given = config.get(key)
        token = given[0] if isinstance(given, list) and given else given
        if token is not None and (type(token) is not int or token < 0):
            raise Malformed([Problem(f"{origin}/config.json", f"{key} is {given!r:.60}, not a token id")])
        ids.append(token)
    if tokenizer is None:
        return Specials(ids[0], ids[1], add_begin=False)
    tokenizer.encode_special_tokens = False
    bare, around = (tokenizer.encode("a", add_special_tokens=added).ids for added in (False, True))
    return Specials(ids[0], ids[1], add_begin=around[:1] != bare[:1], add_end=around[-1:] != bare[-1:])
