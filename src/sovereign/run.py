"""Carry out a plan: freeze the intent, train, observe, and close with evidence.

The one module that knows both sides. It calls, it does not decide: the law is in the rooms below
`metrics`, the training in `training`, and what passes between them is rows.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from safetensors.torch import save_file

from sovereign import attesting, promising, surveying
from sovereign.canonical import digest_file, pretty, write_atomic
from sovereign.closing import close, instant
from sovereign.contract.method import Qlora
from sovereign.corpus.build import Corpus
from sovereign.evidence.intent import Intent
from sovereign.evidence.journal import Journal
from sovereign.evidence.rows import EvaluationRow, Row, StepRow, read_rows
from sovereign.evidence.statement import Artifact, Outcome, Segment
from sovereign.gate.profile import Exit
from sovereign.model.adapters import merged
from sovereign.model.decoder import hf_config
from sovereign.parity.ship import ship
from sovereign.plan import Plan, Refused, Told
from sovereign.probing import Asked, observe, write_samples
from sovereign.spec.criterion import Spec
from sovereign.stopping import Rise, enough
from sovereign.training import checkpoint
from sovereign.training.device import Unavailable
from sovereign.training.distributed import ALONE, Ranks, shard
from sovereign.training.evaluation import evaluate, evaluate_examples
from sovereign.training.guards import SPIKE_STEPS, Stopped, agreed
from sovereign.training.loop import stall_notice, train
from sovereign.training.memory import device_peak_bytes, forget_peak, peak_bytes, settle
from sovereign.training.optimizer import optimizer_for
from sovereign.training.placement import placement
from sovereign.training.probes import overfit_one_batch
from sovereign.training.replay import replay
from sovereign.training.scaling import LossScale
from sovereign.training.speed import matrix_peak
from sovereign.tuning import Tuning

DIVERGED = frozenset({"non_finite_loss", "non_finite_gradient"})
KEEP = 1  # checkpoints beside the best one


@dataclass(frozen=True)
class Concluded:
    """A run that closed: where its evidence lies, and how it ended."""

    folder: Path
    outcome: Outcome
    reason: str


Progress = Callable[[int, float, int, float], None]


def run(
    plan: Plan, spec: Spec, root: Path, *,
    overrides: Sequence[str] = (), answers: Sequence[str] = (), command: str = "", told: Told, progress: Progress,
    name: str | None = None, ranks: Ranks = ALONE,
) -> Concluded:  # fmt: skip
    """Write the intent of a new run and carry it out. Raises Refused where the plan may not run.

    With several processes each calls this; the first one writes, and all of them return the same.
    """
    if plan.refusals:
        raise Refused(plan.refusals)
    if plan.contract.training.weights == "fp16":
        try:
            plan.fresh()  # before anything is promised: float16 may not hold every weight of a base
        except Unavailable as reason:
            raise Refused((str(reason),)) from None
    intent = None
    if ranks.first:
        intent = promising.intent_of(plan, spec, root, overrides, answers, command, name or promising.new_name())
        folder = root / "evidence" / intent.contract / intent.run
        (folder / "rows").mkdir(parents=True)
        write_atomic(folder / "intent.json", pretty(intent.plain()))
    intent = ranks.from_first(intent)
    assert intent is not None
    return _carry_out(plan, intent, root, told, progress, ranks)


def resume(
    plan: Plan, intent: Intent, root: Path, *, told: Told, progress: Progress, ranks: Ranks = ALONE
) -> Concluded:
    """Go on with an unconcluded run from its last whole checkpoint, or from step 0 where it has none.

    The number of processes may be another than before.

    Raises Refused when it would be another run: other code, data or tokenizer, or another precision.
    """
    found, promised = promising.subjects(plan, root), intent.subjects
    differing = [
        name for name in ("code", "data", "tokenizer", "base") if getattr(found, name) != getattr(promised, name)
    ]
    here = promising.environment(plan)
    differing += [
        name for name in ("device", "precision", "torch") if getattr(here, name) != getattr(intent.environment, name)
    ]
    if differing:
        raise Refused((
            f"{', '.join(differing)}: not what the intent of {intent.run} froze, so this would be another run; "
            f"put it back, or close the run with `sovereign abandon {intent.contract}/{intent.run} --reason ...`",
        ))  # fmt: skip
    if plan.refusals:  # another number of processes may not be able to share a step
        raise Refused(plan.refusals)
    return _carry_out(plan, intent, root, told, progress, ranks)


def _carry_out(plan: Plan, intent: Intent, root: Path, told: Told, progress: Progress, ranks: Ranks) -> Concluded:
    folder = root / "evidence" / intent.contract / intent.run
    keep = root / "artifacts" / intent.contract / intent.run
    keep.mkdir(parents=True, exist_ok=True)
    lock = FileLock(keep / "lock", timeout=0)
    taken = True
    if ranks.first:
        try:
            lock.acquire()
        except Timeout:
            taken = False
    if not ranks.from_first(taken):
        raise Refused((f"{intent.contract}/{intent.run} is being carried out by another process",))
    try:
        return _Execution(plan, intent, root, folder, keep, told, progress, ranks).conclude()
    except RuntimeError as error:
        if ranks.size == 1:
            raise
        # what a process sees of another's death; whatever it was, the last whole checkpoint stands
        raise checkpoint.Unusable(f"rank {ranks.rank} of {ranks.size} could not go on: {error}") from error
    finally:
        lock.release()


class _Nowhere:
    """The journal of a process that is not the first: it keeps nothing."""

    def log(self, kind: str, **values: Any) -> None: ...

    def sync(self) -> dict[str, int]:
        return {}

    def close(self) -> None: ...


class _Execution:
    """One process's stretch of a run: what the callbacks of the loop share."""

    def __init__(
        self, plan: Plan, intent: Intent, root: Path, folder: Path, keep: Path, told: Told, progress: Progress,
        ranks: Ranks,
    ):  # fmt: skip
        self.plan, self.intent, self.root, self.folder, self.keep = plan, intent, root, folder, keep
        self.told, self.progress, self.ranks = told, progress, ranks
        self.settings, self.evaluation = plan.contract.training, plan.contract.evaluation
        self.model = plan.fresh().to(plan.device)
        shard(self.model, ranks, self.settings.distributed, plan.device)
        self.optimizer = optimizer_for(self.model, self.settings.optimizer)
        self.loss_scale = LossScale() if plan.precision == "fp16" else None
        self.clock = 0.0
        self.peak = 0  # bytes, before the peak was last forgotten
        self.losses: list[float] = []  # of the steps before this process's first
        self.validation: dict[int, dict[str, tuple[float, int]]] = {}  # step -> document -> nll, tokens
        self.risen: Rise | None = None
        self.best: tuple[float, int] | None = None  # validation loss, step
        self.straight: dict[int, tuple[float, str]] = {}  # step -> loss and weights, for the replay
        self.segments: list[Segment] = []
        self.shown = 0  # the step of the weights that are asked afterwards
        self.held_out, self.examples = surveying.sequences(plan), surveying.examples(plan)
        self.journal = self._open_journal()

    # ── before step 0 ────────────────────────────────────────────────────────────────────────────

    def _open_journal(self) -> Journal | _Nowhere:
        whole = checkpoint.checkpoints(self.keep / "checkpoints", lambda why: self.told(why, 0, 0))
        began = Segment(began=instant(datetime.now(UTC)), from_step=0, processes=self.ranks.size)
        rows: dict[str, int] = {}
        if not whole:
            self.done, self.segments = 0, [began]
        else:
            state = checkpoint.load(whole[-1], self.model, self.optimizer)
            self.done, self.clock, rows = state["step"], state["clock"], state["rows"]
            self.best = tuple(state["best"]) if state["best"] else None
            self.loss_scale = LossScale(*state["loss_scale"]) if state.get("loss_scale") else self.loss_scale
            self.segments = [Segment(**one) for one in state["segments"]] + [
                began.model_copy(update={"from_step": self.done})
            ]
            if (
                self.segments[-2].processes == self.ranks.size
            ):  # another number adds in another order: no bits to compare
                self.straight = {int(step): (loss, weights) for step, (loss, weights) in state["straight"].items()}
        journal: Journal | _Nowhere = _Nowhere()
        if self.ranks.first:
            journal = Journal(self.folder / "rows", self.intent.run, rows)
            if not whole:
                self._survey(journal)
            self._remember()
        self.losses, self.validation = self.ranks.from_first((self.losses, self.validation))
        return journal

    def _remember(self) -> None:
        """Read what later steps are compared with from the rows themselves, so that resuming forgets nothing."""
        for kind in ("step", "evaluation"):
            for row in self._kept_rows(kind):
                if isinstance(row, StepRow):
                    self.losses.append(row.loss)
                elif isinstance(row, EvaluationRow) and row.split == "validation" and self.settings.early_stopping:
                    self.validation.setdefault(row.step, {})[row.document] = (row.nll, row.tokens)
        del self.losses[: -2 * SPIKE_STEPS]

    def _survey(self, journal: Journal | _Nowhere) -> None:
        """Write what is known before a token is trained on."""

        def write(rows: surveying.Rows) -> None:
            for kind, row in rows:
                journal.log(kind, **row)

        corpus, asked = self.plan.corpus, self.settings.precision
        write(surveying.data(self.plan))
        if isinstance(corpus, Corpus):
            with self._cost(journal, "overlap and floors"):
                write(surveying.text(corpus, self.held_out["validation"]))
        if self.plan.tuning is not None:
            write(surveying.base(self.plan, self.plan.tuning, self.root))
        for part, seconds in corpus.seconds.items():
            journal.log("cost", part=f"corpus: {part}", seconds=seconds, peak_bytes=self._peak())
        if asked == "auto":
            journal.log(
                "notice", step=0, name="precision", asked=asked, got=self.plan.precision, message=self.plan.precision_because
            )  # fmt: skip

    @contextmanager
    def _cost(self, journal: Journal | _Nowhere, part: str, tokens: int = 0) -> Iterator[None]:
        self.told(part, 0, 1)
        began = time.perf_counter()
        yield
        journal.log("cost", part=part, seconds=time.perf_counter() - began, peak_bytes=self._peak(), tokens=tokens)
        self.told(part, 1, 1)

    def _peak(self) -> int:
        """The largest resident memory so far, whatever was forgotten in between."""
        self.peak = max(self.peak, peak_bytes())
        return self.peak

    # ── the run ──────────────────────────────────────────────────────────────────────────────────

    def conclude(self) -> Concluded:
        """Train, observe what can only be seen afterwards, and write the closing statement."""
        outcome: Outcome = "completed"
        reason = ""
        try:
            if self.done == 0:
                self._attest(lambda: attesting.before_step_0(self.plan, self.model, self.root, self.told))
                self._overfit()
            self._train()
            self._require_whole()
            self._keep_best()
            self._observe_afterwards()
            if self.risen:
                reason = (
                    f"stopped early at step {self.done}: the validation loss has risen by {self.risen.value:.4f} "
                    f"(at least {self.risen.low:.4f}) since step {self.risen.best}"
                )
        except Stopped as stopped:
            outcome = "diverged" if stopped.name in DIVERGED else "abandoned"
            reason = f"guard {stopped.name} at step {stopped.step}: {stopped.message}"
            self.journal.log("notice", step=stopped.step, name=stopped.name, message=stopped.message)
        self.journal.close()
        if self.ranks.first:
            close(
                self.folder, self.folder.relative_to(self.root).as_posix(), outcome, reason, datetime.now(UTC),
                self.segments, tuple(self._artifacts()),
            )  # fmt: skip
        return self.ranks.from_first(Concluded(self.folder, outcome, reason))

    def _attest(self, rows: Callable[[], attesting.Rows]) -> None:
        """Write what a tuned model is sworn to be; raises Stopped, on every process, where it is not."""
        if self.plan.tuning is None:
            return
        fault: Stopped | None = None
        if self.ranks.first:
            with self._cost(self.journal, "attestation"):
                try:
                    for kind, row in attesting.require(rows()):
                        self.journal.log(kind, **row)
                except Stopped as stopped:
                    fault = stopped
        agreed(fault, self.ranks)

    def _overfit(self) -> None:
        if not self.settings.overfit_one_batch:
            return
        with self._cost(self.journal, "overfitting one batch", self.settings.overfit_one_batch * self._tokens):
            found = overfit_one_batch(
                self.plan.fresh, self.plan.stream,
                self.settings, device=self.plan.device, precision=self.plan.precision, seed=self.plan.seed, ranks=self.ranks,
            )  # fmt: skip
        for update, (loss, tokens) in enumerate(found, 1):
            self.journal.log("probe", step=0, probe="overfit_one_batch", update=update, loss=loss, tokens=tokens)

    @property
    def _tokens(self) -> int:
        """Tokens of one step, of examples the mean."""
        return round(self.plan.tokens / self.settings.steps)

    def _train(self) -> None:
        self._peak()
        settle()
        forget_peak(self.plan.device)
        self._look_for_a_rise()
        if not self.risen:  # a run that had enough may have been cut off before it closed
            train(
                self.model, self.optimizer, self.plan.stream, self.settings,
                device=self.plan.device, precision=self.plan.precision, seed=self.plan.seed,
                evaluate_every=self.evaluation.every, log=self._log, evaluate=self._evaluate,
                checkpoint=self._checkpoint, progress=self._progress, stalled=self._stalled, done=self.done,
                clock=self.clock, losses=self.losses, loss_scale=self.loss_scale, ranks=self.ranks,
                expected_loss=None if self.plan.tuning else float(np.log(self.plan.vocabulary)),
            )  # fmt: skip
        self.journal.log(
            "cost", part="training", seconds=self.clock, peak_bytes=device_peak_bytes(self.plan.device),
            tokens=self.done * self._tokens, flops=self.plan.flops * self.done / self.settings.steps,
        )  # fmt: skip
        if self.risen:
            self.journal.log(
                "notice", step=self.done, name="early_stop", asked=f"a rise of {self.settings.early_stopping.rise:g}",  # type: ignore[union-attr]
                got=f"{self.risen.value:.4f}, at least {self.risen.low:.4f}",
                message=f"the validation loss has risen since step {self.risen.best}, on {self.risen.documents} documents",
            )  # fmt: skip

    def _require_whole(self) -> None:
        """Stop short of completion where an update, an evaluation or a checkpoint that the run owes is not on disk."""
        owed = self._owed() if self.ranks.first else ""
        agreed(Stopped("incomplete", self.done, owed) if owed else None, self.ranks)

    def _owed(self) -> str:
        """Return what is missing of updates (CASE-27), evaluations (CASE-30) and checkpoints (CASE-28), or nothing."""
        made = [row.step for row in self._kept_rows("step") if isinstance(row, StepRow)]
        end = self.done if self.risen else self.settings.steps
        if made != list(range(1, end + 1)):
            return f"{len(made)} of {end} planned updates are on record"
        due = {0, end, *range(0, end, self.evaluation.every)}
        scored = {row.step for row in self._kept_rows("evaluation") if isinstance(row, EvaluationRow)}
        if missing := sorted(due - scored):
            return f"the evaluation of step {missing[0]} is not on record ({len(due & scored)} of {len(due)} are)"
        kept = {"last": end, **({"best": self.best[1]} if self.best else {})}
        for name, step in kept.items():
            if not (self.keep / "checkpoints" / f"step-{step:06d}" / checkpoint.MARKER).is_file():
                return f"the {name} checkpoint, of step {step}, was not kept"
        return ""

    def _kept_rows(self, kind: str) -> Sequence[Row]:
        path = self.folder / "rows" / f"{kind}.jsonl"
        return read_rows(path, path.name, self.intent.run) if path.exists() else ()

    def _stalled(self, step: int, seconds: float) -> None:
        """End this process: whatever hangs will not come back, and the run goes on from its last checkpoint."""
        self.journal.log("notice", **stall_notice(step, seconds))
        self.journal.sync()
        print(
            f"step {step}: nothing has ended for {seconds:.0f} s (training.stall_seconds); the run is open: "
            f"`sovereign run --resume {self.intent.run}` goes on with it",
            file=sys.stderr,
            flush=True,
        )
        os._exit(Exit.STOPPED)

    def _log(self, kind: str, **row: Any) -> None:
        if kind == "step":
            self.done, self.clock = row["step"], row["clock"]
            if self._replayed_from < row["step"] <= self._replayed_from + self.evaluation.replay:
                self.straight[row["step"]] = (row["loss"], checkpoint.weights_digest(self.model))
            if row["step"] in (1, self.settings.steps):
                for found in placement(self.model, self.optimizer):
                    self.journal.log("device", step=row["step"], **found)
        self.journal.log(kind, **row)

    def _progress(self, step: int, loss: float, tokens: int, seconds: float) -> None:
        self.progress(step, loss, tokens, seconds)

    @property
    def _replayed_from(self) -> int:
        """The checkpoint that is resumed from to show that resuming is exact: the first one."""
        return self.settings.checkpoint_every

    def _evaluate(self, step: int) -> bool:
        sides = self.held_out or self.examples
        with self._cost(self.journal, f"evaluation at step {step}", self._scored):
            for side in sides:
                found = self._scores(side)
                for document, nll, counted in found:
                    self.journal.log("evaluation", step=step, split=side, document=document, nll=nll, tokens=counted)
                if side == "validation":
                    self._validated(step, found)
        if isinstance(self.plan.contract.method, Qlora):  # an evaluation has been seen to repack them for good
            self._attest(lambda: attesting.still_frozen(self.plan, self.model, step, "quantized_weights"))
        if canaries := self.evaluation.samples.at_evaluations:
            with self._cost(self.journal, f"samples at step {step}"):
                write_samples(self._asked(step), canaries, self.journal.log, controls=False)
        self._look_for_a_rise()
        return self.risen is not None

    @property
    def _scored(self) -> int:
        """Targets that one evaluation scores."""
        examples = sum(one.counted for side in self.examples.values() for one in side)
        return examples + sum(len(ids) - 1 for side in self.held_out.values() for _, ids in side)

    def _scores(self, side: str) -> list[tuple[str, float, int]]:
        placed: dict[str, Any] = {
            "batch": self.evaluation.batch, "context": self.plan.contract.context, "precision": self.plan.precision,
            "device": self.plan.device, "ranks": self.ranks,
        }  # fmt: skip
        if self.examples:
            return evaluate_examples(self.model, self.examples[side], **placed)
        return evaluate(self.model, self.held_out[side], **placed)

    def _validated(self, step: int, found: Sequence[tuple[str, float, int]]) -> None:
        counted = sum(tokens for _, _, tokens in found)
        loss = sum(nll for _, nll, _ in found) / counted
        if self.settings.early_stopping:
            self.validation[step] = {document: (nll, tokens) for document, nll, tokens in found}
        if step == 0 and self.plan.tuning is None:
            expected = float(np.log(self.plan.vocabulary))
            self.journal.log("probe", step=0, probe="first_loss", loss=loss, tokens=counted, expected=expected)
        elif step and self._kept(step):
            self.best = min(self.best or (loss, step), (loss, step))

    def _look_for_a_rise(self) -> None:
        if self.settings.early_stopping and self.validation:
            self.risen = enough(self.validation, self.settings.early_stopping)

    def _kept(self, step: int) -> bool:
        """Say whether there will be a checkpoint of a step; only such a one can be the best."""
        return step % self.settings.checkpoint_every == 0 or step == self.settings.steps

    def _checkpoint(self, step: int) -> None:
        state = {
            "clock": self.clock,
            "best": list(self.best) if self.best else None,
            "straight": {str(at): list(seen) for at, seen in self.straight.items()},
            "segments": [one.plain() for one in self.segments],
            "loss_scale": astuple(self.loss_scale) if self.loss_scale else None,
            "rows": self.journal.sync(),
        }
        named = {self._replayed_from} | ({self.best[1]} if self.best else set())
        checkpoint.save(
            self.keep / "checkpoints", step, self.model, self.optimizer, state, keep=KEEP, named=named, ranks=self.ranks
        )

    def _keep_best(self) -> None:
        """Go back to the best weights that were kept, where a base was tuned: small data is soon learned too well."""
        self.shown = self.done
        if self.plan.tuning is None or self.best is None:
            return
        self.shown = self.best[1]
        if self.shown != self.done:
            path = self.keep / "checkpoints" / f"step-{self.shown:06d}"
            checkpoint.load(path, self.model, self.optimizer)
            self.journal.log(
                "notice", step=self.shown, name="best_weights", asked="the lowest validation loss", got=f"{self.best[0]:.4f}",
                message=f"what follows is of the weights of step {self.shown}, not of the last ones, of step {self.done}",
            )  # fmt: skip

    # ── afterwards ───────────────────────────────────────────────────────────────────────────────

    def _observe_afterwards(self) -> None:
        with self._cost(self.journal, "replay"):
            self._replay()
        if isinstance(self.plan.corpus, Corpus):
            observe(self._asked(self.shown), self.journal.log, lambda part: self._cost(self.journal, part))
        elif self.plan.contract.data.labelled:
            with self._cost(self.journal, "predictions"):
                self._write(attesting.predictions(self.plan, self.model, self.shown))
        else:
            with self._cost(self.journal, "generation"):
                self._write(attesting.generations(self.plan, self.model, self.shown))
        self._attest(lambda: attesting.still_frozen(self.plan, self.model, self.shown))
        self._attest(lambda: attesting.embedding_rows(self.plan, self.model, self.shown))
        with self._cost(self.journal, "matrix peak"):
            peak = matrix_peak(self.plan.device, self.plan.precision)
        self.journal.log(
            "cost", part="best matrix product", seconds=peak.seconds, peak_bytes=self._peak(), flops=peak.flops
        )
        if self.plan.contract.shipping and self.ranks.first:
            with self._cost(self.journal, "shipping"):
                self._ship()
        for exposure in self.plan.stream.exposures(self.done):
            self.journal.log("exposure", **asdict(exposure))

    def _write(self, rows: attesting.Rows) -> None:
        for kind, row in rows:
            self.journal.log(kind, **row)

    def _asked(self, step: int) -> Asked:
        return Asked(self.model, self.plan, step, self.held_out)

    def _ship(self) -> None:
        """Export the best checkpoint, and log what the export computes beside it."""
        corpus, settings = self.plan.text, self.plan.contract.shipping
        step = self.best[1] if self.best else self.done
        file = self.keep / "checkpoints" / f"step-{step:06d}" / "model.safetensors"
        assert settings is not None
        ship(
            file, self.plan.contract.decoder, corpus.tokenizer_path, [text for _, text in corpus.texts("validation")], settings,
            self._shipped, self.root, f"{self.intent.contract}/{self.intent.run}", self.journal.log, self.told, self.done,
        )  # fmt: skip

    @property
    def _shipped(self) -> Path:
        settings = self.plan.contract.shipping
        return self.keep / "export" / f"{self.intent.contract}-{settings.quantize if settings else ''}.gguf"

    def _replay(self) -> None:
        path = self.keep / "checkpoints" / f"step-{self._replayed_from:06d}"
        if not self.straight or not path.is_dir():
            return
        found = replay(
            path, self.straight.keys(), lambda: self.plan.fresh(self.plan.seed + 1),
            self.plan.stream, self.settings, device=self.plan.device, precision=self.plan.precision, seed=self.plan.seed,
            ranks=self.ranks,
        )  # fmt: skip
        for again in found:
            loss, weights = self.straight[again.step]
            self.journal.log(
                "replay", checkpoint=again.checkpoint, step=again.step, straight_loss=loss, replayed_loss=again.loss,
                straight=weights, replayed=again.digest,
            )  # fmt: skip

    def _artifacts(self) -> Iterator[Artifact]:
        best = f"step-{self.best[1]:06d}" if self.best else ""
        last = f"step-{self.done:06d}"
        for path in checkpoint.checkpoints(self.keep / "checkpoints"):
            if path.name in (best, last):
                file = path / "model.safetensors"
                name = f"{'best' if path.name == best else 'last'}: {file.relative_to(self.root).as_posix()}"
                yield Artifact(name=name, digest=digest_file(file), bytes=file.stat().st_size)
            else:
                shutil.rmtree(path)  # it was kept for the replay alone
        if self._shipped.is_file():
            shipped = f"export: {self._shipped.relative_to(self.root).as_posix()}"
            yield Artifact(name=shipped, digest=digest_file(self._shipped), bytes=self._shipped.stat().st_size)
        if self.plan.tuning is not None and self.shown and self.best is not None:
            file = self._plain_model(self.plan.tuning)
            name = f"model: {file.relative_to(self.root).as_posix()}"
            yield Artifact(name=name, digest=digest_file(file), bytes=file.stat().st_size)
        tokenizer = self.plan.corpus.tokenizer_path
        yield Artifact(
            name=f"tokenizer: {tokenizer.relative_to(self.root).as_posix()}", digest=digest_file(tokenizer), bytes=tokenizer.stat().st_size
        )  # fmt: skip

    def _plain_model(self, tuning: Tuning) -> Path:
        """Write the kept weights as a plain model that `transformers` loads, adapters merged, and return its file."""
        folder = self.keep / "model"
        folder.mkdir(exist_ok=True)
        tensors = {name: one.cpu().contiguous() for name, one in merged(self.model).items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        if tuning.shape is not None:
            config = hf_config(tuning.shape, tuning.rows)
        else:
            config = tuning.base().net.config.to_dict()  # type: ignore[union-attr,operator]
        (folder / "config.json").write_bytes(pretty({**config, "eos_token_id": tuning.end_of_text}))
        shutil.copyfile(self.plan.corpus.tokenizer_path, folder / "tokenizer.json")
        return folder / "model.safetensors"
