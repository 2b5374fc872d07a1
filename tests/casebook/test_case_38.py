"""CASE-38 Eight changes, one conclusion.

Stage: comparison
Outcome: every difference is named; an effect is ascribed only where exactly one applied value differs
"""

from __future__ import annotations

from contending import edited, run

from sovereign.comparison.compare import compare
from sovereign.comparison.record import Pair

CLOSE = {1: 3.5, 2: 3.51, 3: 3.49}
FAR = {seed: loss - 0.4 for seed, loss in CLOSE.items()}


def against(*edits: tuple[str, str], **subjects: str) -> Pair:
    """Return a run against one with those edits, which is better by far more than its seeds scatter."""
    other = edited(*edits, ("contract: toy", "contract: other"))
    return compare([
        run(given={"repeats": CLOSE}), run(other, 2, shift=-0.4, subjects=subjects, given={"repeats": FAR}),
    ]).pairs[0]  # fmt: skip


def test_data_and_width_together_are_ascribed_to_neither() -> None:
    """Data and rank changed at once: both are named, the effect is shown, and nothing is credited with it."""
    found = against(("hidden: 16", "hidden: 32"), ('include: ["*.txt"]', 'include: ["*.md"]'), data="more")

    assert ("LOWER", "") == (found.recipes, found.attributed)
    assert ("data.source.include", "model.hidden") == found.settings
    assert "2 things differ (data.source.include, model.hidden)" in next(
        one.text for one in found.reasons if one.code == "CONFOUNDED"
    )


def test_one_change_alone_is_ascribed() -> None:
    """The clean twin: the width alone, beyond the noise of seeds."""
    assert "model.hidden" == against(("hidden: 16", "hidden: 32")).attributed


def test_settings_whose_effect_is_the_same_are_not_counted() -> None:
    """A decay share that a constant schedule does not read is shown as a difference, and made no difference."""
    found = against(("hidden: 16", "hidden: 32"), ("peak: 1.0e-3", "peak: 1.0e-3, decay: 0.5"))

    assert ("model.hidden",) == found.settings
    assert "model.hidden" == found.attributed


def test_every_difference_of_eight_is_named() -> None:
    """Eight settings and the data differ: all nine stand in the list."""
    edits = (
        ("hidden: 16", "hidden: 32"), ("layers: 1", "layers: 2"), ("ffn: 32", "ffn: 64"), ("sequences: 2", "sequences: 4"),
        ("peak: 1.0e-3", "peak: 2.0e-3"), ("vocabulary: 300", "vocabulary: 400"), ("heads: 2", "heads: 4"), ("steps: 10", "steps: 20"),
        ('include: ["*.txt"]', 'include: ["*.md"]'), ("contract: toy", "contract: other"),
    )  # fmt: skip
    found = compare([run(), run(edited(*edits), 2, subjects={"data": "more"})])
    named = {one.name for one in found.differences if one.kind == "launched"}

    assert {
        "model.hidden", "model.layers", "model.ffn", "training.sequences", "training.schedule.peak", "tokenizer.vocabulary",
        "model.heads", "training.steps", "data.source.include",
    } <= named  # fmt: skip
    assert "data" in {one.kind for one in found.differences}
