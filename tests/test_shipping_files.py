"""Exports: whole or not there, read again bit for bit, loaded by others; and files from elsewhere, which may lie."""

from __future__ import annotations

import json
import random
import resource
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from gguf_edit import rewritten
from safetensors.torch import load_file, save_file
from trained import as_weights, prompts, tokenizer, trained

from sovereign.canonical import Malformed
from sovereign.contract.model import Decoder as Shape
from sovereign.model.decoder import build
from sovereign.shipping import export as exporting
from sovereign.shipping.export import Unexportable, Unfaithful, export_folder, export_gguf
from sovereign.shipping.gguf_file import read_gguf
from sovereign.shipping.gguf_model import file_name, our_name, read_gguf_model, row_order, unpacked
from sovereign.shipping.huggingface import read_folder, read_safetensors
from sovereign.shipping.weights import Weights, expected, plain, require_fit

ABOUT = {"general.name": "small", "general.license": "Apache-2.0"}
SMALL = Shape(hidden=32, layers=2, heads=4, kv_heads=2, ffn=64, context=32)


def small(**changes: Any) -> Weights:
    shape = Shape(**{**SMALL.model_dump(), **changes})
    return as_weights(build(shape, tokenizer().get_vocab_size(), seed=3), "small")


# ── written ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("quantize", ["f32", "f16", "q8_0"])
def test_a_gguf_file_reads_back_as_what_was_written(tied: bool, quantize: str, tmp_path: Path) -> None:
    """Shape, special tokens, token ids and tensors survive; types are the recipe's; nothing else is left in the folder."""
    weights = small(tied_embeddings=tied, rope_base=5000.0, norm_epsilon=1e-6)
    written = export_gguf(weights, tmp_path / "a.gguf", quantize, ABOUT)
    again = read_gguf_model(tmp_path / "a.gguf")

    assert (again.shape, again.vocabulary, again.specials) == (weights.shape, weights.vocabulary, weights.specials)
    assert again.kinds == dict(written.kinds)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]
    text = "def f(x):\n    return {'é': x ** 2}  # <|endoftext|>\n"
    assert again.tokenizer is not None
    assert again.tokenizer.encode(text).ids == tokenizer().encode(text).ids
    if quantize == "f32":
        assert all(torch.equal(again.tensor(name), weights.tensor(name)) for name in weights.stored)


def test_the_gguf_package_reads_the_same_tensors(tmp_path: Path) -> None:
    """The independent reader finds every tensor under llama.cpp's name, q and k in llama.cpp's order of rows."""
    weights = small()
    export_gguf(weights, tmp_path / "a.gguf", "f32", ABOUT)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    theirs = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    order = row_order(4, 8)

    assert {file_name(name) for name in weights.stored} == set(theirs)
    for name in weights.stored:
        rows = {"q_proj": order, "k_proj": order[: 2 * 8]}.get(name.split(".")[-2])
        ours = weights.tensor(name)
        assert torch.equal(theirs[file_name(name)], ours if rows is None else ours[rows]), name
    assert reader.fields["general.license"].contents() == "Apache-2.0"


@pytest.mark.parametrize("other", [{"window": 8}, {"sinks": True}, {"experts": {"count": 2, "active": 1}}])
def test_a_decoder_that_is_no_llama_is_refused(other: dict[str, Any]) -> None:
    """A window, sinks or experts would be lost without a word where the file is loaded: it is never written or read."""
    shape = Shape.model_validate({**SMALL.model_dump(), **other})

    with pytest.raises(Malformed, match=f"a decoder with {next(iter(other))} is no Llama"):
        require_fit({}, shape, 320, "a run")


