"""What a gate says: the status of every criterion with its reasons, as one record that every report renders."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sovereign.canonical import Record
from sovereign.spec.criterion import Bound

Status = Literal["INVALID", "FALSIFIED", "OPEN", "STALE", "PARTIAL", "DISCHARGED", "WITHDRAWN"]
WORST_FIRST: tuple[Status, ...] = ("INVALID", "FALSIFIED", "OPEN", "STALE", "PARTIAL", "DISCHARGED")


class Reason(Record):
    """Why a status is what it is: a code that programs read, and a sentence."""

    code: str
    text: str


class Measured(Record):
    """The value a status rests on, and the run that it came from."""

    value: float | str
    low: float | str
    high: float | str
    n: int
    method: str
    run: str
    evidence: str


class ObligationStatus(Record):
    """One seed x slice x environment, and what has been shown of it."""

    seed: int
    slice: str
    environment: str
    status: Status
    reasons: tuple[Reason, ...]
    measured: Measured | None = None

    @property
    def name(self) -> str:
        parts = [f"seed {self.seed}"]
        parts += [f"slice {self.slice}"] if self.slice != "all" else []
        parts += [f"on {self.environment}"] if self.environment != "any" else []
        return ", ".join(parts)


class WaiverNote(Record):
    """A waiver in force: what it covers, for how long, and who answers for it."""

    id: str
    state: Status
    expires: str
    owner: str
    approver: str
    reason: str


class CriterionStatus(Record):
    """One criterion as the evidence leaves it."""

    id: str
    title: str
    category: str
    contract: str
    stage: Literal["draft", "active"]
    metric: str
    unit: str
    op: str
    bound: Bound
    digest: str
    status: Status
    reasons: tuple[Reason, ...]
    obligations: tuple[ObligationStatus, ...] = ()
    measured: Measured | None = None
    waiver: WaiverNote | None = None
    evidence: tuple[str, ...] = Field(default=(), description="digests of the statements that were weighed")
    exploratory: int = Field(default=0, description="runs that measured this and may not decide it")
    amended_after_results: int = 0
    was_falsified: tuple[str, ...] = Field(default=(), description="criterion digests under which it was falsified")
    discharge: str = Field(default="", description="the command that would discharge it")

    @property
    def evaluated(self) -> bool:
        """Whether any predicate was decided by admitted evidence."""
        return any(one.measured is not None or one.status == "FALSIFIED" for one in self.obligations)

    @property
    def shown(self) -> str:
        return f"WAIVED({self.status})" if self.waiver else self.status


class RunNote(Record):
    """One run, as a line."""

    run: str
    state: Literal["completed", "diverged", "abandoned", "open", "unconcluded", "invalid"]
    origin: Literal["run", "callback", "import", "suite"] = "run"
    exploratory: str = ""
    seed: int | None = None
    steps: int = 0
    reason: str = ""


class FindingNote(Record):
    """Something about a file that is not so."""

    kind: Literal["schema", "integrity"]
    path: str
    message: str


class Evaluation(Record):
    """Everything one evaluation of one spec found."""

    schema_: Literal["sovereign/evaluation/v1"] = Field(default="sovereign/evaluation/v1", alias="schema")
    spec: str
    version: str
    spec_path: str
    now: str
    criteria: tuple[CriterionStatus, ...]
    runs: tuple[RunNote, ...] = ()
    findings: tuple[FindingNote, ...] = ()
    expired_waivers: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()

    @property
    def active(self) -> tuple[CriterionStatus, ...]:
        """The criteria that gate: active, and not withdrawn."""
        return tuple(one for one in self.criteria if one.stage == "active" and one.status != "WITHDRAWN")

    @property
    def worst(self) -> Status | None:
        """The worst status of an active criterion that no waiver covers."""
        states = {one.status for one in self.active if not one.waiver}
        return next((state for state in WORST_FIRST if state in states), "DISCHARGED" if self.active else None)
