"""Runs that were never trained: rows as a run writes them, from a simulation in which each failure can be planted.

The loss of a document is its difficulty times a curve that falls from ln V; documents of all splits are drawn alike, so
that whatever tells them apart was planted.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from fabric import CONTRACT, intent

from sovereign.diagnosis.procedure import Diagnosis, diagnose
from sovereign.diagnosis.record import from_run
from sovereign.evidence.folder import Observed
from sovereign.evidence.intent import Planned
from sovereign.evidence.rows import KINDS, Row

RUN = "20260101T000000Z-aaaaaa"
VOCABULARY = 300
UNIGRAM = 4.6
TOKENS = 120  # target tokens of a document
SEQUENCES = 2  # as in fabric's contract
Rows = dict[str, tuple[Row, ...]]


@dataclass(frozen=True)
class Plan:
    """One run: how large it is, and what is wrong with it. The defaults are a healthy run."""

    documents: int = 600
    steps: int = 240
    every: int = 40
    batch: int = 4000  # target tokens of a step
    seed: int = 0
    floor: float = 2.4  # where the loss goes
    speed: float = 50.0  # steps in which it gets a factor e closer
    overfit: float = 0.0  # nats that validation and control rise by the end
    leak: float = 0.0  # share of validation documents that are trained on
    leak_effect: float = 0.0  # nats that a leaked document becomes easier
    copied: float = 0.0  # share of validation documents that stand in train for the most part, by other names
    shift: float = 0.0  # nats that validation is harder than the control
    lag: float = 0.0  # nats that dropout adds to the training loss
    diverge: bool = False
    spike: bool = False
    exhausted: int = 0  # step after which the loader has nothing left: loss 1.0, no time
    constant: bool = False  # every batch is the first one
    padded: int = 0  # tokens of each step that are missing
    path_error: float = 0.0  # nats per token between the two paths
    peeks: bool = False  # evaluation sees the future
    memory: float = 0.0  # share of train passages continued word for word
    outliers: bool = False  # canaries are recalled
    collapsed: bool = False  # samples repeat one word
    redrawn: bool = False  # another subset at each evaluation
    around: int = 0  # windows of a pass that is read in order; 0 draws their order
    uphill: float = 0.0  # nats that the training text gets harder from the beginning of a pass to its end
    changed: float | None = 0.99  # share of the weights that an update changes; None where that is not measured
    ancestor: str = ""  # "known" or "unknown"


def simulated(plan: Plan) -> Rows:
    """Return the rows of a run."""
    return dict(_simulated(plan))


@lru_cache(maxsize=16)
def _simulated(plan: Plan) -> Rows:
    return grouped(_rows(plan))


def grouped(said: Iterable[tuple[str, Mapping[str, Any]]]) -> Rows:
    found: dict[str, list[Row]] = {}
    for kind, values in said:
        found.setdefault(kind, []).append(KINDS[kind](run=RUN, **values))
    return {kind: tuple(rows) for kind, rows in found.items()}


def observed(rows: Rows, plan: Plan | None = None) -> Observed:
    """Return rows with the intent of the run that wrote them."""
    plan = plan or Plan()
    contract = CONTRACT.replace("steps: 10", f"steps: {plan.steps}").replace("every: 5", f"every: {plan.every}")
    planned = Planned(
        steps=plan.steps, tokens=plan.steps * plan.batch, windows=plan.around or 10_000, passes=1.0, parameters=1000,
        vocabulary=VOCABULARY,
    )  # fmt: skip
    return Observed(intent(contract=contract, planned=planned), rows)


def diagnosed(plan: Plan, **changes: Any) -> Diagnosis:
    """Return what the diagnosis of a planted run says."""
    plan = replace(plan, **changes)
    return diagnose(from_run(observed(simulated(plan), plan)))


def without(rows: Rows, *kinds: str, splits: Iterable[str] = ()) -> Rows:
    """Return rows with some kinds, or some splits of the evaluation, withheld."""
    gone = set(splits)
    kept = {kind: found for kind, found in rows.items() if kind not in kinds}
    if "evaluation" in kept:
        kept["evaluation"] = tuple(row for row in kept["evaluation"] if row.split not in gone)  # type: ignore[attr-defined]
    return kept


def windows_digest(ids: np.ndarray) -> str:
    """Return the digest of window ids as a step row gives it; here without torch, which the trainer's needs."""
    return hashlib.sha256(np.asarray(ids).astype("<i8").tobytes()).hexdigest()[:16]


def name(split: str, number: int) -> str:
    return hashlib.sha256(f"{split} {number}".encode()).hexdigest()[:16]


def _curve(plan: Plan, step: float) -> float:
    return plan.floor + (math.log(VOCABULARY) - plan.floor) * math.exp(-step / plan.speed)


def _rows(plan: Plan) -> Iterable[tuple[str, dict[str, Any]]]:
    drawn = np.random.default_rng(plan.seed)
    yield from _steps(plan, drawn)
    yield from _evaluations(plan, drawn)
    yield from _data(plan, drawn)
    yield from _probes(plan, drawn)


