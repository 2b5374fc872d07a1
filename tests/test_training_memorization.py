"""What a model has learned by heart is found in one that has, and not in one that has not."""

import math

import numpy as np
import pytest
import torch

from sovereign.contract.model import Decoder as Shape
from sovereign.model.decoder import build
from sovereign.training.memorization import LEAST_SHARE, extracted, familiarity, passages, ranked
from sovereign.training.scrutiny import both_paths, disordered, on_disordered

CPU = torch.device("cpu")
SHAPE = Shape(hidden=64, layers=2, heads=4, kv_heads=2, ffn=128, context=32)
V = 61


def texts(count, length=40, seed=0):
    draw = np.random.default_rng(seed)
    return [(f"{seed:08x}{number:08x}", draw.integers(1, V, length)) for number in range(count)]


@pytest.fixture(scope="module")
def learned():
    """A model that knows six random texts by heart, and has seen no other."""
    torch.manual_seed(0)
    model = build(SHAPE, V, seed=0)
    rows = torch.from_numpy(np.stack([ids[: SHAPE.context + 1] for _, ids in texts(6)]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(250):
        loss = model.loss(rows[:, :-1], rows[:, 1:]) / rows[:, 1:].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3
    return model


def test_passages_lie_in_their_documents_and_stay_where_they_are():
    """One passage a document, drawn by the seed and the document's number; short documents are passed over."""
    documents = [("short", np.arange(5)), *texts(4)]
    found = passages("train", documents, 3, 16, seed=7)

    assert [one.document for one in found] == [name for name, _ in documents[1:4]]
    by_name = dict(documents)
    assert all(tuple(by_name[one.document][one.start : one.start + 16]) == one.ids for one in found)
    assert found == passages("train", documents[:4], 3, 16, seed=7)


def test_what_was_learned_is_given_back_and_what_was_not_is_not(learned):
    """Texts known by heart are continued word for word; strangers fail within the first tokens."""
    beginnings = [(name, ids[: SHAPE.context]) for name, ids in texts(6)]
    known = passages("train", beginnings, 6, 32, seed=0)
    strange = passages("control", texts(6, seed=1), 6, 32, seed=0)

    assert sum(extracted(learned, known, 12)) >= 0.9 * 6 * 20
    assert max(extracted(learned, strange, 12)) <= 3


def test_familiarity_is_the_published_score(learned):
    """Both scores agree with a written-out float64 computation, and tell members from strangers."""
    members, strangers = texts(6), texts(6, seed=1)
    found = familiarity(learned, [*members, *strangers], precision="fp32", device=CPU)
    expected = []
    for _, ids in [*members, *strangers]:
        ids = ids[: SHAPE.context + 1]
        logits = learned(torch.from_numpy(ids[None, :-1]))[0].detach().double().numpy()
        log_p = (
            logits
            - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
            - logits.max(1, keepdims=True)
        )
        said = log_p[np.arange(len(ids) - 1), ids[1:]]
        p = np.exp(log_p)
        mean = (p * log_p).sum(1)
        spread = np.sqrt((p * log_p**2).sum(1) - mean**2)
        standing = np.sort((said - mean) / spread)
        expected.append((said.mean(), standing[: max(1, round(LEAST_SHARE * len(standing)))].mean()))

    assert [pytest.approx(one, rel=2e-3, abs=2e-3) for one in expected] == found
    assert min(loss for loss, _ in found[:6]) > max(loss for loss, _ in found[6:])


def test_a_planted_secret_ranks_first_and_a_stranger_anywhere(learned):
    """The rank is 1 plus the candidates with a lower loss: a secret known by heart is first among 200."""
    _, ids = texts(6)[0]
    draw = np.random.default_rng(5)
    candidates = [draw.integers(1, V, 10) for _ in range(200)]
    known, strange = ranked(
        learned, ids[:8].tolist(), [ids[8:18], draw.integers(1, V, 10)], candidates, precision="fp32", device=CPU
    )

    assert (1, 200) == (known.rank, known.candidates)
    assert 1 < strange.rank <= 201
    assert known.nll < 0.1 * strange.nll


def test_no_secret_is_ranked_by_a_model_of_nans(learned):
    """A loss that is not finite ranks nothing: a broken model would put every secret first."""
    broken = build(SHAPE, V, seed=0)
    with torch.no_grad():
        broken.lm_head.weight.fill_(math.nan)

    with pytest.raises(ArithmeticError, match="not finite"):
        ranked(broken, [1], [np.arange(4)], [np.arange(4)], precision="fp32", device=CPU)


def test_training_and_evaluation_score_one_batch_alike(learned):
    """Both paths agree to rounding on the same windows.

    The planted bug is an evaluation that lost its causal mask; it differs by nats.
    """
    ids = np.stack([ids[: SHAPE.context + 1] for _, ids in texts(4, seed=3)])
    trained, scored = both_paths(learned, ids, context=SHAPE.context, precision="fp32", device=CPU)
    right = learned.losses
    learned.losses = lambda inputs, targets: right(inputs, targets) * 0.5
    try:
        _, wrong = both_paths(learned, ids, context=SHAPE.context, precision="fp32", device=CPU)
    finally:
        del learned.losses

    assert trained == pytest.approx(scored, rel=1e-5)
    assert abs(wrong - trained) > 1e-3 * ids[:, 1:].size


def test_out_of_order_a_model_knows_nothing(learned):
    """Shuffled targets keep their counts and lose their order; random ones cost at least ln V."""
    sequences = texts(6)
    _, ids = sequences[0]
    shuffled = disordered(ids, "permuted", V, 1)

    assert (ids[0], sorted(ids[1:])) == (shuffled[0], sorted(shuffled[1:]))
    assert shuffled.tolist() != ids.tolist()
    settings = {"batch": 4, "context": SHAPE.context, "precision": "fp32", "device": CPU}
    for order in ("permuted", "random"):
        scored = on_disordered(learned, sequences, order, V, 0, **settings)
        assert sum(nll for _, nll, _ in scored) / sum(n for _, _, n in scored) > math.log(V) - 0.1
