"""Intervals: right on average, the same on every machine, and checked against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sovereign.metrics.intervals import (
    FEW,
    RESAMPLES,
    Unmeasurable,
    exact,
    newcombe,
    ratio,
    ratio_difference,
    resampled,
    wilson,
)  # fmt: skip


def documents(n: int, seed: int = 0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(seed)
    tokens = drawn.integers(5, 500, n).astype(float)
    return tokens * (drawn.lognormal(1.0, 0.3, n) + shift), tokens


def test_resampling_indices_are_fixed_for_ever() -> None:
    """The first indices, worked out by hand from SplitMix64's definition with Python integers."""
    mask = 2**64 - 1

    def index(counter: int, n: int) -> int:
        z = (counter + 1 * 0x632BE59BD9B4E019) * 0x9E3779B97F4A7C15 & mask
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        z ^= z >> 31
        return ((z >> 32) * n) >> 32

    expected = [index(counter, 7) for counter in range(1, 15)]

    assert resampled(7, 1).shape == (RESAMPLES, 7)
    assert resampled(7, 1).ravel()[:14].tolist() == expected


def test_resampling_is_uniform() -> None:
    """Each of n documents is drawn n/n of the time, within five standard errors."""
    n = 50
    counts = np.bincount(resampled(n, 1).ravel(), minlength=n)
    expected = RESAMPLES

    assert counts.min() > expected - 5 * expected**0.5
    assert counts.max() < expected + 5 * expected**0.5


@pytest.mark.parametrize("n", [12, 60, 150])
def test_intervals_cover_the_truth(n: int) -> None:
    """Nominal 95 % intervals of a ratio hold the truth in 88 to 99.5 % of 300 draws, few documents or many."""
    truth_sums, truth_tokens = documents(200_000, seed=99)
    truth = truth_sums.sum() / truth_tokens.sum()
    held = [found.low <= truth <= found.high for seed in range(300) if (found := ratio(*documents(n, seed)))]

    assert 0.88 <= np.mean(held) <= 0.995


def test_few_documents_are_judged_by_t() -> None:
    """Below 100 documents the method is t, and says so: percentile intervals would be too short."""
    few, many = ratio(*documents(FEW - 1)), ratio(*documents(FEW))

    assert (few.method, many.method) == ("t over documents", "cluster bootstrap over documents")


def test_t_interval_of_equal_documents_is_the_textbook_one() -> None:
    """With equal token counts the ratio's interval is Student's, as scipy.stats gives it."""
    from scipy import stats

    losses = np.array([2.0, 2.5, 3.0, 2.2, 2.8])
    found = ratio(losses * 10, np.full(5, 10.0))
    low, high = stats.t.interval(0.95, 4, loc=losses.mean(), scale=stats.sem(losses))

    assert (found.low, found.high) == (pytest.approx(low, rel=1e-12), pytest.approx(high, rel=1e-12))


def test_difference_of_equal_documents_is_welchs() -> None:
    """The interval of a difference is Welch's, as scipy.stats gives it."""
    from scipy import stats

    one, other = np.array([2.0, 2.5, 3.0, 2.2, 2.8]), np.array([1.0, 1.5, 1.1, 0.9])
    found = ratio_difference((one * 10, np.full(5, 10.0)), (other * 10, np.full(4, 10.0)))
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)

    assert (found.low, found.high) == (pytest.approx(expected.low, rel=1e-12), pytest.approx(expected.high, rel=1e-12))


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilson_is_the_score_interval(successes: int, n: int) -> None:
    """Wilson's interval, as scipy.stats.binomtest gives it."""
    from scipy import stats

    successes = min(successes, n)
    found = wilson(successes, n)
    expected = stats.binomtest(successes, n).proportion_ci(0.95, "wilson")

    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)


def test_newcombe_is_the_published_example() -> None:
    """Newcombe 1998, table II, method 10: 56/70 against 48/80 gives 0.0524 to 0.3339; 10/10 against 0/10, 0.6075 to 1."""
    found, extreme = newcombe((56, 70), (48, 80)), newcombe((10, 10), (0, 10))

    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)
    assert (round(extreme.low, 4), round(extreme.high, 4)) == (0.6075, 1.0)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(1, 1000)), min_size=2, max_size=130))
def test_an_interval_holds_its_value(drawn: list[tuple[float, int]]) -> None:
    """Low <= value <= high, whatever the documents."""
    found = ratio(np.array([nll for nll, _ in drawn]), np.array([float(tokens) for _, tokens in drawn]))

    assert found.low <= found.value <= found.high


def test_one_document_has_no_interval() -> None:
    """Nothing is said of a population from one of its members."""
    with pytest.raises(Unmeasurable, match="1 documents have no interval"):
        ratio(np.array([1.0]), np.array([1.0]))


def test_an_exact_value_is_its_own_interval() -> None:
    """A count is not an estimate."""
    found = exact(3.0, 5)

    assert (found.low, found.high) == (3.0, 3.0)
