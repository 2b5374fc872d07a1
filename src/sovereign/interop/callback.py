"""`trainer.add_callback(SovereignCallback("contracts/x.yaml"))`: a transformers.Trainer under a contract.

The intent is frozen before step 0; what the trainer prints becomes reported rows as it is printed; training that
ends is closed with a statement, and training that dies leaves an unconcluded run. What a callback cannot see is
not claimed: no per-document losses, no counted targets, no windows. Its runs stand on the rung `reported`.

Nothing here imports transformers or torch: a Trainer calls its callbacks by the names of their events, and hands
in everything that is read.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sovereign.canonical import Malformed, read, validate
from sovereign.closing import close
from sovereign.contract.contract import Contract
from sovereign.contract.training import Muon
from sovereign.evidence.intent import Environment, Intent, Subjects
from sovereign.evidence.journal import Journal
from sovereign.evidence.places import named, retold
from sovereign.evidence.statement import Outcome
from sovereign.interop.reported import begin, folder_of, here, promised_vocabulary
from sovereign.spec.criterion import Spec
from sovereign.subjects import evaluator_digest, files_digest, source_digest, source_files

SCHEDULES = {"constant_with_warmup": "constant", "warmup_stable_decay": "wsd"}  # what transformers calls otherwise


class SovereignCallback:
    """Records a Trainer's run as evidence of a contract.

    `root` is the repository, by default the folder that holds the contract's folder; `scripts` are the files whose
    change dates the result, by default the script that runs; `answers` are digests of falsifying evidence that this
    run answers (`sovereign explain ID` shows them). Raises Malformed where contract and spec are not sound, and
    before step 0 where the Trainer is about to do something else than the contract says.
    """

    def __init__(
        self, contract: str | Path, root: str | Path | None = None, *,
        scripts: Sequence[str | Path] | None = None, answers: Sequence[str] = (),
    ):  # fmt: skip
        path = Path(contract).resolve()
        self.root = Path(root).resolve() if root is not None else path.parent.parent
        self.document = read(path, named(path, self.root))
        self.contract = validate(Contract, self.document)
        self.spec = Spec.load(self.root / self.contract.spec, self.contract.spec)
        unknown = [
            self.document.problem(
                ("claims", index), f"{self.contract.spec} holds no criterion {claim} of this contract"
            )
            for index, claim in enumerate(self.contract.claims)
            if claim not in self.spec.by_id or self.spec.by_id[claim].contract != self.contract.contract
        ]
        if unknown:
            raise Malformed(unknown)
        self.scripts = _inside(self.root, _running() if scripts is None else [Path(one).resolve() for one in scripts])
        self.answers = tuple(answers)
        self.run: _Live | None = None

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return silence for every event of the Trainer's that has no method here, those of later versions too."""
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *arguments, **values: None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: Any, optimizer: Any = None, **_: Any
    ) -> None:
        """Freeze the intent, or refuse."""
        if not state.is_world_process_zero:
            return
        problems = [
            self.document.problem(keys, message) for keys, message in _refusals(self.contract, args, state, model)
        ]
        if problems:
            raise Malformed(problems)
        source = source_digest(self.contract, self.root)
        subjects = Subjects(
            code=files_digest(self.root, self.scripts), source=source, model=self.contract.subject, evaluator=evaluator_digest()
        )  # fmt: skip
        paths = [*(self.root / one for one in self.scripts), *source_files(self.contract, self.root)]
        intent = begin(
            self.contract, self.spec, self.root, datetime.now(UTC), origin="callback", seed=args.seed,
            vocabulary=model.config.vocab_size, parameters=_parameters(model), subjects=subjects,
            environment=_environment(args, model), paths=paths, scripts=self.scripts, answers=self.answers,
            command=retold([Path(sys.executable).name, *sys.argv], self.root),
        )  # fmt: skip
        self.run = _Live(intent, self.root)
        self.run.say(f"intent frozen: {self.run.name}")
        if not self.scripts:
            self.run.notice(0, "code", "no script inside the repository is named, so this result is never fresh")
        self.run.notice(
            0, "scope", "the callback sees no per-document losses, counted targets or data: all is reported"
        )
        if args.logging_nan_inf_filter:
            self.run.notice(
                0, "logging_nan_inf_filter",
                "a NaN loss is logged as an average; its gradient norm gives it away, where it is logged (CASE-20)",
            )  # fmt: skip
        for name, asked, got in _differences(self.contract, args, optimizer):
            self.run.notice(0, name, "applied otherwise than the contract says", asked, got)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, *, optimizer: Any = None, **_: Any) -> None:
        """Read the rate that the update has just been made with; the schedule moves it on afterwards."""
        if self.run is not None and optimizer is not None:
            self.run.rate = float(optimizer.param_groups[0]["lr"])

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any], **_: Any) -> None:
        """Write what was printed of training; stop where it is no longer finite."""
        if self.run is None or "loss" not in logs:  # evaluations have an event of their own; the last entry is a mean
            return
        seen = {
            "train_loss": float(logs["loss"]),
            "grad_norm": float(logs["grad_norm"]) if "grad_norm" in logs else None,
        }
        broken = [f"{name} {value}" for name, value in seen.items() if value is not None and not math.isfinite(value)]
        if broken:
            self.run.diverged(state.global_step, ", ".join(broken))
            control.should_training_stop = True
            return
        tokens = logs.get("num_input_tokens_seen")
        self.run.report(
            state, **seen, scope="mean since the last log", learning_rate=self.run.rate,
            tokens=int(tokens) if tokens is not None else None,
        )  # fmt: skip

    def on_evaluate(self, args: Any, state: Any, control: Any, *, metrics: dict[str, Any], **_: Any) -> None:
        """Write the validation loss."""
        if self.run is None:
            return
        for name in sorted(metrics):
            if name.endswith("_loss") and name != "eval_loss" and name not in self.run.unread:
                self.run.unread.add(name)
                self.run.notice(state.global_step, name, "one of several validation sets; only eval_loss is read")
        loss = metrics.get("eval_loss")
        if loss is not None and math.isfinite(loss):
            self.run.report(state, val_loss=float(loss))
        elif loss is not None:
            self.run.diverged(state.global_step, f"eval_loss {loss}")
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Make what was reported durable beside each checkpoint."""
        if self.run is not None:
            self.run.journal.sync()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the run; one that ended before its last planned step is abandoned."""
        if self.run is not None:
            self.run.conclude(state.global_step)
            self.run = None


