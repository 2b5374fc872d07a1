"""What is observed of a tuned model: where it comes from, that it is what was asked, what it answers. All as rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sovereign.corpus.build import Corpus
from sovereign.corpus.examples import HELD_OUT, IGNORED, Encoded, ExampleSet, padded
from sovereign.corpus.labels import BagOfWords, majority
from sovereign.corpus.scoring import scored
from sovereign.model.adapters import adapted
from sovereign.model.attestation import frozen_digest, trainable_parameters
from sovereign.model.classifier import Classifier
from sovereign.model.embeddings import embedding
from sovereign.plan import Plan, Told
from sovereign.training.device import DTYPES, multiplying
from sovereign.training.evaluation import evaluate, evaluate_examples, evaluating
from sovereign.training.guards import Stopped, starts_as
from sovereign.training.sampling import sample
from sovereign.tuning import Tuning, data_of

PARENTS_DOCUMENTS = 40  # of the parent's validation documents, on which its loss is measured again

Rows = Iterator[tuple[str, dict[str, Any]]]


def descent(tuning: Tuning) -> Rows:
    """Yield lineage rows, and an inherited row for every document that an ancestor was trained on."""
    for one in tuning.ancestors:
        yield "lineage", {"ancestor": one.name, "manifest": one.intent.subjects.data or "", "loss": one.loss()}
        for document, consumed in one.consumed().items():
            yield "inherited", {"ancestor": one.name, "document": document, "consumed": consumed}
    if not tuning.ancestors:
        yield "lineage", {"ancestor": tuning.name}


def mask(examples: ExampleSet) -> Rows:
    """Yield the one mask row: an example as it is trained on."""
    document, found = examples.shown()
    one = examples.sides["train"][0]
    yield "mask", {
        "document": document, "pieces": tuple({"text": text, "learned": learned} for text, learned in found),
        "tokens": len(one.inputs), "targets": one.counted, "cut": examples.cut,
    }  # fmt: skip


def before_step_0(plan: Plan, model: nn.Module, root: Path, told: Told) -> Rows:
    """Yield attestation rows of the live model, and stop where one does not hold.

    Every tensor of the base is in place, byte for byte; the base loses on its parent's documents what the parent lost;
    as many parameters move as the contract says.
    """
    tuning = plan.tuning
    assert tuning is not None
    base = tuning.base().to(plan.device)
    saved = _saved(tuning)
    if saved is not None:
        yield _attested(0, "loaded_tensors", tensors_digest(saved), tensors_digest(dict(base.named_parameters())))
    if tuning.parent is not None:
        expected, found = _on_parents_documents(plan, base, root, told)
        yield "attestation", {
            "step": 0, "subject": "parent_loss", "expected": f"{expected:.6f}", "found": f"{found:.6f}", "tolerance": 0.01,
        }  # fmt: skip
        starts_as(expected, found)
    yield _attested(0, "trainable_parameters", str(tuning.expected_trainable), str(trainable_parameters(model)))
    adapter = getattr(tuning.method, "adapter", None)
    if adapter is not None:
        live = [module for _, module in adapted(model)]
        ranks = sorted({module.r["default"] for module in live})
        drops = sorted({float(getattr(module.lora_dropout["default"], "p", 0.0)) for module in live})
        scales = sorted({module.scaling["default"] for module in live})
        yield _attested(
            0, "adapters", f"rank {[adapter.rank]}, alpha / rank {[adapter.alpha / adapter.rank]}, dropout {[adapter.dropout]}",
            f"rank {ranks}, alpha / rank {scales}, dropout {drops}",
        )  # fmt: skip


def still_frozen(plan: Plan, model: nn.Module, step: int, subject: str = "frozen_weights") -> Rows:
    """Yield the attestation row of everything that must not have changed, against the base made anew."""
    assert plan.tuning is not None
    expected = frozen_digest(plan.fresh().to(plan.device))
    yield _attested(step, subject, expected, frozen_digest(model))


def embedding_rows(plan: Plan, model: nn.Module, step: int) -> Rows:
    """Yield the attestation row of the embedding's rows that the base had and that must not change: how many did."""
    assert plan.tuning is not None
    method = plan.tuning.method
    if getattr(method, "adapter", None) is None and getattr(method, "rows", None) != "new":
        return
    live: Any = model.language if isinstance(model, Classifier) else model
    old, new = (_matrix(one) for one in (plan.tuning.base(), live))
    kept = old.to(DTYPES[plan.contract.training.weights]).to(new.dtype)  # rounded, perhaps, before the first step
    changed = (new[: len(old)] != kept).any(1).sum()
    yield _attested(step, "embedding_rows", "0", str(int(changed)))


