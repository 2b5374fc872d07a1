"""Evaluations for the renderings: one criterion in every status, and a run with curves, samples and cost."""

from __future__ import annotations

import math
from typing import Any

from sovereign.evidence.rows import CostRow, NoticeRow
from sovereign.gate.evaluation import (
    CriterionStatus,
    Evaluation,
    FindingNote,
    Measured,
    ObligationStatus,
    Reason,
    RunNote,
    WaiverNote,
)
from sovereign.gate.profile import Exit
from sovereign.report.judged import Judged
from sovereign.report.runs import RunView, SamplePair

RUN = "toy/20260101T000000Z-aaaaaa"
OLDER = "toy/20251231T000000Z-bbbbbb"
DIGEST = "sha256:" + "0123456789abcdef" * 4


def measured(value: float, margin: float = 0.01, n: int = 20) -> Measured:
    return Measured(
        value=value,
        low=value - margin,
        high=value + margin,
        n=n,
        method="bootstrap by document",
        run=RUN,
        evidence=DIGEST,
    )


def criterion(number: int, status: str, **changes: Any) -> CriterionStatus:
    """Return a criterion as a gate leaves it; `changes` say what is particular about it."""
    values: dict[str, Any] = {
        "id": f"TOY-{number:03}",
        "title": f"It stands as {status}",
        "category": "LOSS" if number < 6 else "OTHER",
        "contract": "toy",
        "stage": "active",
        "metric": "validation/loss",
        "unit": "nats/token",
        "op": "<=",
        "bound": 3.0,
        "digest": f"sha256:{number:064x}",
        "status": status,
        "reasons": (Reason(code="NO_EVIDENCE", text="no confirmatory run has shown it"),),
        "discharge": "sovereign run --contract contracts/toy.yaml",
    }
    return CriterionStatus(**{**values, **changes})


def obligation(
    seed: int, status: str, found: Measured | None = None, text: str = "validation/loss <= 3.0 holds"
) -> ObligationStatus:
    return ObligationStatus(
        seed=seed,
        slice="all",
        environment="any",
        status=status,
        reasons=(Reason(code="HOLDS", text=text),),
        measured=found,
    )  # type: ignore[arg-type]


def evaluation(text: str = "as it should be") -> Evaluation:
    """Return an evaluation with a criterion in every status; `text` stands wherever evidence or people may write."""
    waiver = WaiverNote(
        id="w-1",
        state="FALSIFIED",
        expires="2026-03-01",
        owner=f"owner {text}",
        approver=f"approver {text}",
        reason=f"because {text}",
    )
    return Evaluation(
        spec="toy",
        version="0.2.0",
        spec_path="spec/toy.yaml",
        now="2026-01-01T02:00:00Z",
        criteria=(
            criterion(
                1, "DISCHARGED", title=f"It learns {text}", measured=measured(2.5), obligations=(obligation(1, "DISCHARGED", measured(2.5)),),
                evidence=(DIGEST,), reasons=(Reason(code="HOLDS", text="validation/loss <= 3.0 holds"),),
            ),
            criterion(
                2, "FALSIFIED", measured=measured(3.5, 0.2), evidence=(DIGEST,),
                reasons=(Reason(code="FAILS", text=f"it fails {text}"), Reason(code="NOT_RETESTED", text="not re-tested since CODE moved")),
            ),
            criterion(3, "INVALID", reasons=(Reason(code="INTEGRITY", text=f"evidence/{RUN}: changed {text}"),)),
            criterion(4, "STALE", measured=measured(2.9), reasons=(Reason(code="CODE", text="the code that runs has changed since"),)),
            criterion(5, "OPEN"),
            criterion(
                6, "PARTIAL", measured=measured(2.6), reasons=(Reason(code="COVERAGE", text="1/2 obligations, missing seed 2"),),
                obligations=(obligation(1, "DISCHARGED", measured(2.6)), obligation(2, "OPEN", text=f"nothing {text}")),
            ),
            criterion(7, "FALSIFIED", measured=measured(3.2), waiver=waiver),
            criterion(8, "FALSIFIED", stage="draft", measured=measured(3.3)),
            criterion(
                9, "WITHDRAWN", title="", contract="", metric="", unit="", op="", bound="", digest="", discharge="",
                reasons=(Reason(code="WITHDRAWN", text="by amendment a-1"),),
            ),
            criterion(
                10, "DISCHARGED", title="Every planned token was counted", metric="training/tokens_missing", unit="tokens", op="==", bound=0,
                measured=measured(0, 0), amended_after_results=1, was_falsified=(DIGEST,), exploratory=2,
            ),
        ),
        runs=(
            RunNote(run=OLDER, state="diverged", seed=2, steps=4, reason=f"loss was 40.0 {text}"),
            RunNote(run=RUN, state="completed", seed=1, steps=400, exploratory=f"overridden by --set {text}"),
        ),
        findings=(FindingNote(kind="schema", path="spec/waivers/w-2.yaml:3:5", message=f"expires: not a date {text}"),),
    )  # fmt: skip


def view(text: str = "as it should be") -> RunView:
    """Return a run whose losses fall below the floors, as a healthy one's do."""
    return RunView(
        run=RUN,
        title=f"A toy {text}",
        planned_steps=400,
        parameters=3_672_320,
        environment="cpu python-3.11 torch-2.13",
        training=tuple(
            (step, 4.2 + 4.1 * math.exp(-step / 60) + 0.15 * math.sin(step * 1.7)) for step in range(1, 401)
        ),
        validation=tuple((step, 4.5 + 3.8 * math.exp(-step / 70)) for step in range(0, 401, 50)),
        floors=(("ln V", math.log(4096)), ("unigram", 6.95), ("bigram", 5.31)),
        samples=tuple(
            SamplePair(
                f"def area(width, height):\n    # {text}\n",
                "    return width * height\n",
                "    self. the None\n    , return",
            )
            for _ in range(2)
        ),
        costs=(
            CostRow(run=RUN, part="corpus", seconds=12.5, peak_bytes=210_000_000),
            CostRow(run=RUN, part="training", seconds=260.0, peak_bytes=1_900_000_000, tokens=819_200),
        ),
        notices=(
            NoticeRow(
                run=RUN, step=0, name="precision", asked="bf16", got="fp32", message=f"fp32 in place of bf16 {text}"
            ),
        ),
    )


def judged(text: str = "as it should be", **changes: Any) -> Judged:
    """Return what renderings take: the evaluation above as profile pr judged it."""
    values: dict[str, Any] = {
        "evaluations": (evaluation(text),),
        "profile": "pr",
        "exit": Exit.INTEGRITY,
        "lines": {("spec/toy.yaml", f"TOY-{number:03}"): 10 + number for number in range(1, 11)},
        "runs": (view(text),),
    }
    return Judged(**{**values, **changes})
