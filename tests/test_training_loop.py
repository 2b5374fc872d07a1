"""The loop: what it does, what it logs, and what it refuses to go on from."""

import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sovereign.contract.model import Decoder as Shape
from sovereign.contract.training import Adamw, Schedule, Training
from sovereign.corpus.stream import Exhausted
from sovereign.model.decoder import build
from sovereign.model.kernels import IGNORED
from sovereign.training.checkpoint import weights_digest
from sovereign.training.guards import Guards, Stopped, starts_as
from sovereign.training.loop import lengths, train
from sovereign.training.movement import Before
from sovereign.training.optimizer import optimizer_for
from sovereign.training.probes import overfit_one_batch

SHAPE = Shape(hidden=32, layers=2, heads=4, kv_heads=2, ffn=64, context=16)
VOCABULARY = 61
CPU = torch.device("cpu")


@dataclass
class Windows:
    ids: np.ndarray
    windows: np.ndarray
    passed: int = 0

    @property
    def inputs(self):
        return self.ids[:, :-1]

    @property
    def targets(self):
        return self.ids[:, 1:]


class CountingStream:
    """Counting modulo the vocabulary, from places that (seed, step) decides: learnable, and never twice the same."""

    def __init__(self, sequences=8, context=SHAPE.context, seed=0):
        self.sequences, self.context, self.seed = sequences, context, seed

    def batch(self, step, rank=0, world=1):
        starts = np.random.default_rng([self.seed, step]).integers(0, 2**20, self.sequences)
        return Windows((starts[:, None] + np.arange(self.context + 1)) % VOCABULARY, starts)


def settings(steps=6, **changes):
    return Training(
        **{
            "steps": steps,
            "sequences": 8,
            "schedule": Schedule(kind="constant", peak=1e-2),
            "precision": "fp32",
            **changes,
        }
    )


def run(
    training=None, *, model=None, stream=None, optimizer=None, evaluate_every=100, precision="fp32", told=None, **more
):
    """Train a fresh tiny model and return it with its logged rows; `told` is called with each as it is logged."""
    rows = []

    def log(kind, **row):
        rows.append((kind, row))
        if told is not None:
            told(kind, row)

    model = model or build(SHAPE, VOCABULARY, seed=0)
    training = training or settings()
    train(
        model,
        optimizer or optimizer_for(model, training.optimizer),
        stream or CountingStream(),
        training,
        device=CPU,
        precision=precision,
        seed=0,
        evaluate_every=evaluate_every,
        log=log,
        **more,
    )
    return model, [row for kind, row in rows if kind == "step"], [row for kind, row in rows if kind == "notice"]


def test_it_learns():
    """The loss of a learnable stream falls far below a uniform guess."""
    _, steps, _ = run(settings(60))

    assert steps[0]["loss"] > 3.6
    assert steps[-1]["loss"] < 1.0


def test_a_row_says_what_was_applied():
    """An update is a row with the fields of a StepRow: tokens counted, rate as scheduled, norm before clipping."""
    schedule = Schedule(kind="cosine", peak=1e-2, floor=1e-3, warmup=2)
    _, steps, _ = run(settings(5, schedule=schedule, clip=0.01), clock=10.0)

    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5]
    assert {row["tokens"] for row in steps} == {8 * 16}
    assert [row["learning_rate"] for row in steps] == [schedule.rate(step, 5) for step in range(1, 6)]
    assert all(row["grad_norm"] > 0.01 for row in steps)
    assert steps[-1]["clock"] == pytest.approx(10.0 + sum(row["seconds"] for row in steps))
    assert set(steps[0]) == {
        "step",
        "loss",
        "tokens",
        "learning_rate",
        "grad_norm",
        "seconds",
        "clock",
        "windows",
        "passed",
    }


