"""CASE-36 Validation identity drifts.

Stage: comparison
Outcome: VOID: other validation documents, another tokenizer; what both hold out is offered instead
"""

from __future__ import annotations

from contending import run

from sovereign.comparison.compare import compare
from sovereign.comparison.record import Pair


def against(**changed: object) -> Pair:
    return compare([run(), run(number=2, shift=-0.5, **changed)]).pairs[0]  # type: ignore[arg-type]


def test_one_shard_more_makes_losses_incomparable() -> None:
    """Ten documents more in the validation set: VOID by name, and the forty of both are offered beside it."""
    found = against(documents=range(50), subjects={"data": "a shard more"})

    assert ("VOID", {"OTHER_VALIDATION"}) == (found.checkpoints, {one.code for one in found.reasons})
    assert "40 and 50 documents, 40 of them in both" in found.reasons[0].text
    assert [("documents of both", 40)] == [(one.name, one.difference.n) for one in found.offered]


def test_another_tokenizer_makes_losses_incomparable() -> None:
    """The same documents in other tokens: nats per token are VOID, bits per byte are offered."""
    found = against(tokens=11, subjects={"tokenizer": "other", "data": "other"})

    assert ("VOID", {"OTHER_TOKENIZER"}) == (found.checkpoints, {one.code for one in found.reasons})
    assert ["bits per byte"] == [one.name for one in found.offered]


def test_a_split_drawn_again_is_named() -> None:
    """Documents that one run held out stand on the train side of the other: VOID, with their number."""
    found = against(documents=range(20, 60), trained=[*range(20), *range(1000, 1020)], subjects={"data": "again"})

    assert {"SPLIT_REDRAWN", "OTHER_VALIDATION"} == {one.code for one in found.reasons}
    assert found.reasons[0].text.startswith("20 of the documents")
    assert [20] == [one.difference.n for one in found.offered]


def test_the_same_validation_compares() -> None:
    """The clean twin: the same documents in the same tokens are compared, by another seed."""
    assert "LOWER" == against(seed=2).checkpoints
