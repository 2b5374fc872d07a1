"""Forecasts and hypotheses: what is expected of a run, and what a story about it would have to show, written before."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sovereign.canonical import Record

Metric = Annotated[str, Field(pattern=r"^[a-z0-9_]+/[A-Za-z0-9_]+$", max_length=64)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]


class Forecast(Record):
    """A range that a metric is expected in at a step; scored when that step arrives, and never before."""

    metric: Metric
    low: float | None = None
    high: float | None = None
    step: int = Field(ge=0)
    because: str = ""

    @model_validator(mode="after")
    def _says_something(self) -> Forecast:
        if self.low is None and self.high is None:
            raise ValueError(f"forecast of {self.metric} has neither low nor high: nothing could contradict it")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"forecast of {self.metric}: low {self.low:g} is above high {self.high:g}")
        return self

    @property
    def range(self) -> str:
        if self.low is None:
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"


class Decision(Record):
    """What decides a hypothesis: a measurement of the runs of a contract, beside the reference runs of another."""

    contract: Name = Field(description="whose runs carry the intervention out")
    beside: Name | None = Field(
        default=None, description="whose runs lack it; by default the contract that holds the hypothesis"
    )
    metric: Metric
    op: Literal["<=", "<", ">=", ">"]
    bound: float


class Hypothesis(Record):
    """A cause that is supposed. It stays a HYPOTHESIS until applied interventions change the outcome beside a reference."""

    id: Name
    claim: str = Field(description="what holds if the measurement satisfies the bound")
    otherwise: str = Field(default="", description="what holds if it does not")
    intervention: tuple[str, ...] = Field(
        min_length=1, description="settings that the intervention changes, as dotted keys; everything else stays"
    )
    decides_by: Decision
