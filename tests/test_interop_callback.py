"""One line puts a transformers.Trainer under a contract: promised before step 0, recorded as it goes, never more than said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fabric import repository

from sovereign.canonical import Malformed
from sovereign.evidence.folder import RunFolder, read_folder
from sovereign.interop.callback import SovereignCallback
from sovereign.repository import evaluate, open_repository, verified_runs
from sovereign.verification import verify

SPEC = """\
schema: sovereign/spec/v1
spec: toy
version: 0.1.0
title: A toy
controls: advised
metrics:
  validation/loss: {title: Validation loss, unit: nats/token, better: lower, rows: [evaluation], range: [0, null]}
  reported/validation_loss: {title: As printed, unit: nats/token, better: lower, rows: [reported], range: [0, null]}
criteria:
  - {id: TOY-001, title: It learns, category: TOY, contract: toy, metric: validation/loss, op: "<=", bound: 9}
  - {id: TOY-002, title: It is said to learn, category: TOY, contract: toy, metric: reported/validation_loss, op: "<=", bound: 9}
  - {id: TOY-003, title: It is said, category: TOY, contract: toy, metric: reported/validation_loss, op: "<=", bound: 9,
     obligations: {assurance: reported}}
"""
CONTRACT = """\
schema: sovereign/contract/v1
contract: toy
title: A toy
spec: spec/toy.yaml
claims: [TOY-001, TOY-002, TOY-003]
seeds: [1]
data:
  source: {kind: folder, path: data, include: ["*.txt"]}
tokenizer: {kind: bpe, vocabulary: 300}
model: {hidden: 16, layers: 1, heads: 2, kv_heads: 1, ffn: 32, context: 16}
training:
  steps: 6
  sequences: 4
  optimizer: {kind: adamw, beta1: 0.9, beta2: 0.999, epsilon: 1.0e-8, weight_decay: 0.0}
  schedule: {kind: constant, peak: 1.0e-3}
  checkpoint_every: 3
evaluation: {every: 3, documents: 8, tokens: 16, samples: {prompts: 0}, replay: 0}
"""
PARAMETERS = (
    7152  # of that shape: 300*16 embedding, 768 attention, 1536 feed-forward, 3*16 norms; the slow tests build it
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    repository(tmp_path, SPEC, CONTRACT)
    (tmp_path / "train.py").write_text("# stands for somebody's script\n")
    return tmp_path


def arguments(**changes: Any) -> SimpleNamespace:
    """Return what a callback reads of TrainingArguments."""
    values = {
        "seed": 1, "train_batch_size": 2, "gradient_accumulation_steps": 2, "world_size": 1, "logging_nan_inf_filter": False,
        "lr_scheduler_type": "constant", "learning_rate": 1e-3, "max_grad_norm": 1.0, "device": "cpu", "bf16": False, "fp16": False,
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def model(parameters: int = PARAMETERS, vocabulary: int = 300) -> Any:
    weights = SimpleNamespace(numel=lambda: parameters)
    return SimpleNamespace(
        parameters=lambda: iter([weights]), config=SimpleNamespace(vocab_size=vocabulary), dtype="torch.float32"
    )


def state(step: int, **changes: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{"global_step": step, "max_steps": 6, "epoch": step / 6, "is_world_process_zero": True, **changes}
    )


class Trainer:
    """As much of a Trainer as calls its callbacks, in transformers' order, with a rate that moves on after each update."""

    def __init__(self, callback: SovereignCallback, args: SimpleNamespace | None = None, of: Any = None):
        self.callback, self.args, self.model = callback, args or arguments(), of or model()
        group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
        self.optimizer, self.control = (
            SimpleNamespace(param_groups=[group]),
            SimpleNamespace(should_training_stop=False),
        )

    def tell(self, event: str, at: SimpleNamespace, **values: Any) -> None:
        getattr(self.callback, event)(self.args, at, self.control, model=self.model, optimizer=self.optimizer, **values)

    def train(self, losses: list[float], end: bool = True, **logged: Any) -> Trainer:
        self.tell("on_train_begin", state(0))
        for step, loss in enumerate(losses, 1):
            self.tell("on_step_begin", state(step - 1))
            self.tell("on_optimizer_step", state(step - 1))
            self.optimizer.param_groups[0]["lr"] *= 0.5  # as a schedule does, before anything is logged
            self.tell("on_log", state(step), logs={"loss": loss, "grad_norm": 1.0, "learning_rate": 7.0, **logged})
            if self.control.should_training_stop:
                break
        at = state(step)
        if end:
            self.tell("on_log", at, logs={"eval_loss": 4.0})
            self.tell("on_evaluate", at, metrics={"eval_loss": 4.0, "eval_runtime": 1.0})
            self.tell("on_log", at, logs={"train_loss": 99.0, "train_runtime": 1.0})
            self.tell("on_train_end", at)
        return self


