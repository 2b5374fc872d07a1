"""The closing statement of a run: its outcome, its files by digest, and what was measured from its rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sovereign.canonical import Record
from sovereign.evidence.intent import Digest, Instant, RunId
from sovereign.spec.criterion import MetricName

Outcome = Literal["completed", "diverged", "abandoned"]


class Measurement(Record):
    """A value with its interval, computed from rows by a pure function."""

    metric: MetricName
    slice: str = "all"
    value: float | str
    low: float | str
    high: float | str
    n: int = Field(ge=0, description="independent units: documents, prompts, steps")
    method: str

    @model_validator(mode="after")
    def _ordered(self) -> Measurement:
        if isinstance(self.value, str) or isinstance(self.low, str) or isinstance(self.high, str):
            if not self.value == self.low == self.high:
                raise ValueError(f"{self.metric}: a word has no interval")
        elif not self.low <= self.value <= self.high:
            raise ValueError(f"{self.metric}: {self.value} lies outside [{self.low}, {self.high}]")
        return self


class RowFile(Record):
    """A file of rows in the run's folder."""

    path: str = Field(pattern=r"^rows/[a-z_]+\.jsonl$")
    digest: Digest
    count: int = Field(ge=0)


class Artifact(Record):
    """A big file outside git, named by digest."""

    name: str
    digest: Digest
    bytes: int = Field(ge=0)


class Segment(Record):
    """An unbroken stretch of the run: a resumed run has several."""

    began: Instant
    from_step: int = Field(ge=0)
    processes: int = Field(default=1, ge=1)


class Statement(Record):
    """What a concluded run leaves behind."""

    schema_: Literal["sovereign/evidence/v1"] = Field(default="sovereign/evidence/v1", alias="schema")
    contract: str
    run: RunId
    intent: Digest
    outcome: Outcome
    reason: str = ""
    finished: Instant
    steps: int = Field(ge=0, description="updates executed")
    segments: tuple[Segment, ...] = ()
    rows: tuple[RowFile, ...]
    artifacts: tuple[Artifact, ...] = ()
    measurements: tuple[Measurement, ...]
    seal: Digest = Field(description="digest of this document without this line")

    @model_validator(mode="after")
    def _explained(self) -> Statement:
        if self.outcome != "completed" and not self.reason:
            raise ValueError(f"outcome {self.outcome} needs a reason")
        return self
