"""CASE-39 Effect smaller than repeat noise.

Stage: comparison
Outcome: INCONCLUSIVE inside the noise of seeds, with the smallest detectable difference
"""

from __future__ import annotations

from contending import edited, run

from sovereign.comparison.compare import compare
from sovereign.comparison.losses import validations

OTHER = (("peak: 1.0e-3", "peak: 5.0e-4"), ("contract: toy", "contract: other"))
SHIFTS = (2.44 - 2.67, 2.87 - 2.67, 2.71 - 2.67, -0.1, 0.1)  # of one configuration, five times


def last(run_: object) -> float:
    scored = validations(run_.observed)[10]  # type: ignore[attr-defined]
    return sum(nll for nll, _ in scored.values()) / sum(tokens for _, tokens in scored.values())


SEEDS = [
    run(number=number, seed=1 + number % 3, documents=range(12), shift=shift) for number, shift in enumerate(SHIFTS, 1)
]
REPEATS = {seed: last(one) for seed, one in enumerate(SEEDS, 1)}


def test_two_seeds_of_one_configuration_show_nothing() -> None:
    """Runs that differ in the seed alone differ by noise, however sure their twelve documents are of it."""
    found = compare([SEEDS[0], SEEDS[1]]).pairs[0]

    assert ("HIGHER", "INCONCLUSIVE", "") == (found.checkpoints, found.recipes, found.attributed)
    assert "ONLY_NOISE" in {one.code for one in found.reasons}


def test_an_effect_inside_the_band_is_inconclusive() -> None:
    """A lower rate scores 0.2 nats better than one of five repeats that scatter as much: INCONCLUSIVE, and how much would show."""
    first = run(documents=range(12), given={"repeats": REPEATS})
    found = compare([first, run(edited(*OTHER), 2, shift=-0.2, documents=range(12))]).pairs[0]

    assert ("LOWER", "INCONCLUSIVE", "") == (found.checkpoints, found.recipes, found.attributed)
    assert "INSIDE_NOISE" in {one.code for one in found.reasons}
    assert found.noise is not None
    assert found.noise.detectable is not None
    assert found.noise.detectable > 0.2


def test_twelve_documents_print_what_they_could_show() -> None:
    """A difference that twelve documents do not resolve is INCONCLUSIVE, with the difference that they would have shown."""
    found = compare(
        [run(documents=range(12), spread=1.0), run(edited(*OTHER), 2, documents=range(12), spread=1.0)]
    ).pairs[0]
    detectable = found.losses[0].difference.detectable

    assert "INCONCLUSIVE" == found.checkpoints
    assert detectable is not None
    assert f"{detectable:.3g} nats would mostly go unseen" in found.reasons[0].text


def test_nine_documents_have_no_interval() -> None:
    """Below ten documents a difference is printed and nothing follows from it."""
    found = compare([run(documents=range(9)), run(edited(*OTHER), 2, shift=-0.9, documents=range(9))]).pairs[0]

    assert ("INCONCLUSIVE", None) == (found.checkpoints, found.losses[0].difference.low)


def test_the_same_effect_beyond_quiet_repeats_shows() -> None:
    """The clean twin: repeats that hardly scatter let the same effect through."""
    quiet = {seed: REPEATS[1] + 0.001 * seed for seed in (1, 2, 3)}
    first = run(documents=range(12), given={"repeats": quiet})
    better = {seed: loss - 0.2 for seed, loss in quiet.items()}
    found = compare([first, run(edited(*OTHER), 2, shift=-0.2, documents=range(12), given={"repeats": better})]).pairs[
        0
    ]

    assert ("LOWER", "training.schedule.peak") == (found.recipes, found.attributed)
