"""Controls: whether a criterion can tell good from bad, shown on rows whose truth is known.

    spec/controls/<ID>/
      good/   intent.json, rows/   recorded from a clean run: the criterion must be DISCHARGED
      bad/    intent.json, rows/   recorded from a run with a planted fault: it must be FALSIFIED

The gate's own functions judge them. A control stands for every seed, slice and environment the criterion asks
for: it shows what the predicate does, not that a model was trained well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sovereign.canonical import Malformed, Problem, digest, read, validate
from sovereign.evidence.folder import Observed, seal_problems
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import KINDS, Row, read_rows
from sovereign.evidence.statement import Measurement
from sovereign.gate.admission import Closing, Current, VerifiedRun, instant
from sovereign.gate.evaluation import CriterionStatus, Status
from sovereign.gate.status import judge
from sovereign.spec.criterion import Criterion, Spec

Side = Literal["good", "bad"]
EXPECTED: dict[Side, Status] = {"good": "DISCHARGED", "bad": "FALSIFIED"}
CONTROLS = Path("spec") / "controls"


@dataclass(frozen=True)
class Control:
    """What the gate said of one control; `fault` is empty where it came out as it must."""

    criterion: str
    side: Side
    status: Status | Literal["MISSING", "UNREADABLE"]
    value: str
    fault: str


def controls_of(root: Path, spec: Spec, criterion: Criterion) -> tuple[Control, Control]:
    """Return the good and the bad control of a criterion, each judged by the gate."""
    return _control(root, spec, criterion, "good"), _control(root, spec, criterion, "bad")


def why_unproven(found: Sequence[Control], demanded: bool) -> str:
    """Return why a criterion's passes may not be believed: a control that is wrong, or missing where it is demanded."""
    wrong = [one.fault for one in found if one.fault and (demanded or one.status != "MISSING")]
    return "; ".join(wrong)


def _control(root: Path, spec: Spec, criterion: Criterion, side: Side) -> Control:
    folder = root / CONTROLS / criterion.id / side
    name = folder.relative_to(root).as_posix()
    if not folder.is_dir():
        fault = f"no {side} control at {name}: `sovereign spec test --retrain {criterion.id}` records one"
        return Control(criterion.id, side, "MISSING", "", fault)
    try:
        observed = read_control(folder, name)
    except Malformed as error:
        return Control(criterion.id, side, "UNREADABLE", "", str(error.problems[0]))
    found, measured, why = stands(spec, criterion, observed)
    value = _shown(measured[0]) if measured else ""
    if found.status == EXPECTED[side]:
        return Control(criterion.id, side, found.status, value, "")
    fault = f"the {side} control comes out {found.status}, where it must be {EXPECTED[side]}: "
    return Control(criterion.id, side, found.status, value, fault + (why or f"{criterion.sentence}, measured {value}"))


def read_control(folder: Path, name: str) -> Observed:
    """Return the intent and the rows of a control; raises Malformed with the place of every fault."""
    document = read(folder / "intent.json", f"{name}/intent.json")
    intent = validate(Intent, document)
    faults = seal_problems(document)
    rows: dict[str, tuple[Row, ...]] = {}
    for file in sorted((folder / "rows").glob("*")):
        rows[file.stem] = read_rows(file, f"{name}/rows/{file.name}", intent.run)
    unknown = sorted(file.name for file in folder.iterdir() if file.name not in ("intent.json", "rows"))
    faults += [Problem(f"{name}/{one}", "is no part of a control: it holds intent.json and rows/") for one in unknown]
    if faults:
        raise Malformed(faults)
    return Observed(intent, rows)


def stands(
    spec: Spec, criterion: Criterion, observed: Observed
) -> tuple[CriterionStatus, tuple[Measurement, ...], str]:
    """Return what the gate makes of a criterion when these rows are all its evidence, and why nothing was measured."""
    from sovereign.measurable import measure  # here: numpy is needed only to measure

    measured, missing = measure(observed, [criterion.metric])
    alone = criterion.model_copy(update={"stage": "active", "max_age_days": None, "environment": "recorded"})
    subjects = observed.intent.subjects
    runs = [
        _run(observed, alone, seed, slice_, device, number, measured)
        for number, (seed, slice_, device) in enumerate(alone.expanded())
    ]
    evaluation = judge(
        spec.model_copy(update={"criteria": (alone,), "withdrawn": ()}),
        runs,
        {alone.contract: Current(subjects.code or "", subjects.model, subjects.evaluator or "", subjects.source)},
        instant(observed.intent.written),
    )
    return evaluation.criteria[0], measured, missing.get(criterion.metric, "")


def _run(
    observed: Observed, criterion: Criterion, seed: int, slice_: str, device: str, number: int,
    measured: Sequence[Measurement],
) -> VerifiedRun:  # fmt: skip
    """Return the control as a run that was held to this obligation."""
    intent = observed.intent
    held = intent.model_copy(
        update={
            "criteria": {criterion.id: criterion}, "contract": criterion.contract, "seed": seed, "environment": intent.environment.on(device),
            "overrides": (), "worktree": intent.worktree.model_copy(update={"state": "clean", "changed": ()}),
        }
    )  # fmt: skip
    return VerifiedRun(
        contract=criterion.contract,
        run=f"{intent.run}-{number}",
        intent=held,
        statement=Closing("completed", "", intent.written, intent.planned.steps),
        digest=digest([intent.run, number]),
        measurements=tuple(one.model_copy(update={"slice": slice_}) for one in measured),
        unmeasured={},
        scripts=intent.subjects.code,
    )


def _shown(one: Measurement) -> str:
    if isinstance(one.value, str):
        return one.value
    return f"{one.value:.4g} [{one.low:.4g}, {one.high:.4g}] n={one.n}"


def needed(spec: Spec, criterion: Criterion) -> tuple[str, ...]:
    """Return the kinds of rows that a criterion's metric is computed from; a control holds no others."""
    return tuple(kind for kind in spec.metrics[criterion.metric].rows if kind in KINDS)
