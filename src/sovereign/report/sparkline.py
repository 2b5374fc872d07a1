"""A curve in one line of text, for terminals and Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

Value = TypeVar("Value")
BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return the values as at most `width` blocks from the lowest to the highest; a blank where one is not finite.

    Where there are more values than blocks, each block is the mean of its share of them.
    """
    means = [_mean(part) for part in shares(values, width)]
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return " " * len(means)
    low, span = min(finite), max(finite) - min(finite)
    return "".join(_block((mean - low) / span if span else 0.5) if math.isfinite(mean) else " " for mean in means)


def shares(values: Sequence[Value], most: int) -> list[Sequence[Value]]:
    """Return the values in at most so many runs of neighbours, as equal in length as can be."""
    count = min(len(values), most)
    return [values[len(values) * at // count : len(values) * (at + 1) // count] for at in range(count)]


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    # by parts of the count, for a sum of large losses may overflow where their mean does not
    return sum(value / len(finite) for value in finite) if finite else math.nan


def _block(share: float) -> str:
    return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]
