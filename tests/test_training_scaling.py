"""Float16: small gradients live by the scaled loss, large ones are taken again, and no step and no batch is skipped."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_training_loop import SHAPE, VOCABULARY, CountingStream, run, settings
from torch import nn

from sovereign.contract.training import Adamw8bit, Schedule
from sovereign.model.decoder import build
from sovereign.model.kernels import linear_cross_entropy
from sovereign.training import optimizer as optimizers
from sovereign.training.checkpoint import weights_digest
from sovereign.training.device import Unavailable, keep_as
from sovereign.training.guards import Stopped
from sovereign.training.optimizer import gradient_unit, optimizer_for
from sovereign.training.replay import replay
from sovereign.training.scaling import FIRST, PATIENCE, LossScale, clipped


@given(st.lists(st.sampled_from(["fits", "overflows", "broken"]), max_size=60), st.integers(0, PATIENCE - 1))
def test_the_scale_is_a_power_of_two_of_at_least_one(updates, clean):
    """It is halved while a gradient overflows and never below 1, where a gradient that is not finite is what it is."""
    scale = LossScale(16.0, clean)
    for one in updates:
        before = scale.value
        norm = {"fits": 1.0, "overflows": math.inf, "broken": math.nan}[one]
        again = scale.too_large(norm)
        if not again:
            scale.applied()

        assert again == (one != "fits" and before > 1)
        assert math.log2(scale.value).is_integer()
        assert scale.value >= 1
        assert scale.value == before / 2 if again else scale.value in (before, 2 * before)


def test_the_scale_grows_where_nothing_overflows():
    """After 2,000 updates twice the scale is tried, as torch's GradScaler does; an overflow begins the count anew."""
    ours, theirs = LossScale(), torch.amp.GradScaler("cpu", init_scale=FIRST)
    weight = nn.Parameter(torch.ones(1))
    sgd = torch.optim.SGD([weight], lr=0.0)
    theirs.scale(torch.ones(1))  # it has no scale before
    for step in range(2 * PATIENCE + 200):
        overflow = step == 100
        weight.grad = torch.tensor([math.inf if overflow else 1.0])
        theirs.step(sgd)
        theirs.update()
        if not ours.too_large(weight.grad.item()):
            ours.applied()

        assert ours.value == theirs.get_scale(), step


def test_it_learns_as_in_float32():
    """Loss by loss within a hundredth of the run in fp32; each row says its scale, those of other precisions say none."""
    half = run(settings(40), precision="fp16")[1]
    whole = run(settings(40))[1]

    assert [row["loss"] for row in half] == pytest.approx([row["loss"] for row in whole], abs=0.01)
    assert [row["grad_norm"] for row in half] == pytest.approx([row["grad_norm"] for row in whole], abs=0.01)
    assert all(row["loss_scale"] >= 1 for row in half)
    assert not any("loss_scale" in row for row in whole)


def test_updates_are_those_of_gradscaler():
    """Ten updates of torch's own GradScaler on the same batches lead to the same weights, to the rounding of a division."""
    training, stream = settings(10, schedule=Schedule(kind="constant", peak=1e-3)), CountingStream()
    ours = run(training, precision="fp16", loss_scale=LossScale(1024.0))[0]
    theirs = build(SHAPE, VOCABULARY, seed=0)
    scaler, moved = torch.amp.GradScaler("cpu", init_scale=1024.0), optimizer_for(theirs, training.optimizer)
    for group in moved.param_groups:
        group["lr"] = 1e-3
    for step in range(1, 11):
        inputs, targets = (torch.from_numpy(one) for one in (stream.batch(step).inputs, stream.batch(step).targets))
        with torch.autocast("cpu", torch.float16):
            loss = theirs.loss(inputs, targets) / targets.numel()
        scaler.scale(loss).backward()
        scaler.unscale_(moved)
        nn.utils.clip_grad_norm_(theirs.parameters(), training.clip)
        scaler.step(moved)
        scaler.update()
        moved.zero_grad()

    assert scaler.get_scale() == 1024.0
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


