"""CASE-27 Resume trains nothing.

Stage: at close
Outcome: closed as abandoned (exit 8) with the updates that are missing; evidence that says `completed` all the same is INVALID
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fabric import repository as written
from fabric import rows, write_run
from test_run import FULL_CONTRACT, only_run
from test_run_distributed import repository
from test_run_guards import Crash, dying, execute

from sovereign import run as execution
from sovereign.canonical import read
from sovereign.cli.main import exit_of
from sovereign.verification import verify

PER_PASS = 6  # updates
TWO_PASSES = FULL_CONTRACT.replace("checkpoint_every: 4", f"checkpoint_every: {PER_PASS}")


def cut_off_after_a_pass(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a run that died as the checkpoint on the boundary of its pass had been written."""
    real = execution._Execution._checkpoint

    def die_behind(run: Any, step: int) -> None:
        real(run, step)
        dying(PER_PASS)(run, step)

    with monkeypatch.context() as planted:
        planted.setattr(execution._Execution, "_checkpoint", die_behind)
        with pytest.raises(Crash):
            execute(root)
    return only_run(root).name


def resumed(root: Path, name: str) -> int:
    return exit_of(["run", "--resume", name, "--device", "cpu", "--root", str(root)])


def nothing_left(real: Callable[..., None]) -> Callable[..., None]:
    """Plant: the reader that a checkpoint restores stands at its end, so that the loop has no batch to take."""

    def train(*given: Any, **more: Any) -> None:
        if more["done"] == 0:
            real(*given, **more)

    return train


def test_a_resume_that_trains_nothing_is_not_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six of ten updates are on record: exit 8, abandoned, and nothing of it is discharged. Control: with a reader, it completes."""
    for planted in (True, False):
        root = repository(tmp_path / str(planted), TWO_PASSES)
        name = cut_off_after_a_pass(root, monkeypatch)
        with monkeypatch.context() as patch:
            if planted:
                patch.setattr(execution, "train", nothing_left(execution.train))
            code = resumed(root, name)
        said = capsys.readouterr().err
        statement = read(only_run(root) / "evidence.json").value

        if planted:
            assert (8, "abandoned", 6) == (code, statement["outcome"], statement["steps"])
            assert "guard incomplete at step 6: 6 of 10 planned updates are on record" in said
            assert exit_of(["verify", "--root", str(root)]) == 0
        else:
            assert (0, "completed", 10) == (code, statement["outcome"], statement["steps"]), said


def test_evidence_that_calls_it_completed_is_invalid(tmp_path: Path) -> None:
    """Plant: nine of ten updates, and a statement that says completed."""
    written(tmp_path)
    folder = write_run(tmp_path, said=[row for row in rows() if row[0] != "step" or row[1]["step"] < 10])

    assert "completed with 9 of 10 planned steps" in str(verify(folder, folder.name).findings)