class _Live:
    """A run as it is watched."""

    def __init__(self, intent: Intent, root: Path):
        self.intent, self.root, self.folder = intent, root, folder_of(intent, root)
        self.name = self.folder.relative_to(root).as_posix()
        self.journal = Journal(self.folder / "rows", intent.run)
        self.began = time.monotonic()
        self.rate: float | None = None
        self.reported = 0
        self.broke = ""
        self.unread: set[str] = set()  # validation losses beside eval_loss
        self.furthest: tuple[float, int, float, float] = (0.0, 0, 0.0, 0.0)  # distance, step, promised and applied rate

    def report(self, state: Any, **values: Any) -> None:
        step: int = state.global_step
        given = {name: value for name, value in values.items() if value is not None}
        self.journal.log("reported", step=step, epoch=state.epoch, wall=time.monotonic() - self.began, **given)
        self.reported = step
        rate, training = given.get("learning_rate"), self.intent.promise.training
        if rate is not None and step:
            promised = training.schedule.rate(step, training.steps)
            self.furthest = max(self.furthest, (abs(rate - promised), step, promised, rate))

    def notice(self, step: int, name: str, message: str, asked: str = "", got: str = "") -> None:
        self.journal.log("notice", step=step, name=name, asked=asked, got=got, message=message)
        told = f": {message}" + (f" (asked {asked}, got {got})" if asked or got else "")
        self.say(f"{name}{told}")

    def diverged(self, step: int, what: str) -> None:
        self.broke = self.broke or f"{what} at step {step}"
        self.notice(step, "not_finite", f"{what}: training stops here")

    def conclude(self, step: int) -> None:
        distance, at, promised, applied = self.furthest
        if distance > 1e-3 * self.intent.promise.training.schedule.peak:
            told = f"the rate applied in update {at} is furthest from the promised schedule"
            self.notice(step, "learning_rate", told, f"{promised:g}", f"{applied:g}")
        if step > self.reported or not self.reported:
            self.journal.log("reported", step=step)
        self.journal.close()
        outcome: Outcome = (
            "diverged" if self.broke else "completed" if step == self.intent.planned.steps else "abandoned"
        )
        reason = self.broke or (
            "" if outcome == "completed" else f"stopped at step {step} of {self.intent.planned.steps} planned"
        )
        close(self.folder, self.name, outcome, reason, datetime.now(UTC))
        self.say(f"{outcome}: {self.name}{reason and f' ({reason})'}")

    def say(self, text: str) -> None:
        print(f"sovereign: {text}", file=sys.stderr)


