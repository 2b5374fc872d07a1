"""CASE-33 Threshold moved to the number.

Stage: gate
Outcome: criteria are frozen before step 0: under its id a failure stands whatever bound is typed later; with a base that is INVALID (exit 4)
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fabric import NOW, SPEC, intent, repository, rows, write_run
from test_spec_life import committed, sovereign
from test_spec_life import statuses as against

from sovereign.repository import evaluate, open_repository

BEST = 4.6227  # what the best run reached
HONEST = SPEC.replace("bound: 3.0", "bound: 2.2")
MOVED = SPEC.replace("bound: 3.0", "bound: 4.7").replace("version: 0.1.0", "version: 1.0.0")
STRICT = "  - {id: TOY-STRICT-001, title: It learns, category: TOY, contract: toy, metric: validation/loss, op: '<=', bound: 2.2, stage: draft}\n"
LOOSE = "  - {id: TOY-009, title: It learns a little, category: TOY, contract: toy, metric: validation/loss, op: '<=', bound: 4.7}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose one run was held to 2.2, and ended at 4.6227."""
    write_run(repository(tmp_path, HONEST), intent(spec=HONEST), rows(loss=BEST))
    return tmp_path


def statuses(root: Path) -> dict[str, str]:
    return {one.id: one.status for one in evaluate(open_repository(root), NOW)[0].criteria}


def test_a_bound_typed_behind_the_result_turns_nothing_green(root: Path) -> None:
    """Plant: 2.2 becomes 4.7 after the run, and the old bound goes to a new `strict` id that decides nothing."""
    before = statuses(root)["TOY-001"]
    (root / "spec/toy.yaml").write_text(MOVED + STRICT)

    assert ("FALSIFIED", "FALSIFIED") == (before, statuses(root)["TOY-001"])


def test_against_a_base_it_is_invalid(root: Path) -> None:
    """The same edit in a review: no amendment owns up to it, so the criterion is INVALID, and the gate exits 4."""
    committed(root)
    (root / "spec/toy.yaml").write_text(MOVED + STRICT)

    assert "INVALID" == against(root, "--base", "main")["TOY-001"]
    assert 4 == sovereign(root, "gates", "--base", "main").returncode


def test_a_looser_rule_is_a_new_id_and_needs_a_run_of_its_own(root: Path) -> None:
    """The honest way: the old id stays as it failed; the looser one is OPEN, since no run was held to it."""
    (root / "spec/toy.yaml").write_text(HONEST + LOOSE)
    contract = root / "contracts/toy.yaml"
    contract.write_text(contract.read_text().replace("TOY-002]", "TOY-002, TOY-009]"))
    found = statuses(root)

    assert ("FALSIFIED", "OPEN") == (found["TOY-001"], found["TOY-009"])
