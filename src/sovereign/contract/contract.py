"""A contract: everything one run promises, and how overrides reach it."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sovereign.canonical import Document, Malformed, Problem, Record, digest, parse_yaml, read, validate
from sovereign.contract.data import Data, Tokenizer
from sovereign.contract.foresight import Forecast, Hypothesis
from sovereign.contract.model import Decoder
from sovereign.contract.shipping import Shipping
from sovereign.contract.training import Evaluation, Training

Seed = Annotated[int, Field(ge=0, lt=2**31)]


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
    tokenizer: Tokenizer
    model: Decoder
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
        return self

    @property
    def subject(self) -> str:
        """What the run makes, as a digest: every section but the claims and the prose around them."""
        mine = self.meaning()
        sections = ("data", "tokenizer", "model", "training", "evaluation", "shipping")
        return digest({key: mine[key] for key in sections if key in mine})

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = (), name: str | None = None) -> Contract:
        """Return the contract at `path` with `key.path=value` overrides, validated as if they stood in the file.

        Raises Malformed with every fault at its file, line and column; an override's fault names the override.
        """
        document = read(path, name)
        return validate(cls, overridden(document, overrides) if overrides else document)


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


def applied(overrides: Sequence[str]) -> str:
    """Return overrides as one line for people."""
    return " ".join(f"--set {json.dumps(one) if ' ' in one else one}" for one in overrides)