def test_rows_come_before_evaluation_and_evaluation_before_the_checkpoint():
    """Evaluation at 0, at every interval and once at the last step; a checkpoint holds only what is on record."""
    heard = []
    model = build(SHAPE, VOCABULARY, seed=0)
    train(
        model,
        optimizer_for(model, Adamw()),
        CountingStream(),
        settings(5, checkpoint_every=2),
        device=CPU,
        precision="fp32",
        seed=0,
        evaluate_every=4,
        log=lambda kind, **row: heard.append((kind, row["step"])),
        evaluate=lambda step: heard.append(("evaluate", step)),
        checkpoint=lambda step: heard.append(("checkpoint", step)),
        progress=lambda step, loss, tokens, seconds: heard.append(("progress", step)),
    )

    told = [word for word in heard if word[0] != "progress"]
    assert told == [
        ("evaluate", 0),
        ("step", 1),
        ("step", 2),
        ("checkpoint", 2),
        ("step", 3),
        ("step", 4),
        ("evaluate", 4),
        ("checkpoint", 4),
        ("step", 5),
        ("evaluate", 5),
        ("checkpoint", 5),
    ]
    assert [step for word, step in heard if word == "progress"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_run_twice_is_the_same_bit_for_bit(precision):
    """On a CPU, seed and settings decide every weight and every loss."""
    (first, rows, _), (second, again, _) = run(precision=precision), run(precision=precision)

    assert weights_digest(first) == weights_digest(second)
    assert [row["loss"] for row in rows] == [row["loss"] for row in again]


@pytest.mark.parametrize("ignore", [None, 7])
@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_accumulation_does_not_change_the_run(micro_batch, ignore):
    """Micro-batches of any size give the loss and the gradients of the whole step, with uneven target counts too."""
    whole, rows, _ = run(settings(2), ignore=ignore)
    split, parts, _ = run(settings(2, micro_batch=micro_batch), ignore=ignore)

    assert [row["loss"] for row in parts] == pytest.approx([row["loss"] for row in rows], rel=1e-5)
    assert [row["grad_norm"] for row in parts] == pytest.approx([row["grad_norm"] for row in rows], rel=1e-5)
    assert [row["tokens"] for row in parts] == [row["tokens"] for row in rows]
    assert (rows[0]["tokens"] < 8 * 16) == (ignore is not None)
    for a, b in zip(whole.parameters(), split.parameters(), strict=True):
        # AdamW divides by the gradient's size, so the last digits of a tiny gradient show in the first updates
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_decay_falls_on_matrices_only():
    """Gains are left out of weight decay; every trained weight is in one group."""
    model = build(SHAPE, VOCABULARY, seed=0)
    matrices, gains = optimizer_for(model, Adamw(weight_decay=0.3)).param_groups

    assert {weight.dim() for weight in matrices["params"]} == {2}
    assert {weight.dim() for weight in gains["params"]} == {1}
    assert (matrices["weight_decay"], gains["weight_decay"]) == (0.3, 0.0)
    assert len(matrices["params"]) + len(gains["params"]) == len(list(model.parameters()))


def test_a_first_loss_far_from_expected_is_remarked_on_and_no_more():
    """The notice names both numbers; the run goes on. A sound start says nothing."""
    _, _, remarks = run(expected_loss=9.0)
    _, steps, silence = run(expected_loss=np.log(VOCABULARY))

    assert [(row["step"], row["name"], row["asked"]) for row in remarks] == [(0, "first_loss", "within 0.5 of 9.0000")]
    assert remarks[0]["got"] == f"{steps[0]['loss']:.4f}"
    assert silence == []


def test_the_seed_decides_dropout_too():
    """CASE-14: whatever draws in the model draws from the run's seed, wherever the random state stood before."""

    def dropping():
        model = build(SHAPE, VOCABULARY, seed=0)
        model.model.norm.register_forward_hook(lambda module, given, made: torch.dropout(made, 0.2, True))
        return model

    torch.manual_seed(1)
    first, _, _ = run(model=dropping())
    torch.manual_seed(2)
    second, _, _ = run(model=dropping())

    assert weights_digest(first) == weights_digest(second)


# ── guards: each is shown the fault it exists for ────────────────────────────────────────────────


def stopped(**arguments):
    """Return the name of the guard that stops a run, and the step; the weights must not have moved in it."""
    model = arguments.pop("model", None) or build(SHAPE, VOCABULARY, seed=0)
    digests = [weights_digest(model)]
    arguments.setdefault("training", settings(40))
    training = arguments.pop("training")
    with pytest.raises(Stopped) as stop:
        run(training, model=model, progress=lambda *_: digests.append(weights_digest(model)), **arguments)

    assert weights_digest(model) == digests[-1]
    assert str(stop.value.step) in str(stop.value)
    return stop.value.name, stop.value.step


def with_loss(change):
    """Return a tiny model whose loss from its nth call on is `change(n, loss)`."""
    model, calls = build(SHAPE, VOCABULARY, seed=0), []
    plain = model.loss

    def loss(inputs, targets):
        calls.append(None)
        return change(len(calls), lambda: plain(inputs, targets))

    model.loss = loss
    return model


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(bad):
    """CASE-20: NaN or infinity at step 4 is seen at step 4, before the update."""
    assert stopped(model=with_loss(lambda n, loss: loss() * (bad if n == 4 else 1))) == ("non_finite_loss", 4)


def test_a_gradient_that_is_not_finite_stops_the_run():
    """CASE-20: a finite loss with an infinite gradient is seen too."""
    model = build(SHAPE, VOCABULARY, seed=0)
    calls = []

    def poison(gradient):
        calls.append(None)
        return gradient * (float("inf") if len(calls) == 3 else 1)

    model.model.norm.weight.register_hook(poison)

    assert stopped(model=model) == ("non_finite_gradient", 3)


def test_a_placeholder_loss_stops_the_run():
    """CASE-15: the third identical loss in a row, whatever it is, is not a measurement."""
    model = with_loss(lambda n, loss: loss() if n < 5 else loss() * 0 + 8 * 16 * 1.0)

    assert stopped(model=model) == ("identical_losses", 7)


def test_a_batch_without_targets_stops_the_run():
    """CASE-11: a step that counts no target token trains on nothing."""

    class Masked(CountingStream):
        def batch(self, step, rank=0, world=1):
            batch = super().batch(step)
            return batch if step < 3 else Windows(np.full_like(batch.ids, 7), batch.windows)

    assert stopped(stream=Masked(), ignore=7) == ("no_targets", 3)


def test_a_stream_that_repeats_its_batch_stops_the_run():
    """The same windows in consecutive steps are a stream that stands still."""

    class Stuck(CountingStream):
        def batch(self, step, rank=0, world=1):
            return super().batch(min(step, 4))

    assert stopped(stream=Stuck()) == ("constant_batch", 5)


def test_a_detached_backward_stops_the_run():
    """A parameter without a gradient, or with one of zeros only, is named at the first step."""
    absent = build(SHAPE, VOCABULARY, seed=0)
    absent.model.layers[1].mlp.register_forward_hook(lambda module, given, made: made.detach())
    zero = build(SHAPE, VOCABULARY, seed=0)
    zero.model.layers[0].self_attn.o_proj.weight.register_hook(torch.zeros_like)

    assert [stopped(model=absent), stopped(model=zero)] == [("detached", 1), ("detached", 1)]


def test_a_learning_rate_that_is_not_applied_stops_the_run():
    """CASE-16: an optimizer that keeps a rate of its own is found by reading it back."""

    class Constant(dict):
        def __setitem__(self, key, value):
            super().__setitem__(key, 1e-3 if key == "lr" else value)

    model = build(SHAPE, VOCABULARY, seed=0)
    optimizer = optimizer_for(model, Adamw())
    optimizer.param_groups = [Constant(group) for group in optimizer.param_groups]
    schedule = Schedule(kind="cosine", peak=1e-3, warmup=0)

    assert stopped(model=model, optimizer=optimizer, training=settings(6, schedule=schedule)) == ("learning_rate", 1)


def test_a_step_that_skips_its_work_stops_the_run():
    """CASE-15: a placeholder that never runs the model is found by its pace, even if its value changes."""
    model = build(SHAPE, VOCABULARY, seed=0)
    plain, calls = model.loss, []

    def loss(inputs, targets):
        calls.append(None)
        if len(calls) > 22:
            return model.model.norm.weight.sum() * len(calls)
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
        return plain(inputs, targets)

    model.loss = loss
    name, step = stopped(model=model)

    assert name == "quick_step"
    assert 23 <= step < 30  # at once, unless the machine was taken away in that very step


def test_a_machine_that_becomes_free_does_not_stop_the_run():
    """Wall time falling tenfold while the processor does the same work is noise, and so is a slow warm-up."""
    guards = Guards()
    for step in range(1, 100):
        guards.pace(step, wall=2.0 if step == 1 else 1.0 if step < 50 else 0.1, work=30.0 if step == 1 else 0.2)
    with pytest.raises(Stopped):
        guards.pace(100, wall=0.001, work=0.001)


def test_steps_slowed_by_threads_that_wait_do_not_stop_the_run():
    """Threads that spin for a busy core raise processor time too: seven times, seen on two shared cores."""
    guards = Guards()
    for step in range(1, 100):
        guards.pace(step, wall=2.2465 if step < 48 else 0.3134, work=2.2 if step < 48 else 0.31)

    assert guards.least_work == 0.31


def test_a_tiny_step_is_not_judged_by_the_clock():
    """Steps of milliseconds vary tenfold for no reason; a placeholder among them is found by its losses."""
    guards = Guards()
    for step in range(1, 60):
        guards.pace(step, wall=0.01 if step < 50 else 0.0005, work=0.01 if step < 50 else 0.0005)

    assert guards.least_work == 0.0005


def test_an_exhausted_stream_stops_the_run():
    """CASE-15: a stream that has no more ends the run at that step, by name; no loss is made up."""

    class Ended(CountingStream):
        def batch(self, step, rank=0, world=1):
            if step > 3:
                raise Exhausted("4 steps x 8 sequences = 32 windows, but the train side holds 24")
            return super().batch(step)

    assert stopped(stream=Ended()) == ("exhausted", 4)


# ── weights that may wait for a gradient ─────────────────────────────────────────────────────────


class Adapter(torch.nn.Module):
    """A low-rank addition to a matrix: B is zero at first, and A then has no slope (Hu et al. 2021)."""

    def __init__(self, linear, rank=2, cut=False):
        super().__init__()
        self.linear, self.cut = linear, cut
        self.a = torch.nn.Parameter(torch.randn(rank, linear.in_features, generator=torch.Generator().manual_seed(0)))
        self.b = torch.nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        inner = x @ self.a.T
        return self.linear(x) + (inner.detach() if self.cut else inner) @ self.b.T


def adapted(cut):
    model = build(SHAPE, VOCABULARY, seed=0).requires_grad_(False)
    for layer in model.model.layers:
        layer.mlp.up_proj = Adapter(layer.mlp.up_proj, cut=cut)
    return model


def test_fresh_adapters_train():
    """The factor beside a zero one has no gradient at first, and the run goes on; both factors move."""
    model = adapted(cut=False)
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    _, steps, _ = run(settings(12), model=model)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, start[name])}

    assert len(steps) == 12
    assert moved == {f"model.layers.{at}.mlp.up_proj.{factor}" for at in (0, 1) for factor in "ab"}


