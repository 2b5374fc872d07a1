"""Admission: which runs may speak about a criterion, and in which way.

A result is confirmatory when its intent froze the criterion before step 0 and nothing was overridden
or uncommitted; everything else is exploratory: shown and counted, yet it neither discharges nor falsifies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from sovereign.canonical import shown
from sovereign.evidence.envelope import Signable
from sovereign.evidence.intent import Intent
from sovereign.evidence.statement import Measurement, Outcome, Statement
from sovereign.spec.criterion import Assurance, Criterion


@dataclass(frozen=True)
class Finding:
    """Something about a file that is not so; it makes what the file touches INVALID."""

    kind: Literal["schema", "integrity"]
    path: str
    message: str

    def __str__(self) -> str:
        return shown(f"{self.path}: {self.message}")


@dataclass(frozen=True, slots=True)
class Closing:
    """What a gate needs of a closing statement; its measurements were computed again, and its files hashed."""

    outcome: Outcome
    reason: str
    finished: str
    steps: int

    @classmethod
    def of(cls, statement: Statement) -> Closing:
        return cls(statement.outcome, statement.reason, statement.finished, statement.steps)


@dataclass(frozen=True)
class Signed:
    """One signature of a run's document; no signer where no listed key made it."""

    document: Signable
    keyid: str
    signer: str


@dataclass(frozen=True)
class VerifiedRun:
    """A run as verification passed it on: its documents, what its rows really measure, and what is not so."""

    contract: str
    run: str
    intent: Intent | None = None
    statement: Closing | None = None
    digest: str = ""
    measurements: tuple[Measurement, ...] = ()
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    moved: frozenset[str] = frozenset()  # metrics that another evaluator measured, and this one measures differently
    assurance: Assurance = "recomputed"
    scripts: str | None = None  # digest of a callback's scripts as they stand now
    losses: str = ""  # digest of the training losses, by which scripted twins are told
    envelopes: tuple[Signable, ...] = ()  # documents with signatures beside them
    signatures: tuple[Signed, ...] = ()  # as the policy knows them
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.contract}/{self.run}"

    def claims(self, criterion: Criterion) -> bool:
        """Say whether the run touches a criterion; one whose intent is unreadable touches all of its contract's."""
        if self.intent is None:
            return criterion.contract == self.contract
        return criterion.id in self.intent.criteria

    def unconcluded(self, now: datetime) -> bool:
        """Say whether a binding intent is past its time without a closing statement."""
        if self.intent is None or self.statement is not None or not self.intent.confirmatory:
            return False
        return now - instant(self.intent.written) > timedelta(hours=self.intent.ttl_hours)


@dataclass(frozen=True)
class Current:
    """The subjects of a contract as they stand now; None is what cannot be looked at from here."""

    code: str
    model: str | None  # None: the contract is gone
    evaluator: str
    source: str | None = None  # None: the data lies outside the repository, and the recorded manifest stands


def instant(text: str) -> datetime:
    """Return a UTC instant as evidence writes it."""
    return datetime.fromisoformat(text)


def moved(
    run: VerifiedRun, criterion: Criterion, current: Current, now: datetime, environment: str = "any"
) -> tuple[str, ...]:
    """Return which bound subjects differ from those the run saw: CODE, DATA, MODEL, EVALUATOR, ENV, EXPIRED.

    The environment class is bound where the obligation names one, or the criterion is exact about it.
    """
    intent = run.intent
    assert intent is not None
    subjects = intent.subjects
    reasons = []
    if subjects.code is None or subjects.code != _code_now(run, current):
        reasons.append("CODE")
    # files that stood in the repository and are gone cannot be what they were
    if subjects.source != current.source and (current.source is not None or subjects.source is not None):
        reasons.append("DATA")
    if subjects.model != current.model:
        reasons.append("MODEL")
    if criterion.metric in run.moved:
        reasons.append("EVALUATOR")
    if criterion.pinned(environment) and environment != intent.environment.class_:
        reasons.append("ENV")
    if criterion.max_age_days and run.statement and _age(run.statement, now) > timedelta(days=criterion.max_age_days):
        reasons.append("EXPIRED")
    return tuple(reasons)


def _age(statement: Closing, now: datetime) -> timedelta:
    return now - instant(statement.finished)


def _code_now(run: VerifiedRun, current: Current) -> str | None:
    """Return the code that would train now: ours, or the scripts of somebody else's trainer."""
    return current.code if run.intent is not None and run.intent.origin == "run" else run.scripts


def subject_of(run: VerifiedRun) -> tuple[str | None, str | None, str]:
    """Return what a result speaks about: code, data and model. The evaluator is no part of it."""
    assert run.intent is not None
    subjects = run.intent.subjects
    return subjects.code, subjects.data, subjects.model


def current_is(run: VerifiedRun, current: Current) -> bool:
    """Say whether the present subject is, as far as it can be seen, the one a run spoke about."""
    assert run.intent is not None
    subjects = run.intent.subjects
    same_code = subjects.code is None or subjects.code == _code_now(run, current)
    return (
        same_code and subjects.model == current.model and (current.source is None or subjects.source == current.source)
    )
