"""The status of one obligation: one seed, slice and environment of one criterion, against all its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sovereign.evidence.statement import Measurement
from sovereign.gate.admission import Current, VerifiedRun, current_is, moved, subject_of
from sovereign.gate.evaluation import Measured, ObligationStatus, Reason, Status
from sovereign.spec.criterion import LADDER, Criterion


@dataclass(frozen=True)
class Result:
    """A confirmatory, concluded run held against one criterion and slice."""

    run: VerifiedRun
    measurement: Measurement | None
    holds: bool
    enough: bool  # least n and assurance are met
    moved: tuple[str, ...]

    @property
    def fails(self) -> bool:
        diverged = self.run.statement is not None and self.run.statement.outcome == "diverged"
        return diverged or (self.measurement is not None and not self.holds)

    @property
    def passes(self) -> bool:
        return not self.fails and not self.given_up and self.measurement is not None and self.enough

    @property
    def given_up(self) -> bool:
        """Whether the run was abandoned: then it may fail a criterion, and do nothing else."""
        return self.run.statement is not None and self.run.statement.outcome == "abandoned"

    @property
    def measured(self) -> Measured | None:
        if self.measurement is None:
            return None
        found = self.measurement
        return Measured(
            value=found.value, low=found.low, high=found.high, n=found.n, method=found.method,
            run=self.run.name, evidence=self.run.digest,
        )  # fmt: skip


def result(
    run: VerifiedRun, criterion: Criterion, slice_: str, current: Current, now: datetime, environment: str = "any"
) -> Result:
    """Return how a run stands to a criterion; the predicate reads the pessimistic end of the interval."""
    found = next((one for one in run.measurements if (one.metric, one.slice) == (criterion.metric, slice_)), None)
    needed = criterion.obligations
    return Result(
        run=run,
        measurement=found,
        holds=found is not None and criterion.holds(found.low, found.high),
        enough=found is not None
        and found.n >= needed.least_n
        and LADDER.index(run.assurance) >= LADDER.index(needed.assurance),
        moved=moved(run, criterion, current, now, environment),
    )


def weigh(
    criterion: Criterion, seed: int, slice_: str, environment: str,
    results: Sequence[Result], outdated: Sequence[Result], current: Current,
) -> ObligationStatus:  # fmt: skip
    """Return the obligation's status from its results, and from those held to an earlier form of the criterion."""

    def concluded(status: Status, by: Result | None, *reasons: Reason) -> ObligationStatus:
        return ObligationStatus(
            seed=seed, slice=slice_, environment=environment, status=status, reasons=reasons,
            measured=by.measured if by else None,
        )  # fmt: skip

    results = [one for one in results if one.fails or not one.given_up]
    failing = [one for one in results if one.fails]
    passing = [one for one in results if one.passes]
    standing = [one for one in failing if not answered(one, failing, passing, current)]
    if standing:
        return concluded("FALSIFIED", standing[-1], *_why_falsified(criterion, standing, passing, failing))
    fresh = [one for one in passing if not one.moved]
    if fresh:
        notes = [Reason(code="ANSWERED", text=f"answers {len(failing)} earlier falsification(s)")] if failing else []
        return concluded("DISCHARGED", fresh[-1], Reason(code="HOLDS", text=f"{criterion.sentence} holds"), *notes)
    short = [one for one in results if one.measurement and not one.fails and not one.enough and not one.moved]
    few = [one for one in short if _few(one, criterion)]
    if few:
        best = max(few, key=lambda one: one.measurement.n if one.measurement else 0)
        n = best.measurement.n if best.measurement else 0
        return concluded("PARTIAL", best, Reason(code="TOO_FEW", text=f"n={n} of {criterion.obligations.least_n}"))
    if passing:
        last = min(passing, key=lambda one: len(one.moved))
        return concluded("STALE", last, *(Reason(code=code, text=_moved_how(code, last.run)) for code in last.moved))
    if outdated:
        return concluded("STALE", outdated[-1], Reason(code="SPEC", text="the criterion changed since it was shown"))
    if short:
        have = short[-1].run.assurance
        return concluded(
            "OPEN", short[-1], Reason(code="ASSURANCE", text=f"{have}, where {criterion.obligations.assurance} is asked")
        )  # fmt: skip
    silent = [one for one in results if one.measurement is None]
    if silent:
        why = silent[-1].run.unmeasured.get(criterion.metric, "the run holds no such measurement")
        return concluded("OPEN", None, Reason(code="NO_MEASUREMENT", text=f"{silent[-1].run.name}: {why}"))
    return concluded("OPEN", None, Reason(code="NO_EVIDENCE", text="no confirmatory run has shown it"))


MOVED = {
    "CODE": "the code that runs has changed since",
    "DATA": "the data has changed since",
    "MODEL": "the contract's data, model, training or evaluation has changed since",
    "EVALUATOR": "the evaluator has changed, and measures these rows differently",
    "EXPIRED": "the result is older than max_age_days",
}


def _moved_how(code: str, run: VerifiedRun) -> str:
    if code == "ENV" and run.intent is not None:
        return f"shown on {run.intent.environment.class_}, which is not the environment class asked for"
    return MOVED[code]


def _few(one: Result, criterion: Criterion) -> bool:
    return LADDER.index(one.run.assurance) >= LADDER.index(criterion.obligations.assurance)


def answered(falsifier: Result, failing: Sequence[Result], passing: Sequence[Result], current: Current) -> bool:
    """Say whether a later pass on another subject names this falsifier, and the subject has not gone back."""
    subjects = {subject_of(one.run) for one in failing}
    return not current_is(falsifier.run, current) and any(
        falsifier.run.digest in one.run.intent.answers
        and subject_of(one.run) not in subjects
        # an answer comes after what it answers
        and (falsifier.run.statement is None or falsifier.run.statement.finished <= one.run.intent.written)
        for one in passing
        if one.run.intent is not None
    )


def _why_falsified(
    criterion: Criterion, standing: Sequence[Result], passing: Sequence[Result], failing: Sequence[Result]
) -> list[Reason]:
    last = standing[-1]
    if last.run.statement is not None and last.run.statement.outcome == "diverged":
        reasons = [Reason(code="DIVERGED", text=f"{last.run.name} diverged: {last.run.statement.reason}")]
    else:
        reasons = [Reason(code="FAILS", text=f"{criterion.sentence} fails at the pessimistic end of the interval")]
    same = {subject_of(one.run) for one in passing} & {subject_of(one.run) for one in standing}
    if same:
        reasons.append(
            Reason(code="CONTRADICTORY", text="the same subject has passed in another run; the failure stands")
        )
    since = [one.run for one in passing if not one.moved]
    if last.moved and since:
        text = f"{since[-1].name} passes, yet does not answer {last.run.name}: {last.run.digest}"
        reasons.append(Reason(code="UNANSWERED", text=text))
    elif last.moved:
        reasons.append(Reason(code="NOT_RETESTED", text=f"not re-tested since {', '.join(last.moved)} moved"))
    if len(standing) < len(failing):
        reasons.append(
            Reason(code="ANSWERED", text=f"{len(failing) - len(standing)} earlier falsification(s) answered")
        )
    return reasons
