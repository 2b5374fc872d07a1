"""CASE-32 Pass printed over skip or miss.

Stage: gate
Outcome: status follows from the criterion and the rows alone: skipped is PARTIAL or OPEN, a miss FALSIFIED (exit 1), a crash leaves nothing
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fabric import NOW, SPEC, intent, repository, rows, write_run
from test_run import only_run
from test_run_distributed import repository as trainable
from test_run_guards import started

from sovereign import run as execution
from sovereign.cli.main import exit_of
from sovereign.repository import evaluate, open_repository


def statuses(root: Path) -> dict[str, str]:
    return {one.id: one.status for one in evaluate(open_repository(root), NOW)[0].criteria}


def exit_code(root: Path) -> int:
    return exit_of(["gates", "--root", str(root)])


def test_an_evaluator_that_raises_passes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: the last evaluation raises. The run has no statement, its rows are evidence of nothing, and the gate is not green."""
    root = trainable(tmp_path)
    real = execution._Execution._scores

    def raising(run: Any, side: str) -> Any:
        if run.done == 10:
            raise ValueError("the scorer could not be imported")
        return real(run, side)

    monkeypatch.setattr(execution._Execution, "_scores", raising)
    code = started(root)
    monkeypatch.undo()

    assert 70 == code
    assert not (only_run(root) / "evidence.json").exists()
    assert {"OPEN"} == {one.status for one in evaluate(open_repository(root), datetime.now(UTC))[0].criteria}
    assert 0 != exit_code(root)


def test_half_of_the_documents_is_no_pass(tmp_path: Path) -> None:
    """Plant: five documents of the ten that were asked for are scored, all well below the bound."""
    repository(tmp_path)
    write_run(tmp_path, said=rows(documents=5))

    assert "PARTIAL" == statuses(tmp_path)["TOY-001"]


def test_a_check_that_was_skipped_is_open(tmp_path: Path) -> None:
    """Plant: nothing was evaluated at all; what counts tokens is shown, and what reads losses is not."""
    repository(tmp_path)
    write_run(tmp_path, said=[row for row in rows() if row[0] == "step"])

    assert {"TOY-001": "OPEN", "TOY-002": "DISCHARGED"} == statuses(tmp_path)


def test_above_target_is_a_miss_whatever_was_printed(tmp_path: Path) -> None:
    """Plant: 9.806 against a target of 3.0, with `OK CONVERGED` beside it in a row: FALSIFIED, and exit 1."""
    repository(tmp_path)
    said = ("notice", {"step": 10, "name": "converged", "got": "OK", "message": "OK CONVERGED: all 12 gates pass"})
    write_run(tmp_path, said=[*rows(loss=9.806), said])

    assert "FALSIFIED" == statuses(tmp_path)["TOY-001"]
    assert 1 == exit_code(tmp_path)


@pytest.mark.parametrize("field", ["status: DISCHARGED", "passed: true", "result: OK"])
def test_no_file_has_a_place_for_the_word(tmp_path: Path, field: str) -> None:
    """Plant: the word is typed into the criterion; it is an unknown key, and the command ends with 3."""
    repository(tmp_path, SPEC.replace("title: It learns", f"title: It learns, {field}"))

    assert 3 == exit_code(tmp_path)


def test_the_same_gate_lets_a_shown_criterion_pass(tmp_path: Path) -> None:
    """Control: all documents, below the bound."""
    repository(tmp_path)
    write_run(tmp_path, intent())

    assert {"TOY-001": "DISCHARGED", "TOY-002": "DISCHARGED"} == statuses(tmp_path)
