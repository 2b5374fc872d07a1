"""A contract: everything one run promises, and how overrides reach it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sovereign.canonical import Document, Malformed, Problem, Record, digest, parse_yaml, read, validate
from sovereign.contract.data import Data, Tokenizer
from sovereign.contract.foresight import Forecast, Hypothesis
from sovereign.contract.method import Classification, Embeddings, Full, Method, Scratch, Tuned
from sovereign.contract.model import Decoder
from sovereign.contract.shipping import Shipping
from sovereign.contract.training import Evaluation, Samples, Training

Seed = Annotated[int, Field(ge=0, lt=2**31)]

MOST_CLIP = 32.0  # the optimizer takes gradients of float16 weights a thousandfold, and float16 ends at 65504


class Contract(Record):
    """The criteria a run claims; its data, tokenizer, model, training and evaluation; its seeds."""

    schema_: Literal["sovereign/contract/v1"] = Field(alias="schema")
    contract: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)
    title: str
    spec: str = Field(description="the spec file that holds the criteria, from the repository's root")
    claims: tuple[str, ...]
    seeds: tuple[Seed, ...] = Field(min_length=1, description="`run --seed` takes one of them; the first by default")
    ttl_hours: float = Field(default=24.0, gt=0, description="an intent open for longer counts as unconcluded")
    data: Data
    method: Method = Scratch()
    tokenizer: Tokenizer | None = Field(default=None, description="of a model from scratch; a tuned one has its base's")
    model: Decoder | None = Field(default=None, description="of a model from scratch; a tuned one has its base's")
    training: Training
    evaluation: Evaluation
    shipping: Shipping | None = None
    forecasts: tuple[Forecast, ...] = Field(default=(), description="scored when their step arrives")
    hypotheses: tuple[Hypothesis, ...] = Field(default=(), description="decided by runs, and by nothing else")

    @model_validator(mode="after")
    def _consistent(self) -> Contract:
        if len(set(self.claims)) != len(self.claims):
            raise ValueError("claims lists a criterion twice")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds lists a seed twice")
        if len({one.id for one in self.hypotheses}) != len(self.hypotheses):
            raise ValueError("hypotheses lists an id twice")
        late = [one for one in self.forecasts if one.step > self.training.steps]
        if late:
            raise ValueError(
                f"forecast of {late[0].metric} at step {late[0].step} is never due: training ends at step {self.training.steps}"
            )
        (_from_scratch if isinstance(self.method, Scratch) else _tuned)(self)
        if self.training.weights == "fp16" and self._all_move:
            _moves_in_fp16(self.training)
        return self

    @property
    def _all_move(self) -> bool:
        """Whether every weight moves, rather than adapters or rows beside weights that stand still."""
        return isinstance(self.method, Scratch | Full) or (
            isinstance(self.method, Classification) and self.method.adapter is None
        )

    @property
    def decoder(self) -> Decoder:
        """The shape of a model from scratch."""
        assert self.model is not None  # `_consistent` has seen to it
        return self.model

    @property
    def trained_tokenizer(self) -> Tokenizer:
        """The tokenizer section of a model from scratch."""
        assert self.tokenizer is not None
        return self.tokenizer

    @property
    def tuned(self) -> Tuned | None:
        """The method, where it begins from a base."""
        return None if isinstance(self.method, Scratch) else self.method

    @property
    def context(self) -> int:
        """Most tokens of a window or an example."""
        return self.decoder.context if isinstance(self.method, Scratch) else self.method.context

    @property
    def subject(self) -> str:
        """What the run makes, as a digest: every section but the claims and the prose around them."""
        mine = self.meaning()
        sections = ("data", "method", "tokenizer", "model", "training", "evaluation", "shipping")
        return digest({key: mine[key] for key in sections if key in mine})

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = (), name: str | None = None) -> Contract:
        """Return the contract at `path` with `key.path=value` overrides, validated as if they stood in the file.

        Raises Malformed with every fault at its file, line and column; an override's fault names the override.
        """
        document = read(path, name)
        return validate(cls, overridden(document, overrides) if overrides else document)


def _moves_in_fp16(training: Training) -> None:
    """Raise ValueError for settings under which weights that are float16 themselves could not be moved."""
    if training.optimizer.kind != "adamw8bit":
        raise ValueError(
            f"training.weights: {training.optimizer.kind} would keep its moments in fp16, where the squares of small "
            "gradients are 0; use optimizer adamw8bit, or keep weights that move in fp32"
        )
    if training.clip > MOST_CLIP:
        raise ValueError(
            f"training.clip: {training.clip:g} may be too much for fp16 weights; {MOST_CLIP:g} is the most there"
        )


def _from_scratch(contract: Contract) -> None:
    """Raise ValueError for what a model from scratch lacks, or could not use."""
    for section in ("tokenizer", "model"):
        if getattr(contract, section) is None:
            raise ValueError(f"{section}: required, and not given: a model from scratch has no base to take it from")
    if contract.data.examples:
        raise ValueError(
            f"data.source of kind {contract.data.source.kind} tunes a base; name it under method, "
            "as in method: {kind: full, base: {run: ...}, context: 128}"
        )
    if contract.data.preferences is not None:
        raise ValueError("data.preferences are held against a base; a model from scratch has none")
    if contract.data.split.inherit:
        raise ValueError("data.split.inherit has nobody to inherit from; a model from scratch has no base")
    if contract.evaluation.generation is not None:
        raise ValueError("evaluation.generation compares with a base; evaluation.samples is for a model from scratch")
    if contract.evaluation.prompted is not None:
        raise ValueError("evaluation.prompted asks a classifier's base; a model from scratch has none")


def _tuned(contract: Contract) -> None:
    """Raise ValueError for settings that a tuned model would ignore, and data that its method cannot learn from."""
    method, data = contract.method, contract.data
    assert not isinstance(method, Scratch)
    for section in ("tokenizer", "model"):
        if getattr(contract, section) is not None:
            raise ValueError(f"{section}: method {method.kind} takes it from its base and would ignore this; remove it")
    if isinstance(method, Classification) != data.labelled:
        wanted = "labels: a source of kind stdlib_labels or labelled" if isinstance(method, Classification) else "text"
        raise ValueError(f"method {method.kind} learns from {wanted}; data.source is of kind {data.source.kind}")
    if data.preferences is not None and data.labelled:
        raise ValueError("data.preferences are of answers, and a classifier writes none; remove them")
    if isinstance(method, Embeddings) and method.new_tokens and not method.base.run:
        raise ValueError("new_tokens are found in the train side of a base run; a folder or a hub model shows none")
    if contract.shipping is not None:
        raise ValueError(
            "shipping exports a model from scratch; `sovereign export` takes a tuned run once it has closed"
        )
    if contract.evaluation.prompted is not None and not data.labelled:
        raise ValueError(
            f"evaluation.prompted labels texts, and a source of kind {data.source.kind} has no labels; remove it"
        )
    if data.split.inherit and not method.base.run:
        raise ValueError(f"data.split.inherit needs a base run; nobody knows what {method.base} was trained on")
    if data.examples and contract.evaluation.samples != Samples():
        raise ValueError(
            "evaluation.samples continues function heads of running text and would be ignored; "
            "held-out prompts are answered by evaluation.generation"
        )
    if contract.evaluation.generation is not None and (data.labelled or not data.examples):
        raise ValueError(
            f"evaluation.generation answers held-out prompts, and a source of kind {data.source.kind} has none; remove it"
        )


def overridden(document: Document, overrides: Sequence[str]) -> Document:
    """Return the document with each `key.path=value` set; values are read as YAML, as in the file."""
    value = copy.deepcopy(document.value)
    set_keys: dict[tuple[str | int, ...], str] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = tuple(path.split("."))
        if not equals or not all(keys):
            raise Malformed([Problem(f"--set {override}", "write key.path=value, as in --set training.steps=20")])
        place: Any = value
        for key in keys[:-1]:
            if not isinstance(place, dict) or not isinstance(place.setdefault(key, {}), dict):
                raise Malformed([Problem(f"--set {override}", f"{key} is not a section of the contract")])
            place = place[key]
        if not isinstance(place, dict):
            raise Malformed([Problem(f"--set {override}", f"{'.'.join(keys[:-1])} is not a section of the contract")])
        place[keys[-1]] = parse_yaml(text.encode(), f"--set {override}").value
        set_keys[keys] = override
    return _Overridden(document.path, value, document.place, set_keys)


class _Overridden(Document):
    """A document some of whose values came from the command line, which is where their faults are shown."""

    def __init__(self, path: str, value: Any, place: Any, set_keys: dict[tuple[str | int, ...], str]):
        super().__init__(path, value, place)
        object.__setattr__(self, "set_keys", set_keys)

    def problem(self, keys: tuple[str | int, ...], message: str) -> Problem:
        for set_key, override in self.set_keys.items():  # type: ignore[attr-defined]
            if keys[: len(set_key)] == set_key or (set_key[: len(keys)] == keys and keys):
                return Problem(f"--set {override}", message)
        return super().problem(keys, message)
