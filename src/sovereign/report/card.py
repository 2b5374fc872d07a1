"""A model card: what a model is, what was claimed of it and what came of that, and what nobody has said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sovereign.contract.contract import Contract
from sovereign.contract.data import Source
from sovereign.evidence.intent import Intent
from sovereign.evidence.statement import Statement
from sovereign.gate.evaluation import CriterionStatus
from sovereign.report.figures import MARK, bound, interval, number
from sovereign.report.markdown import code, escaped


@dataclass(frozen=True)
class Shown:
    """What a card shows of a run: its promise, its statement where it has one, and its criteria as they stand now."""

    intent: Intent
    statement: Statement | None
    criteria: Sequence[CriterionStatus]
    licence: str  # SPDX; empty where nobody has said
    weights: str  # digest of the file that was exported from


def model_card(shown: Shown) -> bytes:
    """Return README.md: front matter that hubs read, the evidence, and what is not known."""
    promise = shown.intent.promise
    front: Mapping[str, object] = {
        "license": shown.licence or "unknown",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sovereign", promise.contract],
    }
    head = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in front.items()),
        "---",
        "",
        f"# {escaped(promise.title)}",
    ]
    parts = [
        "\n".join(head), _model(shown, promise), _data(shown, promise.data.source), _criteria(shown), _measured(shown), _limits(),
    ]  # fmt: skip
    return ("\n\n".join(parts) + "\n").encode()


def _made(shown: Shown, promise: Contract) -> str:
    """Return what kind of model it is, and how it was made."""
    method = promise.tuned
    if method is not None:
        base = shown.intent.parent or str(method.base)
        return f"- {method.kind}, beginning from {code(base)}; the weights here are the plain model that this makes"
    shape = promise.decoder
    return (
        f"- Llama-family decoder: {shape.layers} layers, hidden {shape.hidden}, {shape.heads} heads ({shape.kv_heads} for keys and values),"
        f" feed-forward {shape.ffn}, context {shape.context}, {'tied' if shape.tied_embeddings else 'untied'} embeddings"
    )


def _model(shown: Shown, promise: Contract) -> str:
    lines = [_made(shown, promise)]
    planned = shown.intent.planned
    if planned.parameters is not None and planned.vocabulary is not None:
        lines.append(f"- {planned.parameters:,} parameters, vocabulary {planned.vocabulary:,} (byte-level BPE)")
    steps = shown.statement.steps if shown.statement else planned.steps
    tokens = planned.tokens if steps == planned.steps else (planned.tokens_until or {}).get(str(steps))
    on = f" on {tokens:,} target tokens" if tokens is not None else ""
    lines.append(f"- trained for {steps:,} steps{on}, seed {shown.intent.seed}")
    lines.append("- each text stands behind one end-of-text token, as in training; the tokenizer adds it")
    lines.append(f"- run {code(f'{shown.intent.contract}/{shown.intent.run}')}, weights {code(shown.weights)}")
    if shown.intent.exploratory_because:
        lines.append(f"- exploratory, so it decides no criterion: {escaped(shown.intent.exploratory_because)}")
    return "\n".join(["## The model", "", *lines])


def _data(shown: Shown, source: Source) -> str:
    said = ", ".join(f"{key}: {value}" for key, value in source.plain().items())
    lines = [
        f"- source: {escaped(said)}",
        f"- corpus digest: {code(shown.intent.subjects.data or 'not known')}",
        f"- licence of this model: {escaped(shown.licence) if shown.licence else 'not declared; ask before you use it'}",
        "- licence of the data: not recorded by the contract",
    ]
    return "\n".join(["## Data and licence", "", *lines])


def _criteria(shown: Shown) -> str:
    head = "| status | criterion | measured | bound | what it says |\n| --- | --- | --- | --- | --- |"
    rows = [
        f"| {MARK[one.status]} {one.shown} | {code(one.id)} | {escaped(interval(one.measured))} | {escaped(bound(one))} | {escaped(one.title)} |"
        for one in shown.criteria
    ]
    if not rows:
        return "## What was claimed\n\nNothing: the contract claims no criterion."
    note = "Statuses are derived from evidence at the time of export, over all runs of the contract; an interval is one of 95 %."
    return f"## What was claimed\n\n{note}\n\n" + "\n".join([head, *rows])


def _measured(shown: Shown) -> str:
    if shown.statement is None or not shown.statement.measurements:
        return "## What was measured\n\nNothing yet: the run is not concluded."
    head = "| metric | value | interval | n | method |\n| --- | ---: | --- | ---: | --- |"
    rows = [
        f"| {code(one.metric)} | {escaped(number(one.value))} | {escaped(f'{number(one.low)} to {number(one.high)}')} | {one.n} | {escaped(one.method)} |"
        for one in shown.statement.measurements
    ]
    return "## What was measured\n\n" + "\n".join([head, *rows])


def _limits() -> str:
    return (
        "## What this does not say\n\nNothing was evaluated but what stands above: no safety, no bias, no memory of training "
        "text beyond the overlap that is listed."
    )
