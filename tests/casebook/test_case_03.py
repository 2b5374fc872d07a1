"""CASE-03 Gates counted, nothing run.

Stage: contract load
Outcome: a claim or metric that is not there is refused (exit 3); a criterion without a real run's rows stays OPEN, however it is tested
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fabric import CONTRACT, NOW, SPEC, intent, repository, rows, write_run
from sourced import sovereign
from test_controls import DEMANDED, write_control

from sovereign.repository import evaluate, open_repository


def statuses(root: Path) -> dict[str, str]:
    return {one.id: one.status for one in evaluate(open_repository(root), NOW)[0].criteria}


def test_a_cited_criterion_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """Plant: a contract claims what no spec holds, as gates once cited tests that nobody had written."""
    repository(tmp_path, contract=CONTRACT.replace("[TOY-001, TOY-002]", "[TOY-001, TOY-002, TOY-003]"))
    found = sovereign(tmp_path, "gates")

    assert found.returncode == 3
    assert "contracts/toy.yaml:5:28: claims[2]: spec/toy.yaml holds no criterion TOY-003" in found.stdout + found.stderr


def test_a_metric_that_nothing_computes_is_a_fault(tmp_path: Path) -> None:
    """Plant: a criterion about a number that no function makes of rows."""
    repository(tmp_path, SPEC.replace("validation/loss", "validation/perplexity_of_hope"))
    found = sovereign(tmp_path, "spec", "lint")

    assert found.returncode == 3
    assert "validation/perplexity_of_hope: no function computes this metric" in found.stderr


def test_a_tested_comparison_is_no_evidence(tmp_path: Path) -> None:
    """Plant: both controls show that the comparison tells good from bad, and no run was made: nothing is discharged."""
    repository(tmp_path, DEMANDED)
    for criterion in ("TOY-001", "TOY-002"):
        write_control(tmp_path, criterion, "good")
        write_control(tmp_path, criterion, "bad", loss=4.0, tokens=31)

    assert {"TOY-001": "OPEN", "TOY-002": "OPEN"} == statuses(tmp_path)
    assert 0 == sovereign(tmp_path, "spec", "test").returncode


def test_rows_of_a_real_run_are(tmp_path: Path) -> None:
    """Control: the same repository with one run of its contract."""
    test_a_tested_comparison_is_no_evidence(tmp_path)
    write_run(tmp_path)

    assert {"TOY-001": "DISCHARGED", "TOY-002": "DISCHARGED"} == statuses(tmp_path)


@pytest.mark.parametrize("what", ["abandoned", "exploratory"])
def test_a_run_that_does_not_count_adds_nothing(tmp_path: Path, what: str) -> None:
    """Plant: passing rows of a run that was abandoned, or whose contract was overridden for it."""
    repository(tmp_path)
    if what == "abandoned":
        write_run(tmp_path, said=rows()[:5], outcome="abandoned", reason="stopped by hand")
    else:
        write_run(tmp_path, intent(overrides=("training.steps=10",)))

    assert {"TOY-001": "OPEN", "TOY-002": "OPEN"} == statuses(tmp_path)
