"""Plan: what a contract would do here, and every reason why it may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sovereign.contract.contract import Contract
from sovereign.corpus.build import Corpus, build
from sovereign.corpus.stream import Stream
from sovereign.corpus.tokens import misfit
from sovereign.model.decoder import Decoder
from sovereign.model.decoder import build as build_model
from sovereign.training import optimizer
from sovereign.training.device import Precision, Unavailable, choose_device, choose_precision
from sovereign.training.distributed import ALONE, Ranks
from sovereign.training.memory import resident_bytes, training_bytes
from sovereign.training.speed import Peak, matrix_peak, step_seconds
from sovereign.training.stopping import LEAST

Told = Callable[[str, int, int], None]
# what a process on a CPU grew by beyond its tensors, over eleven shapes, precisions and batches of 3 to 40M parameters:
# kernels that are loaded when first used, and holes in the heap
LIBRARIES = 30 * 2**20
HEAP = 1.2


@dataclass(frozen=True)
class Plan:
    """A contract with its corpus counted and its device chosen; empty `refusals` means that it may run."""

    contract: Contract
    seed: int
    corpus: Corpus
    stream: Stream
    device: torch.device
    precision: Precision
    precision_because: str
    refusals: tuple[str, ...]
    processes: int = 1

    @property
    def vocabulary(self) -> int:
        return self.corpus.vocabulary

    @property
    def parameters(self) -> int:
        return self.contract.model.parameters(self.vocabulary)

    def fresh(self, seed: int | None = None) -> Decoder:
        """Return a new model of the contract's shape, its weights drawn by the seed, on the CPU."""
        drawn = self.seed if seed is None else seed
        return build_model(self.contract.model, self.vocabulary, drawn, self.corpus.end_of_text)

    @property
    def windows(self) -> int:
        """Windows in one pass over the train side."""
        return self.stream.per_pass

    @property
    def tokens(self) -> int:
        """Target tokens that all steps count in their losses."""
        return self.contract.training.steps * self.contract.training.sequences * self.contract.model.context

    @property
    def passes(self) -> float:
        return self.contract.training.steps * self.contract.training.sequences / max(1, self.windows)

    @property
    def flops(self) -> float:
        return self.tokens * self.contract.model.flops_per_token(self.vocabulary)

    @property
    def state_bytes(self) -> int:
        """Bytes of weights, gradients and what the optimizer keeps, over all processes that share them."""
        moments = {"adamw": 8, "adamw8bit": 2, "muon": 4}[self.contract.training.optimizer.kind]
        return self.parameters * (4 + 4 + moments)

    @cached_property
    def training_bytes(self) -> int:
        """Bytes of all tensors alive at the worst moment of training, on one process; fsdp shares their state."""
        training = self.contract.training
        whole = training_bytes(
            self.fresh, training,
            max(1, training.sequences // self.processes), self.contract.model.context, self.precision, self.device.type,
        )  # fmt: skip
        shared = self.state_bytes * (1 - 1 / self.processes) if training.distributed == "fsdp" else 0
        return int(whole - shared)

    @cached_property
    def peak_bytes(self) -> int:
        """Memory of one process while it trains: on a CPU with what this process, which has planned, holds already."""
        if self.device.type != "cpu":
            return self.training_bytes
        return int(resident_bytes() + LIBRARIES + HEAP * self.training_bytes)

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
            "train tokens": self.stream.shards.tokens,
            "train windows": self.windows,
            "packing": f"{self.stream.packing:.2%} of the train tokens stand in windows; {self.stream.dropped:,} are dropped a pass",
            "steps": training.steps,
            "target tokens": self.tokens,
            "passes": round(self.passes, 4),
            "most exposures of a window": -(-training.steps * training.sequences // max(1, self.windows)),
            "tokens per parameter": round(self.tokens / self.parameters, 3),
            "floating-point operations": float(f"{self.flops:.4g}"),
            "of probes before step 0": float(f"{self.probe_flops:.4g}"),
            "tokens scored in evaluations, at most": self.evaluated_tokens,
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
    contract: Contract, root: Path, device: str, told: Told, seed: int | None = None, ranks: Ranks = ALONE
) -> Plan:
    """Return what the contract would do here; the corpus is built, or found, under artifacts/.

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
    try:
        corpus = build(contract.data, contract.tokenizer, root, root / "artifacts" / "corpus", told)
    except ValueError as reason:  # a side without documents, a vocabulary that the text does not give
        raise Refused((str(reason),)) from None
    training = contract.training
    stream = Stream(
        corpus.train, contract.model.context, training.sequences, chosen_seed,
        training.wrap_around, training.most_passes, corpus.held_out,
    )  # fmt: skip
    refusals = [refusal for refusal in (stream.refusal(training.steps),) if refusal]
    asked = contract.tokenizer.vocabulary or corpus.vocabulary
    if wrong := misfit(corpus.vocabulary, asked, pretrained=False):
        refusals.append(wrong)
    refusals += too_little(contract, stream.shards.tokens)
    share, left = divmod(training.sequences, ranks.size)
    if left:
        refusals.append(f"{training.sequences} sequences a step cannot be shared evenly by {ranks.size} processes")
    elif share % (training.micro_batch or 1):
        refusals.append(
            f"{ranks.size} processes take {share} sequences each, no multiple of micro_batch {training.micro_batch}"
        )
    if training.early_stopping and min(len(corpus.ids("validation")), contract.evaluation.documents) < 2 * LEAST:
        refusals.append(
            f"early_stopping compares documents, and {min(len(corpus.ids('validation')), contract.evaluation.documents)} "
            f"are too few; {2 * LEAST} are the least"
        )
    if training.early_stopping and contract.evaluation.every % training.checkpoint_every:
        refusals.append(
            f"early_stopping keeps the best evaluation, but evaluations every {contract.evaluation.every} steps do not meet "
            f"checkpoints every {training.checkpoint_every}"
        )
    if contract.evaluation.samples.prompts and contract.evaluation.samples.tokens >= contract.model.context:
        refusals.append(
            f"samples of {contract.evaluation.samples.tokens} tokens leave no room for a prompt in a context of "
            f"{contract.model.context}"
        )
    return Plan(contract, chosen_seed, corpus, stream, place, precision, because, tuple(refusals), ranks.size)


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
    planned = training.steps * training.sequences * contract.model.context
    found = []
    if train_tokens < least:
        found.append(f"the train side holds {train_tokens} tokens, where data.least_tokens asks for {least}")
    if planned < least:
        found.append(
            f"{training.steps} steps x {training.sequences} sequences x {contract.model.context} tokens = {planned}, "
            f"where data.least_tokens asks for {least}"
        )
    return found
