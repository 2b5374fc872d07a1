"""Optimizers against written-out references, and what they keep from one process to the next."""

from __future__ import annotations

import math

import pytest
import torch
from test_training_loop import CPU, SHAPE, VOCABULARY, CountingStream, run, settings

from sovereign.contract.model import Decoder as Shape
from sovereign.contract.training import Adamw, Adamw8bit, Muon, Schedule
from sovereign.model.decoder import build
from sovereign.training.checkpoint import Unusable, load, save, weights_digest
from sovereign.training.loop import train
from sovereign.training.optimizer import Unavailable, check_available, optimizer_for

WIDE = Shape(
    hidden=64, layers=2, heads=4, kv_heads=2, ffn=128, context=16
)  # matrices beyond the 4,096 that 8 bits need
KINDS = {"adamw": Adamw(), "adamw8bit": Adamw8bit(kind="adamw8bit"), "muon": Muon(kind="muon")}


def gradients(weights, seed):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(weight.shape, generator=draw) for weight in weights]


def stepped(model, optimizer, updates, rate):
    """Make updates with drawn gradients at a constant rate."""
    for update in range(updates):
        for weight, gradient in zip(model.parameters(), gradients(model.parameters(), update), strict=True):
            weight.grad = gradient
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()


def adamw_reference(weight, slopes, rate, decay, settings):
    """Loshchilov & Hutter 2019, algorithm 2, in float64."""
    weight, first, second = weight.double(), 0.0, 0.0
    for t, slope in enumerate(slopes, 1):
        slope = slope.double()
        first = settings.beta1 * first + (1 - settings.beta1) * slope
        second = settings.beta2 * second + (1 - settings.beta2) * slope**2
        corrected = (second / (1 - settings.beta2**t)).sqrt() + settings.epsilon
        weight = weight - rate * decay * weight - rate * (first / (1 - settings.beta1**t)) / corrected
    return weight


def muon_reference(weight, slopes, rate, settings):
    """Jordan et al. 2024 with Liu et al. 2025's scale, in float64: momentum, orthogonalisation, decoupled decay."""
    a, b, c = 3.4445, -4.7750, 2.0315
    weight, moment = weight.double(), torch.zeros_like(weight, dtype=torch.float64)
    for slope in slopes:
        slope = slope.double()
        moment = settings.momentum * moment + (1 - settings.momentum) * slope
        x = settings.momentum * moment + (1 - settings.momentum) * slope
        tall = x.shape[0] > x.shape[1]
        x = x.T if tall else x
        x = x / x.norm()
        for _ in range(settings.iterations):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        x = x.T if tall else x
        weight = weight - rate * settings.weight_decay * weight - rate * 0.2 * math.sqrt(max(x.shape)) * x
    return weight


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_updates_are_those_of_the_written_out_method(kind):
    """Three updates of every weight follow a float64 reference; Muon moves the inner matrices, AdamW all the rest."""
    asked = KINDS[kind]
    model, plain = build(SHAPE, VOCABULARY, seed=0), build(SHAPE, VOCABULARY, seed=0)
    stepped(model, optimizer_for(model, asked), 3, 1e-2)
    rest = asked.rest if kind == "muon" else asked
    drawn = [gradients(plain.parameters(), update) for update in range(3)]
    orthogonalised = []
    for index, (name, weight) in enumerate(plain.named_parameters()):
        slopes, start = [one[index] for one in drawn], weight.detach()
        if kind == "muon" and weight.dim() == 2 and "embed" not in name and "lm_head" not in name:
            orthogonalised.append(name)
            expected, tolerance = muon_reference(start, slopes, 1e-2, asked), 2e-3  # its iterations run in bfloat16
        else:
            decay = rest.weight_decay if weight.dim() == 2 else 0.0
            expected, tolerance = adamw_reference(start, slopes, 1e-2, decay, rest), 1e-6
        moved = dict(model.named_parameters())[name].detach().double()

        torch.testing.assert_close(
            moved, expected, atol=tolerance, rtol=0, msg=lambda told, name=name: f"{name}: {told}"
        )
        assert (moved - start.double()).abs().max() > 5 * tolerance  # the tolerance could not hide a missing update
    assert len(orthogonalised) == (2 * 7 if kind == "muon" else 0)


