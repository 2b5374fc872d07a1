"""CASE-20 NaN replaced by an average.

Stage: during the run
Outcome: a log with a NaN is DIVERGED, and a trainer known to hide one is remarked upon
"""

from __future__ import annotations

from pathlib import Path

from sovereign.diagnosis.procedure import diagnose
from sovereign.interop.diagnosable import read_record


def test_a_nan_in_a_log_is_divergence(tmp_path: Path) -> None:
    """Plant: a NaN at step 40, and finite numbers after it; the smooth curve does not acquit."""
    rows = "".join(f"{step},{'nan' if step == 40 else 4 - step / 100}\n" for step in range(10, 110, 10))
    (tmp_path / "log.csv").write_text("step,train_loss\n" + rows)
    found = diagnose(read_record(tmp_path / "log.csv"))

    assert found.headline == "DIVERGED"
    assert "not finite: train_loss: nan in line 5" in found.of("DIVERGED").because


def test_a_trainer_that_averages_nans_away_is_named(tmp_path: Path) -> None:
    """transformers replaces a NaN by a mean unless told otherwise: whoever reads its log is told so."""
    (tmp_path / "trainer_state.json").write_text(
        '{"global_step": 2, "max_steps": 2, "log_history": [{"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.9}]}'
    )
    record = read_record(tmp_path / "trainer_state.json")

    assert any("may have replaced a NaN loss by an average" in remark for remark in record.remarks)
