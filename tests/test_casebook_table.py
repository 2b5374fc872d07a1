"""The casebook's page says what its tests say."""

from __future__ import annotations

from pathlib import Path

import casebook_table
import pytest
from casebook_table import PAGE, entries, page

CASES = 44  # of the book; none is left out


def test_the_page_is_up_to_date() -> None:
    """docs/casebook.md is what the tests' docstrings make; write it again with `python tests/casebook_table.py`."""
    assert page() == PAGE.read_text("utf-8")


def test_every_entry_has_a_test() -> None:
    """A case is in the book by what is tested, and not by being named."""
    assert [one.file for one in entries() if not one.tests] == []
    assert {f"{number:02d}" for number in range(1, CASES + 1)} == {one.number for one in entries()}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("test_case_15.py", '"""Data ended."""\n', "begins `CASE-NN Title.`"),
        ("test_case_15.py", '"""CASE-16 Data ended.\n\nStage: a\nOutcome: b\n"""\n', "named after another"),
    ],
)
def test_a_module_that_does_not_introduce_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, says: str
) -> None:
    """Planted: a docstring without a case, and one of another case."""
    (tmp_path / "casebook").mkdir()
    (tmp_path / "casebook" / name).write_text(text)
    monkeypatch.setattr(casebook_table, "HERE", tmp_path)

    with pytest.raises(ValueError, match=says):
        entries()
