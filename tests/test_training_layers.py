"""Layers that train in another way: the same values and gradients, for as long as it is asked for, and nowhere else."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from ranks import last_json, on_ranks
from test_model_options import END, OPTIONS, V, grown, ids_of
from test_training_distributed import CPU, Shared
from test_training_loop import SHAPE, VOCABULARY, run, settings
from torch._dynamo.utils import counters

from sovereign.model.decoder import build
from sovereign.training.checkpoint import weights_digest
from sovereign.training.distributed import ALONE, joined, shard
from sovereign.training.layers import layers, training_layers
from sovereign.training.loop import train
from sovereign.training.optimizer import optimizer_for

compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler"
)


def test_layers_are_as_before_when_it_is_over():
    """Each layer's forward is what it was, an attribute of its own or its class's, after an error too; without gradients
    it is called once and not recomputed.
    """
    model, calls = build(SHAPE, VOCABULARY, seed=0), []
    first, second = layers(model)
    plain = first.forward

    def counted(*given):
        calls.append(torch.is_grad_enabled())
        return plain(*given)

    first.forward = counted
    ids = torch.arange(34).view(2, 17)

    def stopped():
        with training_layers(model, recomputed=True):
            assert "forward" in vars(second)
            with torch.no_grad():
                model.loss(ids[:, :-1], ids[:, 1:])
            assert calls == [False]
            model.loss(ids[:, :-1], ids[:, 1:]).backward()
            assert calls == [False, True, True]
            raise KeyError

    with pytest.raises(KeyError):
        stopped()

    assert first.forward is counted
    assert "forward" not in vars(second)


@compiler
@pytest.mark.parametrize(("precision", "bound"), [("bf16", 0.02), pytest.param("fp32", 1e-5, marks=pytest.mark.slow)])
def test_compiled_layers_train_as_they_do_uncompiled(precision, bound):
    """Losses follow those of the loop as it stands; all layers share one graph, and an evaluation, of any shape, has none.

    Planted: an evaluation that goes through the compiled layers is a second graph.
    """
    counters.clear()
    model = build(SHAPE, VOCABULARY, seed=0)

    def evaluate(step):
        ids = torch.arange(3 * (5 + step)).view(3, -1)
        with torch.no_grad():
            model.losses(ids[:, :-1], ids[:, 1:])

    _, rows, _ = run(settings(4, compile=True), model=model, precision=precision, evaluate=evaluate, evaluate_every=1)
    graphs = counters["stats"]["unique_graphs"]
    _, same, _ = run(settings(4), precision=precision)

    assert graphs == 1
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in same], abs=bound)


@compiler
@pytest.mark.slow
@pytest.mark.parametrize(("name", "recomputed"), [*((name, False) for name in OPTIONS), ("plain", True), ("all", True)])
def test_compiled_layers_have_the_gradients_of_every_option(name, recomputed):
    """With each option of the decoder a compiled layer's gradients are the plain one's, recomputed or not."""
    plain, again = (grown(build(OPTIONS[name], V, seed=0, end_of_text=END)) for _ in range(2))
    ids = ids_of(2, 33)
    ids[:, 9] = END
    plain.loss(ids[:, :-1], ids[:, 1:]).backward()
    with training_layers(again, recomputed=recomputed, compiled=True):
        again.loss(ids[:, :-1], ids[:, 1:]).backward()

    for a, b in zip(plain.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-4 * a.grad.abs().max().item())


@compiler
@pytest.mark.slow
def test_a_second_graph_serves_every_other_length():
    """Batches of a dozen lengths, shorter and longer than a block of queries, take two graphs in bf16, not one each.

    Caught: an attention whose outputs were as many as its blocks took one a length, and after eight torch gave up.
    """
    model = build(SHAPE, VOCABULARY, seed=0)
    plain = build(SHAPE, VOCABULARY, seed=0)
    counters.clear()
    for t in range(40, 232, 16):
        ids = ids_of(2, t + 1) % VOCABULARY
        for one in (model, plain):
            with torch.autocast("cpu", torch.bfloat16), training_layers(one, compiled=one is model):
                one.loss(ids[:, :-1], ids[:, 1:]).backward()

    assert counters["stats"]["unique_graphs"] <= 2
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        assert (b.grad - a.grad).norm() < 0.03 * a.grad.norm()


@compiler
@pytest.mark.slow
def test_a_compiled_run_repeats_itself_and_goes_on():
    """The same bits twice, and after a second call of the loop on the same model as after one."""
    whole, rows, _ = run(settings(6, compile=True), precision="bf16")
    again, _, _ = run(settings(6, compile=True), precision="bf16")
    model = build(SHAPE, VOCABULARY, seed=0)
    optimizer = optimizer_for(model, settings().optimizer)
    _, first, _ = run(settings(6, compile=True), model=model, optimizer=optimizer, precision="bf16", until=3)
    losses = [row["loss"] for row in first]
    run(settings(6, compile=True), model=model, optimizer=optimizer, precision="bf16", done=3, losses=losses)

    assert weights_digest(again) == weights_digest(whole) == weights_digest(model)
    assert losses == [row["loss"] for row in rows[:3]]


def shared(ranks, sharing, compiled):
    """Train as one of `ranks` and return the losses."""
    training, rows = settings(8, compile=compiled, distributed=sharing), []
    model = build(SHAPE, VOCABULARY, seed=0)
    shard(model, ranks, sharing, CPU)
    train(
        model, optimizer_for(model, training.optimizer), Shared(), training, device=CPU, precision="fp32", seed=0,
        evaluate_every=1000, log=lambda kind, **row: rows.append(row), ranks=ranks,
    )  # fmt: skip
    return [row["loss"] for row in rows]


def both_ways():
    with joined() as ranks:
        print(json.dumps({sharing: shared(ranks, sharing, True) for sharing in ("ddp", "fsdp")}), flush=True)


@compiler
@pytest.mark.slow
def test_two_processes_compile_their_layers():
    """Compiled on two processes, whole or in parts, losses are those of one process that compiles nothing."""
    one = shared(ALONE, "ddp", False)
    for printed in on_ranks(both_ways, 2):
        assert last_json(printed) == {sharing: pytest.approx(one, abs=1e-5) for sharing in ("ddp", "fsdp")}
