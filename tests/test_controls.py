"""Controls: a criterion that cannot tell good from bad is believed by nobody."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fabric import CONTRACT, SPEC, intent, repository, rows, write_run

from sovereign.canonical import pretty, write_atomic
from sovereign.controls import read_control
from sovereign.evidence.journal import Journal
from sovereign.repository import controls, evaluate, open_repository

OWN = Path(__file__).parent.parent
DEMANDED = SPEC.replace("controls: advised\n", "")


def sovereign(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments, "--root", str(root)],
        capture_output=True, text=True, env=os.environ, check=False,
    )  # fmt: skip


def write_control(root: Path, criterion: str, side: str, **said: Any) -> Path:
    """Write a control as a recording does: an intent, and the rows of a toy run."""
    folder = root / "spec/controls" / criterion / side
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "rows").mkdir(parents=True)
    promise = intent(overrides=("recorded as a control",))
    write_atomic(folder / "intent.json", pretty(promise.plain()))
    journal = Journal(folder / "rows", promise.run)
    for kind, values in rows(**said):
        journal.log(kind, **values)
    journal.close()
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository that demands controls, has them all, and whose one run passes everything."""
    write_run(repository(tmp_path, DEMANDED))
    for criterion in ("TOY-001", "TOY-002"):
        write_control(tmp_path, criterion, "good")
        write_control(tmp_path, criterion, "bad", loss=4.0, tokens=31)
    return tmp_path


def stands(root: Path, *more: str) -> dict[str, str]:
    found = json.loads(sovereign(root, "gates", "--json", *more).stdout)
    return {one["id"]: one["status"] for one in found["evaluations"][0]["criteria"]}


def test_every_control_of_our_own_spec_comes_out() -> None:
    """Each active criterion of this repository is DISCHARGED on its clean run and FALSIFIED on its planted one."""
    repository = open_repository(OWN)
    found = [
        one for located in repository.specs for these in controls(repository, located.spec).values() for one in these
    ]

    assert [] == [one for one in found if one.fault]
    active = sum(one.stage == "active" for located in repository.specs for one in located.spec.criteria)
    assert (2 * active, True) == (len(found), active > 10)


def test_controls_are_small_and_hold_only_what_their_metric_reads() -> None:
    """No control holds rows that its criterion's metric does not read, and one is reviewable: under 300 kB."""
    repository = open_repository(OWN)
    (spec,) = [one.spec for one in repository.specs]
    too_much = []
    for criterion in spec.criteria:
        for side in ("good", "bad"):
            folder = OWN / "spec/controls" / criterion.id / side
            held = {path.stem for path in (folder / "rows").iterdir()}
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            if not held <= set(spec.metrics[criterion.metric].rows) or size > 300_000:
                too_much.append((criterion.id, side, sorted(held), size))

    assert [] == too_much


def test_the_generated_modules_are_what_their_script_writes() -> None:
    """The corpus of the small contract is reproduced to the byte."""
    script = OWN / "spec/controls/miniature.py"
    written = subprocess.run([sys.executable, str(script)], capture_output=True, check=True).stdout

    assert (OWN / "spec/controls/miniature.jsonl").read_bytes() == written


def test_with_controls_that_come_out_a_pass_is_a_pass(root: Path) -> None:
    assert {"TOY-001": "DISCHARGED", "TOY-002": "DISCHARGED"} == stands(root)
    assert (0, 0) == (sovereign(root, "spec", "test").returncode, sovereign(root, "spec", "lint").returncode)


BREAK: dict[str, Callable[[Path], Any]] = {
    "the bad one passes": lambda root: write_control(root, "TOY-001", "bad", loss=2.0),
    "the good one fails": lambda root: write_control(root, "TOY-001", "good", loss=4.0),
    "they are exchanged": lambda root: (
        write_control(root, "TOY-001", "good", loss=4.0),
        write_control(root, "TOY-001", "bad", loss=2.0),
    ),
    "the good one is too small": lambda root: write_control(root, "TOY-001", "good", documents=9),
    "the bad one is missing": lambda root: shutil.rmtree(root / "spec/controls/TOY-001/bad"),
    "both are missing": lambda root: shutil.rmtree(root / "spec/controls/TOY-001"),
    "rows are missing": lambda root: (root / "spec/controls/TOY-001/good/rows/evaluation.jsonl").unlink(),
    "a row is torn": lambda root: _torn(root / "spec/controls/TOY-001/bad/rows/evaluation.jsonl"),
    "the intent is edited": lambda root: _edited(root / "spec/controls/TOY-001/bad/intent.json"),
}


def _torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def _edited(file: Path) -> None:
    file.write_text(file.read_text().replace('"seed": 1', '"seed": 2'))


@pytest.mark.parametrize("how", BREAK)
def test_a_control_that_does_not_come_out_withholds_every_pass(root: Path, how: str) -> None:
    """Whatever is wrong with a criterion's controls, its pass does not count, and the reason is told everywhere.

    The planted bugs are the controls themselves: a metric or gate that cannot tell 2.0 from 4.0 looks like
    exchanged controls, one that ignores the least n like a small one.
    """
    BREAK[how](root)

    assert {"TOY-001": "OPEN", "TOY-002": "DISCHARGED"} == stands(root)
    assert "UNPROVEN" in sovereign(root, "gates", "--json").stdout
    lint, test = sovereign(root, "spec", "lint"), sovereign(root, "spec", "test")
    assert (3, True) == (lint.returncode, "TOY-001" in lint.stderr)
    expected = 6 if "both" in how or "bad one is missing" in how else 3 if "torn" in how or "edited" in how else 1
    assert (expected, True) == (test.returncode, "TOY-001" in test.stderr), test.stderr


