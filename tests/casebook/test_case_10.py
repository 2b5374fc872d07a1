"""CASE-10 Rehearsal defaults in real runs.

Stage: before step 0
Outcome: scripted losses are marked as reported or are INVALID, a rehearsal is exploratory, a model is no reference for itself: none discharges
"""

from __future__ import annotations

import math
from pathlib import Path

from fabric import NOW, intent, repository, rows, write_run
from simulated import Plan, grouped, observed, simulated
from test_interop_import import CLAIMING, REPORTED, imported

from sovereign.diagnosis.procedure import Diagnosis, diagnose
from sovereign.diagnosis.record import from_run
from sovereign.repository import evaluate, open_repository

PLAN = Plan()


def statuses(root: Path) -> dict[str, str]:
    return {one.id: one.status for one in evaluate(open_repository(root), NOW)[0].criteria}


def test_a_scripted_curve_is_only_reported(tmp_path: Path) -> None:
    """Plant: a console log whose losses decay by a formula; imported, it is somebody's word, and discharges nothing."""
    repository(tmp_path, REPORTED, CLAIMING)
    script = "".join(
        f"{step},{5 * math.exp(-step / 9):.4f},{5 * math.exp(-step / 10):.4f},1e-3\n" for step in range(11)
    )
    imported(tmp_path, "step,train_loss,val_loss,lr\n" + script)

    assert {"OPEN"} == set(statuses(tmp_path).values())


def test_a_script_knows_no_seed(tmp_path: Path) -> None:
    """Plant: rows of our own form, scripted: the seeds of a contract get the same curve, and neither counts."""
    repository(tmp_path)
    write_run(tmp_path)
    write_run(tmp_path, intent("20260101T000000Z-bbbbbb", seed=2), rows(seed=1))

    assert {"TOY-001": "INVALID", "TOY-002": "INVALID"} == statuses(tmp_path)


def test_a_rehearsal_is_exploratory(tmp_path: Path) -> None:
    """Plant: the contract's data were replaced for a rehearsal; its losses are good, and nothing is discharged."""
    repository(tmp_path)
    write_run(tmp_path, intent(overrides=("data.source={kind: stdlib}",)), rows(loss=1.0))
    found = evaluate(open_repository(tmp_path), NOW)[0]

    assert {"OPEN"} == {one.status for one in found.criteria}
    assert "--set data.source" in found.runs[0].exploratory


def referred(share: float) -> Diagnosis:
    """Return the diagnosis of a run beside a reference that scores each document as the run does, times a share."""
    known = simulated(PLAN)
    last = [row for row in known["evaluation"] if row.split == "validation" and row.step == PLAN.steps]
    said = [("reference", {"document": row.document, "split": "validation", "nll": share * row.nll, "tokens": row.tokens, "model": "teacher"})
            for row in last]  # fmt: skip
    return diagnose(from_run(observed({**known, **grouped(said)}, PLAN)))


def test_a_student_is_no_teacher() -> None:
    """Plant: the student is copied as the reference; it is left out with a remark, and the ceiling stays unchecked."""
    found = referred(1.0)

    assert "INCONCLUSIVE" == found.verdicts["IMPLAUSIBLE"]
    assert any("it is this run's model, and was left out" in remark for remark in found.remarks)


def test_another_model_is() -> None:
    """Control: a model that scores otherwise is a yardstick."""
    found = referred(0.9)

    assert ("REFUTED", ()) == (found.verdicts["IMPLAUSIBLE"], found.remarks)
