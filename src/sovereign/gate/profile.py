"""Profiles and exit codes: what an evaluation means for whoever asked."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Literal

from sovereign.gate.evaluation import CriterionStatus, Evaluation

Profile = Literal["draft", "pr", "main", "release"]
PROFILES: tuple[Profile, ...] = ("draft", "pr", "main", "release")


class Exit(IntEnum):
    """Exit codes of every command; they are public API."""

    SATISFIED = 0
    FALSIFIED = 1
    USAGE = 2
    SCHEMA = 3
    INTEGRITY = 4
    NOTHING = 5
    INCOMPLETE = 6
    REFUSED = 7
    STOPPED = 8
    INTERNAL = 70
    INTERRUPTED = 130


# where several hold, the first decides
PRECEDENCE = (Exit.INTEGRITY, Exit.SCHEMA, Exit.NOTHING, Exit.FALSIFIED, Exit.INCOMPLETE)


def exit_code(
    evaluations: Sequence[Evaluation], profile: Profile = "pr", base: Sequence[Evaluation] = (), allow_empty: bool = False
) -> Exit:  # fmt: skip
    """Return the exit code of evaluations under a profile; without a base, every FALSIFIED counts as new."""
    codes: set[Exit] = set()
    for evaluation in evaluations:
        codes |= _broken(evaluation)
        if profile == "draft":
            continue
        before = falsified_before(base, evaluation.spec)
        new = [
            one for one in evaluation.active if one.status == "FALSIFIED" and not one.waiver and one.id not in before
        ]
        standing = [one for one in evaluation.active if one.status == "FALSIFIED" and not one.waiver]
        if new or (profile == "release" and standing):
            codes.add(Exit.FALSIFIED)
        if profile == "main" and evaluation.expired_waivers:
            codes.add(Exit.INCOMPLETE)
        if profile == "release" and any(one.status != "DISCHARGED" and not one.waiver for one in evaluation.active):
            codes.add(Exit.INCOMPLETE)
    evaluated = any(one.evaluated for evaluation in evaluations for one in evaluation.active)
    if not evaluated and not allow_empty:
        codes.add(Exit.NOTHING)
    return next((code for code in PRECEDENCE if code in codes), Exit.SATISFIED)


def _broken(evaluation: Evaluation) -> set[Exit]:
    invalid = [one for one in evaluation.criteria if one.status == "INVALID"]
    kinds = {found.kind for found in evaluation.findings}
    kinds |= {"integrity" for one in invalid if any(reason.code == "INTEGRITY" for reason in one.reasons)}
    codes = {Exit.SCHEMA if kind == "schema" else Exit.INTEGRITY for kind in kinds}
    return codes or ({Exit.INTEGRITY} if invalid else set())


def falsified_before(base: Sequence[Evaluation], spec: str) -> frozenset[str]:
    """Return the criteria of a spec that were falsified at the base already."""
    return frozenset(
        one.id
        for evaluation in base
        if evaluation.spec == spec
        for one in evaluation.criteria
        if one.status == "FALSIFIED"
    )


def blocks(one: CriterionStatus, profile: Profile, new: bool = True) -> bool:
    """Say whether a criterion's status keeps a profile from being satisfied."""
    if one.stage == "draft" or one.status in ("WITHDRAWN", "DISCHARGED"):
        return False
    if one.status == "INVALID":
        return True
    if profile == "draft" or one.waiver:
        return False
    return (one.status == "FALSIFIED" and new) or profile == "release"