def test_an_adapter_that_is_cut_off_stops_the_run():
    """Planted: a factor that no gradient ever reaches is excused while it may be, and then named."""
    with pytest.raises(Stopped, match=r"no gradient reaches model.layers.0.mlp.up_proj.a") as stop:
        run(settings(40), model=adapted(cut=True))

    assert (stop.value.name, stop.value.step) == ("detached", 11)


def test_a_factor_that_stays_without_slope_stops_the_run():
    """Planted: a gradient that is zero for good is not excused for ever."""
    model = adapted(cut=False)
    model.model.layers[0].mlp.up_proj.a.register_hook(torch.zeros_like)

    assert stopped(model=model) == ("detached", 11)


# ── accumulation, recomputation, movement ────────────────────────────────────────────────────────


def gradients_of(training, model=None):
    """Return loss and unclipped gradients of one step with uneven target counts."""
    model = model or build(SHAPE, VOCABULARY, seed=0)
    optimizer, seen = optimizer_for(model, training.optimizer), {}
    optimizer.register_step_pre_hook(
        lambda *_: seen.update({name: weight.grad.clone() for name, weight in model.named_parameters()})
    )
    _, steps, _ = run(training, model=model, optimizer=optimizer, stream=CountingStream(sequences=32), ignore=7)
    return steps[0], seen


