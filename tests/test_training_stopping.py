"""Early stopping: a rise beyond the documents' noise, chosen and compared on different documents."""

from __future__ import annotations

import numpy as np
import pytest

from sovereign.contract.training import EarlyStopping
from sovereign.stopping import enough, paired_rise


def evaluations(curve, documents=100, spread=0.5, noise=0.02, seed=0):
    """Losses per document along a curve of means: documents differ by `spread`, and by `noise` from step to step."""
    draw = np.random.default_rng(seed)
    tokens = draw.integers(50, 500, documents)
    level = draw.normal(0, spread, documents)
    return {
        step: {
            f"{at:016x}": (float(tokens[at] * (mean + level[at] + draw.normal(0, noise))), int(tokens[at]))
            for at in range(documents)
        }
        for step, mean in curve.items()
    }


FALLING = {0: 6.0, 10: 5.0, 20: 4.5, 30: 4.3}


def test_the_rise_is_the_difference_on_documents_that_did_not_choose():
    """Value and one-sided bound agree with a plain bootstrap over the comparing half."""
    found = paired_rise(seen := evaluations({**FALLING, 40: 4.35}, noise=0.1), 40)
    names = sorted(seen[40])[1::2]
    risen = np.array([seen[40][name][0] - seen[30][name][0] for name in names])
    tokens = np.array([seen[40][name][1] for name in names])
    drawn = np.random.default_rng(1).integers(0, 50, (20_000, 50))
    low = np.quantile(risen[drawn].sum(1) / tokens[drawn].sum(1), 0.05)

    assert (found.step, found.best, found.documents) == (40, 30, 50)
    assert found.value == pytest.approx(risen.sum() / tokens.sum())
    assert found.low == pytest.approx(low, abs=0.004)


def test_a_lasting_rise_stops_and_a_single_one_does_not():
    """Patience counts evaluations in a row, and a fall in between begins anew."""
    patient = EarlyStopping(patience=2)

    assert enough(evaluations(FALLING), patient) is None
    assert enough(evaluations({**FALLING, 40: 4.4}), patient) is None
    assert enough(evaluations({**FALLING, 40: 4.4, 50: 4.25}), patient) is None
    assert enough(evaluations({**FALLING, 40: 4.4, 50: 4.25, 60: 4.4}), patient) is None
    rise = enough(evaluations({**FALLING, 40: 4.4, 50: 4.5}), patient)
    assert (rise.step, rise.best, round(rise.value, 1)) == (50, 30, 0.2)


def test_a_rise_below_the_bound_or_within_the_noise_does_not_stop():
    """0.01 nats are no rise of 0.02, and 0.05 nats are none where documents scatter by more."""
    patient = EarlyStopping(patience=2)

    assert enough(evaluations({**FALLING, 40: 4.31, 50: 4.31}), patient) is None
    assert enough(evaluations({**FALLING, 40: 4.35, 50: 4.35}, noise=0.5), patient) is None
    assert enough(evaluations({**FALLING, 40: 4.35, 50: 4.35}, noise=0.01), patient) is not None


def test_flat_noise_hardly_ever_stops():
    """Of 200 runs that stay level, no more stop by mistake than the bound allows: choosing the best is not rewarded."""
    level = dict.fromkeys(range(0, 80, 10), 4.0)
    stopped = [
        enough(evaluations(level, noise=0.3, seed=seed), EarlyStopping(patience=1, rise=0.0)) is not None
        for seed in range(200)
    ]

    assert np.mean(stopped) < 0.09


def test_few_documents_decide_nothing():
    """Eight documents in a half are the least that an interval is worth acting on."""
    assert paired_rise(evaluations({0: 1.0, 10: 2.0}, documents=15), 10) is None
    assert paired_rise(evaluations({0: 1.0, 10: 2.0}, documents=16), 10) is not None
    assert paired_rise(evaluations({0: 1.0}), 0) is None