def test_names_map_both_ways() -> None:
    """Every tensor of a decoder has one name in a GGUF file, and comes back from it."""
    names = expected(small(tied_embeddings=False).shape, 300)

    assert list(names) == [our_name(file_name(name)) for name in names]


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_the_folder_and_gives_the_same_logits(tied: bool, tmp_path: Path) -> None:
    """A trained export is a LlamaForCausalLM within a relative L2 of 1e-5, and AutoTokenizer gives the same ids."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = trained("tied" if tied else "untied")
    export_folder(weights, tmp_path / "hf", "f32", b"# card\n")
    theirs, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    ids = torch.tensor([one for one in prompts(8, 64) if len(one) == 64])
    with torch.no_grad():
        ours, others = weights.decoder()(ids), theirs.eval()(ids).logits
    distance = (ours - others).norm(dim=-1) / ours.norm(dim=-1)

    assert [list(loading[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")] == [[], [], []]
    assert distance.max() <= 1e-5
    text = "for i in range(10):\n\tprint('ü')\n"
    assert AutoTokenizer.from_pretrained(tmp_path / "hf")(text).input_ids == [0, *tokenizer().encode(text).ids]


def test_a_folder_reads_back_as_what_was_written(tmp_path: Path) -> None:
    """A Hugging Face folder in f16 holds the rounded weights, the settings, and the special tokens put around a text."""
    weights = small(tied_embeddings=False, rope_base=123.0)
    export_folder(weights, tmp_path / "hf", "f16", b"# card\n")
    again = read_folder(tmp_path / "hf")

    assert (again.shape, again.specials) == (weights.shape, weights.specials)
    assert all(torch.equal(again.tensor(name), weights.tensor(name).half().float()) for name in weights.stored)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def test_an_export_never_writes_over_a_file_unasked(tmp_path: Path) -> None:
    """What stands there stays, byte for byte, without force; with it, the new export stands there."""
    for name, export in (("a.gguf", lambda **how: export_gguf(small(), tmp_path / "a.gguf", "f32", ABOUT, **how)),
                         ("hf", lambda **how: export_folder(small(), tmp_path / "hf", "f32", b"", **how))):  # fmt: skip
        first = export()
        with pytest.raises(Unexportable, match="exists"):
            export()
        assert export(force=True).files == first.files
        assert (tmp_path / name).exists()


def test_an_export_that_reads_back_differently_is_not_left_standing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug planted: a writer that transposes one matrix. It is found by reading again, and no file is left."""
    honest = exporting.write_gguf

    def transposing(path: Path, weights: Weights, *rest: Any) -> None:
        name = "model.layers.1.self_attn.o_proj.weight"
        honest(
            path,
            replace(weights, stored={**weights.stored, name: plain("F32", weights.tensor(name).T.contiguous())}),
            *rest,
        )

    monkeypatch.setattr(exporting, "write_gguf", transposing)

    with pytest.raises(Unfaithful, match=r"layers\.1\.self_attn\.o_proj"):
        export_gguf(small(), tmp_path / "a.gguf", "f32", ABOUT)
    assert [] == list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A write that the system refuses raises, and neither a file nor a part of one is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError):
            export_gguf(small(), tmp_path / "a.gguf", "f32", ABOUT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)

    assert [] == list(tmp_path.iterdir())


# ── read, from elsewhere ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_K", "Q6_K", "Q4_K"])
def test_types_unpack_as_the_gguf_package_does(kind: str) -> None:
    """Every type that a file may hold comes out as the package's own dequantization, bit for bit."""
    type_ = GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[type_]
    rows = np.random.default_rng(0).integers(0, 60, (4, 512 // block * size), dtype=np.uint8)

    assert np.array_equal(gguf.quants.dequantize(rows, type_).reshape(4, 512), unpacked(kind, rows).numpy())


def corrupted(data: bytes, draw: random.Random) -> bytes:
    """Return a file with one thing wrong: cut, grown, bytes changed, or a count made absurd. Mostly in the header."""
    edited = bytearray(data)
    how = draw.randrange(5)
    reach = draw.choice([64, 2048, len(data)])
    at = draw.randrange(min(reach, len(data) - 8))
    if how == 0:
        return bytes(edited[:at])
    if how == 1:
        return bytes(edited) + draw.randbytes(draw.randrange(40, 5000))
    if how == 2:
        for _ in range(draw.randrange(1, 20)):
            edited[draw.randrange(min(reach, len(data)))] = draw.randrange(256)
    if how == 3:
        edited[at : at + 8] = struct.pack("<Q", draw.choice([2**63, 2**64 - 1, 2**40, 2**31, 10**9, 0]))
    if how == 4:
        edited[at : at + 4] = struct.pack("<I", draw.choice([2**32 - 1, 9, 8, 13, 0, 2**31]))
    return bytes(edited)


def test_no_corrupt_file_is_more_than_an_error(tmp_path: Path) -> None:
    """Of 600 corrupted GGUF and safetensors files each is Malformed, or still a whole model; in bounded memory.

    Planted by hand: without the check of a length against the file's rest, this test dies of memory.
    """
    weights = small()
    export_gguf(weights, tmp_path / "good.gguf", "q8_0", ABOUT)
    export_folder(weights, tmp_path / "hf", "f32", b"")
    files = {"good.gguf": (tmp_path / "good.gguf").read_bytes(), "model.safetensors": (tmp_path / "hf/model.safetensors").read_bytes()}  # fmt: skip
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory_now() + (1 << 29), hard))
    refused = 0
    try:
        for seed in range(600):
            draw = random.Random(seed)
            name = draw.choice(list(files))
            data = corrupted(files[name], draw)
            try:
                if name == "good.gguf":
                    (tmp_path / "bad.gguf").write_bytes(data)
                    found = read_gguf_model(tmp_path / "bad.gguf")
                else:
                    (tmp_path / "hf" / name).write_bytes(data)
                    found = read_folder(tmp_path / "hf")
                assert all(
                    found.tensor(one).shape == size for one, size in expected(found.shape, found.vocabulary).items()
                )
            except Malformed:
                refused += 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    assert refused > 300  # the rest were changed in a weight or in prose


