"""The JSON that `sovereign gates --json` prints: evaluations under a profile, counted, with the code it exits with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from sovereign.canonical import Record
from sovereign.gate.evaluation import Evaluation, FindingNote, Status
from sovereign.gate.profile import Exit, Profile
from sovereign.gate.scoreboard import scoreboard
from sovereign.gate.whatif import Supposed
from sovereign.spec.criterion import Bound


class Tally(Record):
    """The active criteria of one spec, counted: a numerator for each status, and what they are of."""

    spec: str
    of: int = Field(description="active criteria; drafts and withdrawn ones are no part of it")
    counts: dict[Status, int]
    waived: int
    drafts: int
    withdrawn: int


class WhatIf(Record):
    """A criterion held against a value that nobody measured."""

    label: str
    criterion: str
    sentence: str
    value: Bound
    holds: bool


class Gates(Record):
    """What one call of the gate found."""

    schema_: Literal["sovereign/gates/v1"] = Field(default="sovereign/gates/v1", alias="schema")
    profile: Profile
    exit: int = Field(
        description="the exit code: 0 satisfied, 1 falsified, 3 schema, 4 integrity, 5 nothing, 6 incomplete"
    )
    tallies: tuple[Tally, ...]
    evaluations: tuple[Evaluation, ...]
    findings: tuple[FindingNote, ...] = Field(
        default=(), description="of files of the repository; they stand here even where no spec could be read"
    )
    what_if: tuple[WhatIf, ...] = ()


def document(
    evaluations: Sequence[Evaluation], profile: Profile, exit: Exit, findings: Sequence[FindingNote] = (),
    supposed: Sequence[Supposed] = (),
) -> Gates:  # fmt: skip
    """Return evaluations as the document that programs read."""
    return Gates(
        profile=profile,
        exit=int(exit),
        tallies=tuple(map(_tally, evaluations)),
        evaluations=tuple(evaluations),
        findings=tuple(findings),
        what_if=tuple(WhatIf.model_validate(one.plain()) for one in supposed),
    )


def _tally(evaluation: Evaluation) -> Tally:
    total = scoreboard(evaluation)[-1]
    return Tally(
        spec=evaluation.spec, of=total.total, counts=total.counts, waived=total.waived, drafts=total.drafts,
        withdrawn=total.withdrawn,
    )  # fmt: skip