def callback(root: Path, **changes: Any) -> SovereignCallback:
    return SovereignCallback(root / "contracts/toy.yaml", **{"scripts": [root / "train.py"], **changes})


def folder(root: Path) -> RunFolder:
    (path,) = (root / "evidence").glob("*/*")
    return read_folder(path, path.relative_to(root).as_posix())


def reported(root: Path) -> list[Any]:
    return list(folder(root).rows["reported"])


def notices(root: Path) -> dict[str, Any]:
    return {row.name: row for row in folder(root).rows["notice"] if hasattr(row, "name")}


def test_a_trainers_run_is_recorded_and_stands_on_the_rung_reported(root: Path) -> None:
    """Intent, rows and statement verify; what asks for `reported` is discharged, what asks for more is OPEN and says why."""
    Trainer(callback(root)).train([5.0, 4.8, 4.6, 4.4, 4.2, 4.1])
    run = verified_runs(root)[0]
    found = {
        one.id: (one.status, one.reasons[0].code)
        for one in evaluate(open_repository(root), datetime.now(UTC))[0].criteria
    }

    assert () == run.findings
    assert run.intent is not None
    assert ("callback", True, "reported") == (run.intent.origin, run.intent.confirmatory, run.assurance)
    assert {
        "TOY-001": ("OPEN", "NO_MEASUREMENT"),
        "TOY-002": ("OPEN", "ASSURANCE"),
        "TOY-003": ("DISCHARGED", "HOLDS"),
    } == found


def test_the_intent_stands_before_the_first_update(root: Path) -> None:
    """Freezing comes with on_train_begin, whole: whatever happens afterwards, the promise was made."""
    Trainer(callback(root)).tell("on_train_begin", state(0))
    found = folder(root)

    assert found.intent is not None
    assert ([], ["train.py"], 6, PARAMETERS, 300) == (
        list(found.problems), list(found.intent.scripts), found.intent.planned.steps, found.intent.planned.parameters,
        found.intent.planned.vocabulary,
    )  # fmt: skip
    assert "open" == evaluate(open_repository(root), datetime.now(UTC))[0].runs[0].state


def test_the_rate_is_the_optimizers_not_the_logs(root: Path) -> None:
    """The applied rate is read before the schedule moves on; the number in the log, which says 7, is not believed (CASE-06)."""
    Trainer(callback(root)).train([5.0, 4.8, 4.6, 4.4, 4.2, 4.1])
    rates = [row.learning_rate for row in reported(root) if row.train_loss is not None]

    assert [1e-3 / 2**step for step in range(6)] == rates
    assert ("0.001", "3.125e-05") == (notices(root)["learning_rate"].asked, notices(root)["learning_rate"].got)


def test_a_mean_over_the_run_is_no_last_loss(root: Path) -> None:
    """The Trainer's closing log gives the mean of the run as train_loss: it is no row, and the last row is the last step's (CASE-30)."""
    Trainer(callback(root)).train([5.0, 4.8, 4.6, 4.4, 4.2, 4.1])

    assert [(6, 4.1, None, "mean since the last log"), (6, None, 4.0, "")] == [
        (row.step, row.train_loss, row.val_loss, row.scope) for row in reported(root)[-2:]
    ]  # fmt: skip


@pytest.mark.parametrize("logged", [{"loss": float("nan")}, {"grad_norm": float("nan")}, {"grad_norm": float("inf")}])
def test_what_is_not_finite_stops_and_diverges(root: Path, logged: dict[str, float]) -> None:
    """A loss, or the gradient norm that gives away a NaN hidden behind an average, ends the run as diverged (CASE-20)."""
    trainer = Trainer(callback(root)).train([5.0] * 6, **logged)
    found = folder(root)

    assert found.statement is not None
    assert (True, "diverged", []) == (
        trainer.control.should_training_stop, found.statement.outcome, list(verify(found.path, found.name).findings),
    )  # fmt: skip
    assert "FALSIFIED" == evaluate(open_repository(root), datetime.now(UTC))[0].criteria[2].status


def test_the_filter_that_hides_nan_is_noticed(root: Path) -> None:
    """transformers' default is in the evidence, not only in its documentation (CASE-20)."""
    Trainer(callback(root), arguments(logging_nan_inf_filter=True)).tell("on_train_begin", state(0))

    assert "CASE-20" in notices(root)["logging_nan_inf_filter"].message


