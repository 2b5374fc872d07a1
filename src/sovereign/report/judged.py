"""What every rendering is made from: evaluations under a profile, where their criteria stand, and the runs behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sovereign.foresight import Foreseen, foreseen
from sovereign.gate.evaluation import CriterionStatus, Evaluation, FindingNote
from sovereign.gate.profile import Exit, Profile, blocks, falsified_before
from sovereign.report.runs import RunView, run_views
from sovereign.repository import Repository

# what a consumer that knows only red, green and grey needs to know of a criterion
Standing = Literal["passed", "failed", "invalid", "blocking", "pending", "waived", "aside"]
SHOWN_RUNS = 12  # a page with the curves of hundreds of runs is not read; the rest stay in the table
VERDICT = {
    Exit.SATISFIED: "satisfied", Exit.FALSIFIED: "falsified", Exit.SCHEMA: "a file is malformed",
    Exit.INTEGRITY: "integrity is broken", Exit.NOTHING: "nothing was evaluated", Exit.INCOMPLETE: "incomplete",
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """Something that keeps the gate shut and belongs to no criterion; a report that hid it would look green."""

    kind: Literal["schema", "integrity", "expired waiver", "nothing evaluated"]
    path: str
    line: int
    message: str


@dataclass(frozen=True)
class Change:
    """A criterion whose status is another than at the base."""

    id: str
    before: str
    after: str


@dataclass(frozen=True)
class Judged:
    """Evaluations and what the gate made of them. A rendering adds nothing and decides nothing."""

    evaluations: tuple[Evaluation, ...]
    profile: Profile = "pr"
    exit: Exit = Exit.SATISFIED
    base: tuple[Evaluation, ...] | None = None
    lines: Mapping[tuple[str, str], int] = field(default_factory=dict)  # spec file, criterion -> line
    findings: tuple[FindingNote, ...] = ()  # of the repository, which no evaluation may have lived to tell
    runs: tuple[RunView, ...] = ()
    foreseen: Foreseen = field(default_factory=Foreseen)
    head: str = ""  # the commit that is checked out

    def line(self, evaluation: Evaluation, one: CriterionStatus) -> int:
        return self.lines.get((evaluation.spec_path, one.id), 1)

    def new(self, evaluation: Evaluation, one: CriterionStatus) -> bool:
        """Say whether a failure is newer than the base; without a base, every one is."""
        return one.id not in falsified_before(self.base or (), evaluation.spec)

    def standing(self, evaluation: Evaluation, one: CriterionStatus) -> Standing:
        """Return how a criterion stands to the profile."""
        if one.status == "INVALID":
            return "invalid"
        if one.status == "WITHDRAWN" or one.stage == "draft":
            return "aside"
        if one.waiver:
            return "waived"
        if one.status == "DISCHARGED":
            return "passed"
        if one.status == "FALSIFIED":
            return "failed"
        return "blocking" if blocks(one, self.profile, self.new(evaluation, one)) else "pending"

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Return each finding once, though every spec's evaluation repeats those of the repository."""
        found = [finding for evaluation in self.evaluations for finding in evaluation.findings]
        faults = [Fault(one.kind, *_place(one.path), one.message) for one in dict.fromkeys((*self.findings, *found))]
        if self.profile == "main":
            expired = dict.fromkeys(waiver for one in self.evaluations for waiver in one.expired_waivers)
            faults += [Fault("expired waiver", "spec/waivers", 1, f"{waiver} has expired") for waiver in expired]
        if self.exit == Exit.NOTHING:
            faults.append(
                Fault("nothing evaluated", "spec", 1, "no predicate of an active criterion was decided by evidence")
            )
        return tuple(faults)

    @property
    def changes(self) -> tuple[Change, ...]:
        """Return the criteria whose status is another than at the base; none where there is no base."""
        if self.base is None:
            return ()
        before = {(spec.spec, one.id): one.shown for spec in self.base for one in spec.criteria}
        after = {(spec.spec, one.id): one.shown for spec in self.evaluations for one in spec.criteria}
        return tuple(
            Change(key[1], before.get(key, "absent"), after.get(key, "absent"))
            for key in dict.fromkeys((*after, *before))
            if before.get(key) != after.get(key)
        )

    @property
    def verdict(self) -> str:
        return f"profile {self.profile}: {VERDICT.get(self.exit, 'not evaluated')} (exit {int(self.exit)})"


def _place(path: str) -> tuple[str, int]:
    """Return a finding's file and line; findings of schema carry `file:line:column`."""
    found = re.fullmatch(r"(.+?):(\d+):\d+", path, re.DOTALL)
    return (found[1], int(found[2])) if found else (path, 1)


def judged(
    repository: Repository, evaluations: Sequence[Evaluation], profile: Profile, exit: Exit,
    base: Sequence[Evaluation] | None = None, with_runs: bool = False, head: str = "",
) -> Judged:  # fmt: skip
    """Return a repository's evaluations as reports take them; `with_runs` reads the rows that curves are drawn from."""
    names = {run.run for evaluation in evaluations for run in evaluation.runs}
    return Judged(
        evaluations=tuple(evaluations),
        profile=profile,
        exit=exit,
        base=None if base is None else tuple(base),
        lines={
            (located.path, one.id): located.line(one.id)
            for located in repository.specs
            for one in located.spec.criteria
        },
        findings=tuple(FindingNote(kind=one.kind, path=one.path, message=one.message) for one in repository.findings),
        runs=run_views(repository.root / "evidence", names, SHOWN_RUNS) if with_runs else (),
        foreseen=foreseen(repository.root, repository.contracts) if with_runs else Foreseen(),
        head=head,
    )
