"""Plan: what a contract would do here, and every reason why it may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sovereign.contract.contract import Contract
from sovereign.contract.method import Qlora
from sovereign.corpus.build import SIDES, Corpus, build
from sovereign.corpus.examples import ExampleSet, ExampleStream
from sovereign.corpus.stream import Stream
from sovereign.corpus.tokens import misfit
from sovereign.lineage import Missing
from sovereign.model.adapters import Unattached
from sovereign.model.decoder import build as build_model
from sovereign.model.pretrained import Unfit
from sovereign.preferences import Preferred, preferred
from sovereign.quantization.nf4 import BLOCK
from sovereign.stopping import LEAST
from sovereign.training import optimizer
from sovereign.training.device import DTYPES, Precision, Unavailable, choose_device, choose_precision, keep_as
from sovereign.training.distributed import ALONE, Ranks
from sovereign.training.memory import Taken, expected_peak, taken
from sovereign.training.speed import Peak, matrix_peak, step_seconds
from sovereign.tuning import Tuning, data_for, find, packed_away

Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """A contract with its corpus counted and its device chosen; empty `refusals` means that it may run."""

    contract: Contract
    seed: int
    corpus: Corpus | ExampleSet
    stream: Stream | ExampleStream
    device: torch.device
    precision: Precision
    precision_because: str
    refusals: tuple[str, ...]
    processes: int = 1
    tuning: Tuning | None = None
    preferred: Preferred | None = None

    @property
    def text(self) -> Corpus:
        """The corpus of running text; a contract of examples has none."""
        assert isinstance(self.corpus, Corpus)
        return self.corpus

    @property
    def windowed(self) -> Stream:
        """The stream of windows of running text."""
        assert not isinstance(self.stream, ExampleStream)
        return self.stream

    @property
    def vocabulary(self) -> int:
        return self.tuning.rows if self.tuning else self.corpus.vocabulary

    @property
    def parameters(self) -> int:
        if self.tuning is None:
            return self.contract.decoder.parameters(self.vocabulary)
        return self.tuning.parameters + self.tuning.added

    @property
    def trainable(self) -> int:
        """Parameters that move."""
        return self.tuning.expected_trainable if self.tuning else self.parameters

    def fresh(self, seed: int | None = None) -> nn.Module:
        """Return the model that is trained, on the CPU: of the contract's shape, or made of its base; the seed draws what is new."""
        drawn = self.seed if seed is None else seed
        if self.tuning is not None:
            model = self.tuning.model(drawn)
        else:
            model = build_model(self.contract.decoder, self.vocabulary, drawn, self.corpus.end_of_text)
        keep_as(model, self.contract.training.weights)
        return model

    @property
    def windows(self) -> int:
        """Windows in one pass over the train side."""
        return self.stream.per_pass

    @property
    def tokens(self) -> int:
        """Target tokens that all steps count in their losses."""
        return self.tokens_between(0, self.contract.training.steps)

    def tokens_between(self, since: int, until: int) -> int:
        """Target tokens that the steps after `since`, up to `until`, count in their losses."""
        if isinstance(self.stream, ExampleStream):
            return self.stream.targets(until, since)
        return (until - since) * self.contract.training.sequences * self.contract.context

    @property
    def tokens_until(self) -> dict[str, int] | None:
        """Evaluated step -> target tokens until then, where the run may stop at it."""
        training, every = self.contract.training, self.contract.evaluation.every
        if training.early_stopping is None:
            return None
        steps = range(every, training.steps, every)
        counted = accumulate(self.tokens_between(step - every, step) for step in steps)
        return {str(step): tokens for step, tokens in zip(steps, counted, strict=True)}

    @property
    def passes(self) -> float:
        return self.contract.training.steps * self.contract.training.sequences / max(1, self.windows)

    @property
    def flops(self) -> float:
        """Floating-point operations of all steps; of a tuned model's frozen matrices no gradient is taken."""
        if self.tuning is None:
            return self.tokens * self.contract.decoder.flops_per_token(self.vocabulary)
        steps = self.contract.training.steps
        given = self.stream.given(steps) if isinstance(self.stream, ExampleStream) else self.tokens
        return given * (4.0 * self.tuning.parameters + 2.0 * self.trainable)

    @property
    def state_bytes(self) -> int:
        """Bytes of weights, gradients and what the optimizer keeps, over all processes that share them."""
        training = self.contract.training
        moments = {"adamw": 2 * 4, "adamw8bit": 2, "muon": 4}[training.optimizer.kind]
        still, size = self.parameters - self.trainable, 4 if training.weights == "fp32" else 2
        if still:  # what moves beside frozen weights stays in fp32
            return still * size + self.trainable * (8 + moments)
        return self.trainable * (2 * size + (moments * size // 4 if training.optimizer.kind == "adamw" else moments))

    @cached_property
    def taken(self) -> Taken:
        """What training takes at its worst moment, on one process; fsdp shares weights, gradients and moments."""
        training, longest = self.contract.training, self.contract.context
        build: Callable[[], nn.Module] = self.fresh
        saved = 0.0
        if self.tuning is not None:
            model = self.tuning.outline()
            keep_as(model, training.weights)
            build, saved = (lambda: model), packed_away(model, self.tuning.method, DTYPES[self.precision])
        if isinstance(self.stream, ExampleStream):
            longest = self.stream.longest
        if training.distributed == "fsdp":
            saved += self.state_bytes * (1 - 1 / self.processes)
        share = max(1, training.sequences // self.processes)
        whole = taken(build, training, share, longest, self.precision, self.device.type)
        return replace(whole, tensors=int(whole.tensors - saved))

    @property
    def training_bytes(self) -> int:
        """Bytes of all tensors alive at the worst moment of training, on one process."""
        return self.taken.tensors

    @cached_property
    def peak_bytes(self) -> int:
        """Memory of one process while it trains: on a CPU with what this process, which has planned, holds already."""
        if self.device.type != "cpu":
            return self.training_bytes
        training, lengths = self.contract.training, 1
        if isinstance(self.stream, ExampleStream) and not self.refusals:
            lengths = self.stream.lengths(training.steps, training.micro_batch or training.sequences)
        return expected_peak(self.taken, lengths)

    @property
    def probe_flops(self) -> float:
        """Operations of the updates on one batch that precede step 0."""
        training = self.contract.training
        return self.flops * training.overfit_one_batch / training.steps

    @property
    def evaluated_tokens(self) -> int:
        """Target tokens that all evaluations score, at most: three sides, at step 0, at every interval, and at the last."""
        evaluation, steps = self.contract.evaluation, self.contract.training.steps
        times = 1 + -(-steps // evaluation.every)
        return times * 3 * evaluation.documents * evaluation.tokens

    def figures(self) -> dict[str, str | int | float]:
        """Return the plan as the table that people read and programs parse."""
        training = self.contract.training
        return {
            "contract": self.contract.contract,
            "seed": self.seed,
            "device": str(self.device),
            "processes": self.processes,
            "precision": f"{self.precision} ({self.precision_because})",
            "compiled": "yes" if training.compile else "no (half a minute of compiling pays only for longer runs)",
            "parameters": self.parameters,
            "weights, gradients and moments, MiB": round(self.state_bytes / 2**20, 1),
            "all tensors of training at once, MiB": round(self.training_bytes / 2**20, 1),
            "peak memory of a process, MiB": round(self.peak_bytes / 2**20, 1),
            "vocabulary": self.vocabulary,
            **self._data_figures(),
            "steps": training.steps,
            "target tokens": self.tokens,
            "passes": round(self.passes, 4),
            "most exposures of a window": -(-training.steps * training.sequences // max(1, self.windows)),
            "tokens per parameter": round(self.tokens / self.parameters, 3),
            "floating-point operations": float(f"{self.flops:.4g}"),
            "of probes before step 0": float(f"{self.probe_flops:.4g}"),
            "tokens scored in evaluations, at most": self.evaluated_tokens,
        }

    def _data_figures(self) -> dict[str, str | int | float]:
        """What is trained on, and of a tuned model what it begins from and what moves."""
        found: dict[str, str | int | float] = {}
        if self.tuning is not None:
            found |= {"base": self.tuning.name, "trainable parameters": self.trainable}
        if self.preferred is not None:
            found |= self.preferred.figures()
        if isinstance(self.corpus, Corpus):
            stream = self.windowed
            return found | {
                "train tokens": stream.shards.tokens,
                "train windows": self.windows,
                "packing": f"{stream.packing:.2%} of the train tokens stand in windows; {stream.dropped:,} are dropped a pass",
            }
        sides = self.corpus.sides
        shown = "".join(f"[{text}]" if learned else text for text, learned in self.corpus.shown()[1])
        return found | {
            "examples, train / validation / control": " / ".join(str(len(sides[side])) for side in SIDES),
            "tokens beyond the context, left out": self.corpus.cut,
            "an example, [what is learned]": json.dumps(shown, ensure_ascii=False),
        }

    def calibrate(self, seconds: float = 20.0) -> Calibration:
        """Return how long a step takes here, measured on a few real ones, and the device's best matrix product."""
        model = self.fresh().to(self.device)
        taken = step_seconds(
            model, self.stream, self.contract.training.model_copy(update={"compile": False}), device=self.device,
            precision=self.precision, seconds=seconds,
        )  # fmt: skip
        return Calibration(self, taken, matrix_peak(self.device, self.precision))


@dataclass(frozen=True)
class Calibration:
    """A few real steps, and what follows from them for the whole."""

    plan: Plan
    step_seconds: float
    peak: Peak

    @property
    def seconds(self) -> float:
        """The whole run: steps and probes, and evaluations at a third of a trained token's cost (no backward pass)."""
        training = self.plan.contract.training
        steps = (training.steps + training.overfit_one_batch) / self.plan.processes
        token = self.step_seconds * training.steps / self.plan.tokens
        return steps * self.step_seconds + self.plan.evaluated_tokens * token / 3 / self.plan.processes

    @property
    def mfu(self) -> float:
        """Share of the best matrix product's rate that training reaches."""
        flops = self.plan.flops / self.plan.contract.training.steps
        return flops / self.step_seconds / (self.peak.flops / self.peak.seconds)

    def figures(self) -> dict[str, Any]:
        """Return what was measured, for the same table."""
        training = self.plan.contract.training
        return {
            "seconds a step, measured eager in one process": round(self.step_seconds, 4),
            "tokens a second": round(self.plan.tokens / training.steps / self.step_seconds),
            "matrix peak, GFLOP/s": round(self.peak.flops / self.peak.seconds / 1e9, 1),
            "model FLOPs utilisation": round(self.mfu, 3),
            "estimated seconds, evaluations included": round(self.seconds),
        }


class Refused(Exception):
    """A precondition of the contract does not hold; nothing was started."""

    def __init__(self, refusals: tuple[str, ...]):
        self.refusals = refusals
        super().__init__("\n".join(refusals))


def plan(
    contract: Contract, root: Path, device: str, told: Told, seed: int | None = None, ranks: Ranks = ALONE,
    base: str | None = None,
) -> Plan:  # fmt: skip
    """Return what the contract would do here; the corpus is built, or found, under artifacts/.

    `base` is the run that an intent froze as the one to tune.

    Raises Refused before anything is built where the device, the precision or the seed is not to be had.
    """
    chosen_seed = contract.seeds[0] if seed is None else seed
    if chosen_seed not in contract.seeds:
        raise Refused((f"seed {chosen_seed} is not one of the contract's seeds {list(contract.seeds)}",))
    try:
        place = choose_device(asked_device(device, contract), ranks.local)
        precision, because = choose_precision(contract.training.precision, place)
        optimizer.check_available(contract.training.optimizer)
    except (Unavailable, optimizer.Unavailable) as reason:
        raise Refused((str(reason),)) from None
    training, tuning = contract.training, None
    if training.weights not in ("fp32", precision):
        raise Refused((
            f"training.weights: {training.weights} needs products in {training.weights}, and here they are in {precision}: {because}; "
            f"{'' if precision == 'fp32' else f'{precision} or '}fp32 would be right",
        ))  # fmt: skip
    try:
        if contract.tuned is None:
            corpus: Corpus | ExampleSet = build(
                contract.data, contract.trained_tokenizer, root, root / "artifacts" / "corpus", told
            )
        else:
            tuning = find(contract, root, told, base)
            corpus = data_for(contract, tuning, root, told)
            if isinstance(corpus, ExampleSet):
                tuning = replace(tuning, labels=len(corpus.labels))
    except (
        ValueError,
        Unfit,
        Unattached,
        Missing,
    ) as reason:  # a side without documents, a vocabulary that the text does not give
        raise Refused((str(reason),)) from None
    stream: Stream | ExampleStream
    if isinstance(corpus, Corpus):
        stream = Stream(
            corpus.train, contract.context, training.sequences, chosen_seed,
            training.wrap_around, training.most_passes, corpus.held_out,
        )  # fmt: skip
    else:
        stream = ExampleStream(
            corpus.sides["train"], training.sequences, chosen_seed, training.wrap_around, training.most_passes
        )
    refusals = [refusal for refusal in (stream.refusal(training.steps),) if refusal]
    if tuning is not None:
        refusals += untunable(contract, tuning, corpus)
    elif wrong := misfit(
        corpus.vocabulary, contract.trained_tokenizer.vocabulary or corpus.vocabulary, pretrained=False
    ):
        refusals.append(wrong)
    if not isinstance(stream, ExampleStream):
        refusals += too_little(contract, stream.shards.tokens)
    share, left = divmod(training.sequences, ranks.size)
    if left:
        refusals.append(f"{training.sequences} sequences a step cannot be shared evenly by {ranks.size} processes")
    elif share % (training.micro_batch or 1):
        refusals.append(
            f"{ranks.size} processes take {share} sequences each, no multiple of micro_batch {training.micro_batch}"
        )
    held_out = corpus.ids("validation") if isinstance(corpus, Corpus) else corpus.sides["validation"]
    compared = min(len(held_out), contract.evaluation.documents)
    if training.early_stopping and compared < 2 * LEAST:
        refusals.append(f"early_stopping compares documents, and {compared} are too few; {2 * LEAST} are the least")
    if training.early_stopping and contract.evaluation.every % training.checkpoint_every:
        refusals.append(
            f"early_stopping keeps the best evaluation, but evaluations every {contract.evaluation.every} steps do not meet "
            f"checkpoints every {training.checkpoint_every}"
        )
    if (
        isinstance(corpus, Corpus)
        and contract.evaluation.samples.prompts
        and contract.evaluation.samples.tokens >= contract.context
    ):
        refusals.append(
            f"samples of {contract.evaluation.samples.tokens} tokens leave no room for a prompt in a context of "
            f"{contract.context}"
        )
    held = None
    if tuning is not None and contract.data.preferences is not None:
        held = preferred(contract, contract.data.preferences, tuning, root, place, precision)
        refusals += held.refusals
    return Plan(
        contract, chosen_seed, corpus, stream, place, precision, because, tuple(refusals), ranks.size, tuning, held
    )


def untunable(contract: Contract, tuning: Tuning, corpus: Corpus | ExampleSet) -> list[str]:
    """Return every reason why a base cannot be tuned on this data, as the contract asks."""
    found = []
    if wrong := misfit(corpus.vocabulary, tuning.rows, pretrained=True):
        found.append(wrong)
    try:
        _ = tuning.expected_trainable  # looks every target up in the base's files
    except Unattached as reason:
        found.append(str(reason))
    if tuning.shape is not None and contract.context > tuning.shape.context:
        found.append(f"context {contract.context} is beyond the {tuning.shape.context} positions that the base knows")
    if tuning.shape is not None and (tuning.shape.experts or tuning.shape.within_documents):
        found.append("the base has experts, or attends within documents; neither is tuned here")
    if isinstance(tuning.method, Qlora) and (odd := tuning.unpackable):
        found.append(
            f"method qlora: {odd} has rows of {tuning.shapes[odd][1]} weights, and four bits are packed in blocks of "
            f"{BLOCK}; tune it with method lora"
        )
    if contract.training.distributed == "fsdp":
        found.append("a tuned model is not shared in parts; use training.distributed: ddp")
    if isinstance(corpus, ExampleSet) and (empty := corpus.without_targets):
        found.append(
            f"{len(empty)} examples have no token that carries loss: what they are given fills the context of "
            f"{contract.context} alone; raise method.context (the first is {empty[0]})"
        )
    return found


def asked_device(given: str, contract: Contract) -> str:
    """Return the device to choose: the contract's where it insists on one, and nothing else was asked for."""
    promised = contract.training.device
    if promised == "any" or given.partition(":")[0] == promised:
        return given
    if given != "auto":
        raise Unavailable(f"device {given!r}: the contract is to run on {promised} (training.device)")
    return promised


def too_little(contract: Contract, train_tokens: int) -> list[str]:
    """Return why the contract's minimum of tokens is not met: by the corpus, and by what is trained on (CASE-04)."""
    least, training = contract.data.least_tokens, contract.training
    if least is None:
        return []
    planned = training.steps * training.sequences * contract.context
    found = []
    if train_tokens < least:
        found.append(f"the train side holds {train_tokens} tokens, where data.least_tokens asks for {least}")
    if planned < least:
        found.append(
            f"{training.steps} steps x {training.sequences} sequences x {contract.context} tokens = {planned}, "
            f"where data.least_tokens asks for {least}"
        )
    return found
