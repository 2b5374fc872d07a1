"""CASE-34 Parity of unlike things.

Stage: gate
Outcome: refused where ids, positions or shapes differ; elements are compared, so that a transposed matrix parts at its own tensor
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from trained import prompts, trained

from sovereign.parity.compare import Incomparable, Logits, compared, every
from sovereign.parity.forward import forward
from sovereign.parity.localise import locate
from sovereign.parity.observed import of_torch
from sovereign.shipping.weights import Weights, plain

STEPS = 30
HEAD, SQUARE = "lm_head.weight", "model.layers.1.self_attn.o_proj.weight"


def weights() -> Weights:
    return trained("untied", STEPS)


def ids() -> list[int]:
    return prompts(4, 16)[0]


def turned(name: str) -> Weights:
    """Plant: a matrix stored transposed; its values, and so their spread, are what they were."""
    sound = weights()
    matrix = sound.tensor(name)
    stored = plain("F32", matrix.T.reshape(matrix.shape).contiguous())
    return replace(sound, stored={**sound.stored, name: stored})


def test_seven_positions_are_not_compared_with_one() -> None:
    """Plant: all positions of one side, the last of the other: the refusal names both. Like for like, nothing lies between them."""
    logits = forward(weights()).run(ids())
    last = Logits(tuple(ids()), (15,), logits[-1:])

    with pytest.raises(Incomparable, match=r"16 positions, 0 to 15.*position 15 alone"):
        compared(every(ids(), logits), last)
    assert 0 == compared(last, last).relative_l2.max()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda sound: every([*ids()[:3], ids()[3] + 1, *ids()[4:]], sound), "token ids: .*part at index 3"),
        (lambda sound: every(ids(), sound[:, :-1]), "shapes: logits"),
        (lambda sound: every(ids(), sound[:-1]), "counts: the candidate has 15 rows"),
    ],
)
def test_other_tokens_shapes_and_counts_are_refused(given: object, said: str) -> None:
    """Plant: another token, a column less, a row less."""
    logits = forward(weights()).run(ids())

    with pytest.raises(Incomparable, match=said):
        compared(every(ids(), logits), given(logits))  # type: ignore[operator]


@pytest.mark.parametrize("name", [HEAD, SQUARE])
def test_a_transposed_matrix_is_named(name: str) -> None:
    """The first operation that parts is that of the matrix that was turned; as a suspicion it is called transposed."""
    found = locate(forward(weights()), of_torch(forward(turned(name), dtype=torch.float32)), prompts(4, 16))

    assert found.first is not None
    assert name == found.first.tensor
    assert "transposed" in found.suspicions[0].what


def test_spreads_hide_what_elements_show() -> None:
    """A transposed head has the spread of the sound one to the last bit, and its logits are those of another model: cosine near zero."""
    sound, faulty = (forward(one).run(ids()) for one in (weights(), turned(HEAD)))
    found = compared(every(ids(), sound), every(ids(), faulty))

    values = [one.tensor(HEAD).flatten().sort().values for one in (weights(), turned(HEAD))]

    assert values[0].std() == values[1].std()
    assert found.cosine.abs().mean() < 0.3
    assert found.relative_l2.min() > 0.5


def test_a_sound_copy_is_not_accused() -> None:
    """Control: the same weights, once in float64 and once in float32, part nowhere."""
    assert locate(forward(weights()), of_torch(forward(weights(), dtype=torch.float32)), prompts(4, 16)).first is None
