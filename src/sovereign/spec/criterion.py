"""A spec: named metrics, and criteria that are falsifiable sentences about them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sovereign.canonical import Record, digest, read, validate

Number = int | float
Bound = bool | int | float | str
Op = Literal["<=", "<", ">=", ">", "=="]
Assurance = Literal["reported", "recomputed", "reproduced", "witnessed"]
Id = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]*(-[A-Z0-9]+)+$", max_length=64)]
MetricName = Annotated[str, Field(pattern=r"^[a-z0-9_]+/[A-Za-z0-9_]+$", max_length=64)]
Version = Annotated[str, Field(pattern=r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$")]

# `any`, a device, or the class that a run records: device, accelerator, minor versions of Python and torch
Place = Annotated[
    str, Field(pattern=r"^(any|cpu|cuda|(cpu|cuda)( [^\s]+)* python-\d+\.\d+ torch-\d+\.\d+)$", max_length=120)
]

LADDER: tuple[Assurance, ...] = ("reported", "recomputed", "reproduced", "witnessed")
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt, "==": operator.eq,
}  # fmt: skip
# what does not change the meaning of a criterion; everything else, new fields included, is in its digest
EDITORIAL = frozenset({"title", "rationale", "links", "owner"})


class Metric(Record):
    """A name for a number, or for a word of a closed set, that is computed from rows."""

    title: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    rows: tuple[str, ...] = Field(min_length=1)
    range: tuple[Number | None, Number | None] = (None, None)
    words: tuple[str, ...] = ()


class Obligations(Record):
    """What must be shown, declared before any run: every seed x slice x environment, with n and assurance."""

    seeds: tuple[int, ...] = Field(default=(1,), min_length=1)
    slices: tuple[str, ...] = Field(default=("all",), min_length=1)
    environments: tuple[Place, ...] = Field(default=("any",), min_length=1)
    least_n: int = Field(default=1, ge=1)
    assurance: Assurance = "recomputed"

    @model_validator(mode="after")
    def _each_once(self) -> Obligations:
        for name in ("seeds", "slices", "environments"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} lists a value twice; an obligation counts once")
        return self


class Criterion(Record):
    """One falsifiable sentence: `metric op bound`, for every obligation, by the runs of one contract."""

    id: Id
    title: str
    category: str
    contract: str
    metric: MetricName
    op: Op
    bound: Bound
    stage: Literal["draft", "active"] = "active"
    obligations: Obligations = Obligations()
    environment: Literal["recorded", "exact"] = "recorded"
    max_age_days: int | None = Field(default=None, ge=1)
    rationale: str = ""
    links: tuple[str, ...] = ()
    owner: str = ""

    @property
    def digest(self) -> str:
        """What the criterion means, as a digest: everything but its editorial fields."""
        return _digest_of(self)

    @property
    def sentence(self) -> str:
        return f"{self.metric} {self.op} {self.bound}"

    def pinned(self, environment: str) -> bool:
        """Say whether an obligation on this environment is met on that environment class alone."""
        return self.environment == "exact" or environment not in ("any", "cpu", "cuda")

    def holds(self, low: Bound, high: Bound) -> bool:
        """Say whether the predicate holds for the worst value that an interval allows; false unless finite."""
        if isinstance(self.bound, str) or isinstance(low, str) or isinstance(high, str):
            return type(low) is type(self.bound) and low == high == self.bound
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        worst = high if self.op in ("<=", "<") else low
        # an equality has no better end: the whole interval must be the bound
        return COMPARE[self.op](worst, self.bound) and (self.op != "==" or low == high)

    def expanded(self) -> tuple[tuple[int, str, str], ...]:
        """Return every (seed, slice, environment) that must be shown."""
        these = self.obligations
        return tuple(product(these.seeds, these.slices, these.environments))


@lru_cache(maxsize=4096)  # the gate asks for each run, and the same few criteria stand in thousands of them
def _digest_of(criterion: Criterion) -> str:
    return digest({key: value for key, value in criterion.meaning().items() if key not in EDITORIAL})


class Withdrawal(Record):
    """The tombstone of a criterion: its id is never used again."""

    id: Id
    category: str
    amendment: str


class Spec(Record):
    """A versioned set of metrics and criteria. Statuses are derived from evidence and never stand here."""

    schema_: Literal["sovereign/spec/v1"] = Field(alias="schema")
    spec: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: Version
    title: str
    controls: Literal["required", "advised"] = Field(
        default="required", description="whether an active criterion without a good and a bad control can be discharged"
    )
    metrics: dict[MetricName, Metric]
    criteria: tuple[Criterion, ...]
    withdrawn: tuple[Withdrawal, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        seen: set[str] = set()
        for id_ in (*(one.id for one in self.criteria), *(one.id for one in self.withdrawn)):
            if id_ in seen:
                raise ValueError(f"criterion {id_} stands twice; an id means one thing for ever")
            seen.add(id_)
        for criterion in self.criteria:
            metric = self.metrics.get(criterion.metric)
            if metric is None:
                raise ValueError(f"{criterion.id}: metric {criterion.metric} is not declared under metrics")
            if metric.words and (criterion.op != "==" or criterion.bound not in metric.words):
                raise ValueError(
                    f"{criterion.id}: {criterion.metric} is one of {', '.join(metric.words)}; compare with == and one of them"
                )
            if not metric.words and isinstance(criterion.bound, str | bool):
                raise ValueError(
                    f"{criterion.id}: {criterion.metric} is a number; the bound must be one, not {criterion.bound!r}"
                )
        return self

    @property
    def by_id(self) -> dict[str, Criterion]:
        return {criterion.id: criterion for criterion in self.criteria}

    @classmethod
    def load(cls, path: Path, name: str | None = None) -> Spec:
        """Return the spec at `path`, or raise Malformed naming every fault and its place."""
        return validate(cls, read(path, name))