class Faint(nn.Module):
    """Two layers whose loss is so faint that its slopes are 2e-8 each."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.first, self.second = (nn.Linear(8, 8, bias=False) for _ in range(2))
        for weight in self.parameters():
            weight.data.normal_(0, 0.5, generator=draw)
        self.x, self.slope = torch.randn(4, 8, generator=draw), torch.randn(4, 8, generator=draw)

    def loss(self, inputs, targets):
        return (self.second(self.first(self.x)).float() * self.slope).sum() * 2e-8 * targets.numel()


def test_what_float16_would_lose_is_kept():
    """Slopes of 2e-8 lose a tenth of the gradient, and more, where the loss is not scaled, and a thousandth where it is."""

    def norm(**more):
        return run(settings(1), model=Faint(), **more)[1][0]["grad_norm"]

    exact = norm()

    assert norm(precision="fp16", loss_scale=LossScale(FIRST)) == pytest.approx(exact, rel=2e-3)
    assert abs(norm(precision="fp16", loss_scale=LossScale(1.0)) / exact - 1) > 0.1


def test_the_head_sums_many_tokens_in_float16():
    """4,096 tokens that all lack one word, from states of size 20: the gradient of its row is 80,000, and finite.

    It is taken before the loss is scaled, so that no smaller scale could mend it. Planted: summed over all tokens at
    once it is infinite.
    """
    hidden = torch.full((4096, 16), 20.0, dtype=torch.float16, requires_grad=True)
    weight = torch.zeros(32, 16, requires_grad=True)
    linear_cross_entropy(hidden, weight, torch.full((4096,), 7)).backward()

    assert weight.grad[7] == pytest.approx(np.full(16, -4096 * 20 * 31 / 32), rel=1e-3)


def test_an_overflow_costs_no_step_and_no_batch():
    """Begun with far too large a scale, the run is bit for bit the one that begins with the scale it ends up at.

    Planted: where the step is skipped instead, as GradScaler does, the first updates are missing and the digests differ.
    """
    large, rows, _ = run(settings(5), precision="fp16", loss_scale=LossScale(2.0**40))
    settled = rows[-1]["loss_scale"]
    small, again, _ = run(settings(5), precision="fp16", loss_scale=LossScale(settled))

    assert rows[0]["overflows"] > 5
    assert [row["loss_scale"] for row in rows] == list(2.0 ** (40 - np.cumsum([row["overflows"] for row in rows])))
    assert [row["windows"] for row in rows] == [row["windows"] for row in again]
    assert [row["overflows"] for row in again] == [0] * 5
    assert weights_digest(large) == weights_digest(small)


def test_micro_batches_overflow_together():
    """A step whose last micro-batch overflows is taken again whole: nothing of the first try is left in the gradients."""
    whole = run(settings(2, micro_batch=2), precision="fp16", loss_scale=LossScale(2.0**40))[1]
    calm = run(settings(2, micro_batch=2), precision="fp16", loss_scale=LossScale(256.0))[1]

    assert whole[0]["overflows"] > 0
    assert [row["grad_norm"] for row in whole] == pytest.approx([row["grad_norm"] for row in calm], rel=1e-3)


class Broken(nn.Module):
    """A model whose gradient is not a number at any scale."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def loss(self, inputs, targets):
        return (self.weight.sum() * 0.0).sqrt() + 3.0 * targets.numel()  # the slope of a root at 0 is infinite


def test_a_gradient_that_no_scale_mends_stops_the_run():
    """Down to a scale of 1 it is taken again; then it is what it is, and the run stops as in any precision."""
    scale = LossScale(2.0**6)
    with pytest.raises(Stopped, match="non_finite_gradient"):
        run(settings(3), model=Broken(), precision="fp16", loss_scale=scale)

    assert scale.value == 1.0


def test_a_resumed_run_has_the_scale_it_had(tmp_path):
    """Replayed from a checkpoint with the scale that was kept in it, steps are the same to the last bit.

    Planted: with a fresh scale in place of the kept one, they are taken again where the straight run did not.
    """
    from sovereign.training.checkpoint import save

    training = settings(6)
    scale, straight = LossScale(2.0**30), {}
    model = build(SHAPE, VOCABULARY, seed=0)
    moved = optimizer_for(model, training.optimizer)
    kept = {}

    def keep(step):
        if step == 6:
            return
        kept[step] = save(tmp_path, step, model, moved, {"loss_scale": [scale.value, scale.clean]}, keep=1)

    def told(kind, row):
        if kind == "step":
            straight[row["step"]] = (row["loss"], weights_digest(model))

    run(
        settings(6, checkpoint_every=3), model=model, optimizer=moved, precision="fp16", loss_scale=scale, told=told,
        checkpoint=keep,
    )  # fmt: skip
    found = replay(
        kept[3], [4, 5, 6], lambda: build(SHAPE, VOCABULARY, seed=1), CountingStream(), training,
        device=torch.device("cpu"), precision="fp16", seed=0,
    )  # fmt: skip

    assert scale.value < 2.0**30
    assert {one.step: (one.loss, one.digest) for one in found} == {step: straight[step] for step in (4, 5, 6)}


