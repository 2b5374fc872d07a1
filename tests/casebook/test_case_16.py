"""CASE-16 Settings stopped at a function boundary.

Stage: during the run
Outcome: VOID: the comparison of equal applied rates; the run's own rate criterion is FALSIFIED
"""

from __future__ import annotations

from contending import edited, run

from sovereign.comparison.compare import compare
from sovereign.metrics.training import rate_error

OTHER = (("peak: 1.0e-3", "peak: 8.7e-2"), ("contract: toy", "contract: other"))


def test_rates_that_never_reached_the_optimizer_compare_as_void() -> None:
    """An optimizer that keeps its own rate gives two schedules, 87 times apart, the same updates: nothing was compared."""
    one, two = run(rate=lambda step: 1e-3), run(edited(*OTHER), 2, shift=-0.4, rate=lambda step: 1e-3)
    found = compare([one, two])
    pair = found.pairs[0]

    assert ("VOID", "VOID", "", False) == (pair.checkpoints, pair.recipes, pair.attributed, found.compared)
    assert {"NEVER_APPLIED"} == {one.code for one in pair.reasons}
    assert "training.schedule.peak" in pair.reasons[0].text
    assert "promised 0.087" in found.runs[1].deviates
    assert rate_error(two.observed).value > 0.9


def test_the_same_schedules_applied_compare() -> None:
    """The clean twin: the rates that were asked for were applied, and the comparison stands."""
    pair = compare([run(), run(edited(*OTHER), 2, shift=-0.4)]).pairs[0]

    assert "LOWER" == pair.checkpoints


def test_a_change_that_moved_nothing_is_void() -> None:
    """A weight decay that no optimizer read leaves every loss, rate and gradient as it was: VOID, not a null result."""
    one = run()
    deaf = run(edited(("steps: 10", "steps: 10\n  optimizer: {kind: adamw, weight_decay: 0.9}")))
    pair = compare([one, deaf]).pairs[0]

    assert ("VOID", {"NEVER_APPLIED"}) == (pair.checkpoints, {one.code for one in pair.reasons})
