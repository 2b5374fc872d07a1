"""Carry out a plan: freeze the intent, train, observe, and close with evidence.

The one module that knows both sides. It calls, it does not decide: the law is in the rooms below
`metrics`, the training in `training`, and what passes between them is rows.
"""

from __future__ import annotations

import platform
import resource
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from sovereign import __version__
from sovereign.canonical import digest_file, pretty, write_atomic
from sovereign.closing import close, instant, seal
from sovereign.contract.contract import Contract
from sovereign.contract.training import LongContext
from sovereign.corpus.floors import BigramModel, floors
from sovereign.corpus.overlap import overlap
from sovereign.corpus.prompts import Prompt, function_heads
from sovereign.corpus.scoring import scored
from sovereign.corpus.stream import Consumption
from sovereign.evidence.intent import Environment, Intent, Planned, Subjects
from sovereign.evidence.journal import Journal
from sovereign.evidence.statement import Artifact, Outcome, Segment
from sovereign.model.decoder import build
from sovereign.plan import Plan, Refused, Told
from sovereign.spec.criterion import Spec
from sovereign.subjects import code_digest, code_files, evaluator_digest, source_digest, source_files, worktree
from sovereign.training import checkpoint
from sovereign.training.evaluation import evaluate
from sovereign.training.guards import Stopped
from sovereign.training.loop import adamw, train
from sovereign.training.positions import by_position
from sovereign.training.replay import replay
from sovereign.training.sampling import sample

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
) -> Concluded:  # fmt: skip
    """Write the intent of a new run and carry it out. Raises Refused where the plan may not run."""
    if plan.refusals:
        raise Refused(plan.refusals)
    now = datetime.now(UTC)
    name = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    intent = seal(
        Intent,
        contract=plan.contract.contract,
        run=name,
        written=instant(now),
        spec=spec.spec,
        spec_version=spec.version,
        criteria={claim: spec.by_id[claim] for claim in plan.contract.claims},
        promise=plan.contract,
        overrides=tuple(overrides),
        seed=plan.seed,
        subjects=subjects(plan, root),
        environment=environment(plan),
        worktree=worktree(root, scope(plan.contract, root)),
        planned=Planned(
            steps=plan.contract.training.steps, tokens=plan.tokens, windows=plan.windows, passes=plan.passes,
            parameters=plan.parameters, vocabulary=plan.vocabulary,
        ),
        ttl_hours=plan.contract.ttl_hours,
        answers=tuple(answers),
        command=command,
        sovereign=__version__,
    )  # fmt: skip
    folder = root / "evidence" / intent.contract / name
    (folder / "rows").mkdir(parents=True)
    write_atomic(folder / "intent.json", pretty(intent.plain()))
    return _carry_out(plan, intent, root, told, progress)


def resume(plan: Plan, intent: Intent, root: Path, *, told: Told, progress: Progress) -> Concluded:
    """Go on with an unconcluded run from its last whole checkpoint, or from step 0 where it has none.

    Raises Refused when it would be another run: other code, data or tokenizer, or another precision.
    """
    found, promised = subjects(plan, root), intent.subjects
    differing = [name for name in ("code", "data", "tokenizer") if getattr(found, name) != getattr(promised, name)]
    here = environment(plan)
    differing += [
        name for name in ("device", "precision", "torch") if getattr(here, name) != getattr(intent.environment, name)
    ]
    if differing:
        raise Refused((
            f"{', '.join(differing)}: not what the intent of {intent.run} froze, so this would be another run; "
            f"put it back, or close the run with `sovereign abandon {intent.contract}/{intent.run} --reason ...`",
        ))  # fmt: skip
    return _carry_out(plan, intent, root, told, progress)


def _carry_out(plan: Plan, intent: Intent, root: Path, told: Told, progress: Progress) -> Concluded:
    folder = root / "evidence" / intent.contract / intent.run
    keep = root / "artifacts" / intent.contract / intent.run
    keep.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(keep / "lock", timeout=0):
            return _Execution(plan, intent, root, folder, keep, told, progress).conclude()
    except Timeout:
        raise Refused((f"{intent.contract}/{intent.run} is being carried out by another process",)) from None


