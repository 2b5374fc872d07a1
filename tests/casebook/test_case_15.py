"""CASE-15 Data ended, loss became 1.0.

Stage: during the run
Outcome: diagnose says BROKEN_LOADER: equal losses, and steps that took no time
"""

from __future__ import annotations

from simulated import Plan, diagnosed


def test_a_placeholder_loss_is_a_broken_loader() -> None:
    """Plant: the reader ends after 300 of 500 batches, and each step from there on returns 1.0 at once."""
    found = diagnosed(Plan(documents=60, steps=500, every=100, exhausted=300)).of("BROKEN_LOADER")

    assert found.verdict == "SUPPORTED"
    assert "200 training losses in a row are 1, up to 500" in found.because
    assert "200 steps took less than a fifth of the median, first at 301" in found.because


def test_a_whole_run_is_not() -> None:
    """Control: 500 batches that were there."""
    assert diagnosed(Plan(documents=60, steps=500, every=100)).verdicts["BROKEN_LOADER"] == "REFUTED"
