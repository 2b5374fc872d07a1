"""CASE-25 Healthy loss, collapsed output.

Stage: during the run
Outcome: samples that repeat themselves bar HEALTHY, whatever the loss is
"""

from __future__ import annotations

from simulated import Plan, diagnosed


def test_collapsed_samples_bar_health() -> None:
    """Plant: a loss that falls as it should, and samples that read `class class class`."""
    found = diagnosed(Plan(collapsed=True)).of("HEALTHY")

    assert found.verdict == "INCONCLUSIVE"
    assert "20 of 20 samples repeat themselves" in found.because


def test_written_samples_do_not() -> None:
    """Control: the same run, with samples that say something."""
    assert diagnosed(Plan()).verdicts["HEALTHY"] == "SUPPORTED"
