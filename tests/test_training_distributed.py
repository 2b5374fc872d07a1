"""Several processes: the same run as one, whichever way they share it, and from one number to another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import last_json, on_ranks
from test_training_loop import CPU, SHAPE, VOCABULARY, CountingStream, Windows, settings

from sovereign.contract.training import Muon, Schedule
from sovereign.model.decoder import build
from sovereign.training.checkpoint import checkpoints, load, save, weights_digest
from sovereign.training.distributed import ALONE, joined, shard
from sovereign.training.evaluation import evaluate
from sovereign.training.guards import Stopped
from sovereign.training.loop import train
from sovereign.training.optimizer import optimizer_for
from sovereign.training.scaling import LossScale

STEPS = 50


class Shared(CountingStream):
    """The counting stream, each process its own part of a step in the global order."""

    def batch(self, step, rank=0, world=1):
        every = super().batch(step)
        part = slice(rank * self.sequences // world, (rank + 1) * self.sequences // world)
        return Windows(every.ids[part], every.windows[part])


def trained(ranks, sharing, folder="", done=0, until=STEPS, micro_batch=None, optimizer="adamw", precision="fp32"):
    """Train as one of `ranks`; return losses, window digests, weights and scores."""
    training = settings(
        STEPS, schedule=Schedule(kind="cosine", peak=1e-2, warmup=5), distributed=sharing, checkpoint_every=25,
        micro_batch=micro_batch, **({"optimizer": Muon(kind="muon")} if optimizer == "muon" else {}),
    )  # fmt: skip
    rows = []
    model = build(SHAPE, VOCABULARY, seed=0 if not done else 99)
    shard(model, ranks, sharing, CPU)
    moved = optimizer_for(model, training.optimizer)
    if done:
        load(Path(folder) / f"step-{done:06d}", model, moved)
    train(
        model, moved, Shared(), training, device=CPU, precision=precision, seed=0, evaluate_every=1000, ignore=7,
        loss_scale=LossScale(2.0**40) if precision == "fp16" else None,
        log=lambda kind, **row: rows.append(row), done=done, until=until, ranks=ranks,
        checkpoint=lambda step: folder and save(Path(folder), step, model, moved, {}, keep=9, ranks=ranks),
    )  # fmt: skip
    documents = [(f"{at:016x}", np.arange(at, at + 20 + at) % VOCABULARY) for at in range(7)]
    scored = evaluate(model, documents, batch=2, context=16, precision="fp32", device=CPU, ranks=ranks)
    return {
        "losses": [row["loss"] for row in rows],
        "norms": [row["grad_norm"] for row in rows],
        "windows": [row["windows"] for row in rows],
        "overflows": [row.get("overflows") for row in rows],
        "moved": [row["update_ratio"] for row in rows if "update_ratio" in row],
        "weights": weights_digest(model),
        "scores": [nll for _, nll, _ in scored],
    }


def several(cases):
    """Run each case, named, on the processes there are, and print what came of them."""
    with joined() as ranks:
        print(json.dumps({name: trained(ranks, *case) for name, case in cases.items()}), flush=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def alone(folder):
    """The run in one process, with a checkpoint at 25."""
    return trained(ALONE, "ddp", str(folder / "alone"))


@pytest.fixture(scope="module")
def two(alone, folder):
    """What two processes print: whole runs, in micro-batches too, and runs that go on from 25."""
    cases = {}
    for sharing in ("ddp", "fsdp"):
        own = str(folder / sharing)
        cases |= {
            sharing: (sharing, own),
            f"{sharing}, micro-batches": (sharing, "", 0, STEPS, 2),
            f"{sharing}, from two": (sharing, own, 25),
            f"{sharing}, from one": (sharing, str(folder / "alone"), 25),
            f"{sharing}, muon": (sharing, "", 0, 10, None, "muon"),
            f"{sharing}, fp16": (sharing, "", 0, 10, None, "adamw", "fp16"),
        }
    one, other = map(last_json, on_ranks(several, 2, cases))
    assert one == other
    return one


def close(found, expected):
    assert found["windows"] == expected["windows"]
    assert found["losses"] == pytest.approx(expected["losses"], abs=1e-5)
    assert found["norms"] == pytest.approx(expected["norms"], rel=1e-3)
    assert found["scores"] == pytest.approx(expected["scores"], rel=1e-4)
    assert found["moved"] == pytest.approx(expected["moved"], rel=1e-2)


def joint(first, rest):
    return {**rest, **{key: first[key][:25] + rest[key] for key in ("losses", "norms", "windows")}}


SHARINGS = pytest.mark.parametrize("sharing", ["ddp", "fsdp"])


@SHARINGS
def test_two_processes_take_an_overflow_again_together(sharing, two):
    """In fp16, from far too large a scale: both halve it at the same steps, about as often as one process, and lose as it.

    Each one's gradient is twice as large, since their mean is taken: so it may overflow once more.
    """
    one = trained(ALONE, sharing, until=10, precision="fp16")
    both = two[f"{sharing}, fp16"]

    assert both["overflows"][0] > 5
    assert abs(sum(both["overflows"]) - sum(one["overflows"])) <= 1
    assert both["windows"] == one["windows"]
    assert both["losses"] == pytest.approx(one["losses"], abs=2e-3)


@SHARINGS
@pytest.mark.parametrize("split", ["", ", micro-batches"])
def test_two_processes_follow_one(sharing, split, alone, two):
    """Over 50 steps with uneven target counts: losses within 1e-5, the same windows in order, both processes alike."""
    close(two[sharing + split], alone)


@SHARINGS
def test_a_run_of_two_goes_on_alone(sharing, alone, two, folder):
    """Stopped on two and resumed on one: the token sequence of the undisturbed run, losses to 1e-5."""
    rest = trained(ALONE, sharing, str(folder / sharing), 25)

    close(joint(two[sharing], rest), alone)


@SHARINGS
def test_a_run_of_one_goes_on_with_two(sharing, alone, two):
    """Stopped on one and resumed on two: the token sequence of the undisturbed run, losses to 1e-5."""
    close(joint(alone, two[f"{sharing}, from one"]), alone)


@SHARINGS
def test_the_same_number_of_processes_resumes_bit_for_bit(sharing, two, folder):
    """With two before and two after, weights and losses are those of the undisturbed two."""
    assert two[f"{sharing}, from two"]["weights"] == two[sharing]["weights"]
    assert two[f"{sharing}, from two"]["losses"] == two[sharing]["losses"][25:]
    assert [path.name for path in checkpoints(folder / sharing)] == ["step-000025", "step-000050"]


@SHARINGS
def test_muon_is_shared_too(sharing, two):
    """Its matrices are orthogonalised whole, in bfloat16, so the losses agree less closely."""
    one = trained(ALONE, "ddp", "", 0, 10, None, "muon")

    assert two[f"{sharing}, muon"]["losses"] == pytest.approx(one["losses"], rel=5e-3)


def stopped_on_one():
    """Give rank 1 a batch without targets at step 3, and print how the run ends on this process."""

    class Faulty(Shared):
        def batch(self, step, rank=0, world=1):
            batch = super().batch(step, rank, world)
            return Windows(self.first, batch.windows) if (step, rank) == (3, 1) else self.kept(batch)

        def kept(self, batch):
            self.first = batch.ids
            return batch

    with joined() as ranks:
        model = build(SHAPE, VOCABULARY, seed=0)
        try:
            train(
                model, optimizer_for(model, settings().optimizer), Faulty(), settings(), device=CPU, precision="fp32",
                seed=0, evaluate_every=99, log=lambda *_, **__: None, ranks=ranks,
            )  # fmt: skip
        except Stopped as stop:
            print(json.dumps([stop.name, stop.step, stop.message]), flush=True)


def test_a_fault_on_one_process_stops_all_of_them():
    """A batch that stands still on rank 1 ends the run at the same step everywhere, and says where it was seen."""
    one, other = map(last_json, on_ranks(stopped_on_one, 2))

    assert one == other
    assert one[:2] == ["constant_batch", 3]
    assert one[2].endswith("(on rank 1)")


def full_disk(folder):
    """Let the first process's disk be full, and print what each process is told."""
    import resource

    from sovereign.training.checkpoint import Unusable

    with joined() as ranks:
        model = build(SHAPE, VOCABULARY, seed=0)
        if ranks.first:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try:
            save(Path(folder), 1, model, optimizer_for(model, settings().optimizer), {}, keep=1, ranks=ranks)
        except Unusable as told:
            print(json.dumps(str(told)), flush=True)


def test_a_full_disk_is_told_to_all(tmp_path):
    """No process is left waiting for a checkpoint that could not be written."""
    one, other = map(last_json, on_ranks(full_disk, 2, str(tmp_path)))

    assert one == other
    assert "could not be written" in one
    assert not list(tmp_path.iterdir())


def test_one_process_exchanges_nothing():
    """Alone, every exchange is the value itself, and no process group is needed."""
    with joined() as ranks:
        assert (ranks.sums(1.5, 2), ranks.every("a"), ranks.from_first("a")) == ((1.5, 2), ["a"], "a")
    assert not torch.distributed.is_initialized()
