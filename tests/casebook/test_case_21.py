"""CASE-21 Validation subset redrawn.

Stage: during the run
Outcome: diagnose says COMPARABILITY_VIOLATED, and reads no trend from per-document losses
"""

from __future__ import annotations

from pathlib import Path

from simulated import Plan, diagnosed

from sovereign.diagnosis.procedure import diagnose
from sovereign.interop.diagnosable import read_record


def test_another_subset_at_each_evaluation_is_not_comparable() -> None:
    """Plant: half of the documents, drawn anew each time."""
    found = diagnosed(Plan(redrawn=True))

    assert "SUPPORTED" == found.verdicts["COMPARABILITY_VIOLATED"]
    assert "validation is drawn anew at each evaluation" in found.of("COMPARABILITY_VIOLATED").because
    assert {"INCONCLUSIVE"} == {found.verdicts["OVERFIT"], found.verdicts["HEALTHY"]}


def test_a_fixed_set_is() -> None:
    """Control: the same documents every time."""
    assert diagnosed(Plan()).verdicts["COMPARABILITY_VIOLATED"] == "REFUTED"


def test_a_trainer_known_to_redraw_is_known_by_its_log(tmp_path: Path) -> None:
    """mlx-lm draws 25 batches anew at each evaluation; its log alone is enough to say so."""
    (tmp_path / "mlx.log").write_text(
        "Iter 1: Val loss 2.810, Val took 12.3s\n"
        "Iter 50: Train loss 2.345, Learning Rate 1e-05, It/sec 0.5, Tokens/sec 120.3, Trained Tokens 5321, Peak mem 10.2 GB\n"
    )
    found = diagnose(read_record(tmp_path / "mlx.log")).of("COMPARABILITY_VIOLATED")

    assert found.verdict == "SUPPORTED"
    assert "subset: validation is drawn anew" in found.because