# ── weights that are float16 themselves ──────────────────────────────────────────────────────────


def kept_in_half(seed=0):
    model = build(SHAPE, VOCABULARY, seed=seed)
    keep_as(model, "fp16")
    return model


EIGHT = settings(60, optimizer=Adamw8bit(kind="adamw8bit"), schedule=Schedule(kind="constant", peak=3e-3))


def test_float16_weights_learn():
    """Weights, gradients and forward in float16, moments in eight bits: the loss falls as with weights in float32."""
    half = run(EIGHT, model=kept_in_half(), precision="fp16")[1]
    whole = run(EIGHT)[1]

    assert half[-1]["loss"] < 1.5
    assert [row["loss"] for row in half] == pytest.approx([row["loss"] for row in whole], abs=0.15)


def test_small_gradients_of_float16_weights_reach_the_optimizer(monkeypatch):
    """True gradients of 3e-8, half of the least that float16 holds, move weights as those of 3e-3 do.

    Planted: handed over at their own size they are 0, and nothing moves.
    """

    def moved(size, unit):
        monkeypatch.setattr(optimizers, "UNIT", unit)
        layer = nn.Linear(64, 64, bias=False).half()
        with torch.no_grad():
            layer.weight.fill_(0.5)
        stepping = optimizer_for(layer, Adamw8bit(kind="adamw8bit", weight_decay=0.0, epsilon=1e-12))
        for group in stepping.param_groups:
            group["lr"] = 0.01
        signs = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], (64, 64)))
        layer.weight.grad = (signs * size * FIRST).half()
        norm = clipped(layer, 1.0, FIRST)
        stepping.step()
        return norm, (layer.weight - 0.5).abs().mean().item()

    small, usual = moved(2e-8, optimizers.UNIT), moved(2e-3, optimizers.UNIT)

    assert small == (pytest.approx(64 * 2e-8, rel=1e-2), pytest.approx(0.01, rel=0.05))
    assert usual == (pytest.approx(64 * 2e-3, rel=1e-2), pytest.approx(0.01, rel=0.05))
    assert moved(2e-8, 1.0)[1] == 0.0


def test_epsilon_weighs_what_it_weighs_in_float32():
    """Where epsilon decides the step, gradients handed over a thousandfold meet an epsilon as large."""

    def moved(kind):
        layer = nn.Linear(64, 64, bias=False).to(kind)
        with torch.no_grad():
            layer.weight.fill_(0.5)
        stepping = optimizer_for(layer, Adamw8bit(kind="adamw8bit", weight_decay=0.0, epsilon=1e-2))
        for group in stepping.param_groups:
            group["lr"] = 0.1
        layer.weight.grad = torch.full((64, 64), 1e-2, dtype=kind)
        clipped(layer, 1.0, 1.0)
        stepping.step()
        return (layer.weight - 0.5).float().mean().item()

    assert moved(torch.float16) == pytest.approx(moved(torch.float32), rel=0.02)


def test_a_norm_beyond_float16_is_no_overflow():
    """Gradients that float16 holds have a norm that it does not; it is taken in float32, and they are clipped by it."""
    layer = nn.Linear(64, 64, bias=False).half()
    layer.weight.grad = torch.full((64, 64), 30000.0).half()

    assert clipped(layer, 1.0, 2.0) == pytest.approx(64 * 15000.0, rel=1e-3)
    assert layer.weight.grad.float().norm().item() == pytest.approx(gradient_unit(layer.parameters()), rel=1e-3)


def test_a_weight_that_float16_cannot_hold_is_refused():
    """It would be infinite, and every loss after it not a number."""
    model = build(SHAPE, VOCABULARY, seed=0)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = 7e4

    with pytest.raises(Unavailable, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds 70000, .* ends at 65504"):
        keep_as(model, "fp16")
    keep_as(model, "bf16")
