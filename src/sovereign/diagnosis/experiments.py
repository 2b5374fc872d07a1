"""Experiments: what would settle an open claim, and what it costs. The cheapest comes first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import Field

from sovereign.canonical import Record
from sovereign.diagnosis.findings import Claim, Finding
from sovereign.diagnosis.record import RunRecord

Cost = Literal["free", "minutes", "an hour or so", "a new run"]


class Experiment(Record):
    """Evidence that is missing, and the claims that wait for it."""

    name: str
    do: str = Field(description="what to do, in plain English")
    cost: Cost
    settles: tuple[Claim, ...]
    enough: dict[Claim, int] = Field(
        default={}, description="units that would decide a claim, if what was measured stays as it is"
    )


# in order of what they cost
EXPERIMENTS: dict[str, tuple[str, Cost]] = {
    "scope": ("say what one training loss was averaged over: which steps, which mode, which weights", "free"),
    "validation_set": ("say whether every evaluation scores the same documents, and how many", "free"),
    "vocabulary": ("give the size of the vocabulary", "free"),
    "budget": ("give the tokens trained on, or batch, length and steps", "free"),
    "evaluations": ("give every evaluation of the run, not only some points", "free"),
    "step_log": ("log loss, wall time and counted tokens of every step", "free"),
    "position": ("log where in the data each window of training lay", "free"),
    "lineage": ("give the data manifest of every ancestor of the weights", "free"),
    "unigram": ("count single tokens of the train side and score validation with them", "minutes"),
    "hashes": ("join the hashes of validation with everything consumed, ancestors included", "minutes"),
    "step0": ("validate before the first step", "minutes"),
    "documents": ("score validation document by document at each kept checkpoint", "minutes"),
    "train_probe": ("score fixed train documents in evaluation mode at the same checkpoints", "minutes"),
    "same_batch": ("put one train batch through the training path and the evaluation path", "minutes"),
    "permuted": ("score validation with its tokens permuted", "minutes"),
    "control": ("score as many documents of the same kind that were never trained on", "minutes"),
    "overlap": ("count 50-token matches with the train side, of validation and of a control", "minutes"),
    "near": ("look for near-duplicates of validation and control documents in the train side", "minutes"),
    "batch_hashes": ("log the hash of every batch as it was consumed", "minutes"),
    "reference": ("score the same text with a stronger model that has not seen it", "an hour or so"),
    "extraction": ("prompt with 300 train passages and 300 of a clean control, and count verbatim continuations", "an hour or so"),
    "more_documents": ("score more documents of each side: as many as stand behind a claim, or at least 1,000", "an hour or so"),
    "more_passages": ("prompt with more passages of each side, at least 300, no two of one document", "an hour or so"),
    "late_evaluations": ("evaluate at least four times in the last fifth", "a new run"),
    "canaries": ("plant 16 canaries once each, and rank them among secrets never planted", "a new run"),
    "movement": ("measure how far updates move the weights: training.measure_updates_every", "a new run"),
    "larger_updates": ("train with updates that the weights' precision can hold: a higher rate, or fp32 weights", "a new run"),
    "longer": ("train on until there are enough tokens to judge by", "a new run"),
}  # fmt: skip


# what to do where the rows of an experiment are there, and were too few to decide
MORE = {"extraction": "more_passages"}


def done(record: RunRecord) -> frozenset[str]:
    """Return the experiments whose rows a record holds: doing them again as they were would show nothing new."""
    scores, settings = record.validation, record.settings
    held = {
        "vocabulary": settings.vocab is not None,
        "step_log": record.steps is not None,
        "unigram": record.unigram is not None,
        "hashes": record.identity is not None,
        "documents": scores is not None and len(scores.steps) > 1,
        "step0": scores is not None and 0 in scores.steps,
        "train_probe": record.train_probe is not None,
        "same_batch": bool(record.paths),
        "permuted": bool(record.permuted),
        "control": record.control is not None,
        "overlap": record.covered is not None,
        "near": record.near is not None,
        "batch_hashes": record.steps is not None,
        "reference": record.reference is not None,
        "extraction": bool(record.extraction),
    }
    return frozenset(name for name, there in held.items() if there)


def missing(findings: Sequence[Finding], there: Collection[str] = ()) -> tuple[Experiment, ...]:
    """Return what would settle the open claims, and firm up the faint ones, cheapest first, then what settles most.

    What is `there` is not advised again: a check that lacks nothing else lacks more of the same.
    """
    order = list(dict.fromkeys(cost for _, cost in EXPERIMENTS.values()))
    settles: dict[str, list[Claim]] = {}
    enough: dict[str, dict[Claim, int]] = {}
    for finding in findings:
        if not finding.open and finding.confidence != "LOW":
            continue
        for check in finding.checks:
            lacking = [name for name in check.needs if name not in there]
            for name in lacking or dict.fromkeys(MORE.get(name, "more_documents") for name in check.needs):
                if finding.claim not in settles.setdefault(name, []):
                    settles[name].append(finding.claim)
                if check.enough is not None:
                    known = enough.setdefault(name, {})
                    known[finding.claim] = max(check.enough, known.get(finding.claim, 0))
    found = [
        Experiment(name=name, do=do, cost=cost, settles=tuple(settles[name]), enough=enough.get(name, {}))
        for name, (do, cost) in EXPERIMENTS.items()
        if name in settles
    ]
    return tuple(sorted(found, key=lambda one: (order.index(one.cost), -len(one.settles))))