class _Execution:
    """One process's stretch of a run: what the callbacks of the loop share."""

    def __init__(
        self, plan: Plan, intent: Intent, root: Path, folder: Path, keep: Path, told: Told, progress: Progress
    ):
        self.plan, self.intent, self.root, self.folder, self.keep = plan, intent, root, folder, keep
        self.told, self.progress = told, progress
        self.settings, self.evaluation = plan.contract.training, plan.contract.evaluation
        self.model = build(plan.contract.model, plan.vocabulary, plan.seed, plan.corpus.end_of_text).to(plan.device)
        self.optimizer = adamw(self.model, self.settings.optimizer)
        self.clock = 0.0
        self.best: tuple[float, int] | None = None  # validation loss, step
        self.straight: dict[int, tuple[float, str]] = {}  # step -> loss and weights, for the replay
        self.segments: list[Segment] = []
        self.held_out = self._sequences()
        self.journal = self._open_journal()

    # ── before step 0 ────────────────────────────────────────────────────────────────────────────

    def _sequences(self) -> dict[str, list[tuple[str, np.ndarray]]]:
        """Return the documents that every evaluation scores: the same ones, in the same order."""
        corpus, most = self.plan.corpus, self.evaluation.documents
        sides = {
            "validation": corpus.ids("validation")[:most],
            "control": corpus.ids("control")[:most],
        }
        sides["train_probe"] = corpus.train_probe(len(sides["validation"]), self.plan.seed)
        return {
            side: [(document, scored(ids, corpus.end_of_text, self.evaluation.tokens)) for document, ids in documents]
            for side, documents in sides.items()
        }

    def _open_journal(self) -> Journal:
        whole = checkpoint.checkpoints(self.keep / "checkpoints", lambda why: self.told(why, 0, 0))
        began = Segment(began=instant(datetime.now(UTC)), from_step=0)
        if not whole:
            self.done, self.segments = 0, [began]
            journal = Journal(self.folder / "rows", self.intent.run)
            self._observe_data(journal)
            return journal
        state = checkpoint.load(whole[-1], self.model, self.optimizer)
        self.done, self.clock = state["step"], state["clock"]
        self.best = tuple(state["best"]) if state["best"] else None
        self.straight = {int(step): (loss, weights) for step, (loss, weights) in state["straight"].items()}
        self.segments = [Segment(**one) for one in state["segments"]] + [
            began.model_copy(update={"from_step": self.done})
        ]
        return Journal(self.folder / "rows", self.intent.run, state["rows"])

    def _observe_data(self, journal: Journal) -> None:
        """Write what is known of the data before a token is trained on: sides, overlap, floors."""
        corpus = self.plan.corpus
        for row in corpus.documents:
            journal.log("corpus", **row.plain())
        for probe in corpus.probes():
            journal.log("tokenizer", **asdict(probe))
        with self._cost(journal, "overlap and floors"):
            train = corpus.train
            held_out = [
                (document, side, ids) for side in ("validation", "control") for document, ids in corpus.ids(side)
            ]
            for found in overlap(train, held_out):
                journal.log("overlap", **asdict(found))
            for floor in floors(train, self.held_out["validation"]):
                journal.log("floor", **asdict(floor))
        for part, seconds in corpus.seconds.items():
            journal.log("cost", part=f"corpus: {part}", seconds=seconds, peak_bytes=peak_bytes())
        asked = self.settings.precision
        if asked == "auto":
            journal.log(
                "notice", step=0, name="precision", asked="auto", got=self.plan.precision, message=self.plan.precision_because
            )  # fmt: skip

    @contextmanager
    def _cost(self, journal: Journal, part: str, tokens: int = 0) -> Iterator[None]:
        self.told(part, 0, 1)
        began = time.perf_counter()
        yield
        journal.log("cost", part=part, seconds=time.perf_counter() - began, peak_bytes=peak_bytes(), tokens=tokens)
        self.told(part, 1, 1)

    # ── the run ──────────────────────────────────────────────────────────────────────────────────

    def conclude(self) -> Concluded:
        """Train, observe what can only be seen afterwards, and write the closing statement."""
        outcome: Outcome = "completed"
        reason = ""
        try:
            train(
                self.model, self.optimizer, self.plan.stream, self.settings,
                device=self.plan.device, precision=self.plan.precision, seed=self.plan.seed,
                evaluate_every=self.evaluation.every, log=self._log, evaluate=self._evaluate,
                checkpoint=self._checkpoint, progress=self._progress, done=self.done, clock=self.clock,
                expected_loss=float(np.log(self.plan.vocabulary)),
            )  # fmt: skip
            self._observe_afterwards()
        except Stopped as stopped:
            outcome = "diverged" if stopped.name in DIVERGED else "abandoned"
            reason = f"guard {stopped.name} at step {stopped.step}: {stopped.message}"
            self.journal.log("notice", step=stopped.step, name=stopped.name, message=stopped.message)
        self.journal.close()
        close(
            self.folder, self.folder.relative_to(self.root).as_posix(), outcome, reason, datetime.now(UTC),
            self.segments, tuple(self._artifacts()),
        )  # fmt: skip
        return Concluded(self.folder, outcome, reason)

    def _log(self, kind: str, **row: Any) -> None:
        if kind == "step":
            self.done, self.clock = row["step"], row["clock"]
            if self._replayed_from < row["step"] <= self._replayed_from + self.evaluation.replay:
                self.straight[row["step"]] = (row["loss"], checkpoint.weights_digest(self.model))
        self.journal.log(kind, **row)

    def _progress(self, step: int, loss: float, tokens: int, seconds: float) -> None:
        self.progress(step, loss, tokens, seconds)

    @property
    def _replayed_from(self) -> int:
        """The checkpoint that is resumed from to show that resuming is exact: the first one."""
        return self.settings.checkpoint_every

    def _evaluate(self, step: int) -> None:
        tokens = sum(len(ids) - 1 for side in self.held_out.values() for _, ids in side)
        with self._cost(self.journal, f"evaluation at step {step}", tokens):
            for side, sequences in self.held_out.items():
                found = evaluate(
                    self.model, sequences, batch=self.evaluation.batch, context=self.plan.contract.model.context,
                    precision=self.plan.precision, device=self.plan.device,
                )  # fmt: skip
                for document, nll, counted in found:
                    self.journal.log("evaluation", step=step, split=side, document=document, nll=nll, tokens=counted)
                if side == "validation" and step and self._kept(step):
                    loss = sum(nll for _, nll, _ in found) / sum(counted for _, _, counted in found)
                    self.best = min(self.best or (loss, step), (loss, step))

    def _kept(self, step: int) -> bool:
        """Say whether there will be a checkpoint of a step; only such a one can be the best."""
        return step % self.settings.checkpoint_every == 0 or step == self.settings.steps

    def _checkpoint(self, step: int) -> None:
        state = {
            "clock": self.clock,
            "best": list(self.best) if self.best else None,
            "straight": {str(at): list(seen) for at, seen in self.straight.items()},
            "segments": [one.plain() for one in self.segments],
            "rows": self.journal.sync(),
        }
        named = {self._replayed_from} | ({self.best[1]} if self.best else set())
        checkpoint.save(self.keep / "checkpoints", step, self.model, self.optimizer, state, keep=KEEP, named=named)

    # ── afterwards ───────────────────────────────────────────────────────────────────────────────

    def _observe_afterwards(self) -> None:
        with self._cost(self.journal, "replay"):
            self._replay()
        with self._cost(self.journal, "samples"):
            self._samples()
        if self.evaluation.long_context:
            with self._cost(self.journal, "loss by position"):
                self._positions(self.evaluation.long_context)
        for exposure in Consumption.after(self.plan.stream, self.done).by_document():
            self.journal.log("exposure", **asdict(exposure))

    def _replay(self) -> None:
        path = self.keep / "checkpoints" / f"step-{self._replayed_from:06d}"
        if not self.straight or not path.is_dir():
            return
        for step, (loss, weights) in sorted(self.straight.items()):
            again = replay(
                path, step, lambda: build(self.plan.contract.model, self.plan.vocabulary, self.plan.seed + 1, self.plan.corpus.end_of_text),
                self.plan.stream, self.settings, device=self.plan.device, precision=self.plan.precision, seed=self.plan.seed,
            )  # fmt: skip
            self.journal.log(
                "replay", checkpoint=again.checkpoint, step=step, straight_loss=loss, replayed_loss=again.loss,
                straight=weights, replayed=again.digest,
            )  # fmt: skip

    def _positions(self, settings: LongContext) -> None:
        corpus, context = self.plan.corpus, self.plan.contract.model.context
        long = [(document, ids) for document, ids in corpus.ids("validation") if len(ids) > context]
        if len(long) < settings.documents:
            self.journal.log(
                "notice", step=self.done, name="long_context", asked=str(settings.documents), got=str(len(long)),
                message=f"the validation side holds fewer documents of more than {context} tokens",
            )  # fmt: skip
        scored_ = [
            (document, scored(ids, corpus.end_of_text, settings.tokens)) for document, ids in long[: settings.documents]
        ]
        for document, start, stop, nll, tokens in by_position(
            self.model, scored_, context=context, precision=self.plan.precision, device=self.plan.device
        ):
            self.journal.log(
                "position", step=self.done, document=document, start=start, stop=stop, nll=nll, tokens=tokens
            )

    def _samples(self) -> None:
        settings, corpus = self.evaluation.samples, self.plan.corpus
        room = self.plan.contract.model.context - settings.tokens
        prompts = [
            (prompt, ids)
            for prompt in function_heads(corpus.texts("validation"), settings.prompts * 2, self.plan.seed)
            if len(ids := [corpus.end_of_text, *corpus.encode(prompt.prompt)]) <= room
        ][: settings.prompts]
        if len(prompts) < settings.prompts:
            self.journal.log(
                "notice", step=self.done, name="prompts", asked=str(settings.prompts), got=str(len(prompts)),
                message="the validation documents hold fewer function heads that fit",
            )  # fmt: skip
        written = sample(
            self.model, [ids for _, ids in prompts], settings.tokens, temperature=settings.temperature,
            top_k=settings.top_k, seed=self.plan.seed, stop=corpus.end_of_text,
        )  # fmt: skip
        bigram = BigramModel.count(corpus.train)
        for number, ((prompt, ids), continuation) in enumerate(zip(prompts, written, strict=True)):
            counted = bigram.sample(ids[-1], settings.tokens, np.random.default_rng([self.plan.seed, number]))
            self._sample(prompt, "model", corpus.decode(continuation))
            self._sample(prompt, "bigram", corpus.decode([token for token in counted if token != corpus.end_of_text]))
            self._sample(prompt, "newline", "\n" * settings.tokens)

    def _sample(self, prompt: Prompt, sampler: str, text: str) -> None:
        self.journal.log(
            "sample", step=self.done, sampler=sampler, prompt_id=prompt.prompt_id, document=prompt.document,
            prompt=prompt.prompt, text=text, seed=self.plan.seed + prompt.prompt_id,
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
        tokenizer = self.plan.corpus.tokenizer_path
        yield Artifact(
            name=f"tokenizer: {tokenizer.relative_to(self.root).as_posix()}", digest=digest_file(tokenizer), bytes=tokenizer.stat().st_size
        )  # fmt: skip


# ── what an intent freezes ───────────────────────────────────────────────────────────────────────


def subjects(plan: Plan, root: Path) -> Subjects:
    """Return the digests of everything that a result of this plan would speak about."""
    return Subjects(
        code=code_digest(),
        data=plan.corpus.digest,
        source=source_digest(plan.contract, root),
        tokenizer=plan.corpus.tokenizer_digest,
        model=plan.contract.subject,
        evaluator=evaluator_digest(),
    )


def environment(plan: Plan) -> Environment:
    """Return where the run takes place."""
    cuda = plan.device.type == "cuda"
    return Environment(
        device="cuda" if cuda else "cpu",
        accelerator=torch.cuda.get_device_name(plan.device) if cuda else "",
        precision=plan.precision,
        python=platform.python_version(),
        torch=torch.__version__,
        platform=f"{sys.platform} {platform.machine()}",
        threads=torch.get_num_threads(),
        packages={name: version(name) for name in ("numpy", "safetensors", "tokenizers")},
    )


def scope(contract: Contract, root: Path) -> list[Path]:
    """Return the files that decide what a run does, as far as they stand in the repository."""
    return [
        *code_files(),
        root / contract.spec,
        root / "contracts" / f"{contract.contract}.yaml",
        *source_files(contract, root),
    ]


def peak_bytes() -> int:
    """Return the largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
