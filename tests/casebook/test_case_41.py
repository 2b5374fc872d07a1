"""CASE-41 Forecast never scored.

Stage: review
Outcome: MISSED when its step arrives; a forecast that is never due is refused at load (exit 3)
"""

from __future__ import annotations

import pytest
from contending import contender, promise, said
from fabric import CONTRACT

from sovereign.canonical import Malformed
from sovereign.foresight import scored, until

GAINS = 'forecasts: [{metric: validation/loss, high: 3.45, step: 10, because: "diminishing but nonzero gains from more steps"}]\n'


def test_improvement_forecast_of_an_overfitting_run_is_missed() -> None:
    """Validation is least at step 5 and rises after: at step 10 the forecast of a lower loss is scored, and missed."""
    promised = promise(CONTRACT + GAINS)
    rows = [
        (kind, {**values, "nll": values["nll"] + 3.0} if kind == "evaluation" and values["step"] == 10 else values)
        for kind, values in said(promised)
    ]
    observed = contender(promised, rows).observed
    early, due = scored(until(observed, 5), ended=False)[0], scored(observed, ended=True)[0]

    assert ("PENDING", "MISSED") == (early.outcome, due.outcome)
    assert "validation/loss at most 3.45 at step 10: it was 3.6" in due.sentence


def test_the_same_forecast_of_a_run_that_gains_is_a_hit() -> None:
    """The clean twin: a loss within the range, at the same step."""
    promised = promise(CONTRACT + GAINS.replace("3.45", "3.6"))

    assert "HIT" == scored(contender(promised, said(promised)).observed, ended=True)[0].outcome


def test_a_forecast_without_a_due_date_is_refused() -> None:
    """A step beyond the last, or none at all: nothing would ever score it."""
    with pytest.raises(Malformed, match="is never due"):
        promise(CONTRACT + GAINS.replace("step: 10", "step: 2000"))
    with pytest.raises(Malformed, match=r"step: required"):
        promise(CONTRACT + GAINS.replace("step: 10, ", ""))
