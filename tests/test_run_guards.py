"""Every guard in a whole run: with its fault planted, the run stops, says which and where, exits 8, and records it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import FULL_CONTRACT, only_run
from test_run_distributed import repository
from torch._subclasses.fake_tensor import FakeTensor

from sovereign import run as execution
from sovereign.cli.main import exit_of
from sovereign.corpus.stream import Batch, Exhausted, Stream
from sovereign.model.decoder import Decoder
from sovereign.training import checkpoint, loop

PLAIN_BATCH, PLAIN_LOSS, PLAIN_OPTIMIZER = Stream.batch, Decoder.loss, execution.optimizer_for


def from_call(number: int, change: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loss that is `change(call, loss)` from its nth call in training on."""
    calls: list[None] = []

    def loss(model: Decoder, inputs: Any, targets: Any) -> Any:
        if not isinstance(inputs, FakeTensor):  # the plan looks at the loss too, without content, for its memory
            calls.append(None)
        real = PLAIN_LOSS(model, inputs, targets)
        return change(real) if len(calls) >= number else real

    return loss


def constant(stream: Stream, step: int, rank: int = 0, world: int = 1) -> Batch:
    return PLAIN_BATCH(stream, min(step, 4), rank, world)


def ended(stream: Stream, step: int, rank: int = 0, world: int = 1) -> Batch:
    if step > 6:
        raise Exhausted("7 steps x 2 sequences = 14 windows, but the train side holds 12")
    return PLAIN_BATCH(stream, step, rank, world)


class Deaf(dict[str, Any]):
    """A group of an optimizer that keeps its own learning rate."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, 5e-4 if key == "lr" else value)


def deaf(model: Any, settings: Any) -> Any:
    optimizer = PLAIN_OPTIMIZER(model, settings)
    optimizer.param_groups = [Deaf(group) for group in optimizer.param_groups]
    return optimizer


def detached(model: Decoder, inputs: Any, targets: Any) -> Any:
    hook = model.model.layers[0].mlp.register_forward_hook(lambda module, given, made: made.detach())
    try:
        return PLAIN_LOSS(model, inputs, targets)
    finally:
        hook.remove()


FAULTS: dict[str, tuple[Any, str, Any, str, int, str]] = {
    "a placeholder loss": (Decoder, "loss", from_call(5, lambda real: real * 0 + 64.0), "identical_losses", 7, "abandoned"),
    "a constant batch": (Stream, "batch", constant, "constant_batch", 5, "abandoned"),
    "an exhausted stream": (Stream, "batch", ended, "exhausted", 7, "abandoned"),
    "a rate that is not applied": (execution, "optimizer_for", deaf, "learning_rate", 1, "abandoned"),
    "a detached backward": (Decoder, "loss", detached, "detached", 1, "abandoned"),
    "a NaN at step 6": (Decoder, "loss", from_call(6, lambda real: real * float("nan")), "non_finite_loss", 6, "diverged"),
}  # fmt: skip


def started(root: Path, *more: str) -> int:
    return exit_of(
        ["run", "--contract", str(root / "contracts/toy.yaml"), "--device", "cpu", "--root", str(root), *more]
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_stops_the_run_and_is_recorded(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 8; guard and step on stderr, in a notice row, and in the statement, whose rows end before the fault."""
    place, name, planted, guard, step, outcome = FAULTS[fault]
    root = repository(tmp_path)
    monkeypatch.setattr(place, name, planted)
    code = started(root)
    said = capsys.readouterr().err
    statement = json.loads((only_run(root) / "evidence.json").read_text())
    notices = [json.loads(line) for line in (only_run(root) / "rows/notice.jsonl").read_text().splitlines()]

    assert code == 8
    assert f"guard {guard} at step {step}: " in said
    assert (statement["outcome"], statement["steps"]) == (outcome, step - 1)
    assert statement["reason"].startswith(f"guard {guard} at step {step}: ")
    assert (notices[-1]["name"], notices[-1]["step"]) == (guard, step)
    monkeypatch.undo()
    assert exit_of(["verify", "--root", str(root)]) == 0
    assert exit_of(["gates", "--root", str(root)]) != 0


def test_without_a_fault_the_same_run_completes(tmp_path: Path) -> None:
    """The faults above are what stops those runs."""
    assert started(repository(tmp_path)) == 0


def test_the_page_on_training_names_every_guard() -> None:
    """What docs/training.md says may stop a run is what stops one in the code, by name."""
    here = Path(__file__).parent.parent
    code = "".join(path.read_text() for path in sorted((here / "src/sovereign").rglob("*.py")))
    section = (here / "docs/training.md").read_text().split("| guard | stops on |")[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line]

    assert set(re.findall(r"`([a-z_]+)`", "".join(cells))) == set(re.findall(r'Stopped\(\s*"([a-z_]+)"', code))


