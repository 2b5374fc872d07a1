"""Review: what someone who must approve a change has to know, as one record that reports render."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from sovereign.gate.evaluation import CriterionStatus, Evaluation, FindingNote, Reason, RunNote
from sovereign.spec.amendment import Amendment, Waiver
from sovereign.spec.diff import Edit

UNKNOWN = "–"
Given = TypeVar("Given", Amendment, Waiver)


@dataclass(frozen=True)
class Change:
    """A criterion that stands otherwise than at the base."""

    criterion: CriterionStatus
    before: str
    after: str

    @property
    def worse(self) -> bool:
        order = ("DISCHARGED", "PARTIAL", "STALE", "OPEN", UNKNOWN, "FALSIFIED", "INVALID")
        before, after = (order.index(one) if one in order else 0 for one in (self.before, self.after))
        return after > before


@dataclass(frozen=True)
class Review:
    """Head against base: what changed status, what evidence is new or gone, what gave way, and what is not so."""

    head: tuple[Evaluation, ...]
    changes: tuple[Change, ...]
    edits: tuple[Edit, ...]
    unamended: dict[str, str]
    new_runs: tuple[RunNote, ...]
    gone_runs: tuple[str, ...]
    amendments: tuple[Amendment, ...]
    waivers: tuple[Waiver, ...]
    findings: tuple[FindingNote, ...]

    @property
    def quiet(self) -> bool:
        """Whether there is nothing that a reviewer must look at."""
        return not (
            self.changes
            or self.edits
            or self.new_runs
            or self.gone_runs
            or self.amendments
            or self.waivers
            or self.findings
        )


def review(
    base: Sequence[Evaluation], head: Sequence[Evaluation], edits: Sequence[Edit], unamended: dict[str, str],
    amendments: tuple[Sequence[Amendment], Sequence[Amendment]], waivers: tuple[Sequence[Waiver], Sequence[Waiver]],
) -> Review:  # fmt: skip
    """Return what changed between two evaluations; `amendments` and `waivers` are those of the base and of the head."""
    before = {(spec.spec, one.id): one for spec in base for one in spec.criteria}
    after = {(spec.spec, one.id): one for spec in head for one in spec.criteria}
    changes = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        shown = (was.shown if was else UNKNOWN, now.shown if now else UNKNOWN)
        if shown[0] != shown[1]:
            changes.append(Change(now or _gone(was), *shown))
    known = {run.run for spec in base for run in spec.runs if run.state not in ("open", "unconcluded")}
    runs = {run.run: run for spec in head for run in spec.runs}
    standing = {run.run for spec in base for run in spec.runs}
    return Review(
        head=tuple(head),
        changes=tuple(sorted(changes, key=lambda one: (not one.worse, one.criterion.id))),
        edits=tuple(edits),
        unamended=unamended,
        new_runs=tuple(run for name, run in sorted(runs.items()) if name not in known and run.state != "invalid"),
        gone_runs=tuple(sorted(standing - runs.keys())),
        amendments=_added(*amendments),
        waivers=_added(*waivers),
        findings=tuple(dict.fromkeys(found for spec in head for found in spec.findings)),
    )


def _added(base: Sequence[Given], head: Sequence[Given]) -> tuple[Given, ...]:
    known = {one.id for one in base}
    return tuple(one for one in head if one.id not in known)


def _gone(was: CriterionStatus | None) -> CriterionStatus:
    assert was is not None
    return was.model_copy(update={"reasons": (Reason(code="INTEGRITY", text="the criterion is gone from the spec"),)})
