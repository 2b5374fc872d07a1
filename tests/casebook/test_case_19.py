"""CASE-19 Loss scale follows accumulation.

Stage: during the run
Outcome: a step's loss is nats over counted targets, however it is cut up; a log that prints a share or a sum is COMPARABILITY_VIOLATED
"""

from __future__ import annotations

import math

import pytest
import torch
from test_training_loop import SHAPE, VOCABULARY, CountingStream, run, settings

from sovereign.corpus.stream import Batch
from sovereign.diagnosis.procedure import Diagnosis, diagnose
from sovereign.diagnosis.record import Point, RunRecord, Settings
from sovereign.model.decoder import build

PAD = 7  # not counted: it leaves each window with another number of targets


class Uneven:
    """Sixteen windows a step, the later ones with fewer targets."""

    def __init__(self) -> None:
        self.plain = CountingStream(sequences=16)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        found = self.plain.batch(step, rank, world)
        for number, row in enumerate(found.ids):
            row[len(row) - number :] = PAD
        return found  # type: ignore[return-value]


def steps(micro_batch: int | None, model: object = None) -> list[dict[str, float]]:
    training = settings(3, sequences=16, micro_batch=micro_batch, clip=1e9)
    return run(training, model=model, stream=Uneven(), ignore=PAD)[1]  # type: ignore[no-any-return]


@pytest.mark.parametrize("micro_batch", [1, 4, 8])
def test_sixteen_windows_have_one_loss_however_they_are_cut_up(micro_batch: int) -> None:
    """1 x 16, 4 x 4 and 16 x 1: loss and gradient norm agree to 1e-5 of themselves, with uneven numbers of targets."""
    whole, parts = steps(None), steps(micro_batch)

    assert [row["tokens"] for row in whole] == [row["tokens"] for row in parts]
    for name in ("loss", "grad_norm"):
        assert [row[name] for row in parts] == pytest.approx([row[name] for row in whole], rel=1e-5)


def test_a_mean_of_means_is_another_number() -> None:
    """Planted, so that the test above can fail: a model that gives its micro-batch's mean has another loss at each size."""

    def averaging() -> object:
        model = build(SHAPE, VOCABULARY, seed=0)
        plain = model.loss
        model.loss = lambda inputs, targets: plain(inputs, targets) / (targets != -100).sum().clamp(min=1) * 8  # type: ignore[method-assign]
        return model

    torch.manual_seed(0)
    assert steps(None, averaging())[0]["loss"] != pytest.approx(steps(1, averaging())[0]["loss"], rel=1e-3)


def logged(train: float, **told: object) -> Diagnosis:
    """Return the diagnosis of a table that begins before the first update, its training loss times `train`."""
    curve = [11.0084 - 4 * (1 - math.exp(-step / 50)) for step in range(0, 201, 50)]
    points = tuple(Point(step=50 * at, train=loss * train, val=loss) for at, loss in enumerate(curve))
    return diagnose(RunRecord(points, Settings(vocab=50257, **told)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("train", "said"), [(0.25, "4 times less"), (16.0, "16 times more")])
def test_a_logger_that_prints_a_share_or_a_sum_is_flagged(train: float, said: str) -> None:
    """Plant: 2.7521 beside validation 11.0084 at step 0, a quarter; and a sum over sixteen micro-batches."""
    found = logged(train).of("COMPARABILITY_VIOLATED")

    assert "SUPPORTED" == found.verdict
    assert said in found.because


def test_equal_losses_of_the_untrained_model_are_not() -> None:
    """Control: the same table with a logger that prints means over tokens."""
    found = logged(1.0).of("COMPARABILITY_VIOLATED")

    assert "INCONCLUSIVE" == found.verdict
    assert "times" not in found.because