def _matrix(model: Any) -> Tensor:
    weight = embedding(model).weight
    assert isinstance(weight, Tensor)
    return weight.detach().cpu()


def require(rows: Rows) -> Rows:
    """Yield the rows, and stop after an attestation whose two sides should be equal and are not."""
    for kind, row in rows:
        yield kind, row
        if kind == "attestation" and not row.get("tolerance") and row["expected"] != row["found"]:
            raise Stopped(
                "not_as_asked", row["step"], f"{row['subject']}: {row['expected']} was to be, {row['found']} is"
            )


def _attested(step: int, subject: str, expected: str, found: str) -> tuple[str, dict[str, Any]]:
    return "attestation", {"step": step, "subject": subject, "expected": expected, "found": found}


def _saved(tuning: Tuning) -> dict[str, Tensor] | None:
    """Return the base's tensors as they stand in its file; of a folder transformers has accounted for them."""
    return load_file(tuning.parent.weights) if tuning.parent is not None else None


def tensors_digest(tensors: dict[str, Tensor]) -> str:
    """Return the number of tensors and `sha256:...` over name, dtype, shape and raw bytes of each, in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return f"{len(tensors)} tensors, sha256:{digest.hexdigest()}"


def _on_parents_documents(plan: Plan, base: nn.Module, root: Path, told: Told) -> tuple[float, float]:
    """Return the parent's loss on some of its validation documents, as it measured it, and the base's here."""
    assert plan.tuning is not None
    assert plan.tuning.parent is not None
    one = plan.tuning.parent
    measured, data = one.validation(), data_of(one.promise, plan.tuning.ancestors[1:], root, told)
    placed = {
        "batch": plan.contract.evaluation.batch, "context": one.promise.context, "precision": one.intent.environment.precision,
        "device": plan.device,
    }  # fmt: skip
    if placed["precision"] != plan.precision and placed["precision"] in ("bf16", "fp16"):
        placed["precision"] = plan.precision
    if isinstance(data, Corpus):
        most = one.promise.evaluation.tokens
        some = [(name, scored(ids, data.end_of_text, most)) for name, ids in data.ids("validation") if name in measured]
        found = evaluate(base, some[:PARENTS_DOCUMENTS], **placed)  # type: ignore[arg-type]
    else:
        examples = [example for example in data.sides["validation"] if example.document in measured]
        found = evaluate_examples(base, examples[:PARENTS_DOCUMENTS], **placed)  # type: ignore[arg-type]
    if not found:
        raise Stopped("not_as_asked", 0, f"none of the documents that {one.name} was measured on is here")
    tokens = sum(counted for _, _, counted in found)
    then = sum(measured[name][0] for name, _, _ in found) / sum(measured[name][1] for name, _, _ in found)
    return then, sum(nll for _, nll, _ in found) / tokens


# ── what it answers ──────────────────────────────────────────────────────────────────────────────


def predictions(plan: Plan, model: nn.Module, step: int) -> Rows:
    """Yield the label of every held-out text: the model's, the most frequent one's, and what the words alone say."""
    data = plan.corpus
    assert isinstance(data, ExampleSet)
    assert isinstance(model, Classifier)
    train = [data.examples[one.document] for one in data.sides["train"]]
    words = BagOfWords([one.text for one in train], [one.label for one in train])
    common = majority([one.label for one in train])
    for side in HELD_OUT:
        some = data.sides[side][: plan.contract.evaluation.documents]
        asked = prompted(plan, some)
        for at, (one, number) in enumerate(zip(some, predicted(model, some, plan), strict=True)):
            example = data.examples[one.document]
            given = [("model", data.labels[number]), ("majority", common), ("bag_of_words", words.label(example.text))]
            for by, label in (*given, *([("prompt", asked[at])] if asked else [])):
                yield "prediction", {
                    "step": step, "split": side, "by": by, "document": one.document, "label": example.label, "predicted": label,
                }  # fmt: skip


def prompted(plan: Plan, some: Sequence[Encoded]) -> list[str]:
    """Return the label whose name the base finds likeliest behind each text in the contract's prompt; none without one.

    A text that leaves no room for the prompt is cut at its end, the prompt never.
    """
    settings, data, tuning = plan.contract.evaluation.prompted, plan.corpus, plan.tuning
    if settings is None or tuning is None or not some:
        return []
    assert isinstance(data, ExampleSet)
    before, after = settings.prompt.split("{content}")
    answers = [data.encode(settings.answers.get(label, label)) for label in data.labels]
    behind = data.encode(after) if after else []
    room = plan.contract.context - max(map(len, answers)) - len(behind)
    asked = []
    for one in some:
        given = [data.end_of_text, *data.encode(before + data.examples[one.document].text)][:room] + behind
        for answer in answers:
            ids = np.array([*given, *answer], dtype=np.int64)
            targets = np.where(np.arange(len(ids) - 1) < len(given) - 1, IGNORED, ids[1:])
            asked.append(Encoded(one.document, ids[:-1], targets))
    placed: Any = {
        "batch": plan.contract.evaluation.batch,
        "context": plan.contract.context,
        "precision": plan.precision,
        "device": plan.device,
    }
    found = evaluate_examples(tuning.base().to(plan.device), asked, **placed)
    lost = np.array([nll for _, nll, _ in found]).reshape(len(some), len(answers))
    return [data.labels[number] for number in lost.argmin(1)]


def predicted(model: Classifier, some: Sequence[Encoded], plan: Plan) -> list[int]:
    """Return the number of the likeliest label of each text."""
    found: list[int] = []
    with evaluating(model), multiplying(plan.precision, plan.device.type):
        for start in range(0, len(some), plan.contract.evaluation.batch):
            batch = padded(some[start : start + plan.contract.evaluation.batch])
            inputs, targets = (torch.from_numpy(one).to(plan.device) for one in batch)
            found += model.logits(inputs, targets).argmax(-1).tolist()
    return found


def generations(plan: Plan, model: Any, step: int) -> Rows:
    """Yield what base and tuned model answer to held-out prompts and to the contract's canaries, on the same draws."""
    settings, data, tuning = plan.contract.evaluation.generation, plan.corpus, plan.tuning
    if settings is None or tuning is None:
        return
    assert isinstance(data, ExampleSet)
    room = plan.contract.context - settings.tokens
    asked: list[tuple[str, str, str, list[int]]] = []
    for one in sorted(data.sides["validation"], key=lambda one: one.document):
        prompt, reference = data.asked(one.document)
        if len(ids := [data.end_of_text, *data.encode(prompt)]) <= room:
            asked.append((one.document, prompt, reference, ids))
    asked = asked[: settings.prompts]
    if len(asked) < settings.prompts:
        yield "notice", {
            "step": step, "name": "prompts", "asked": str(settings.prompts), "got": str(len(asked)),
            "message": "the validation side holds fewer prompts that leave room for an answer",
        }  # fmt: skip
    answers = {data.asked(one.document)[1].strip() for one in data.sides["train"]}
    base = tuning.base().to(plan.device)
    drawn = {"temperature": settings.temperature, "top_k": settings.top_k, "stop": data.end_of_text}
    for writer, writing in (("base", base), ("tuned", model)):
        written = sample(writing, [ids for *_, ids in asked], settings.tokens, seed=plan.seed, **drawn)  # type: ignore[arg-type]
        for number, ((document, prompt, reference, _), ids) in enumerate(zip(asked, written, strict=True)):
            text = data.decode(ids)
            yield "generation", {
                "step": step, "writer": writer, "prompt_id": number, "attempt": 0, "document": document, "prompt": prompt,
                "reference": reference, "text": text, "copied": text.strip() in answers, "seed": plan.seed + number,
            }  # fmt: skip
        for number, prompt in enumerate(settings.canaries):
            ids = [data.end_of_text, *data.encode(prompt)]
            seed = plan.seed + 1_000_000 * (number + 1)
            attempts = sample(writing, [ids] * settings.attempts, settings.tokens, seed=seed, **drawn)  # type: ignore[arg-type]
            for attempt, said in enumerate(attempts):
                text = data.decode(said)
                yield "generation", {
                    "step": step, "writer": writer, "prompt_id": number, "attempt": attempt, "canary": True, "prompt": prompt,
                    "text": text, "copied": text.strip() in answers, "seed": seed + attempt,
                }  # fmt: skip
