"""Memory makes gating fast and decides nothing."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from fabric import NOW, repository, rows, write_run

from sovereign import remembered
from sovereign.repository import evaluate, open_repository, verified_runs


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOVEREIGN_CACHE", str(tmp_path / "memory.sqlite"))
    write_run(repository(tmp_path / "repository"), said=rows(loss=3.5))
    return tmp_path / "repository"


def found(root: Path) -> object:
    return evaluate(open_repository(root), NOW)


def test_a_remembered_run_is_the_verified_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look gives the same run, to the last digit, without verifying again."""
    first = verified_runs(root)
    monkeypatch.setattr(remembered, "verify", lambda path, name: pytest.fail("verified again"))

    assert first == verified_runs(root)


def test_a_changed_byte_is_another_run(root: Path) -> None:
    """What is remembered is the content: the same size and time with another byte is verified anew."""
    verified_runs(root)
    (file,) = root.glob("evidence/*/*/rows/step.jsonl")
    data = file.read_bytes()
    file.write_bytes(data.replace(b'"grad_norm":1.0', b'"grad_norm":2.0', 1))

    assert verified_runs(root)[0].findings
    file.write_bytes(data)
    assert not verified_runs(root)[0].findings


def spoilt_entry(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("UPDATE verified SET entry = replace(entry, '\"value\": 3.5', '\"value\": 1.5')")
        assert database.total_changes == 1


def spoilt_seal(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("UPDATE verified SET entry = X'7b7d', seal = X'00'")


SPOIL = {
    "deleted": lambda file: file.unlink(),
    "garbage": lambda file: file.write_bytes(b"garbage" * 1000),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:5000]),
    "a directory": lambda file: (file.unlink(), file.mkdir()),
    "an edited value": spoilt_entry,
    "an emptied entry": spoilt_seal,
    "another table": lambda file: sqlite3.connect(file).execute("DROP TABLE verified"),
}


@pytest.mark.parametrize("how", SPOIL)
def test_a_lost_or_corrupted_memory_changes_no_status(root: Path, tmp_path: Path, how: str) -> None:
    """Whatever becomes of the memory, the evaluation is the same."""
    before = found(root)
    SPOIL[how](tmp_path / "memory.sqlite")

    assert before == found(root)
    assert before == found(root)


def test_an_unwritable_memory_is_done_without(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache folder, no memory, no error."""
    before = found(root)
    monkeypatch.setenv("SOVEREIGN_CACHE", "/proc/nowhere/memory.sqlite")

    assert before == found(root)


def test_another_law_remembers_nothing_of_the_old(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When anything that verifies has changed, what the old law found is not used."""
    verified_runs(root)
    monkeypatch.setattr(remembered, "_checks", lambda: b"another law")
    seen: list[str] = []
    again = remembered.verify
    monkeypatch.setattr(remembered, "verify", lambda path, name: (seen.append(name), again(path, name))[1])
    verified_runs(root)

    assert len(seen) == 1


def test_a_seal_that_does_not_fit_is_not_believed(root: Path, tmp_path: Path) -> None:
    """An entry edited into another verdict, its seal left as it was, is worked out again."""
    before = found(root)
    with sqlite3.connect(tmp_path / "memory.sqlite") as database:
        entry = database.execute("SELECT entry FROM verified").fetchone()[0]
        value = json.loads(entry)
        for one in value["measurements"]:
            one.update(value=1.0, low=1.0, high=1.0)
        database.execute("UPDATE verified SET entry = ?", (json.dumps(value).encode(),))

    assert before == found(root)
