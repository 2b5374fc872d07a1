"""Checkpoints: whole or not there, strict when loaded, and continued from bit for bit."""

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_training_loop import CPU, SHAPE, VOCABULARY, CountingStream, run, settings

from sovereign.contract.training import Adamw, Schedule
from sovereign.model.decoder import build
from sovereign.training import checkpoint
from sovereign.training.checkpoint import Unusable, checkpoints, load, save, weights_digest
from sovereign.training.loop import train
from sovereign.training.optimizer import optimizer_for
from sovereign.training.replay import Replayed, replay

TRAINING = settings(12, schedule=Schedule(kind="cosine", peak=1e-2, warmup=3), checkpoint_every=6)


def trained(folder, *, keep=9, state=None, training=TRAINING, precision="fp32", named=(), **more):
    """Train a tiny model with checkpoints in `folder`; return it and the digest of its weights after each step."""
    model = more.pop("model", None) or build(SHAPE, VOCABULARY, seed=0)
    optimizer = more.pop("optimizer", None) or optimizer_for(model, training.optimizer)
    digests = {}
    _, steps, _ = run(
        training,
        model=model,
        optimizer=optimizer,
        precision=precision,
        checkpoint=lambda step: save(folder, step, model, optimizer, state or {}, keep=keep, named=named),
        progress=lambda step, *_: digests.__setitem__(step, weights_digest(model)),
        **more,
    )
    return model, steps, digests


def fresh():
    model = build(SHAPE, VOCABULARY, seed=99)
    return model, optimizer_for(model, Adamw())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_is_the_uninterrupted_run(precision, tmp_path):
    """Six steps, a checkpoint, and six more from it end in the same bits as twelve, with the same rows."""
    straight, rows, digests = trained(tmp_path / "straight", precision=precision)
    trained(tmp_path / "parts", precision=precision, until=6)
    model, optimizer = fresh()
    torch.manual_seed(12345)
    state = load(tmp_path / "parts" / "step-000006", model, optimizer)
    _, rest, again = trained(
        tmp_path / "parts", model=model, optimizer=optimizer, precision=precision, done=state["step"]
    )

    assert {step: digests[step] for step in range(7, 13)} == again
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), model.parameters(), strict=True))
    assert [(row["step"], row["loss"]) for row in rest] == [(row["step"], row["loss"]) for row in rows[6:]]
    assert [path.name for path in checkpoints(tmp_path / "parts")] == ["step-000006", "step-000012"]


def test_a_forgotten_optimizer_shows(tmp_path):
    """CASE-23: the comparison above can fail; without the moments the weights come out different."""
    _, _, digests = trained(tmp_path)
    model, optimizer = fresh()
    load(tmp_path / "step-000006", model, optimizer)
    optimizer.state.clear()
    _, _, again = trained(tmp_path, model=model, optimizer=optimizer, done=6)

    assert digests[12] != again[12]


def test_replayed_steps_lead_to_the_straight_run(tmp_path):
    """From the checkpoint at 6, steps 7 and 9 have the losses and weights that they had; random state is put back."""
    _, rows, digests = trained(tmp_path)
    state = torch.get_rng_state()

    def again(stream):
        return replay(
            tmp_path / "step-000006", [7, 9], lambda: fresh()[0], stream, TRAINING, device=CPU, precision="fp32", seed=0
        )

    assert [Replayed(6, at, rows[at - 1]["loss"], digests[at]) for at in (7, 9)] == again(CountingStream())
    assert again(CountingStream(seed=1))[-1].digest != digests[9]
    assert torch.equal(state, torch.get_rng_state())