# ── what the Trainer is about to do, beside what the contract says ───────────────────────────────


def _refusals(contract: Contract, args: Any, state: Any, model: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield key and sentence for each way in which this would be another run than the contract's."""
    if state.global_step:
        yield (), f"training resumes at step {state.global_step}, and an intent stands before step 0: start anew"
    training = contract.training
    if state.max_steps != training.steps:
        yield ("training", "steps"), f"{training.steps}, and the Trainer is about to make {state.max_steps}"
    windows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    if windows != training.sequences:
        told = f"{training.sequences}, and the Trainer puts {windows} sequences into a step (batch x accumulation x processes)"
        yield ("training", "sequences"), told
    if args.seed not in contract.seeds:
        yield ("seeds",), f"{list(contract.seeds)}, and the Trainer's seed is {args.seed}"
    vocabulary = model.config.vocab_size
    promised = promised_vocabulary(contract)
    if promised is not None and promised != vocabulary:
        yield ("tokenizer", "vocabulary"), f"{promised}, and the model has {vocabulary} entries"
    elif contract.decoder.parameters(vocabulary) != _parameters(model):
        told = f"describes {contract.decoder.parameters(vocabulary):,} parameters, and the model has {_parameters(model):,}"
        yield ("model",), told


def _differences(contract: Contract, args: Any, optimizer: Any) -> Iterator[tuple[str, str, str]]:
    """Yield name, asked and got of each setting that the Trainer applies otherwise than promised."""
    training, schedule = contract.training, contract.training.schedule
    name = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    pairs: list[tuple[str, Any, Any]] = [
        ("training.schedule.kind", schedule.kind, SCHEDULES.get(name, name)),
        ("training.schedule.peak", schedule.peak, args.learning_rate),
        ("training.clip", training.clip, args.max_grad_norm),
    ]
    groups = optimizer.param_groups if optimizer is not None else []
    if groups:
        promised, found = training.optimizer, groups[0]
        beta1, beta2 = found.get("betas", (None, None))
        adamw = promised.rest if isinstance(promised, Muon) else promised
        pairs += [
            ("training.optimizer.beta1", adamw.beta1, beta1),
            ("training.optimizer.beta2", adamw.beta2, beta2),
            ("training.optimizer.epsilon", adamw.epsilon, found.get("eps")),
            (
                "training.optimizer.weight_decay",
                promised.weight_decay,
                max(one.get("weight_decay", 0.0) for one in groups),
            ),
        ]
    yield from ((name, str(asked), str(got)) for name, asked, got in pairs if asked != got)


def _parameters(model: Any) -> int:
    return sum(one.numel() for one in model.parameters())


def _environment(args: Any, model: Any) -> Environment:
    torch: Any = sys.modules.get("torch")  # whoever trains has loaded it; this room never does
    device = str(getattr(args.device, "type", args.device))
    names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    precision = (
        "bf16" if args.bf16 else "fp16" if args.fp16 else names.get(str(model.dtype).removeprefix("torch."), "unknown")
    )
    accelerator = torch.cuda.get_device_name(args.device) if torch is not None and device == "cuda" else ""
    return here(device, accelerator, precision, torch.get_num_threads() if torch is not None else None)


def _running() -> list[Path]:
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return [Path(file).resolve()] if file else []


def _inside(root: Path, files: Sequence[Path]) -> tuple[str, ...]:
    """Return files as names from the root; those outside it cannot be looked at again, and do not count."""
    return tuple(sorted(file.relative_to(root).as_posix() for file in files if file.is_relative_to(root)))