def test_a_run_that_stops_early_is_abandoned(root: Path) -> None:
    """Early stopping is no completion."""
    Trainer(callback(root)).train([5.0, 4.8, 4.6])
    found = folder(root)

    assert found.statement is not None
    assert ("abandoned", "stopped at step 3 of 6 planned") == (found.statement.outcome, found.statement.reason)


def test_a_run_that_dies_is_unconcluded(root: Path) -> None:
    """Without on_train_end there is no statement: the rows stand, and the run waits to be closed with a reason."""
    Trainer(callback(root)).train([5.0, 4.8], end=False)

    assert (None, [1, 2]) == (folder(root).statement, [row.step for row in reported(root)])


@pytest.mark.parametrize(
    ("args", "at", "of", "place", "message"),
    [
        ({}, {"max_steps": 7}, {}, "contracts/toy.yaml:12:3", "training.steps: 6, and the Trainer is about to make 7"),
        (
            {"gradient_accumulation_steps": 4},
            {},
            {},
            "contracts/toy.yaml:13:3",
            "training.sequences: 4, and the Trainer puts 8",
        ),
        ({"seed": 42}, {}, {}, "contracts/toy.yaml:6:1", "seeds: [1], and the Trainer's seed is 42"),
        (
            {},
            {},
            {"vocabulary": 301},
            "contracts/toy.yaml:9:24",
            "tokenizer.vocabulary: 300, and the model has 301 entries",
        ),
        ({}, {}, {"parameters": 7000}, "contracts/toy.yaml:10:1", "and the model has 7,000"),
        ({}, {"global_step": 3}, {}, "contracts/toy.yaml:1:1", "training resumes at step 3"),
    ],
)
def test_another_run_than_the_contracts_is_refused_before_step_0(
    root: Path, args: dict[str, Any], at: dict[str, Any], of: dict[str, Any], place: str, message: str
) -> None:
    """Steps, batch, seed, vocabulary or size that differ stop the Trainer at the contract's line, and nothing is written."""
    trainer = Trainer(callback(root), arguments(**args), model(**of))
    with pytest.raises(Malformed) as caught:
        trainer.tell("on_train_begin", state(0, **at))

    assert str(caught.value).startswith(place), caught.value
    assert message in str(caught.value)
    assert not (root / "evidence").exists()


def test_settings_applied_otherwise_are_in_the_evidence(root: Path) -> None:
    """A clip, schedule or decay other than the contract's is a row with both values (CASE-06)."""
    trainer = Trainer(callback(root), arguments(max_grad_norm=5.0, lr_scheduler_type="linear"))
    trainer.optimizer.param_groups.append({"weight_decay": 0.1})
    trainer.tell("on_train_begin", state(0))
    found = {name: (row.asked, row.got) for name, row in notices(root).items() if row.asked}

    assert {
        "training.clip": ("1.0", "5.0"), "training.schedule.kind": ("constant", "linear"),
        "training.optimizer.weight_decay": ("0.0", "0.1"),
    } == found  # fmt: skip


def test_a_second_validation_set_is_not_taken_for_the_first(root: Path) -> None:
    """Where several sets are evaluated, only eval_loss is read, and the others are named once."""
    trainer = Trainer(callback(root)).train([5.0], end=False)
    for _ in range(2):
        trainer.tell("on_evaluate", state(1), metrics={"eval_code_loss": 3.0})

    assert [] == [row for row in reported(root) if row.val_loss is not None]
    assert [1] == [row.step for row in folder(root).rows["notice"] if getattr(row, "name", "") == "eval_code_loss"]


def test_only_the_first_process_writes(root: Path) -> None:
    """Other ranks of a distributed run leave no folder."""
    Trainer(callback(root)).tell("on_train_begin", state(0, is_world_process_zero=False))

    assert not (root / "evidence").exists()


def test_a_contract_that_claims_what_no_spec_holds_is_refused_at_once(root: Path) -> None:
    """The fault is named where the callback is made, before a model is built."""
    (root / "contracts/toy.yaml").write_text(CONTRACT.replace("TOY-003", "TOY-009"))
    with pytest.raises(Malformed, match=r"contracts/toy\.yaml:5:28: .*holds no criterion TOY-009"):
        callback(root)


def test_events_of_other_versions_are_silence(root: Path) -> None:
    """A Trainer may call events this version has never heard of; what is no event is an error."""
    made = callback(root)
    made.on_some_later_event(None, None, None, spam=1)
    with pytest.raises(AttributeError):
        _ = made.spam

    assert made.run is None


# ── a real Trainer ───────────────────────────────────────────────────────────────────────────────

