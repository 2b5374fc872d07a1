"""Experiments: what would settle an open claim, and what it costs. The cheapest comes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from sovereign.canonical import Record
from sovereign.diagnosis.findings import Claim, Finding

Cost = Literal["free", "minutes", "an hour or so", "a new run"]


class Experiment(Record):
    """Evidence that is missing, and the claims that wait for it."""

    name: str
    do: str = Field(description="what to do, in plain English")
    cost: Cost
    settles: tuple[Claim, ...]


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
    "more_documents": ("validate on more documents: at least 1,000", "an hour or so"),
    "late_evaluations": ("evaluate at least four times in the last fifth", "a new run"),
    "canaries": ("plant 16 canaries once each, and rank them among secrets never planted", "a new run"),
    "movement": ("measure how far updates move the weights: training.measure_updates_every", "a new run"),
    "larger_updates": ("train with updates that the weights' precision can hold: a higher rate, or fp32 weights", "a new run"),
    "longer": ("train on until there are enough tokens to judge by", "a new run"),
}  # fmt: skip


def missing(findings: Sequence[Finding]) -> tuple[Experiment, ...]:
    """Return what would settle the open claims, and firm up the faint ones, cheapest first, then what settles most."""
    order = list(dict.fromkeys(cost for _, cost in EXPERIMENTS.values()))
    settles: dict[str, list[Claim]] = {}
    for finding in findings:
        if not finding.open and finding.confidence != "LOW":
            continue
        for check in finding.checks:
            for name in check.needs:
                if finding.claim not in settles.setdefault(name, []):
                    settles[name].append(finding.claim)
    found = [
        Experiment(name=name, do=do, cost=cost, settles=tuple(settles[name]))
        for name, (do, cost) in EXPERIMENTS.items()
        if name in settles
    ]
    return tuple(sorted(found, key=lambda one: (order.index(one.cost), -len(one.settles))))