def test_one_batch_of_32_is_32_of_one():
    """Loss and every gradient agree to 1e-5 of the largest, though windows hold different numbers of targets."""
    whole, expected = gradients_of(settings(1, sequences=32, clip=1e9))
    split, found = gradients_of(settings(1, sequences=32, clip=1e9, micro_batch=1))

    assert whole["tokens"] == split["tokens"] < 32 * 16
    assert split["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5 * expected[name].abs().max().item())


def test_a_mean_of_means_would_show():
    """CASE-19, planted: averaging each window's mean gives another loss, so the test above can fail."""
    model, ids = build(SHAPE, VOCABULARY, seed=0), torch.from_numpy(CountingStream(sequences=32).batch(1).ids)
    targets = ids[:, 1:].masked_fill(ids[:, 1:] == 7, -100)
    sums = torch.stack([model.loss(ids[at : at + 1, :-1], targets[at : at + 1]) for at in range(32)]).detach()
    counts = (targets != -100).sum(1)

    assert (sums / counts).mean().item() != pytest.approx((sums.sum() / counts.sum()).item(), rel=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputed_layers_train_to_the_same_bits(precision):
    """Activation checkpointing changes memory, and neither names nor bits."""
    plain, rows, _ = run(settings(4), precision=precision)
    again, same, _ = run(settings(4, activation_checkpointing=True), precision=precision)

    assert [row["loss"] for row in same] == [row["loss"] for row in rows]
    assert weights_digest(again) == weights_digest(plain)
    assert list(again.state_dict()) == list(plain.state_dict())


def test_how_far_an_update_moved_is_measured():
    """CASE-26: at the asked interval and at the last step a row holds the update's size and the share it changed."""
    _, steps, _ = run(settings(7, measure_updates_every=3))
    _, silent, _ = run(settings(3, measure_updates_every=0))

    assert [row["step"] for row in steps if "update_ratio" in row] == [3, 6, 7]
    assert all(0.001 < row["update_ratio"] < 1 and row["changed"] > 0.99 for row in steps if "changed" in row)
    assert not any("changed" in row for row in silent)


def test_weights_that_cannot_move_show():
    """CASE-26, planted: bfloat16 weights near 1 at a rate of 1e-6 round every update away, and the row says so."""
    model = build(SHAPE, VOCABULARY, seed=0).bfloat16()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    before = Before(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.sub_(1e-6)
    stuck = before.movement()

    assert (stuck.ratio, stuck.changed) == (0.0, 0.0)


# ── spikes, stalls, and enough ───────────────────────────────────────────────────────────────────


def spiking(at, height):
    return with_loss(lambda n, loss: loss() * (height if n in at else 1))


def test_a_spike_is_remarked_on_and_trained_on():
    """The first step of a spike is a notice with its bound; every step is made, and a smooth run says nothing."""
    slowly = settings(40, schedule=Schedule(kind="constant", peak=1e-4))
    _, steps, remarks = run(slowly, model=spiking((30, 31), 2.0))
    _, _, silence = run(slowly)

    assert [(row["step"], row["name"]) for row in remarks] == [(30, "loss_spike")]
    assert float(remarks[0]["got"]) == pytest.approx(steps[29]["loss"], abs=1e-4)
    assert [row["step"] for row in steps] == list(range(1, 41))
    assert silence == []


def test_a_resumed_run_sees_the_spike_too():
    """What a spike is measured against is not forgotten: with the losses before, the notice comes again."""
    _, steps, _ = run(settings(40))
    model = build(SHAPE, VOCABULARY, seed=0)
    plain = model.loss
    model.loss = lambda inputs, targets: plain(inputs, targets) * 9
    before = [row["loss"] for row in steps]
    _, _, told = run(settings(42), model=model, done=40, losses=before)
    _, _, forgetful = run(settings(42), model=model, done=40)

    assert [(row["step"], row["name"]) for row in told] == [(41, "loss_spike")]
    assert forgetful == []


def test_a_stall_barks():
    """A stream that hangs for longer than `stall_seconds` is a notice while it still hangs; a quick run is silent."""
    noticed = threading.Event()

    class Hanging(CountingStream):
        def batch(self, step, rank=0, world=1):
            if step == 3:
                assert noticed.wait(60)  # it hangs until it is noticed, however busy the machine is
            return super().batch(step)

    _, _, silent = run(settings(4))  # also loads what torch loads at its first step, which is no stall
    _, steps, remarks = run(
        settings(4, stall_seconds=2.0), stream=Hanging(), told=lambda kind, row: kind == "notice" and noticed.set()
    )

    assert [] == silent
    assert [(3, "stalled")] == [(row["step"], row["name"]) for row in remarks]
    assert len(steps) == 4
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}


def test_a_run_that_has_had_enough_ends_with_a_checkpoint():
    """`evaluate` returning true ends the run there, after that step's row, with its checkpoint."""
    kept = []
    _, steps, _ = run(settings(20), evaluate_every=5, evaluate=lambda step: step >= 10, checkpoint=kept.append)

    assert (len(steps), kept) == (10, [10])


@pytest.mark.parametrize(("loss", "sound"), [(3.0, True), (3.029, True), (3.04, False), (float("nan"), False)])
def test_a_parent_that_was_not_loaded_stops_the_run(loss, sound):
    """CASE-12: a pretrained model begins within 1 % of its parent's loss, or its weights were not loaded."""
    if sound:
        starts_as(3.0, loss)
    else:
        with pytest.raises(Stopped, match="weights_not_loaded"):
            starts_as(3.0, loss)


def test_one_batch_is_learnt_by_heart():
    """The probe trains a model of its own on the first batch; random state stays, and what cannot learn stops the run."""
    state = torch.get_rng_state()
    training = settings(5, overfit_one_batch=30)
    found = overfit_one_batch(
        lambda: build(SHAPE, VOCABULARY, seed=0), CountingStream(), training, device=CPU, precision="fp32", seed=0
    )

    assert len(found) == 30
    assert found[-1][0] < 0.5 * found[0][0]
    assert torch.equal(state, torch.get_rng_state())

    def backwards():
        model = build(SHAPE, VOCABULARY, seed=0)
        for weight in model.parameters():
            weight.register_hook(torch.neg)
        return model

    with pytest.raises(Stopped, match="cannot_overfit"):
        overfit_one_batch(backwards, CountingStream(), training, device=CPU, precision="fp32", seed=0)


def test_what_stands_behind_the_last_target_is_not_computed():
    """Each micro-batch is as long as its last target asks, to a multiple of 16; windows of running text stay whole."""
    targets = np.full((4, 60), IGNORED)
    targets[0, 3], targets[1, 16], targets[3, :] = 1, 1, 1

    assert [16, 32, 16, 64] == lengths(targets, 1)
    assert [32, 64] == lengths(targets, 2)
    assert [64] == lengths(np.zeros((8, 60), int), 8)


def test_columns_that_are_cut_change_no_loss():
    """A stream that pads by 40 columns gives the losses of one that pads by none, micro-batch by micro-batch."""

    class Padded(CountingStream):
        def batch(self, step, rank=0, world=1):
            found = super().batch(step)
            inputs, targets = (
                np.pad(one, ((0, 0), (0, 40)), constant_values=fill)
                for one, fill in ((found.inputs, 0), (found.targets, IGNORED))
            )
            return Examples(inputs, targets, found.windows)

    @dataclass
    class Examples:
        inputs: np.ndarray
        targets: np.ndarray
        windows: np.ndarray
        passed: int = 0

    plain, padded = (run(settings(micro_batch=2), stream=stream)[1] for stream in (CountingStream(), Padded()))

    assert [row["loss"] for row in plain] == [row["loss"] for row in padded]
