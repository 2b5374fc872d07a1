"""Bounds and tests of the diagnosis against independent implementations, and against what they promise on average."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sovereign.diagnosis.bounds import (
    LEAST,
    detectable,
    difference_bounds,
    rank_sum,
    ratio_bounds,
    share_difference,
    shares_to_decide,
    units_to_decide,
)
from sovereign.metrics.intervals import Interval, Unmeasurable, auc, clopper_pearson

counts = st.integers(10, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_clopper_pearson_is_the_exact_interval(counted: tuple[int, int]) -> None:
    """As scipy's binomtest gives it; none of 300 leaves at most 1.2 % two-sided, and 1.0 % one-sided."""
    from scipy.stats import binomtest

    successes, n = counted
    ours, theirs = clopper_pearson(successes, n), binomtest(successes, n).proportion_ci(method="exact")

    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(counts, counts)
def test_a_difference_of_shares_has_newcombes_ends(first: tuple[int, int], second: tuple[int, int]) -> None:
    """One-sided 95 % ends are a two-sided 90 % interval, as statsmodels computes it."""
    from statsmodels.stats.proportion import confint_proportions_2indep

    ours = share_difference(first, second)
    low, high = confint_proportions_2indep(*first, *second, method="newcomb", compare="diff", alpha=0.1)

    assert (ours.low, ours.high) == pytest.approx((low, high), abs=1e-9)


def test_auc_is_the_rank_statistic_and_delong_covers_it() -> None:
    """The value is Mann and Whitney's U over all pairs; the interval holds the truth in 90 to 99 % of 200 draws."""
    from scipy.stats import mannwhitneyu, norm

    drawn = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        members, others = drawn.normal(0.5, 1, 80).round(1), drawn.normal(0, 1, 60).round(1)
        found = auc(members, others)
        inside += found.low <= norm.cdf(0.5 / 2**0.5) <= found.high
    u = mannwhitneyu(members, others).statistic

    assert found.value == pytest.approx(u / (80 * 60))
    assert 180 <= inside <= 198


def test_planted_secrets_are_ranked_as_a_rank_sum_test_does() -> None:
    """p is that of scipy's Mann-Whitney test of the planted against the unplanted, without ties and continuity."""
    from scipy.stats import mannwhitneyu

    drawn = np.random.default_rng(1)
    planted, others = drawn.normal(-0.4, 1, 16), drawn.normal(0, 1, 1023)
    ranks = np.array([1 + (others < one).sum() for one in planted], float)
    theirs = mannwhitneyu(planted, others, alternative="less", use_continuity=False, method="asymptotic").pvalue

    assert rank_sum(ranks, np.full(16, 1023.0)) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("n", [12, 60, 150])
def test_one_sided_ends_hold_as_often_as_they_say(n: int) -> None:
    """Each 95 % end of a ratio lies on its side of the truth in 88 to 99.5 % of 300 draws, by t and by bootstrap."""
    drawn = np.random.default_rng(n)
    below = above = 0
    for _ in range(300):
        tokens = drawn.integers(50, 500, n).astype(float)
        found = ratio_bounds((tokens * drawn.lognormal(0, 0.5, n), tokens), 1)
        truth = float(np.exp(0.5**2 / 2))
        below += found.low <= truth
        above += found.high >= truth

    assert 264 <= below <= 300
    assert 264 <= above <= 299


def test_halves_of_one_set_are_told_apart_as_rarely_as_the_level_says() -> None:
    """A/A: 200 comparisons of disjoint halves at one checkpoint reject in about 10 %, two one-sided 5 % ends."""
    drawn = np.random.default_rng(7)
    rejected = 0
    for _ in range(200):
        tokens = drawn.integers(50, 500, 400).astype(float)
        sums = tokens * drawn.lognormal(1, 0.4, 400)
        found = difference_bounds((sums[::2], tokens[::2]), (sums[1::2], tokens[1::2]), 1)
        rejected += found.low > 0 or found.high < 0

    assert 8 <= rejected <= 36


def test_the_detectable_contrast_is_detected_four_times_in_five() -> None:
    """A true contrast of 2.8 SD over the root of n is seen by a two-sided 5 % test in 70 to 90 % of 300 draws."""
    drawn = np.random.default_rng(3)
    n = 200
    contrast = detectable((drawn.normal(0, 0.3, 100_000), np.ones(100_000))) * (100_000 / n) ** 0.5
    seen = 0
    for _ in range(300):
        sample = drawn.normal(contrast, 0.3, n)
        seen += abs(sample.mean()) > 1.96 * sample.std(ddof=1) / n**0.5

    assert 210 <= seen <= 270


def test_too_few_documents_have_no_interval() -> None:
    """Below ten nothing is said."""
    with pytest.raises(Unmeasurable, match=f"{LEAST - 1} documents: no interval below {LEAST}"):
        ratio_bounds((np.ones(LEAST - 1), np.ones(LEAST - 1)), 1)


@given(st.floats(-3, 3), st.floats(0.001, 2), st.floats(0.001, 2), st.integers(10, 2000), st.floats(-1, 1))
def test_as_many_units_as_are_told_decide(value: float, below: float, above: float, n: int, edge: float) -> None:
    """With so many units an interval whose reach falls with their root lies on one side of the edge; with a tenth less it does not.

    Planted: counting as if the reach fell with the units themselves tells a number at which it still covers the edge.
    """
    told = units_to_decide(Interval(value, value - below, value + above, n, ""), (edge,))
    assume(told is not None)
    assert told is not None

    def clear(units: float) -> bool:
        share = math.sqrt(n / units)
        return value - below * share >= edge - 1e-9 or value + above * share <= edge + 1e-9

    assert told > n
    assert clear(told)
    assert not clear(told * 0.85) or told * 0.85 <= n


@pytest.mark.parametrize(("first", "second"), [((0, 72), (0, 72)), ((4, 103), (2, 72)), ((30, 100), (10, 100))])
def test_shares_are_decided_by_as_many_as_are_told(first: tuple[int, int], second: tuple[int, int]) -> None:
    """At the number told Newcombe's interval lies on one side of 1 %: above where the shares are apart, below where they need not be."""
    told = shares_to_decide(first, second, 0.01)
    assert told is not None
    apart = first[0] / first[1] - second[0] / second[1] > 0.01
    if apart:
        shares = [(round(one / n * told), told) for one, n in (first, second)]
        assert share_difference(*shares).low > 0.01
    else:
        pooled = (first[0] + second[0]) / (first[1] + second[1])
        same = (round(pooled * told), told)
        assert share_difference(same, same).high < 0.0105
