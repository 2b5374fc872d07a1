"""Markdown within the size that GitHub takes, and curves in a line."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reported import criterion, evaluation, judged

from sovereign.report.markdown import COMMENT, markdown
from sovereign.report.sparkline import BLOCKS, sparkline


def many(count: int) -> object:
    one = evaluation().model_copy(
        update={"criteria": tuple(criterion(number, "OPEN") for number in range(1, count + 1))}
    )
    return judged(evaluations=(one,))


@pytest.mark.parametrize("limit", [2_000, 10_000, COMMENT])
def test_markdown_stays_within_its_limit_and_says_what_is_missing(limit: int) -> None:
    """Of 3,000 criteria as many are shown as fit; the number of lines left out is said, and every part is closed."""
    full = markdown(many(3_000), 1 << 30)  # type: ignore[arg-type]
    found = markdown(many(3_000), limit)  # type: ignore[arg-type]
    left = re.search(r"\*(\d+) lines did not fit into", found)

    assert len(found.encode()) <= limit
    assert found.count("<details>") == found.count("</details>")
    assert left is not None
    lines = [
        sum(1 for line in text.splitlines() if line.startswith(("- ", "| <", "| ·", "| ✔"))) for text in (full, found)
    ]
    assert int(left[1]) == lines[0] - lines[1]


def test_markdown_that_fits_is_whole() -> None:
    """Nothing is left out, and nothing said to be, where there is room."""
    assert "did not fit" not in markdown(judged())


def test_the_worst_stand_first_and_survive() -> None:
    """What is cut off is what matters least: the failures are in even the shortest summary."""
    one = evaluation().model_copy(update={
        "criteria": (*(criterion(number, "OPEN") for number in range(1, 500)), criterion(500, "FALSIFIED")),
    })  # fmt: skip
    found = markdown(judged(evaluations=(one,)), 1_500)

    assert "<code>TOY-500</code>" in found
    assert "<code>TOY-499</code>" not in found


def test_the_first_line_finds_the_comment_again() -> None:
    """One comment is kept up to date for each spec and profile, by a marker in its first line."""
    assert markdown(judged(profile="main")).startswith("<!-- sovereign-gates:toy:main -->\n")


def test_changes_against_the_base_are_listed() -> None:
    """A criterion whose status moved, appeared or went is named with both; the others are not."""
    before = evaluation().model_copy(update={"criteria": (criterion(1, "OPEN"), *evaluation().criteria[1:9])})
    found = markdown(judged(base=(before,)))

    assert ["- <code>TOY-001</code> OPEN → DISCHARGED", "- <code>TOY-010</code> absent → DISCHARGED"] == [
        line for line in found.splitlines() if "→" in line
    ]
    assert "no status changed" in markdown(judged(base=(evaluation(),)))
    assert "Against the base" not in markdown(judged())


def test_a_sparkline_rises_and_falls_with_its_values() -> None:
    """The lowest value is the lowest block, the highest the highest; many values are drawn as means of neighbours."""
    assert sparkline([8, 4, 1, 4, 8]) == "█▄▁▄█"
    assert sparkline([1, 1]) == "▅▅"
    assert sparkline([1, math.nan, 2]) == "▁ █"
    assert sparkline([]) == ""
    assert sparkline([0] * 50 + [1] * 50, 4) == "▁▁██"


@given(st.lists(st.floats()), st.integers(1, 50))
def test_a_sparkline_is_total(values: list[float], width: int) -> None:
    """Any values, infinite ones too, are as many blocks or blanks as there are values, and at most `width`."""
    found = sparkline(values, width)

    assert len(found) == min(len(values), width)
    assert set(found) <= {*BLOCKS, " "}
