"""CASE-26 "Did not move", could not move.

Stage: during the run
Outcome: each measured update says what share of the weights it changed; a null without movement is INCONCLUSIVE
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from contending import contender, edited, promise, said
from simulated import Plan, diagnosed
from test_training_loop import SHAPE, VOCABULARY, run, settings

from sovereign.comparison.compare import Contender, compare
from sovereign.contract.training import Schedule
from sovereign.model.decoder import build

OTHER = edited(("peak: 1.0e-3", "peak: 2.0e-3"), ("contract: toy", "contract: other"))
FLAT = Plan(speed=8.0, every=12, documents=1200)  # ends level, in twenty evaluations


def test_weights_that_round_their_updates_away_are_measured() -> None:
    """Plant: bfloat16 weights near 1.0 at a rate of 1e-6; not one element moves in six updates, and the rows say so."""
    model = build(SHAPE, VOCABULARY, seed=0).bfloat16()
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0)
    stuck = settings(schedule=Schedule(kind="constant", peak=1e-6), measure_updates_every=2)
    _, steps, _ = run(replaced(stuck), model=noisy(model))

    assert [0.0, 0.0, 0.0] == [row["changed"] for row in steps if "changed" in row]
    assert [0.0, 0.0, 0.0] == [row["update_ratio"] for row in steps if "update_ratio" in row]


def replaced(training):
    return training.model_copy(update={"optimizer": training.optimizer.model_copy(update={"weight_decay": 0.0})})


def noisy(model):
    """Return a model whose loss has a slope in every weight, all ones as they are."""

    def loss(inputs, targets):
        drawn = torch.Generator().manual_seed(int(inputs.sum()))
        return sum(
            (weight * torch.randn(weight.shape, generator=drawn).to(weight.dtype)).sum()
            for weight in model.parameters()
        )

    model.loss = loss
    return model


def test_float32_weights_move_at_the_same_rate() -> None:
    """Control: the same rate on float32 weights of their usual size changes most of them."""
    _, steps, _ = run(replaced(settings(schedule=Schedule(kind="constant", peak=1e-6), measure_updates_every=2)))

    assert all(row["changed"] > 0.9 for row in steps if "changed" in row)


def moved(one: Contender, share: float) -> Contender:
    rows = {**one.observed.rows}
    rows["step"] = tuple(row.model_copy(update={"changed": share}) for row in rows["step"])
    return replace(one, observed=type(one.observed)(one.observed.intent, rows))


def pair(share: float):
    """Return the comparison of two rates, the second of which changed this share of the weights."""
    one, two = (contender(made, said(made, noise=number, shift=shift))
                for number, (made, shift) in enumerate(((promise(), 0.0), (promise(OTHER, 2), -0.4)), 1))  # fmt: skip
    return compare([one, moved(two, share)]).pairs[0]


def test_no_effect_is_read_from_weights_that_did_not_move() -> None:
    """A comparison with a run that moved nothing is INCONCLUSIVE, whatever its losses are; with one that moved it stands."""
    assert ("INCONCLUSIVE", True) == (pair(0.0).checkpoints, "NOT_MOVED" in {one.code for one in pair(0.0).reasons})
    assert "LOWER" == pair(0.9).checkpoints


@pytest.mark.parametrize("changed", [0.0, 0.002, None])
def test_a_plateau_of_weights_that_did_not_move_is_none(changed: float | None) -> None:
    """Flat losses support PLATEAU only beside updates that are shown to have changed the weights."""
    assert diagnosed(FLAT).verdicts["PLATEAU"] == "SUPPORTED"
    found = diagnosed(FLAT, changed=changed).of("PLATEAU")

    assert found.verdict == "INCONCLUSIVE"
    assert ("nothing was tried" in found.because) == (changed is not None)
