"""Scores of documents: the same in every batch, and nothing is left changed behind them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sovereign.contract.model import Decoder as Shape
from sovereign.model.decoder import build
from sovereign.training.checkpoint import weights_digest
from sovereign.training.evaluation import evaluate

SHAPE = Shape(hidden=64, layers=2, heads=4, kv_heads=2, ffn=128, context=16)
CPU = torch.device("cpu")


def documents(lengths, seed=0):
    draw = np.random.default_rng(seed)
    return [(f"{index:016x}", draw.integers(0, 97, length).astype(np.uint16)) for index, length in enumerate(lengths)]


def scores(model, sequences, batch=8, precision="fp32", context=16):
    return evaluate(model, sequences, batch=batch, context=context, precision=precision, device=CPU)


def test_a_document_is_scored_in_windows_of_context_targets():
    """Every token but the first is a target once, given the tokens before it in its window."""
    model = build(SHAPE, 97, seed=0)
    sequences = documents([2, 17, 18, 40])
    expected = []
    for name, ids in sequences:
        ids = torch.from_numpy(ids.astype(np.int64))
        nll = sum(
            F.cross_entropy(
                model(ids[at : at + 16][: len(ids) - 1 - at][None])[0], ids[at + 1 : at + 17], reduction="sum"
            ).item()
            for at in range(0, len(ids) - 1, 16)
        )
        expected.append((name, pytest.approx(nll, rel=1e-5), len(ids) - 1))

    assert expected == scores(model, sequences)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_batch_size_does_not_change_a_score(precision):
    """Scores at batch 1, 3 and 8 agree to 1e-6 of themselves."""
    model = build(Shape(hidden=256, layers=4, heads=8, kv_heads=4, ffn=768, context=256), 4096, seed=0)
    sequences = documents([5, 90, 33, 300, 512, 17, 257, 258, 120, 511, 64], seed=1)
    one, three, eight = (scores(model, sequences, batch, precision, context=256) for batch in (1, 3, 8))

    assert [nll for _, nll, _ in eight] == pytest.approx([nll for _, nll, _ in one], rel=1e-6)
    assert [nll for _, nll, _ in three] == pytest.approx([nll for _, nll, _ in one], rel=1e-6)
    assert [tokens for _, _, tokens in eight] == [len(ids) - 1 for _, ids in sequences]


def test_nothing_is_left_changed():
    """Weights, gradients, random state and every module's mode are as before."""
    model = build(SHAPE, 97, seed=0)
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    state, digest = torch.get_rng_state(), weights_digest(model)
    scores(model, documents([9, 30]))

    assert [module.training for module in model.modules()] == modes
    assert torch.equal(state, torch.get_rng_state())
    assert weights_digest(model) == digest
    assert all(weight.grad is None for weight in model.parameters())


def test_scoring_is_the_training_loss():
    """The training path and the evaluation path give one batch the same loss."""
    model = build(SHAPE, 97, seed=0)
    sequences = documents([17] * 8)
    ids = torch.tensor(np.stack([ids for _, ids in sequences]).astype(np.int64))
    trained = model.train().loss(ids[:, :-1], ids[:, 1:]).item()

    assert trained == pytest.approx(sum(nll for _, nll, _ in scores(model, sequences)), rel=1e-5)
