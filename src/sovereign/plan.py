"""Plan: what a contract would do here, and every reason why it may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from sovereign.contract.contract import Contract
from sovereign.corpus.build import Corpus, build
from sovereign.corpus.stream import Stream
from sovereign.corpus.tokens import misfit
from sovereign.training.device import Precision, Unavailable, choose_device, choose_precision

Told = Callable[[str, int, int], None]


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

    @property
    def vocabulary(self) -> int:
        return self.corpus.vocabulary

    @property
    def parameters(self) -> int:
        return self.contract.model.parameters(self.vocabulary)

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
        """Bytes of weights, gradients and both AdamW moments, all fp32; activations come on top."""
        return self.parameters * 4 * 4

    def figures(self) -> dict[str, str | int | float]:
        """Return the plan as the table that people read and programs parse."""
        training = self.contract.training
        return {
            "contract": self.contract.contract,
            "seed": self.seed,
            "device": str(self.device),
            "precision": f"{self.precision} ({self.precision_because})",
            "compiled": "yes" if training.compile else "no (half a minute of compiling pays only for longer runs)",
            "parameters": self.parameters,
            "weights, gradients and moments, MiB": round(self.state_bytes / 2**20, 1),
            "vocabulary": self.vocabulary,
            "train tokens": self.stream.shards.tokens,
            "train windows": self.windows,
            "packing": f"{self.stream.packing:.2%} of the train tokens stand in windows; {self.stream.dropped:,} are dropped a pass",
            "steps": training.steps,
            "target tokens": self.tokens,
            "passes": round(self.passes, 4),
            "tokens per parameter": round(self.tokens / self.parameters, 3),
            "floating-point operations": float(f"{self.flops:.4g}"),
        }


class Refused(Exception):
    """A precondition of the contract does not hold; nothing was started."""

    def __init__(self, refusals: tuple[str, ...]):
        self.refusals = refusals
        super().__init__("\n".join(refusals))


def plan(contract: Contract, root: Path, device: str, told: Told, seed: int | None = None) -> Plan:
    """Return what the contract would do here; the corpus is built, or found, under artifacts/.

    Raises Refused before anything is built where the device, the precision or the seed is not to be had.
    """
    chosen_seed = contract.seeds[0] if seed is None else seed
    if chosen_seed not in contract.seeds:
        raise Refused((f"seed {chosen_seed} is not one of the contract's seeds {list(contract.seeds)}",))
    try:
        place = choose_device(asked_device(device, contract))
        precision, because = choose_precision(contract.training.precision, place)
    except Unavailable as reason:
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
    if contract.evaluation.samples.prompts and contract.evaluation.samples.tokens >= contract.model.context:
        refusals.append(
            f"samples of {contract.evaluation.samples.tokens} tokens leave no room for a prompt in a context of "
            f"{contract.model.context}"
        )
    return Plan(contract, chosen_seed, corpus, stream, place, precision, because, tuple(refusals))


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
