"""The critical path: what one fix would discharge, the most rewarding first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sovereign.gate.evaluation import CriterionStatus, Evaluation

Kind = Literal["run", "change", "mend"]


@dataclass(frozen=True)
class Fix:
    """One thing to do, the criteria that it could discharge, and how many runs it takes."""

    kind: Kind
    do: str
    criteria: tuple[str, ...]
    runs: int = 0


def critical_path(evaluations: Iterable[Evaluation]) -> tuple[Fix, ...]:
    """Return the fixes that open criteria wait for: those of most criteria first, of as many the cheaper first.

    One run of a contract shows everything that the contract claims. What was falsified on the present subject takes
    another subject first; what is INVALID takes mended files, and no run helps before.
    """
    waiting: dict[tuple[Kind, str], list[CriterionStatus]] = {}
    for evaluation in evaluations:
        for one in evaluation.active:
            if one.status != "DISCHARGED" and not one.waiver:
                waiting.setdefault(_fix_of(one), []).append(one)
    fixes = [
        Fix(kind, do, tuple(sorted(one.id for one in criteria)), 0 if kind == "mend" else _runs(criteria))
        for (kind, do), criteria in waiting.items()
    ]
    return tuple(sorted(fixes, key=lambda fix: (-len(fix.criteria), fix.runs, fix.do)))


def _fix_of(one: CriterionStatus) -> tuple[Kind, str]:
    codes = {reason.code for reason in one.reasons}
    if one.status == "INVALID":
        return "mend", "sovereign verify"
    if "UNPROVEN" in codes and one.status != "FALSIFIED":
        return "mend", "sovereign spec test --retrain ..."
    if one.status == "FALSIFIED" and not codes & {"NOT_RETESTED", "UNANSWERED"}:
        return "change", f"change what contract {one.contract} trains, then {one.discharge}"
    return "run", one.discharge


def _runs(criteria: Iterable[CriterionStatus]) -> int:
    """Return how many runs show all that is missing: one a seed and environment."""
    missing = {
        (obligation.seed, obligation.environment)
        for one in criteria
        for obligation in one.obligations
        if obligation.status != "DISCHARGED"
    }
    # `any` is shown by a run on whatever device another obligation asks for
    named = {seed for seed, environment in missing if environment != "any"}
    return max(1, len([1 for seed, environment in missing if environment != "any" or seed not in named]))
