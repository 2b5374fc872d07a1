"""CASE-30 Console was the only record.

Stage: at close
Outcome: rows are on disk before each checkpoint, whatever becomes of the console; one that is missing closes the run as abandoned (exit 8)
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_run import command, environment, only_run, sovereign
from test_run_distributed import repository
from tuned import BASE, carried_out, rows
from tuned import repository as base

from sovereign.evidence.journal import Journal
from sovereign.training import checkpoint

SHORT = (
    BASE.replace("steps: 60", "steps: 10")
    .replace("checkpoint_every: 30", "checkpoint_every: 5")
    .replace("every: 30", "every: 5")
)


def test_a_closed_console_takes_nothing_along(tmp_path: Path) -> None:
    """Plant: standard output and standard error are closed as the run begins; its folder says all that it did, twice over."""
    root = repository(tmp_path)
    call = command(root, "run", "--contract", str(root / "contracts/toy.yaml"), "--device", "cpu")
    closed = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *call], env=environment(), check=False)
    folder = only_run(root)

    assert (folder / "evidence.json").is_file(), closed.returncode
    assert [0, 5, 10] == sorted({row["step"] for row in rows(folder, "evaluation")})
    assert 0 == sovereign(root, "verify").returncode


def test_evaluations_are_on_disk_before_the_checkpoint_that_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a checkpoint is written, the evaluation of its step stands in the ledger: nothing that is resumed from lacks its record."""
    real, seen = checkpoint.save, []
    root = base(tmp_path / "r")

    def save(folder: Path, step: int, *given: Any, **more: Any) -> Path:
        evidence = next((root / "evidence/toy").iterdir())
        seen.append((step, max(row["step"] for row in rows(evidence, "evaluation"))))
        return real(folder, step, *given, **more)

    monkeypatch.setattr(checkpoint, "save", save)
    carried_out(root, SHORT)

    assert [(5, 5), (10, 10)] == seen


def test_a_missing_evaluation_is_not_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: the evaluation of step 5 is printed and never written."""
    real = Journal.log

    def log(journal: Journal, kind: str, **row: Any) -> None:
        if kind != "evaluation" or row["step"] != 5:
            real(journal, kind, **row)

    monkeypatch.setattr(Journal, "log", log)
    concluded = carried_out(base(tmp_path / "r"), SHORT)

    assert "abandoned" == concluded.outcome
    assert "the evaluation of step 5 is not on record (2 of 3 are)" in concluded.reason


def test_two_runs_of_one_contract_have_a_folder_each(tmp_path: Path) -> None:
    """Plant: the contract is run twice; the second run's rows stand in its own folder, and the first's are as they were."""
    root = base(tmp_path / "r")
    first = carried_out(root, SHORT).folder
    before = {path.name: path.read_bytes() for path in (first / "rows").iterdir()}
    second = carried_out(root, SHORT).folder

    assert first != second
    assert before == {path.name: path.read_bytes() for path in (first / "rows").iterdir()}