def _steps(plan: Plan, drawn: np.random.Generator) -> Iterable[tuple[str, dict[str, Any]]]:
    for step in range(1, plan.steps + 1):
        loss = _curve(plan, step) + plan.lag + drawn.normal(0, 0.03)
        if plan.diverge and step > plan.steps // 2:
            loss += 5.0 * min(1.0, (step - plan.steps // 2) / 20)
        if plan.spike and 0 <= step - plan.steps // 2 < 6:
            loss += 4.0
        over = plan.exhausted and step > plan.exhausted
        windows, passed = f"{1 if plan.constant else step:016x}", 0
        if plan.around:
            ids = (step - 1) * SEQUENCES + np.arange(SEQUENCES)
            windows, passed = windows_digest(ids % plan.around), int(ids[0]) // plan.around
            loss += plan.uphill * (float((ids % plan.around).mean()) / plan.around - 0.5)
        yield "step", {
            "step": step, "loss": 1.0 if over else float(loss), "tokens": plan.batch - plan.padded, "learning_rate": 1e-3,
            "grad_norm": 1.0, "seconds": 0.0004 if over else float(0.3 + 0.02 * drawn.random()), "clock": step * 0.3,
            "windows": windows, "passed": passed,
            "changed": plan.changed if step % plan.every == 0 else None,
        }  # fmt: skip


def _evaluations(plan: Plan, drawn: np.random.Generator) -> Iterable[tuple[str, dict[str, Any]]]:
    n, leaked = plan.documents, round(plan.leak * plan.documents)
    for split in ("validation", "control", "train_probe"):
        difficulty = drawn.lognormal(0, 0.25, n) / math.exp(0.25**2 / 2)
        tokens = drawn.integers(TOKENS // 2, TOKENS * 3 // 2, n)
        for at in range(0, plan.steps + 1, plan.every):
            share = at / plan.steps
            loss = difficulty * _curve(plan, at) + drawn.normal(0, 0.05, n)
            if split != "train_probe":
                loss = loss + plan.overfit * max(0.0, share - 0.5) * 2
            else:
                loss = loss - plan.overfit * max(0.0, share - 0.5)
            if split == "validation":
                loss = loss + plan.shift
                loss[:leaked] -= plan.leak_effect * share
            scored = drawn.permutation(n)[: n // 2] if plan.redrawn and split == "validation" else range(n)
            for number in scored:
                yield "evaluation", {
                    "step": at, "split": split, "document": name(split, int(number)),
                    "nll": float(max(0.01, loss[number]) * tokens[number]), "tokens": int(tokens[number]),
                }  # fmt: skip
        if split == "validation":
            for number in range(n):
                yield "floor", {
                    "document": name(split, number), "tokens": int(tokens[number]),
                    "unigram_nll": float(UNIGRAM * difficulty[number] ** 0.5 * tokens[number]),
                    "bigram_nll": float(3.9 * difficulty[number] ** 0.5 * tokens[number]),
                }  # fmt: skip


def _data(plan: Plan, drawn: np.random.Generator) -> Iterable[tuple[str, dict[str, Any]]]:
    n, leaked, copied = plan.documents, round(plan.leak * plan.documents), round(plan.copied * plan.documents)
    for split in ("train", "validation", "control"):
        for number in range(n):
            yield "corpus", {
                "document": name("train_probe" if split == "train" else split, number), "name": f"{split}-{number}", "split": split,
                "bytes": 400, "tokens": TOKENS,
            }  # fmt: skip
            if split != "train":
                often = number == n - 1 or (split == "validation" and number < copied)  # boilerplate is in every corpus
                yield "overlap", {
                    "document": name(split, number), "split": split, "tokens": TOKENS, "covered_13": 30,
                    "covered_50": TOKENS if often else 0,
                }  # fmt: skip
    for number in range(n):
        yield "exposure", {"document": name("train_probe", number), "windows": 1, "consumed": 1, "most": 1}
    for number in range(leaked):
        yield "exposure", {"document": name("validation", number), "windows": 1, "consumed": 1, "most": 1}
    if plan.ancestor:
        yield "lineage", {"ancestor": "base", "manifest": "sha256:abc" if plan.ancestor == "known" else ""}
        yield "inherited", {"ancestor": "base", "document": name("older", 1), "consumed": 1}


def _probes(plan: Plan, drawn: np.random.Generator) -> Iterable[tuple[str, dict[str, Any]]]:
    n, last = plan.documents, plan.steps
    yield "path", {
        "step": last, "windows": f"{7:016x}", "tokens": plan.batch, "precision": "fp32", "train_nll": 2.5 * plan.batch,
        "eval_nll": (2.5 + plan.path_error) * plan.batch,
    }  # fmt: skip
    for number in range(min(n, 200)):
        level = (1.0 if plan.peeks else UNIGRAM + 0.8) + drawn.normal(0, 0.3)
        yield "permuted", {
            "step": last, "document": name("validation", number), "order": "permuted", "nll": float(level * TOKENS),
            "tokens": TOKENS, "seed": 1,
        }  # fmt: skip
    for side, share in (("train", plan.memory), ("control", 0.0)):
        for number in range(300):
            yield "extraction", {
                "step": last, "side": side, "document": name(side, number), "start": 0, "prompt": 50, "continued": 50,
                "matched": 50 if drawn.random() < share else int(drawn.integers(0, 12)), "copies": int(side == "train"),
            }  # fmt: skip
    for number, rank in enumerate(np.linspace(1, 1024, 24).round() if not plan.outliers else drawn.integers(1, 40, 24)):
        yield "canary", {
            "step": last, "canary": f"c{number}", "copies": 1, "nll": 20.0, "rank": int(rank), "candidates": 1023,
        }  # fmt: skip
    for number in range(20):
        words = hashlib.sha512(str(number).encode()).hexdigest()
        text = "class " * 60 if plan.collapsed else " ".join(words[at : at + 5] for at in range(0, 120, 3))
        yield "sample", {
            "step": last, "sampler": "model", "prompt_id": number, "document": name("validation", number), "prompt": "def f():",
            "text": text, "seed": number,
        }  # fmt: skip
