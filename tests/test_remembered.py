"""Memory makes gating fast and decides nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from fabric import NOW, intent, repository, rows, write_run

from sovereign import remembered, verification
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
        changed = "UPDATE verified SET entry = replace(entry, '\"value\":3.5', '\"value\":1.5')"
        database.execute(f"{changed} WHERE instr(entry, '\"value\":3.5')")
        assert database.total_changes == 1


def spoilt_shared(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("UPDATE verified SET entry = X'7b7d' WHERE instr(entry, '\"promise\"')")
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
    "what runs share emptied": spoilt_shared,
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
        measured = "FROM verified WHERE instr(entry, '\"measurements\"')"
        key, entry = database.execute(f"SELECT key, entry {measured}").fetchone()
        value = json.loads(entry)
        for one in value["measurements"]:
            one.update(value=1.0, low=1.0, high=1.0)
        database.execute("UPDATE verified SET entry = ? WHERE key = ?", (json.dumps(value).encode(), key))

    assert before == found(root)


def test_a_first_look_is_what_a_later_one_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that verification makes of a folder is lost or changed by being put down and taken up again."""
    (folder,) = root.glob("evidence/*/*")
    shutil.copytree(folder, folder.with_name("20260101T000000Z-bbbbbb"))  # which is not so, and has findings
    name = {path: path.relative_to(root).as_posix() for path in root.glob("evidence/*/*")}
    with remembered.memory() as known:
        looked = {path: known.verified(path, name[path]) for path in name}

    assert {path: verification.verify(path, name[path]) for path in name} == looked


def test_what_runs_share_stands_in_memory_once(root: Path) -> None:
    """The promise and the criteria of thousands of runs are one object each, after a first look too.

    Caught: verified intents kept whole, by which a first look at 10,000 folders took twice the memory of a later one.
    """
    write_run(root, intent("20260101T000000Z-bbbbbb", seed=2), rows(seed=2))
    for _ in range(2):
        one, other = (run.intent for run in verified_runs(root))
        assert one is not None
        assert other is not None
        assert one.promise is other.promise
        assert one.criteria["TOY-001"] is other.criteria["TOY-001"]
        assert (one.seed, other.seed) == (1, 2)


def test_an_interrupted_look_is_remembered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was verified before an interruption is not verified again."""
    (folder,) = root.glob("evidence/*/*")

    def interrupted() -> None:
        with remembered.memory() as known:
            known.verified(folder, folder.relative_to(root).as_posix())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    monkeypatch.setattr(remembered, "verify", lambda path, name: pytest.fail("verified again"))

    assert len(verified_runs(root)) == 1