SCRIPT = """\
import os, sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
from sovereign.interop.callback import SovereignCallback

class Items(torch.utils.data.Dataset):
    def __init__(self, seed):
        ids = torch.randint(0, 300, (24, 16), generator=torch.Generator().manual_seed(seed))
        self.items = [{"input_ids": one, "labels": one} for one in ids]
    def __len__(self):
        return len(self.items)
    def __getitem__(self, index):
        return self.items[index]

class Dies(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4 and sys.argv[1] == "raise":
            raise RuntimeError("planted")
        if state.global_step == 4 and sys.argv[1] == "hang":
            print("hanging", flush=True)
            import time; time.sleep(60)

class Poisoned(Trainer):
    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        poisoned = sys.argv[1] == "nan" and self.state.global_step == 3 and self.model.training
        return loss * float("nan") if poisoned else loss

torch.manual_seed(1)
config = LlamaConfig(vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                     num_key_value_heads=1, max_position_embeddings=16, tie_word_embeddings=True)
trainer = Poisoned(
    model=LlamaForCausalLM(config),
    args=TrainingArguments(
        output_dir="out", max_steps=6, per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=1e-3,
        lr_scheduler_type="constant", weight_decay=0.0, seed=1, logging_steps=1, eval_strategy="steps", eval_steps=3, save_strategy="no",
        use_cpu=True, report_to=[], disable_tqdm=True,
    ),
    train_dataset=Items(1), eval_dataset=Items(2), callbacks=[Dies()],
)
trainer.add_callback(SovereignCallback("contracts/toy.yaml"))  # the one line
trainer.train()
trainer.state.save_to_json("trainer_state.json")
trainer.evaluate()
"""


def started(root: Path, how: str) -> subprocess.Popen[str]:
    (root / "train.py").write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, "train.py", how], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the script has run to its end, and what it said."""
    place = repository(tmp_path_factory.mktemp("trained"), SPEC, CONTRACT)
    process = started(place, "whole")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return place, errors


@pytest.mark.slow
def test_an_existing_script_gains_governance_by_one_line(trained: tuple[Path, str]) -> None:
    """A real Trainer's run verifies and discharges what asks for `reported`; every logged loss is a row, with the applied rate."""
    root, said = trained
    run = verified_runs(root)[0]
    found = {one.id: one.status for one in evaluate(open_repository(root), datetime.now(UTC))[0].criteria}
    losses = [row for row in reported(root) if row.train_loss is not None]
    history = json.loads((root / "trainer_state.json").read_text())["log_history"]

    assert run.intent is not None
    assert ((), ("train.py",), "5.23"[0]) == (
        run.findings,
        run.intent.scripts,
        run.intent.environment.packages["transformers"][0],
    )
    assert {"TOY-001": "OPEN", "TOY-002": "OPEN", "TOY-003": "DISCHARGED"} == found
    assert [one["loss"] for one in history if "loss" in one] == [row.train_loss for row in losses]
    assert [1e-3] * 6 == [row.learning_rate for row in losses]
    assert [one["eval_loss"] for one in history if "eval_loss" in one] == [
        row.val_loss for row in reported(root) if row.val_loss
    ]
    assert f"completed: evidence/{run.name}" in said


@pytest.mark.slow
def test_a_watched_run_and_its_own_log_agree(trained: tuple[Path, str]) -> None:
    """The trainer_state.json that the same run left is read into the same losses at the same steps."""
    from sovereign.interop.logs import read_log

    root, _ = trained
    series = read_log(root / "trainer_state.json")
    watched = [(row.step, row.train_loss, row.val_loss) for row in reported(root)]

    assert ("transformers", watched) == (
        series.format,
        [(one.step, one.train_loss, one.val_loss) for one in series.points],
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raise", "hang"])
def test_an_exception_or_a_kill_leaves_an_unconcluded_run(root: Path, how: str) -> None:
    """The intent and every row that was logged stand; no statement says that anything was completed."""
    process = started(root, how)
    if how == "hang":
        assert process.stdout is not None
        while "hanging" not in process.stdout.readline():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    found = folder(root)

    assert process.returncode != 0
    assert (None, (), ()) == (found.statement, found.problems, found.row_problems)
    assert [1, 2, 3] == [row.step for row in reported(root) if row.train_loss is not None]


@pytest.mark.slow
def test_a_nan_that_transformers_averages_away_is_found(root: Path) -> None:
    """With the default filter the logged loss stays finite; the gradient norm does not, and the run closes as diverged (CASE-20)."""
    process = started(root, "nan")
    _, errors = process.communicate(timeout=300)
    found = folder(root)

    assert found.statement is not None, errors
    assert "diverged" == found.statement.outcome
    assert all(np.isfinite(row.train_loss) for row in reported(root) if row.train_loss is not None)
    assert "grad_norm nan at step 4" in found.statement.reason