def test_eight_bit_moments_follow_the_full_ones():
    """AdamW8bit moves the weights as AdamW does, to a few hundredths of an update, and keeps a quarter of the bytes."""
    eight, full = build(WIDE, VOCABULARY, seed=0), build(WIDE, VOCABULARY, seed=0)
    small, large = optimizer_for(eight, KINDS["adamw8bit"]), optimizer_for(full, KINDS["adamw"])
    stepped(eight, small, 5, 1e-3)
    stepped(full, large, 5, 1e-3)
    start = dict(build(WIDE, VOCABULARY, seed=0).named_parameters())
    apart = torch.cat([(a - b).flatten() for a, b in zip(eight.parameters(), full.parameters(), strict=True)])
    moved = torch.cat([(weight - start[name]).flatten() for name, weight in full.named_parameters()])
    matrix = eight.model.layers[0].mlp.up_proj.weight

    assert apart.norm() < 0.1 * moved.norm()
    assert {small.state[matrix][key].dtype for key in ("state1", "state2")} == {torch.uint8}


@pytest.mark.parametrize("kind", KINDS)
def test_each_resumes_bit_for_bit(kind, tmp_path):
    """What is kept of a weight is kept whole: twelve updates are six and six, for every optimizer."""
    training = settings(12, optimizer=KINDS[kind], schedule=Schedule(kind="cosine", peak=1e-2, warmup=2))

    def part(model, optimizer, **more):
        train(
            model, optimizer, CountingStream(), training, device=CPU, precision="fp32", seed=0, evaluate_every=99,
            log=lambda *_, **__: None, **more,
        )  # fmt: skip
        return weights_digest(model)

    model = build(WIDE, VOCABULARY, seed=0)
    straight = part(model, optimizer_for(model, training.optimizer))
    model = build(WIDE, VOCABULARY, seed=0)
    optimizer = optimizer_for(model, training.optimizer)
    part(model, optimizer, until=6)
    save(tmp_path, 6, model, optimizer, {}, keep=1)
    again = build(WIDE, VOCABULARY, seed=9)
    optimizer = optimizer_for(again, training.optimizer)
    load(tmp_path / "step-000006", again, optimizer)

    assert part(again, optimizer, done=6) == straight


def test_another_optimizer_cannot_go_on_with_it(tmp_path):
    """A checkpoint of one optimizer is refused by another, with the names, and nothing is changed."""
    model = build(WIDE, VOCABULARY, seed=0)
    optimizer = optimizer_for(model, KINDS["adamw"])
    stepped(model, optimizer, 1, 1e-3)
    save(tmp_path, 1, model, optimizer, {}, keep=1)
    for kind in ("muon", "adamw8bit"):
        other = build(WIDE, VOCABULARY, seed=1)
        before, moved = weights_digest(other), optimizer_for(other, KINDS[kind])
        with pytest.raises(Unusable, match=r"exp_avg is not known here|is missing"):
            load(tmp_path / "step-000001", other, moved)

        assert weights_digest(other) == before
        assert not moved.state


@pytest.mark.parametrize("kind", KINDS)
def test_each_learns(kind):
    """The counting stream is learnt with every optimizer at one learning rate."""
    _, steps, _ = run(settings(40, optimizer=KINDS[kind]))

    assert steps[-1]["loss"] < 0.6 * steps[0]["loss"]


def test_what_is_not_installed_is_said_before_anything_is_built(monkeypatch):
    """Without bitsandbytes the error says which extra brings it."""
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim.adamw", None)
    with pytest.raises(Unavailable, match=r"pip install 'sovereign\[bitsandbytes\]'"):
        check_available(KINDS["adamw8bit"])
