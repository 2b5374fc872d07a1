"""CASE-22 One example printed as training loss.

Stage: during the run
Outcome: diagnose says COMPARABILITY_VIOLATED where the scope is known, and asks for the scope where it is not
"""

from __future__ import annotations

import numpy as np

from sovereign.diagnosis.procedure import Diagnosis, diagnose
from sovereign.diagnosis.record import Point, RunRecord, Settings


def notebook(scope: str) -> Diagnosis:
    """Plant: 15 documents of unequal difficulty at batch 1; each row's training loss is the last document's."""
    difficulty = np.random.default_rng(3).lognormal(0.8, 0.4, 15)
    points = tuple(
        Point(epoch=float(epoch), train=float(difficulty[(7 * epoch) % 15]), val=2.4 - 0.02 * epoch)
        for epoch in range(1, 6)
    )
    return diagnose(RunRecord(points, Settings(train_scope=scope)))


def test_a_single_example_supports_no_gap() -> None:
    """Known to be one example, the training column is not on validation's footing, whatever it seems to do."""
    found = notebook("last logged step, one example").of("COMPARABILITY_VIOLATED")

    assert found.verdict == "SUPPORTED"
    assert "the training number is one batch" in found.because


def test_an_unknown_scope_is_asked_for() -> None:
    """Nothing is assumed of a column that says no more than its name; saying what it covers is the cheapest step."""
    found = notebook("")

    assert found.of("COMPARABILITY_VIOLATED").open
    assert ("scope", "free") in {(one.name, one.cost) for one in found.missing}


def test_a_jump_of_one_example_is_no_divergence_above_the_margin() -> None:
    """2.01 then 2.80 read as a spike and halved a learning rate: it is within what single examples do."""
    points = tuple(Point(epoch=float(at), train=loss, val=2.4) for at, loss in enumerate((2.61, 2.2, 2.01, 2.80, 2.3)))

    assert not diagnose(RunRecord(points)).of("DIVERGED").supported
