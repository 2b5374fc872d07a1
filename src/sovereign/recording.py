"""Record the controls of a spec anew: train a small contract once clean, and once with each fault planted in it.

    spec/controls/recipes.yaml    which small contract, and what is planted for each criterion

A fault is planted in the code that runs, never in the rows: one function of the run is swapped for one that is
wrong in a way that has misled somebody (the casebook's case is named beside it). Guards that would stop such a run
are swapped too; they are held by tests of their own.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from tokenizers.normalizers import Replace

from sovereign import plan as planning
from sovereign import run as execution
from sovereign.canonical import Malformed, Record, pretty, read, validate, write_atomic
from sovereign.contract.contract import Contract
from sovereign.controls import CONTROLS, Side, needed
from sovereign.corpus import tokens
from sovereign.corpus.build import Corpus, build
from sovereign.corpus.shards import open_shards, write_shards
from sovereign.corpus.stream import Stream
from sovereign.evidence.folder import read_folder
from sovereign.evidence.journal import Journal
from sovereign.plan import Told
from sovereign.repository import Located
from sovereign.spec.criterion import Criterion, Id
from sovereign.training import checkpoint, evaluation, loop, scrutiny
from sovereign.training.optimizer import optimizer_for

Fault = Literal[
    "none", "rate_ignored", "validation_trained_on", "targets_uncounted", "resume_forgets", "weights_not_fresh",
    "empty_sampler_writes", "evaluation_shortsighted", "tokenizer_forgets", "device_claimed", "loader_dawdles",
    "memory_unplanned",
]  # fmt: skip
RECIPES = CONTROLS / "recipes.yaml"


class Plant(Record):
    """What makes a run bad for a criterion: a fault in the code, other settings, or both."""

    fault: Fault = "none"
    set_: tuple[str, ...] = Field(default=(), alias="set", description="overrides of the small contract")

    @model_validator(mode="after")
    def _plants_something(self) -> Plant:
        if self.fault == "none" and not self.set_:
            raise ValueError("plants nothing: name a fault, or override the contract with set")
        return self


class Recipes(Record):
    """What the controls of a spec are recorded from."""

    schema_: Literal["sovereign/controls/v1"] = Field(alias="schema")
    contract: str = Field(description="a contract that trains in seconds, from the repository's root")
    bad: dict[Id, Plant] = Field(description="criterion -> what its bad control is planted with")
    good: dict[Id, tuple[str, ...]] = Field(
        default={}, description="criterion -> overrides of the small contract for its good control"
    )


def record(root: Path, located: Located, wanted: Sequence[Criterion], told: Told) -> list[Path]:
    """Write the good and the bad control of each wanted criterion, and return their folders.

    Every plant is trained once, however many criteria it is bad for. Raises Malformed for recipes that cannot be
    read or say nothing of a wanted criterion, and RuntimeError where a planted run did not complete.
    """
    recipes = validate(Recipes, document := read(root / RECIPES, RECIPES.as_posix()))
    silent = [one.id for one in wanted if one.id not in recipes.bad]
    if silent:
        raise Malformed(
            [document.problem(("bad",), f"says nothing of {', '.join(silent)}: what makes a run bad for it?")]
        )
    written: list[Path] = []
    plants: dict[Plant | None, list[tuple[Criterion, Side]]] = {}
    for one in wanted:
        settings = recipes.good.get(one.id)
        plants.setdefault(Plant(set=settings) if settings else None, []).append((one, "good"))
        plants.setdefault(recipes.bad[one.id], []).append((one, "bad"))
    with tempfile.TemporaryDirectory(prefix="sovereign-controls-") as place:
        for number, (plant, uses) in enumerate(plants.items()):
            told(f"training {_named(plant)}, for {', '.join(one.id for one, _ in uses)}", number, len(plants))
            alone = Path(place) / str(number)  # a corpus that was built before would hide a fault in building it
            shutil.copytree(root / "spec", alone / "spec")
            folder = _trained(alone, recipes.contract, located, plant)
            written += [_kept(root, folder, located, criterion, side) for criterion, side in uses]
    return written


def _named(plant: Plant | None) -> str:
    return "a clean run" if plant is None else " ".join([plant.fault, *plant.set_]).removeprefix("none ")


def _trained(root: Path, contract: str, located: Located, plant: Plant | None) -> Path:
    """Return the evidence folder of a run of the small contract with a fault planted in it."""
    overrides = plant.set_ if plant else ()
    promise = Contract.load(root / contract, overrides, contract)
    with ExitStack() as planted:
        if plant is not None and plant.fault != "none":
            planted.enter_context(FAULTS[plant.fault]())
        concluded = execution.run(
            planning.plan(promise, root, "cpu", _quiet), located.spec, root,
            # a control is no evidence: should one ever be copied under evidence/, it decides nothing there
            overrides=(f"recorded as a control: {_named(plant)}",),
            told=_quiet, progress=lambda *told: None,
        )  # fmt: skip
    if concluded.outcome != "completed":
        raise RuntimeError(f"{_named(plant)} did not complete: {concluded.reason}")
    return concluded.folder


def _kept(root: Path, folder: Path, located: Located, criterion: Criterion, side: Side) -> Path:
    """Copy what a control needs of a run's folder, in the place of what stood there."""
    target = root / CONTROLS / criterion.id / side
    found = read_folder(folder, folder.name)
    assert found.intent is not None
    partial = target.with_name(f".{side}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "rows").mkdir(parents=True)
    write_atomic(partial / "intent.json", pretty(found.intent.plain()))
    for kind in needed(located.spec, criterion):
        write_atomic(partial / "rows" / f"{kind}.jsonl", (folder / "rows" / f"{kind}.jsonl").read_bytes())
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def _quiet(part: str, done: int, total: int) -> None:
    """Say nothing: the recording says what it trains."""


# ── faults ───────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def swapped(place: Any, name: str, wrong: Any) -> Iterator[None]:
    """Put `wrong` where a module or class holds `name`, for as long as the block lasts."""
    right = getattr(place, name)
    setattr(place, name, wrong)
    try:
        yield
    finally:
        setattr(place, name, right)


@contextmanager
def rate_ignored() -> Iterator[None]:
    """Train with an optimizer that keeps a rate a thousand times too low, whatever it is set to (CASE-16, CASE-17)."""

    class Deaf(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            super().__setitem__(key, 1e-6 if key == "lr" else value)

    def deaf(*arguments: Any) -> torch.optim.Optimizer:
        optimizer = optimizer_for(*arguments)
        optimizer.param_groups = [Deaf(group) for group in optimizer.param_groups]
        return optimizer

    with (
        swapped(execution, "optimizer_for", deaf),
        swapped(loop, "rate_as_planned", lambda step, planned, rates: rates[0]),
    ):
        yield


@contextmanager
def validation_trained_on() -> Iterator[None]:
    """Put every validation document into the train side, and let the stream open all the same (CASE-07)."""

    def leaked(*arguments: Any) -> Corpus:
        corpus = build(*arguments)
        folder = Path(tempfile.mkdtemp(prefix="leaked-", dir=corpus.folder.parent))
        write_shards(
            folder, [*corpus.ids("train"), *corpus.ids("validation")],
            vocabulary=corpus.vocabulary, end_of_text=corpus.end_of_text, tokenizer=corpus.tokenizer_digest,
        )  # fmt: skip
        return replace(corpus, shards={**corpus.shards, "train": open_shards(folder)})

    def blind(
        shards: Any, context: int, sequences: int, seed: int, wrap: bool, most: float | None, held_out: Any
    ) -> Stream:
        return Stream(shards, context, sequences, seed, wrap, most)

    with swapped(planning, "build", leaked), swapped(planning, "Stream", blind):
        yield


@contextmanager
def targets_uncounted() -> Iterator[None]:
    """Mask the most common target in every batch, as a collator does that takes it for padding (CASE-11)."""

    def masking(model: Any, optimizer: Any, stream: Any, *arguments: Any, **settings: Any) -> None:
        common = int(np.bincount(stream.batch(1).ids.ravel()).argmax())
        loop.train(model, optimizer, stream, *arguments, **settings, ignore=common)

    with swapped(execution, "train", masking):
        yield


@contextmanager
def resume_forgets() -> Iterator[None]:
    """Resume with fresh optimizer moments (CASE-23)."""
    load = checkpoint.load

    def forgetful(path: Path, model: Any, optimizer: Any) -> Any:
        state = load(path, model, optimizer)
        optimizer.state.clear()
        return state

    with swapped(checkpoint, "load", forgetful):
        yield


@contextmanager
def weights_not_fresh() -> Iterator[None]:
    """Start from weights ten times too large, as when another model's were loaded by mistake (CASE-12)."""

    fresh = planning.Plan.fresh

    def loud(*arguments: Any) -> Any:
        model = fresh(*arguments)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(10)
        return model

    with swapped(planning.Plan, "fresh", loud):
        yield


@contextmanager
def empty_sampler_writes() -> Iterator[None]:
    """Give the sampler of newlines a body to write: a metric that counts empty text would look like this (CASE-31)."""
    log = Journal.log

    def writing(journal: Any, kind: str, **row: Any) -> None:
        if kind == "sample" and row["sampler"] == "newline":
            row["text"] = "\n    found = 1\n    return found\n\n"
        log(journal, kind, **row)

    with swapped(Journal, "log", writing):
        yield


@contextmanager
def evaluation_shortsighted() -> Iterator[None]:
    """Evaluate in windows half as long as those trained on: another loss under the same name (CASE-37)."""

    def short(*arguments: Any, context: int, **settings: Any) -> Any:
        return evaluation.evaluate(*arguments, context=context // 2, **settings)

    with swapped(scrutiny, "evaluate", short), swapped(execution, "evaluate", short):
        yield


@contextmanager
def tokenizer_forgets() -> Iterator[None]:
    """Train a tokenizer that reads every underscore as a space: the text cannot be had back (CASE-13)."""
    train = tokens.train_bpe

    def lossy(*arguments: Any) -> Any:
        tokenizer = train(*arguments)
        tokenizer.normalizer = Replace("_", " ")
        return tokenizer

    with swapped(tokens, "train_bpe", lossy):
        yield


@contextmanager
def device_claimed() -> Iterator[None]:
    """Write down a GPU, and train on the CPU (CASE-09)."""
    there = execution.environment

    def boasting(plan: Any) -> Any:
        return there(plan).model_copy(update={"device": "cuda", "accelerator": "a GPU"})

    with swapped(execution, "environment", boasting):
        yield


@contextmanager
def loader_dawdles() -> Iterator[None]:
    """Let every batch from step 15 to 60 wait for 0.4 s: a device that is starved, not slow."""
    batch = Stream.batch

    def late(stream: Any, step: int, *arguments: Any) -> Any:
        time.sleep(0.4 if 15 <= step <= 60 else 0)
        return batch(stream, step, *arguments)

    with swapped(Stream, "batch", late):
        yield


@contextmanager
def memory_unplanned() -> Iterator[None]:
    """Predict memory as if weights were all there is: no gradients, moments or activations, and no process."""
    weights = property(lambda plan: 4 * plan.parameters)
    with swapped(planning.Plan, "peak_bytes", weights):
        yield


FAULTS: dict[Fault, Callable[[], AbstractContextManager[Any]]] = cast(
    "dict[Fault, Callable[[], AbstractContextManager[Any]]]",
    {
        one.__name__: one
        for one in (
            rate_ignored, validation_trained_on, targets_uncounted, resume_forgets, weights_not_fresh, empty_sampler_writes,
            evaluation_shortsighted, tokenizer_forgets, device_claimed, loader_dawdles, memory_unplanned,
        )
    },
)  # fmt: skip
