"""Record the controls of a spec anew: train a small contract once clean, and once with each fault planted in it.

    spec/controls/recipes.yaml    which small contract, and what is planted for each criterion

A fault is planted in the code that runs, never in the rows: one function of the run is swapped for one that is
wrong in a way that has misled somebody (the casebook's case is named beside it). Guards that would stop such a run
are swapped too; they are held by tests of their own.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from sovereign import plan as planning
from sovereign import run as execution
from sovereign.canonical import Malformed, Record, pretty, read, validate, write_atomic
from sovereign.contract.contract import Contract
from sovereign.controls import CONTROLS, Side, needed
from sovereign.evidence.folder import read_folder
from sovereign.plan import Told
from sovereign.planted.faults import FAULTS, Fault
from sovereign.repository import Located
from sovereign.spec.criterion import Criterion, Id

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
    contracts: dict[str, str] = Field(
        default={},
        description="criterion, or the contract of one -> the small contract that stands for it; `contract` for others",
    )
    bases: tuple[str, ...] = Field(
        default=(), description="contracts that others begin from, trained once and clean, in this order"
    )
    settings: dict[str, tuple[str, ...]] = Field(
        default={},
        description="criterion, or the contract of one -> overrides of the small contract for both its controls",
    )
    bad: dict[Id, Plant] = Field(description="criterion -> what its bad control is planted with")
    elsewhere: dict[Id, str] = Field(
        default={},
        description="criterion -> the command that records its controls, where no run of this contract could",
    )


def record(root: Path, located: Located, wanted: Sequence[Criterion], told: Told) -> list[Path]:
    """Write the good and the bad control of each wanted criterion, and return their folders.

    Every plant is trained once, however many criteria it is bad for. Raises Malformed for recipes that cannot be
    read or say nothing of a wanted criterion, and RuntimeError where a planted run did not complete.
    """
    recipes = validate(Recipes, document := read(root / RECIPES, RECIPES.as_posix()))
    for one in wanted:
        if one.id in recipes.elsewhere:
            told(f"{one.id} is recorded by `{recipes.elsewhere[one.id]}`", 0, 1)
    wanted = [one for one in wanted if one.id not in recipes.elsewhere]
    silent = [one.id for one in wanted if one.id not in recipes.bad]
    if silent:
        raise Malformed(
            [document.problem(("bad",), f"says nothing of {', '.join(silent)}: what makes a run bad for it?")]
        )
    written: list[Path] = []
    if not wanted:
        return written
    plants: dict[tuple[str, tuple[str, ...], Plant | None], list[tuple[Criterion, Side]]] = {}
    for one in wanted:
        small = recipes.contracts.get(one.id, recipes.contracts.get(one.contract, recipes.contract))
        settings = recipes.settings.get(one.id, recipes.settings.get(one.contract, ()))
        plants.setdefault((small, settings, None), []).append((one, "good"))
        plants.setdefault((small, settings, recipes.bad[one.id]), []).append((one, "bad"))
    with tempfile.TemporaryDirectory(prefix="sovereign-controls-") as place:
        begun = Path(place) / "begun"
        shutil.copytree(root / "spec", begun / "spec")
        if any(small in recipes.contracts.values() for small, *_ in plants):
            for base in recipes.bases:
                told(f"training {base}, which others begin from", 0, len(plants))
                _trained(begun, base, located, (), None, base=True)
        for number, ((small, settings, plant), uses) in enumerate(plants.items()):
            told(f"training {small}, {_named(plant)}, for {', '.join(one.id for one, _ in uses)}", number, len(plants))
            alone = Path(place) / str(number)
            # a corpus that was built before would hide a fault in building it; of a base all is needed
            begins = small in recipes.contracts.values()
            shutil.copytree(begun if begins else root / "spec", alone if begins else alone / "spec")
            folder = _trained(alone, small, located, settings, plant)
            written += [_kept(root, folder, located, criterion, side) for criterion, side in uses]
            shutil.rmtree(alone)
    return written


def _named(plant: Plant | None) -> str:
    return "a clean run" if plant is None else " ".join([plant.fault, *plant.set_]).removeprefix("none ")


def _trained(
    root: Path, contract: str, located: Located, settings: tuple[str, ...], plant: Plant | None, base: bool = False
) -> Path:
    """Return the evidence folder of a run of a small contract with a fault planted in it."""
    promise = Contract.load(root / contract, (*settings, *(plant.set_ if plant else ())), contract)
    with ExitStack() as planted:
        if plant is not None and plant.fault != "none":
            planted.enter_context(FAULTS[plant.fault]())
        concluded = execution.run(
            planning.plan(promise, root, "cpu", _quiet), located.spec, root,
            # a control is no evidence: should one ever be copied under evidence/, it decides nothing there
            overrides=() if base else (f"recorded as a control: {_named(plant)}",),
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
        if (rows := folder / "rows" / f"{kind}.jsonl").exists():  # a run on examples has no overlap of running text
            write_atomic(partial / "rows" / rows.name, rows.read_bytes())
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def _quiet(part: str, done: int, total: int) -> None:
    """Say nothing: the recording says what it trains."""
