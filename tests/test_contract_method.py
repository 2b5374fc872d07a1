"""Methods in a contract: what one would ignore is refused at its place, and no old contract means anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from fabric import CONTRACT
from tuned import LABELS, LORA, PAIRS, TEXT, contract, tuned

from sovereign.canonical import Malformed, digest

ROOT = Path(__file__).parent.parent


def refusal(text: str) -> str:
    with pytest.raises(Malformed) as caught:
        contract(text)
    return str(caught.value)


def test_a_contract_from_scratch_means_what_it_meant() -> None:
    """The method section left out is `scratch`, and is no part of the subject's digest: old evidence stays fresh."""
    found = contract(CONTRACT)
    mine = found.meaning()

    assert "scratch" == found.method.kind
    assert found.subject == digest({key: mine[key] for key in ("data", "tokenizer", "model", "training", "evaluation")})
    assert found.subject == contract(CONTRACT.replace("tokenizer:", "method: {kind: scratch}\ntokenizer:")).subject


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("{kind: full, base: {run: toy}, context: 48, rank: 8}", "method.rank: unknown key"),
        ("{kind: full, base: {run: toy}, context: 48, adapter: {rank: 8}}", "method.adapter: unknown key"),
        (f"{{kind: lora, base: {{run: toy}}, context: 48, adapter: {LORA}, rows: all}}", "method.rows: unknown key"),
        ("{kind: lora, base: {run: toy}, context: 48}", "method.adapter: required, and not given"),
        ("{kind: lora, base: {run: toy}, context: 48, adapter: {rank: 0, alpha: 1, targets: [q_proj]}}", "greater than or equal to 1"),
        ("{kind: lora, base: {run: toy}, context: 48, adapter: {rank: 1, alpha: 1, targets: []}}", "at least 1"),
        ("{kind: lora, base: {run: toy}, context: 48, adapter: {rank: 1, alpha: 1, targets: [q_proj, q_proj]}}", "twice"),
        ("{kind: scratch, base: {run: toy}}", "method.base: unknown key"),
        ("{kind: full, base: {hub: gpt2/gpt2}, context: 48}", "without a revision is another model tomorrow"),
        ("{kind: full, base: {hub: gpt2/gpt2, revision: main}, context: 48}", "'main' may move; pin a commit"),
        ("{kind: full, base: {run: toy, revision: main}, context: 48}", "a revision pins a model of the hub"),
        ("{kind: full, base: {run: toy, folder: there}, context: 48}", "one of run, folder or hub, not run and folder"),
        ("{kind: full, base: {}, context: 48}", "not none of them"),
        ("{kind: full, base: {folder: models/pytorch_model.bin}, context: 48}", "is a pickle, which runs code as it is read"),
        ("{kind: embeddings, base: {run: toy}, context: 48, rows: new}", "rows: new needs new_tokens"),
        ("{kind: embeddings, base: {folder: m}, context: 48, rows: new, new_tokens: {count: 2}}", "train side of a base run"),
        ("{kind: classification, base: {run: toy}, context: 48}", "learns from labels"),
        ("{kind: lora, base: {run: toy}, context: 48, adapter: {rank: 4, alpha: 8, targets: [q_proj, embed_tokens]}}",
         "embed_tokens is adapted only of a classifier: an output head may be tied to it"),
        ("{kind: lorra, base: {run: toy}, context: 48}", "lorra"),
    ],
)  # fmt: skip
def test_what_a_method_would_ignore_is_refused(method: str, message: str) -> None:
    """Each setting belongs to a method that uses it; elsewhere it is an unknown key, and a base is one pinned thing."""
    assert message in refusal(tuned("toy", PAIRS, method))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("training:", "model: {hidden: 16, layers: 1, heads: 2, kv_heads: 1, ffn: 32, context: 16}\ntraining:",
         "model: method lora takes it from its base and would ignore this"),
        ("training:", "tokenizer: {kind: bpe, vocabulary: 300}\ntraining:", "tokenizer: method lora takes it from its base"),
        ("tokens: 64", "tokens: 64, samples: {prompts: 3}", "held-out prompts are answered by evaluation.generation"),
        ("control: 0.2}", "control: 0.2}\n  template: {user: x}", "must hold {content} once"),
        ("{run: toy}", "{folder: there}", ""),
    ],
)  # fmt: skip
def test_what_pairs_would_ignore_is_refused(old: str, new: str, message: str) -> None:
    """A tuned model takes shape and tokenizer from its base; prompts are answered, not continued."""
    text = tuned("toy", PAIRS, "lora")
    assert old in text
    if not message:
        assert contract(text.replace(old, new)).method.base.folder == "there"
        return
    assert message in refusal(text.replace(old, new))


def test_inheriting_needs_somebody() -> None:
    """A split inherited from a folder, or from nobody, is refused: nobody knows what it was trained on."""
    folder = tuned("toy", PAIRS, "lora", split=", inherit: true").replace("{run: toy}", "{folder: there}")

    assert "nobody knows what there was trained on" in refusal(folder)
    assert "a model from scratch has no base" in refusal(
        CONTRACT.replace("control: 0.2", "control: 0.2, inherit: true")
    )


def test_labels_are_for_classifiers() -> None:
    """Labelled text teaches a classifier alone, and a classifier is asked for no text."""
    asked = ", generation: {prompts: 1}"

    assert "learns from text; data.source is of kind labelled" in refusal(tuned("toy", LABELS, "lora"))
    assert "has none; remove it" in refusal(tuned("toy", LABELS, "labels", samples=asked))
    assert "has none; remove it" in refusal(tuned("toy", TEXT, "lora", samples=asked))


def test_pairs_need_a_base() -> None:
    """Examples tune a base; a model from scratch is refused them, with the line that is missing."""
    text = CONTRACT.replace('source: {kind: folder, path: data, include: ["*.txt"]}', f"source: {PAIRS}")

    assert "tunes a base; name it under method" in refusal(text)
