"""Ask a trained model the questions whose answers say what a run really shows; every answer is a row.

Which ones is the contract's choice (`evaluation.probes`, `data.canaries`). The law judges the rows; here nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sovereign.contract.training import Extraction
from sovereign.corpus.canaries import Secrets
from sovereign.corpus.novelty import novelty
from sovereign.model.decoder import Decoder
from sovereign.plan import Plan
from sovereign.training.loop import windows_digest
from sovereign.training.memorization import extracted, familiarity, passages, ranked
from sovereign.training.scrutiny import both_paths, on_disordered

Documents = Sequence[tuple[str, np.ndarray]]
HELD_OUT_TEXTS = 100  # held-out documents whose novelty is the control of the samples'


@dataclass(frozen=True)
class Asked:
    """What the probes are asked of: a model at a step, its plan, and the sequences that its evaluations score."""

    model: Decoder
    plan: Plan
    step: int
    sequences: dict[str, list[tuple[str, np.ndarray]]]
    samples: list[np.ndarray] = field(default_factory=list)  # token ids of the model's continuations

    @property
    def placed(self) -> dict[str, Any]:
        return {"precision": self.plan.precision, "device": self.plan.device}


def probe(asked: Asked, log: Callable[..., None], cost: Callable[..., AbstractContextManager[None]]) -> None:
    """Write the rows of every probe that the contract asks for, and what each cost."""
    probes, canaries = asked.plan.contract.evaluation.probes, asked.plan.contract.data.canaries
    if probes.path:
        with cost("probe: two paths"):
            log("path", **two_paths(asked, probes.path))
    if probes.permuted:
        with cost("probe: permuted validation"):
            for row in permuted(asked, probes.permuted):
                log("permuted", **row)
    if probes.membership:
        with cost("probe: membership"):
            for row in membership(asked, probes.membership):
                log("membership", **row)
    if probes.extraction:
        with cost("probe: extraction"):
            for row in extraction(asked, probes.extraction):
                log("extraction", **row)
    if canaries:
        with cost("probe: canaries"):
            for row in exposure(asked, asked.plan.corpus.secrets(canaries)):
                log("canary", **row)
    if probes.novelty:
        with cost("probe: novelty"):
            for row in novel(asked):
                log("novelty", **row)


def two_paths(asked: Asked, windows: int) -> dict[str, Any]:
    """Return one train batch's loss by training's path and by evaluation's: fields of a path row."""
    batch = asked.plan.stream.batch(1)
    ids = batch.ids[:windows]
    trained, evaluated = both_paths(asked.model, ids, context=asked.plan.contract.model.context, **asked.placed)
    return {
        "step": asked.step, "windows": windows_digest(batch.windows[:windows]), "tokens": int(ids[:, 1:].size),
        "train_nll": trained, "eval_nll": evaluated, "precision": asked.plan.precision,
    }  # fmt: skip


def permuted(asked: Asked, count: int) -> Iterator[dict[str, Any]]:
    """Yield the fields of permuted rows: validation documents out of order, and as random tokens."""
    plan, some = asked.plan, asked.sequences["validation"][:count]
    for order in ("permuted", "random"):
        found = on_disordered(
            asked.model, some, order, plan.vocabulary, plan.seed,
            batch=plan.contract.evaluation.batch, context=plan.contract.model.context, **asked.placed,
        )  # fmt: skip
        for document, nll, tokens in found:
            yield {
                "step": asked.step, "document": document, "order": order, "nll": nll, "tokens": tokens, "seed": plan.seed,
            }  # fmt: skip


def membership(asked: Asked, count: int) -> Iterator[dict[str, Any]]:
    """Yield the fields of membership rows: how familiar documents of each side are, by two scores."""
    for split, side in (("train_probe", "train"), ("validation", "validation"), ("control", "control")):
        some = asked.sequences[split][:count]
        for (document, _), scores in zip(some, familiarity(asked.model, some, **asked.placed), strict=True):
            for method, score in zip(("loss", "min-k++ 0.2"), scores, strict=True):
                yield {"step": asked.step, "side": side, "document": document, "score": score, "method": method}


def extraction(asked: Asked, settings: Extraction) -> Iterator[dict[str, Any]]:
    """Yield the fields of extraction rows, of documents trained on and of the control."""
    plan, length = asked.plan, settings.prompt + settings.continued
    sides: dict[str, Documents] = {
        "train": plan.corpus.train_probe(len(plan.corpus.train.documents), plan.seed),
        "control": plan.corpus.ids("control"),
    }
    for side, documents in sides.items():
        shown = passages(side, documents, settings.passages, length, plan.seed)
        for one, matched in zip(shown, extracted(asked.model, shown, settings.prompt), strict=True):
            yield {
                "step": asked.step, "side": side, "document": one.document, "start": one.start,
                "prompt": settings.prompt, "continued": settings.continued, "matched": matched,
                "copies": 1 if side == "train" else 0,
            }  # fmt: skip


def exposure(asked: Asked, secrets: Secrets) -> Iterator[dict[str, Any]]:
    """Yield the fields of canary rows: the rank of every planted secret among those never planted."""
    planted = [np.asarray(one.ids) for one in secrets.planted]
    prefix = [asked.plan.corpus.end_of_text, *secrets.prefix]
    found = ranked(asked.model, prefix, planted, [np.asarray(one) for one in secrets.candidates], **asked.placed)
    for secret, rank in zip(secrets.planted, found, strict=True):
        yield {
            "step": asked.step, "canary": secret.name, "copies": secret.copies, "nll": rank.nll, "rank": rank.rank,
            "candidates": rank.candidates,
        }  # fmt: skip


def novel(asked: Asked) -> Iterator[dict[str, Any]]:
    """Yield the fields of novelty rows: of the samples, and of held-out text cut to their length as the control."""
    written = [ids for ids in asked.samples if len(ids)]
    length = round(float(np.median([len(ids) for ids in written]))) if written else 0
    held_out = [ids[:length] for _, ids in asked.plan.corpus.ids("control") if len(ids) >= max(1, length)]
    for source, texts in (("model", written), ("held_out", held_out[:HELD_OUT_TEXTS] if length else [])):
        for number, seen in enumerate(novelty(asked.plan.corpus.train, texts)):
            yield {
                "step": asked.step, "source": source, "text": number, "tokens": seen.tokens, "seen_4": seen.seen_4,
                "seen_10": seen.seen_10, "longest": seen.longest,
            }  # fmt: skip
