"""CASE-04 Data minimum always waived.

Stage: plan
Outcome: refused (exit 7) with the arithmetic; a run with the minimum overridden is exploratory and discharges nothing
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sourced import repository, sovereign


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Plant: a minimum of a million tokens, over a corpus of some ten thousand."""
    return repository(tmp_path, ("  split:", "  least_tokens: 1000000\n  split:"))


@pytest.mark.parametrize("command", ["plan", "run"])
def test_below_the_minimum_nothing_is_planned_or_run(root: Path, command: str) -> None:
    """Both the corpus and the tokens trained on are held to the minimum; nothing is written to evidence."""
    found = sovereign(root, command, "--contract", "contracts/toy.yaml", "--device", "cpu")

    assert found.returncode == 7
    assert "tokens, where data.least_tokens asks for 1000000" in found.stderr
    assert "10 steps x 2 sequences x 16 tokens = 320, where data.least_tokens asks for 1000000" in found.stderr
    assert not (root / "evidence").exists()


@pytest.mark.slow
def test_a_waived_minimum_discharges_nothing(root: Path) -> None:
    """With the minimum overridden the run takes place, is exploratory, and no criterion is DISCHARGED by it."""
    ran = sovereign(root, "run", "--contract", "contracts/toy.yaml", "--device", "cpu", "--set", "data.least_tokens=1")
    board = json.loads(sovereign(root, "scoreboard", "--json").stdout)

    assert ran.returncode == 0, ran.stderr
    assert {(0, 2, 2)} == {(line["DISCHARGED"], line["OPEN"], line["of"]) for line in board}


@pytest.mark.slow
def test_the_same_run_without_a_minimum_discharges(tmp_path: Path) -> None:
    """The control of the test above: what did not count there counts where no minimum was waived."""
    root = repository(tmp_path)
    ran = sovereign(root, "run", "--contract", "contracts/toy.yaml", "--device", "cpu")
    board = json.loads(sovereign(root, "scoreboard", "--json").stdout)

    assert ran.returncode == 0, ran.stderr
    assert board[0]["DISCHARGED"] >= 1
