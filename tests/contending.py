"""Runs to be compared, small and real: rows of updates, evaluations, documents and samples, as a run writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from fabric import CONTRACT, SPEC, intent

from sovereign.canonical import digest, parse_yaml, validate
from sovereign.comparison.compare import Contender
from sovereign.contract.contract import Contract
from sovereign.evidence.folder import Observed
from sovereign.evidence.intent import Environment, Intent, Subjects
from sovereign.evidence.rows import KINDS
from sovereign.subjects import code_digest, evaluator_digest

STEPS = 10
Said = list[tuple[str, dict[str, Any]]]


def document(number: int) -> str:
    """Return the id of a document, as its text's hash would spread them."""
    return digest(number)[7:23]


def edited(*edits: tuple[str, str]) -> str:
    """Return the toy contract with each edit made; one that finds nothing to edit is an error."""
    text = CONTRACT
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    return text


def promise(contract: str = CONTRACT, number: int = 1, seed: int = 1, **subjects: str) -> Intent:
    """Return the intent of the toy run of that number; subjects are digests of what they are named."""
    promised = validate(Contract, parse_yaml(contract.encode(), "contract"))
    named = {"code": code_digest(), "data": digest("data"), "tokenizer": digest("tokenizer")}
    named |= {key: digest(value) for key, value in subjects.items()}
    found = intent(
        f"20260101T0000{number:02}Z-aaaaaa", seed, SPEC, contract,
        subjects=Subjects(model=promised.subject, evaluator=evaluator_digest(), **named),
    )  # fmt: skip
    return found.model_copy(update={"contract": promised.contract})


def said(
    promised: Intent, shift: float = 0.0, documents: Sequence[int] = tuple(range(40)), spread: float = 0.05, noise: int = 0,
    rate: Callable[[int], float] | None = None, at: Sequence[int] = (0, 5, 10), trained: Sequence[int] = tuple(range(1000, 1020)),
    tokens: int = 20, text: str = "a = b\nreturn a",
) -> Said:  # fmt: skip
    """Return what a run wrote: losses near 3 nats moved by `shift`, each document by its own amount and a little noise."""
    drawn = np.random.default_rng([noise, promised.seed])
    schedule, steps = promised.promise.training.schedule, promised.planned.steps
    found: Said = []
    for number in documents:
        found.append(
            (
                "corpus",
                {
                    "document": document(number),
                    "name": f"{number}.txt",
                    "split": "validation",
                    "bytes": 60,
                    "tokens": tokens - 1,
                },
            )
        )
    for number in trained:
        found.append(
            (
                "corpus",
                {"document": document(number), "name": f"{number}.txt", "split": "train", "bytes": 60, "tokens": 19},
            )
        )
    for step in range(1, steps + 1):
        applied = schedule.rate(step, steps) if rate is None else rate(step)
        found.append(("step", {
            "step": step, "loss": 5.0 - step / 10 + shift + float(drawn.normal()) / 1000, "tokens": 32, "learning_rate": applied,
            "grad_norm": 1.0, "seconds": 0.1, "clock": step / 10, "windows": f"{step + 100 * promised.seed:016x}", "passed": 0,
        }))  # fmt: skip
    for step in at:
        for number in documents:
            own = 3.0 + (number * 7 % 11) / 10 + (1.0 if step == 0 else shift + spread * float(drawn.normal()))
            found.append(
                (
                    "evaluation",
                    {
                        "step": step,
                        "split": "validation",
                        "document": document(number),
                        "nll": own * tokens,
                        "tokens": tokens,
                    },
                )
            )
    for number in range(3):
        found.append(("sample", {
            "step": steps, "sampler": "model", "prompt_id": number, "document": document(documents[number]), "prompt": f"def f{number}():",
            "text": text, "seed": number,
        }))  # fmt: skip
    return found


def contender(promised: Intent, rows: Said, **given: Any) -> Contender:
    """Return a run as a comparison takes it, from the rows that it wrote."""
    kinds: dict[str, list[Any]] = {}
    for kind, values in rows:
        kinds.setdefault(kind, []).append(KINDS[kind](run=promised.run, **values))
    return Contender(Observed(promised, {kind: tuple(found) for kind, found in kinds.items()}), **given)


def run(contract: str = CONTRACT, number: int = 1, seed: int = 1, subjects: Mapping[str, str] | None = None,
        given: Mapping[str, Any] | None = None, **rows: Any) -> Contender:  # fmt: skip
    """Return a run of the toy contract; `rows` say what is particular about what it wrote."""
    promised = promise(contract, number, seed, **(subjects or {}))
    return contender(promised, said(promised, noise=number, **rows), **(given or {}))


def elsewhere() -> Environment:
    return Environment(
        device="cpu", precision="fp32", python="3.12.1", torch="2.14.0", platform="linux x86_64", threads=4
    )
