"""Ask a model the questions whose answers say what a run really shows; every answer is a row.

Samples, loss by position, and the probes of the contract's choice (`evaluation.probes`, `data.canaries`). The law
judges the rows; here nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from sovereign.contract.training import Extraction, LongContext
from sovereign.corpus.canaries import Secrets
from sovereign.corpus.floors import BigramModel
from sovereign.corpus.novelty import novelty
from sovereign.corpus.prompts import Prompt, function_heads
from sovereign.corpus.scoring import scored
from sovereign.plan import Plan
from sovereign.training.loop import windows_digest
from sovereign.training.memorization import extracted, familiarity, passages, ranked
from sovereign.training.positions import by_position
from sovereign.training.sampling import sample
from sovereign.training.scrutiny import both_paths, on_disordered

Documents = Sequence[tuple[str, np.ndarray]]
HELD_OUT_TEXTS = 100  # held-out documents whose novelty is the control of the samples'


@dataclass(frozen=True)
class Asked:
    """What the probes are asked of: a model at a step, its plan, and the sequences that its evaluations score."""

    model: Any
    plan: Plan
    step: int
    sequences: dict[str, list[tuple[str, np.ndarray]]]

    @property
    def placed(self) -> dict[str, Any]:
        return {"precision": self.plan.precision, "device": self.plan.device}


def observe(asked: Asked, log: Callable[..., None], cost: Callable[[str], AbstractContextManager[None]]) -> None:
    """Write the rows of everything that is asked of the last weights, and what each question cost."""
    evaluation, canaries = asked.plan.contract.evaluation, asked.plan.contract.data.canaries
    probes = evaluation.probes
    with cost("samples"):
        # a run ends with an evaluation, which has begun with these
        already = evaluation.samples.at_evaluations
        written = write_samples(asked, evaluation.samples.prompts, log, already=already)
    if evaluation.long_context:
        with cost("loss by position"):
            for row in positions(asked, evaluation.long_context, log):
                log("position", **row)
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
            for row in exposure(asked, asked.plan.text.secrets(canaries)):
                log("canary", **row)
    if probes.novelty:
        with cost("probe: novelty"):
            for row in novel(asked, written):
                log("novelty", **row)


def write_samples(
    asked: Asked, count: int, log: Callable[..., None], controls: bool = True, already: int = 0
) -> list[list[int]]:
    """Log a continuation of each of `count` held-out function heads, and return the model's ids.

    The controls beside it are a bigram sampler and one of newlines, which show what a metric gives for nothing. The
    first `already` continuations of the model were logged at this step before: they are the same, and stand once.
    """
    settings, corpus, seed = asked.plan.contract.evaluation.samples, asked.plan.text, asked.plan.seed
    room = asked.plan.contract.context - settings.tokens
    prompts = [
        (prompt, ids)
        for prompt in function_heads(corpus.texts("validation"), count * 2, seed)
        if len(ids := [corpus.end_of_text, *corpus.encode(prompt.prompt)]) <= room
    ][:count]
    if len(prompts) < count:
        log(
            "notice", step=asked.step, name="prompts", asked=str(count), got=str(len(prompts)),
            message="the validation documents hold fewer function heads that fit",
        )  # fmt: skip
    written = sample(
        asked.model, [ids for _, ids in prompts], settings.tokens, temperature=settings.temperature,
        top_k=settings.top_k, seed=seed, stop=corpus.end_of_text,
    )  # fmt: skip

    def keep(prompt: Prompt, sampler: str, text: str) -> None:
        log(
            "sample", step=asked.step, sampler=sampler, prompt_id=prompt.prompt_id, document=prompt.document,
            prompt=prompt.prompt, text=text, seed=seed + prompt.prompt_id,
        )  # fmt: skip

    bigram = BigramModel.count(corpus.train) if controls else None
    for number, ((prompt, ids), continuation) in enumerate(zip(prompts, written, strict=True)):
        if number >= already:
            keep(prompt, "model", corpus.decode(continuation))
        if bigram is not None:
            counted = bigram.sample(ids[-1], settings.tokens, np.random.default_rng([seed, number]))
            keep(prompt, "bigram", corpus.decode([token for token in counted if token != corpus.end_of_text]))
            keep(prompt, "newline", "\n" * settings.tokens)
    return written


def positions(asked: Asked, settings: LongContext, log: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """Yield the fields of position rows: the loss by place in the document, within the trained length and beyond."""
    corpus, context = asked.plan.text, asked.plan.contract.context
    long = [(document, ids) for document, ids in corpus.ids("validation") if len(ids) > context]
    if len(long) < settings.documents:
        log(
            "notice", step=asked.step, name="long_context", asked=str(settings.documents), got=str(len(long)),
            message=f"the validation side holds fewer documents of more than {context} tokens",
        )  # fmt: skip
    some = [
        (document, scored(ids, corpus.end_of_text, settings.tokens)) for document, ids in long[: settings.documents]
    ]
    for document, start, stop, nll, tokens in by_position(asked.model, some, context=context, **asked.placed):
        yield {"step": asked.step, "document": document, "start": start, "stop": stop, "nll": nll, "tokens": tokens}


def two_paths(asked: Asked, windows: int) -> dict[str, Any]:
    """Return the loss of the stream's first windows by training's path and by evaluation's: fields of a path row."""
    batches = [asked.plan.windowed.batch(step) for step in range(1, -(-windows // asked.plan.windowed.sequences) + 1)]
    ids = np.concatenate([batch.ids for batch in batches])[:windows]
    shown = np.concatenate([batch.windows for batch in batches])[:windows]
    trained, evaluated = both_paths(asked.model, ids, context=asked.plan.contract.context, **asked.placed)
    return {
        "step": asked.step, "windows": windows_digest(shown), "tokens": int(ids[:, 1:].size),
        "train_nll": trained, "eval_nll": evaluated, "precision": asked.plan.precision,
    }  # fmt: skip


def permuted(asked: Asked, count: int) -> Iterator[dict[str, Any]]:
    """Yield the fields of permuted rows: validation documents out of order, and as random tokens."""
    plan, some = asked.plan, asked.sequences["validation"][:count]
    for order in ("permuted", "random"):
        found = on_disordered(
            asked.model, some, order, plan.vocabulary, plan.seed,
            batch=plan.contract.evaluation.batch, context=plan.contract.context, **asked.placed,
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
        "train": plan.text.train_probe(len(plan.text.train.documents), plan.seed),
        "control": plan.text.ids("control"),
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
    prefix = [asked.plan.text.end_of_text, *secrets.prefix]
    found = ranked(asked.model, prefix, planted, [np.asarray(one) for one in secrets.candidates], **asked.placed)
    for secret, rank in zip(secrets.planted, found, strict=True):
        yield {
            "step": asked.step, "canary": secret.name, "copies": secret.copies, "nll": rank.nll, "rank": rank.rank,
            "candidates": rank.candidates,
        }  # fmt: skip


def novel(asked: Asked, samples: Sequence[Sequence[int]]) -> Iterator[dict[str, Any]]:
    """Yield the fields of novelty rows: of the samples, and of held-out text cut to their length as the control."""
    written = [np.asarray(ids) for ids in samples if len(ids)]
    length = round(float(np.median([len(ids) for ids in written]))) if written else 0
    held_out = [ids[:length] for _, ids in asked.plan.text.ids("control") if len(ids) >= max(1, length)]
    for source, texts in (("model", written), ("held_out", held_out[:HELD_OUT_TEXTS] if length else [])):
        for number, seen in enumerate(novelty(asked.plan.text.train, texts)):
            yield {
                "step": asked.step, "source": source, "text": number, "tokens": seen.tokens, "seen_4": seen.seen_4,
                "seen_10": seen.seen_10, "longest": seen.longest,
            }  # fmt: skip