def test_weights_that_were_not_loaded_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """CASE-31: a resume whose weights go nowhere exits 8, names them, and leaves the run open and its rows alone."""
    root = repository(tmp_path)
    monkeypatch.setattr(loop, "windows_digest", crash_at(7))
    with pytest.raises(Crash):
        execute(root)
    monkeypatch.undo()
    plain = checkpoint.weights
    monkeypatch.setattr(
        checkpoint, "weights", lambda model: ((name, one.detach().clone()) for name, one in plain(model))
    )
    name = only_run(root).name
    before = (only_run(root) / "rows/step.jsonl").read_bytes()
    code = exit_of(["run", "--resume", name, "--device", "cpu", "--root", str(root)])
    said = capsys.readouterr().err

    assert code == 8
    assert "weights not loaded: the model still computes with another" in said
    assert (only_run(root) / "rows/step.jsonl").read_bytes() == before
    monkeypatch.undo()
    assert exit_of(["run", "--resume", name, "--device", "cpu", "--root", str(root)]) == 0


class Crash(BaseException):
    """What no handler takes for its own."""


def crash_at(step: int) -> Callable[..., str]:
    plain, calls = loop.windows_digest, []

    def digest(windows: Any) -> str:
        calls.append(None)
        if len(calls) == step:
            raise Crash
        return plain(windows)

    return digest


def execute(root: Path) -> None:
    from sovereign.cli.main import sovereign

    sovereign.main(
        ["run", "--contract", str(root / "contracts/toy.yaml"), "--device", "cpu", "--root", str(root)],
        standalone_mode=False,
    )  # fmt: skip


EARLY = (
    FULL_CONTRACT.replace("steps: 10", "steps: 60\n  wrap_around: true\n  most_passes: 40")
    .replace("peak: 1.0e-3", "peak: 5.0e-2")
    .replace("validation: 0.2, control: 0.2", "validation: 0.3, control: 0.1")
    .replace("checkpoint_every: 4", "checkpoint_every: 5\n  early_stopping: {patience: 2}\n  overfit_one_batch: 8")
)


def test_a_run_that_overfits_stops_early_and_keeps_its_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Best and last are kept by digest, the statement says why and where it ended, and evidence verifies.

    Nothing is planted: forty passes at this rate over forty files overfit by themselves.
    """
    root = repository(tmp_path, EARLY)
    code = started(root)
    statement = json.loads((only_run(root) / "evidence.json").read_text())
    names = [one["name"].split(":")[0] for one in statement["artifacts"]]
    probes = [json.loads(line) for line in (only_run(root) / "rows/probe.jsonl").read_text().splitlines()]

    assert code == 0, capsys.readouterr().err
    ended = statement["steps"]
    assert statement["outcome"] == "completed"
    assert 15 <= ended < 60
    assert statement["reason"].startswith(f"stopped early at step {ended}: the validation loss has risen by ")
    assert names == ["best", "last", "tokenizer"]
    assert [one["probe"] for one in probes] == ["overfit_one_batch"] * 8 + ["first_loss"]
    assert probes[7]["loss"] < probes[0]["loss"]
    missing = next(one for one in statement["measurements"] if one["metric"] == "training/tokens_missing")
    assert missing["value"] == 0
    assert exit_of(["verify", "--root", str(root)]) == 0


def test_a_run_cut_off_after_it_had_enough_closes_as_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CASE-23: patience is counted from the rows, so a run that dies at any point ends at the same step."""
    straight = repository(tmp_path / "straight", EARLY)
    assert started(straight) == 0
    ended = json.loads((only_run(straight) / "evidence.json").read_text())["steps"]
    for at, (name, planted) in enumerate((("_progress", dying(ended - 3)), ("_observe_afterwards", dying(ended)))):
        root = repository(tmp_path / str(at), EARLY)
        monkeypatch.setattr(execution._Execution, name, planted)
        with pytest.raises(Crash):
            execute(root)
        monkeypatch.undo()
        name = only_run(root).name
        assert exit_of(["run", "--resume", name, "--device", "cpu", "--root", str(root)]) == 0
        statement = json.loads((only_run(root) / "evidence.json").read_text())

        assert (statement["outcome"], statement["steps"]) == ("completed", ended)


def dying(step: int) -> Callable[..., None]:
    def die(execution: Any, at: int = step, *_: Any) -> None:
        if at == step:
            raise Crash

    return die


def test_torch_draws_nothing_from_a_probe(tmp_path: Path) -> None:
    """A run with the probe before it has the rows of a run without, but for the probe's own."""
    rows = []
    for at, contract in enumerate(
        (FULL_CONTRACT, FULL_CONTRACT.replace("steps: 10", "steps: 10\n  overfit_one_batch: 3"))
    ):
        torch.manual_seed(at)
        root = repository(tmp_path / str(at), contract)
        assert started(root) == 0
        lines = (only_run(root) / "rows/step.jsonl").read_text().splitlines()
        rows.append([(json.loads(line)["loss"], json.loads(line)["grad_norm"]) for line in lines])

    assert rows[0] == rows[1]