def test_load_gives_back_what_the_caller_kept(tmp_path):
    """The caller's values, the step, the random state."""
    model, optimizer = fresh()
    run(settings(1), model=model, optimizer=optimizer)
    torch.manual_seed(5)
    save(tmp_path, 7, model, optimizer, {"clock": 1.5, "offsets": {"step": 120}}, keep=1)
    expected = torch.rand(3)
    other = fresh()
    state = load(tmp_path / "step-000007", *other)

    assert state == {"step": 7, "clock": 1.5, "offsets": {"step": 120}}
    assert torch.equal(expected, torch.rand(3))
    assert weights_digest(model) == weights_digest(other[0])


def test_the_last_and_the_named_are_kept(tmp_path):
    """Older checkpoints go, but not those that a run calls best."""
    trained(tmp_path, training=settings(6, checkpoint_every=1), keep=2, named=(2,))

    assert [path.name for path in checkpoints(tmp_path)] == ["step-000002", "step-000005", "step-000006"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000005", "step-000006"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "COMPLETE"])
@pytest.mark.parametrize("harm", ["truncated", "flipped", "absent"])
def test_a_harmed_checkpoint_is_not_listed(file, harm, tmp_path):
    """CASE-29: truncated, altered or missing, any file of a checkpoint takes it off the list, with the reason."""
    trained(tmp_path)
    path = tmp_path / "step-000012" / file
    data = path.read_bytes()
    if harm == "absent":
        path.unlink()
    else:
        path.write_bytes(
            data[: len(data) // 2] if harm == "truncated" else data[:-30] + bytes([data[-30] ^ 1]) + data[-29:]
        )
    told = []

    assert [path.name for path in checkpoints(tmp_path, told.append)] == ["step-000006"]
    assert len(told) == 1
    assert "step-000012" in told[0]
    with pytest.raises(Unusable, match="step-000012"):
        load(tmp_path / "step-000012", *fresh())


def remarked(path, change):
    """Change the tensors of one file of a checkpoint and mark it complete again, as a careless tool would."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    listed = {
        name: {"bytes": (path.parent / name).stat().st_size, "sha256": checkpoint.digest_file(path.parent / name)}
        for name in checkpoint.FILES
    }
    (path.parent / "COMPLETE").write_bytes(checkpoint.pretty(listed))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "model",
            lambda t: t.update({"model.norm.wait": t.pop("model.norm.weight")}),
            "model.norm.weight is missing; model.norm.wait is not known",
        ),
        (
            "model",
            lambda t: t.update({"model.norm.weight": torch.ones(31)}),
            r"model.norm.weight is \[31\] torch.float32, expected \[32\]",
        ),
        (
            "model",
            lambda t: t.update({"model.norm.weight": torch.ones(32).bfloat16()}),
            "model.norm.weight is .* torch.bfloat16, expected",
        ),
        ("optimizer", lambda t: t.pop("model.norm.weight.exp_avg"), "model.norm.weight.exp_avg is missing"),
        (
            "optimizer",
            lambda t: t.update({"model.norm.weight.step": torch.ones(2)}),
            r"model.norm.weight.step is \[2\]",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_and_nothing_is_loaded(file, change, message, tmp_path):
    """CASE-12, CASE-31: names, shapes and dtypes match to the last one, or the model stays as it was."""
    trained(tmp_path)
    remarked(tmp_path / "step-000006" / f"{file}.safetensors", change)
    model, optimizer = fresh()
    before = weights_digest(model)
    with pytest.raises(Unusable, match=message):
        load(tmp_path / "step-000006", model, optimizer)

    assert weights_digest(model) == before
    assert not optimizer.state


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path):
    """A write that the system refuses raises a clear error, keeps what was there, and leaves nothing partial."""
    model, _, _ = trained(tmp_path)
    optimizer = optimizer_for(model, Adamw())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (1000, 80_000):  # refused in the first file, and in the second
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(
                Unusable, match=r"step-000013: the checkpoint could not be written: .*earlier checkpoints are untouched"
            ):
                save(tmp_path, 13, model, optimizer, {"words": "x" * 100_000}, keep=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000006", "step-000012"]
    assert load(tmp_path / "step-000012", *fresh())["step"] == 12


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full_leaves_the_earlier_checkpoint(tmp_path):
    """ENOSPC: on a disk with room for one checkpoint the second is refused by name, and the first still loads."""
    model, optimizer = fresh()
    run(settings(1), model=model, optimizer=optimizer)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        save(disk / "kept", 1, model, optimizer, {}, keep=1)
        with pytest.raises(
            Unusable, match=r"step-000002: .*No space left on device.*earlier checkpoints are untouched"
        ):
            save(disk / "kept", 2, model, optimizer, {"words": "x" * 300_000}, keep=1)

        assert [path.name for path in (disk / "kept").iterdir()] == ["step-000001"]
        assert load(disk / "kept" / "step-000001", *fresh())["step"] == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_digest_sees_names_shapes_dtypes_and_bytes():
    """Any change of a weight changes the digest; where the weight is kept does not."""
    model = build(SHAPE, VOCABULARY, seed=0)
    digests = {weights_digest(model)}
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nextafter(model.model.norm.weight[3], torch.tensor(2.0))
    digests.add(weights_digest(model))
    model.model.norm.weight = torch.nn.Parameter(model.model.norm.weight[None])
    digests.add(weights_digest(model))
    digests.add(weights_digest(model.bfloat16()))

    assert len(digests) == 4
    assert all(digest.startswith("sha256:") and len(digest) == 71 for digest in digests)


# ── a real process, really killed ────────────────────────────────────────────────────────────────


def train_in_process(folder, said, steps=400):
    """What the killed process runs: go on from the newest whole checkpoint, or start; say which weights it ended with."""
    torch.set_num_threads(1)
    model, optimizer = fresh()
    whole = checkpoints(folder)
    done = load(whole[-1], model, optimizer)["step"] if whole else 0
    if not whole:
        model.load_state_dict(build(SHAPE, VOCABULARY, seed=0).state_dict())
    training = settings(steps, schedule=Schedule(kind="cosine", peak=1e-2, warmup=3), checkpoint_every=1)
    train(
        model,
        optimizer,
        CountingStream(),
        training,
        device=CPU,
        precision="fp32",
        seed=0,
        evaluate_every=steps,
        log=lambda kind, **row: None,
        checkpoint=lambda step: save(folder, step, model, optimizer, {}, keep=2),
        done=done,
    )
    said.write_text(weights_digest(model))


@pytest.mark.slow
def test_killed_at_any_moment_it_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """SIGKILL at 25 random moments, every other in a checkpoint's write: the last weights are the undisturbed run's."""

    # forked from a process that has imported torch and done nothing with it: 27 imports would take minutes
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])

    def start(folder):
        process = processes.Process(target=train_in_process, args=(folder, said))
        process.start()
        return process

    said = tmp_path / "said"
    start(tmp_path / "straight").join()
    undisturbed = said.read_text()
    said.unlink()
    draw, kills, writing = random.Random(5), 0, 0
    while kills < 25:
        process = start(tmp_path / "killed")
        known = newest(tmp_path / "killed")
        while process.is_alive() and newest(tmp_path / "killed") == known:  # until it trains again
            time.sleep(0.0005)
        if kills % 2:  # at a moment of its own
            time.sleep(draw.uniform(0, 0.02))
        else:  # within a checkpoint's write
            while process.is_alive() and not list((tmp_path / "killed").glob(".*.partial")):
                time.sleep(0.0001)
            time.sleep(draw.uniform(0, 0.002))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # it had not come to its end
        kills += 1
        writing += bool(list((tmp_path / "killed").glob(".*")))
    assert not said.exists()
    start(tmp_path / "killed").join()

    assert writing >= 3  # left half written, or half removed
    assert undisturbed.startswith("sha256:")
    assert said.read_text() == undisturbed


def newest(folder):
    return max((path.name for path in folder.glob("step-*")), default="")