def memory_now() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"llama.block_count": 3}, r"layers\.2\.input_layernorm\.weight is missing"),
        ({"llama.block_count": 2**31}, "no shape of this file"),
        ({"llama.attention.head_count": 5}, "hidden / heads"),
        ({"llama.feed_forward_length": 128}, "asks for"),
        ({"llama.vocab_size": 7}, "llama.vocab_size is 7"),
        ({"llama.embedding_length": None}, "embedding_length is missing"),
        ({"tokenizer.ggml.bos_token_id": 10**6}, "outside a vocabulary"),
        ({"llama.context_length": 2**31}, "no shape of this file"),
    ],
)
def test_metadata_that_does_not_fit_the_tensors_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    """A count in the metadata is believed only as far as the tensors bear it out."""
    export_gguf(small(), tmp_path / "a.gguf", "f32", ABOUT)

    with pytest.raises(Malformed, match=said):
        read_gguf_model(rewritten(tmp_path / "a.gguf", tmp_path / "b.gguf", metadata=change))


def test_nested_arrays_and_double_keys_are_refused(tmp_path: Path) -> None:
    """An array of arrays, by which a reader could be sent in circles or down without end, is named and not followed."""
    text = lambda words: struct.pack("<Q", len(words)) + words  # noqa: E731
    head = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1)
    nested = head + text(b"a") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 9, 1) * 1000
    (tmp_path / "nested.gguf").write_bytes(nested)
    twice = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2) + (text(b"a") + struct.pack("<IB", 7, 1)) * 2
    (tmp_path / "twice.gguf").write_bytes(twice)

    with pytest.raises(Malformed, match="array of arrays"):
        read_gguf(tmp_path / "nested.gguf")
    with pytest.raises(Malformed, match="given twice"):
        read_gguf(tmp_path / "twice.gguf")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "rope_scaling"),
        ("attention_bias", True, "attention_bias"),
        ("model_type", "mistral", "model_type"),
        ("num_hidden_layers", 3, "is missing"),
        ("num_hidden_layers", 10**9, "at most 4096"),
        ("hidden_size", "big", "hidden"),
        ("vocab_size", -1, "vocab_size"),
        ("head_dim", 16, "head_dim"),
        ("rope_parameters", {"rope_type": "yarn"}, "rope_parameters"),
    ],
)
def test_a_configuration_of_another_decoder_is_refused(key: str, value: Any, said: str, tmp_path: Path) -> None:
    """A setting that changes what the tensors mean is refused and named, never ignored."""
    export_folder(small(), tmp_path / "hf", "f32", b"")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    (tmp_path / "hf/config.json").write_text(json.dumps({**config, key: value}))

    with pytest.raises(Malformed, match=said):
        read_folder(tmp_path / "hf")


def test_a_tied_head_that_is_another_matrix_is_refused(tmp_path: Path) -> None:
    """A folder whose configuration ties the head, and whose file holds another one, contradicts itself."""
    export_folder(small(), tmp_path / "hf", "f32", b"")
    file = tmp_path / "hf/model.safetensors"
    tensors = load_file(file)
    head = tensors["model.embed_tokens.weight"].clone()
    save_file({**tensors, "lm_head.weight": head}, file)
    assert read_folder(tmp_path / "hf").shape.tied_embeddings
    head[3] += 1
    save_file({**tensors, "lm_head.weight": head}, file)

    with pytest.raises(Malformed, match="another tensor"):
        read_folder(tmp_path / "hf")


def test_a_tensor_of_integers_is_no_weight(tmp_path: Path) -> None:
    """A safetensors file of a type we do not multiply by is refused with the tensor's name."""
    save_file({"model.norm.weight": torch.ones(4, dtype=torch.int32)}, tmp_path / "a.safetensors")

    with pytest.raises(Malformed, match=r"model\.norm\.weight is I32"):
        read_safetensors(tmp_path / "a.safetensors")