def test_where_controls_are_advised_only_wrong_ones_count(root: Path) -> None:
    """A spec may say that controls are advised: then a missing one withholds nothing; a wrong one still does."""
    (root / "spec/toy.yaml").write_text(SPEC)
    shutil.rmtree(root / "spec/controls/TOY-001")
    write_control(root, "TOY-002", "bad")

    assert {"TOY-001": "DISCHARGED", "TOY-002": "OPEN"} == stands(root)


def test_a_failure_stays_without_controls(root: Path) -> None:
    """Deleting or breaking controls never turns a FALSIFIED criterion into anything better."""
    write_run(root, intent("20260101T000000Z-bbbbbb", seed=2), said=rows(loss=5.0, seed=2))
    (root / "spec/toy.yaml").write_text(DEMANDED.replace("{least_n: 10}", "{least_n: 10, seeds: [2]}"))
    before = stands(root)["TOY-001"]
    shutil.rmtree(root / "spec/controls")

    assert ("FALSIFIED", "FALSIFIED") == (before, stands(root)["TOY-001"])


def test_a_control_stands_for_every_obligation(root: Path) -> None:
    """Controls show what a predicate does: one recording on a CPU serves criteria that ask for seeds and devices."""
    wide = DEMANDED.replace("{least_n: 10}", "{least_n: 10, seeds: [1, 2], environments: [cpu, cuda]}")
    (root / "spec/toy.yaml").write_text(wide)

    assert 0 == sovereign(root, "spec", "test").returncode


def test_a_control_copied_under_evidence_decides_nothing(root: Path) -> None:
    """A recording is marked in its intent: lying under evidence/ it is exploratory at most."""
    recorded = OWN / "spec/controls/MODEL-2-001/good"
    observed = read_control(recorded, "control")

    assert (False, True) == (observed.intent.confirmatory, "control" in observed.intent.exploratory_because)


def test_giving_up_the_demand_for_controls_is_seen_against_the_base(root: Path) -> None:
    """Changing `controls` from required to advised is an integrity finding with --base: exit 4."""
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "base"]):
        subprocess.run(
            ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True
        )  # fmt: skip
    before = sovereign(root, "gates", "--base", "main").returncode
    (root / "spec/toy.yaml").write_text(SPEC.replace("version: 0.1.0", "version: 1.0.0"))
    after = sovereign(root, "gates", "--base", "main")

    assert (0, 4) == (before, after.returncode)
    assert "controls were required" in after.stdout + after.stderr


def test_remembered_controls_are_judged_anew_when_a_byte_or_a_bound_changes(root: Path) -> None:
    """The memory of controls is keyed by content and criterion: no edit is answered from an older judgement."""

    def status() -> str:
        from datetime import UTC, datetime

        repository = open_repository(root)
        (found,) = evaluate(repository, datetime(2026, 1, 1, 2, tzinfo=UTC))
        return found.criteria[0].status

    assert ("DISCHARGED", "DISCHARGED") == (status(), status())
    (root / "spec/toy.yaml").write_text(DEMANDED.replace("bound: 3.0", "bound: 2.6"))
    assert "DISCHARGED" == status()  # 2.5 holds still, 4.0 fails still
    (root / "spec/toy.yaml").write_text(DEMANDED.replace("bound: 3.0", "bound: 4.5"))
    assert "OPEN" == status()  # the bad control passes now
    (root / "spec/toy.yaml").write_text(DEMANDED)
    file = root / "spec/controls/TOY-001/bad/rows/evaluation.jsonl"
    file.write_text(file.read_text().replace('"nll":4', '"nll":1'))
    assert "OPEN" == status()


@pytest.mark.parametrize(
    ("arguments", "spec", "code"),
    [
        (["TOY-009"], DEMANDED, 2),
        ([], DEMANDED.replace("bound: 3.0", "bound: .nan"), 3),
        ([], DEMANDED.split("criteria:")[0] + "criteria: []\n", 5),
        (["TOY-002"], DEMANDED, 0),
    ],
)
def test_exit_codes_of_spec_test(root: Path, arguments: list[str], spec: str, code: int) -> None:
    (root / "spec/toy.yaml").write_text(spec)
    (root / "contracts/toy.yaml").write_text(
        CONTRACT if "TOY-001" in spec else CONTRACT.replace("[TOY-001, TOY-002]", "[]")
    )
    found = sovereign(root, "spec", "test", *arguments)

    assert (code, False) == (found.returncode, "Traceback" in found.stderr), found.stderr


def test_the_json_of_spec_test_names_every_control(root: Path) -> None:
    found = json.loads(sovereign(root, "spec", "test", "--json").stdout)

    assert [("TOY-001", "good"), ("TOY-001", "bad"), ("TOY-002", "good"), ("TOY-002", "bad")] == [
        (one["criterion"], one["side"]) for one in found
    ]


@pytest.mark.slow
def test_retraining_records_controls_that_come_out(tmp_path: Path) -> None:
    """Every fault, planted in the code that trains, falsifies its criterion; the clean twin discharges them all."""
    shutil.copytree(OWN / "spec", tmp_path / "spec")
    shutil.copytree(OWN / "contracts", tmp_path / "contracts")
    for folder in (tmp_path / "spec/controls").glob("*-*/"):
        shutil.rmtree(folder)
    missing = sovereign(tmp_path, "spec", "test")
    recorded = sovereign(tmp_path, "spec", "test", "--retrain")

    assert (6, 0) == (missing.returncode, recorded.returncode), recorded.stderr
