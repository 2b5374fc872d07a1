"""A base from a folder of transformers: all of it or an error, and the same numbers as transformers'."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from tuned import LABELS, PAIRS, carried_out, outline, planned, repository, rows, tuned

from sovereign.corpus import tokens
from sovereign.corpus.examples import ExampleSet
from sovereign.model.pretrained import Unfit, load_folder, outlined
from sovereign.plan import Refused
from sovereign.training.sampling import sample
from sovereign.tuning import as_declared

VOCABULARY = 300
GPT2 = "{kind: lora, base: {folder: model}, context: 32, adapter: {rank: 2, alpha: 4, targets: [c_attn, c_proj]}}"


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=48, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
    )


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=48, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


FAMILIES: dict[str, Callable[[], Any]] = {"gpt2": gpt2, "llama": llama}


def folder(root: Path, make: Callable[[], Any] = gpt2, vocabulary: int = VOCABULARY) -> Path:
    """Write a model and its tokenizer as transformers does, in a repository with pairs and labels."""
    repository(root)
    make().save_pretrained(root / "model")
    bpe = tokens.train_bpe([(root / "data" / f"{number:02d}.txt").read_text() for number in range(80)], 320)
    model = json.loads(bpe.to_str())
    kept = dict(sorted(model["model"]["vocab"].items(), key=lambda one: one[1])[:vocabulary])
    model["model"]["vocab"] = kept
    model["model"]["merges"] = [pair for pair in model["model"]["merges"] if "".join(pair) in kept]
    (root / "model/tokenizer.json").write_text(Tokenizer.from_str(json.dumps(model)).to_str())
    return root


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    """The summed loss of a batch, and of each target, are what transformers' own logits give."""
    root = folder(tmp_path / "r", FAMILIES[family])
    model = load_folder(root / "model").eval()
    theirs = FAMILIES[family]().eval()
    ids = torch.randint(0, VOCABULARY, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = torch.nn.functional.cross_entropy(
            theirs(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        found = model.losses(ids[:, :-1], ids[:, 1:]).flatten()

    assert torch.allclose(wanted, found, atol=1e-5)
    assert model.loss(ids[:, :-1], ids[:, 1:]).item() == pytest.approx(wanted.sum().item(), rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    """Prompts of different lengths, padded side by side, are continued as transformers continues each alone."""
    root = folder(tmp_path / "r", FAMILIES[family])
    model, theirs = load_folder(root / "model"), FAMILIES[family]().eval()
    prompts = [[5, 6, 7, 8, 9], [40, 41]]
    found = sample(model, prompts, 6, temperature=0, top_k=0, seed=0)
    wanted = [
        theirs.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)[0, len(ids) :].tolist()
        for ids in prompts
    ]  # fmt: skip

    assert wanted == found


@pytest.mark.parametrize(("family", "targets"), [("gpt2", "c_attn"), ("llama", "q_proj")])
def test_a_folder_is_outlined_in_the_dtype_it_is_tuned_in(tmp_path: Path, family: str, targets: str) -> None:
    """Saved in bf16, as hubs do, a base is still loaded and planned in float32."""
    root = folder(tmp_path / "r", lambda: FAMILIES[family]().bfloat16())
    plan = planned(root, tuned("x", PAIRS, GPT2.replace("c_attn, c_proj", targets)))
    assert plan.tuning is not None

    assert "bfloat16" in (root / "model/config.json").read_text()
    assert outline(plan.tuning.outline()) == outline(plan.fresh())


@pytest.mark.parametrize("wrong", ["[]", "{", '{"model_type": "llama", "hidden_size": "wide"}'])
def test_a_configuration_that_describes_nothing_is_refused(tmp_path: Path, wrong: str) -> None:
    """Whatever stands in it: an error that names the file."""
    (tmp_path / "config.json").write_text(wrong)

    with pytest.raises(Unfit, match=r"config\.json"):
        outlined(tmp_path / "config.json")


def test_a_folder_is_tuned(tmp_path: Path) -> None:
    """GPT-2's Conv1D takes adapters, counted by hand: 2 x (32 + 96, 32 + 32, 128 + 32) in two layers."""
    concluded = carried_out(folder(tmp_path / "r"), tuned("x", PAIRS, GPT2, steps=12))
    counted = {row["subject"]: row["found"] for row in rows(concluded.folder, "attestation")}

    assert "completed" == concluded.outcome, concluded.reason
    assert str(2 * (128 + 64 + 160) * 2) == counted["trainable_parameters"]


def test_a_folder_is_made_a_classifier(tmp_path: Path) -> None:
    """GPT-2 has no pad token and needs none: batches of several texts of different lengths are classified."""
    method = GPT2.replace("kind: lora", "kind: classification")
    concluded = carried_out(folder(tmp_path / "r"), tuned("x", LABELS, method, steps=12))

    assert "completed" == concluded.outcome, concluded.reason
    assert {"model", "majority", "bag_of_words"} == {row["by"] for row in rows(concluded.folder, "prediction")}


def test_a_base_is_asked_by_prompt(tmp_path: Path) -> None:
    """The label whose name transformers' own logits find likeliest behind the prompt, text by text, is the one that is noted."""
    method = GPT2.replace("kind: lora", "kind: classification")
    root = folder(tmp_path / "r")
    asked = ', prompted: {prompt: "Review: {content} Felt:", answers: {warm: " river_bank", cold: " stone_bridge"}}'
    text = tuned("x", LABELS, method, steps=12, samples=asked)
    concluded = carried_out(root, text)
    data = planned(root, text).corpus
    assert isinstance(data, ExampleSet)
    net = AutoModelForCausalLM.from_pretrained(root / "model").eval().requires_grad_(False)
    said = {row["document"]: row["predicted"] for row in rows(concluded.folder, "prediction") if row["by"] == "prompt"}
    expected = {}
    for document in said:
        given = [data.end_of_text, *data.encode(f"Review: {data.examples[document].text}"), *data.encode(" Felt:")]
        likely = {}
        for label, name in (("warm", " river_bank"), ("cold", " stone_bridge")):
            answer = data.encode(name)
            logits = net(torch.tensor([[*given, *answer]])).logits[0].log_softmax(-1)
            likely[label] = sum(float(logits[len(given) + at - 1, one]) for at, one in enumerate(answer))
        expected[document] = max(likely, key=lambda label: likely[label])

    assert "completed" == concluded.outcome, concluded.reason
    assert len(said) > 10
    assert expected == said


def renamed(root: Path) -> None:
    file = root / "model/model.safetensors"
    tensors = load_file(file)
    tensors["transformer.h.0.attn.c_attn.wieght"] = tensors.pop("transformer.h.0.attn.c_attn.weight")
    save_file(tensors, file, {"format": "pt"})


def reshaped(root: Path) -> None:
    file = root / "model/model.safetensors"
    tensors = load_file(file)
    tensors["transformer.h.1.mlp.c_fc.weight"] = tensors["transformer.h.1.mlp.c_fc.weight"][:, :64].contiguous()
    save_file(tensors, file, {"format": "pt"})


def pickled(root: Path) -> None:
    (root / "model/model.safetensors").rename(root / "model/pytorch_model.bin")


def configured(root: Path, **changes: Any) -> None:
    file = root / "model/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "renamed": (renamed, "transformer.h.0.attn.c_attn.weight is missing; transformer.h.0.attn.c_attn.wieght is not known here"),
    "reshaped": (reshaped, "transformer.h.1.mlp.c_fc.weight is [32, 64], expected [32, 128]"),
    "pickled": (pickled, "its weights are pickled (pytorch_model.bin), which runs code as they are read; convert them"),
    "another family": (lambda root: configured(root, model_type="gptj"), "model_type 'gptj'; known here are gpt2"),
    "code of its own": (lambda root: configured(root, auto_map={"AutoModel": "x.Y"}), "asks for code of its own (auto_map)"),
    "deeper": (lambda root: configured(root, n_layer=3), "transformer.h.2.attn.c_attn.bias is missing"),
    "cut off": (lambda root: (root / "model/model.safetensors").write_bytes(b"x" * 40), "not a safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, fault: str) -> None:
    """Every tensor has its place and shape, nothing is pickled, and no code of a folder's own is run: else no step is made."""
    root = folder(tmp_path / "r")
    plant, message = FAULTS[fault]
    plant(root)

    with pytest.raises(Unfit) as unfit:
        load_folder(root / "model")
    with pytest.raises(Refused):
        planned(root, tuned("x", PAIRS, GPT2))
    assert message in str(unfit.value)


def test_a_tokenizer_with_more_ids_than_rows_is_refused(tmp_path: Path) -> None:
    """An id outside the embedding would read another's memory, or fail at the step that first meets it."""
    found = planned(folder(tmp_path / "r", vocabulary=310), tuned("x", PAIRS, GPT2))

    assert "the tokenizer has 310 entries, and the embedding 300 rows" in found.refusals[0]


def test_a_model_of_other_sizes_than_declared_is_refused(tmp_path: Path) -> None:
    """What a contract says of a hub model's size, by which it was planned, is held to what was fetched."""
    root = folder(tmp_path / "r")
    sizes = tmp_path / "sizes.json"
    sizes.write_text('{"model_type": "gpt2", "n_layer": 2}')
    as_declared(root / "model", sizes)
    sizes.write_text('{"model_type": "gpt2", "n_layer": 48}')

    with pytest.raises(Unfit, match="n_layer is 2, declared as 48"):
        as_declared(root / "model", sizes)
