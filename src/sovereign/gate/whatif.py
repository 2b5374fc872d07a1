"""What if: how a criterion would read a value that nobody measured. Always exploratory, never recorded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from sovereign.spec.criterion import Bound, Criterion

LABEL = "exploratory — not recorded"


@dataclass(frozen=True)
class Supposed:
    """One criterion held against a supposed value, taken as exact."""

    criterion: str
    sentence: str
    value: Bound
    holds: bool

    def __str__(self) -> str:
        return (
            f"{LABEL}: with {self.value}, {self.criterion} ({self.sentence}) would {'hold' if self.holds else 'fail'}"
        )

    def plain(self) -> dict[str, object]:
        return {**asdict(self), "label": LABEL}


def suppose(criteria: Iterable[Criterion], given: Mapping[str, Bound]) -> list[Supposed]:
    """Return every criterion on a metric of `given`, held against its value."""
    return [
        Supposed(one.id, one.sentence, given[one.metric], one.holds(given[one.metric], given[one.metric]))
        for one in criteria
        if one.metric in given
    ]


def parsed(text: str) -> tuple[str, Bound]:
    """Return the metric and value of `metric=value`; raises ValueError saying what is wrong."""
    metric, equals, value = text.partition("=")
    if not equals or not metric or not value:
        raise ValueError(f"{text!r}: write METRIC=VALUE, as in validation/loss=2.2")
    try:
        number = float(value)
    except ValueError:
        return metric, value
    if not math.isfinite(number):
        raise ValueError(f"{text!r}: the value is not a finite number")
    return metric, number
