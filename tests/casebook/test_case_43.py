"""CASE-43 Memorization read from a gap.

Stage: review
Outcome: MEMORIZED stays INCONCLUSIVE without extraction or canaries; a gap alone shows nothing
"""

from __future__ import annotations

import pytest
from simulated import Plan, diagnosed, observed, simulated, without

from sovereign.diagnosis.procedure import diagnose
from sovereign.diagnosis.record import Point, RunRecord, Settings, from_run


def test_dropout_in_training_only_is_no_memorization() -> None:
    """Plant: dropout adds 0.3 nats to the training loss, so that validation lies below it."""
    plan = Plan(lag=0.3)
    found = diagnose(from_run(observed(without(simulated(plan), "extraction", "canary"), plan)))

    assert ("INCONCLUSIVE", "REFUTED") == (found.verdicts["MEMORIZED"], found.verdicts["CONTAMINATED"])
    assert found.verdicts["METRIC_ARTIFACT"] == "SUPPORTED"


@pytest.mark.parametrize(("train", "val"), [(9.467, 8.911), (9.816, 9.806), (0.55, 7.4)])
def test_no_gap_shows_memorization_or_health(train: float, val: float) -> None:
    """0.556 below, 0.010 below, 6.85 above: none of the three is evidence of either."""
    found = diagnose(RunRecord((Point(step=1, train=train, val=val),), Settings(vocab=50257)))

    assert ("INCONCLUSIVE", "INCONCLUSIVE") == (found.verdicts["MEMORIZED"], found.verdicts["HEALTHY"])


def test_extraction_beside_a_control_does() -> None:
    """Control: a tenth of the train passages continued word for word, and none of the control's."""
    assert diagnosed(Plan(memory=0.1)).verdicts["MEMORIZED"] == "SUPPORTED"


def test_recalled_outliers_alone_do_not() -> None:
    """Random canaries measure capacity: recalled without any extraction they are a note, and no verdict."""
    found = diagnosed(Plan(outliers=True)).of("MEMORIZED")

    assert found.verdict == "INCONCLUSIVE"
    assert any("planted outliers are recalled" in note for note in found.notes)
