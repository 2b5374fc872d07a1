"""Closing a run: its statement, written from what stands on disk and measured from rows that were read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sovereign.canonical import Malformed, Problem, Record, pretty, read, sealed, validate, write_atomic
from sovereign.evidence.folder import Observed, read_folder
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import ReportedRow, StepRow
from sovereign.evidence.statement import Artifact, Outcome, Segment, Statement
from sovereign.measurable import measure
from sovereign.metrics.measure import METRICS as NUMBERS

RecordType = TypeVar("RecordType", bound=Record)


def close(
    folder: Path, name: str, outcome: Outcome, reason: str, now: datetime,
    segments: Sequence[Segment] = (), artifacts: Sequence[Artifact] = (),
) -> Statement:  # fmt: skip
    """Write evidence.json for the run at `folder` and return it; raises Malformed when its files cannot be read."""
    found = read_folder(folder, name)
    faults = (*found.problems, *found.row_problems, *found.out_of_place)
    if faults or found.intent is None:
        raise Malformed(faults)
    observed = Observed(found.intent, found.rows)
    # numbers always; claims where a criterion asks, as they can be derived from the rows at any time
    asked = {criterion.metric for criterion in found.intent.criteria.values()}
    measured, _ = measure(observed, NUMBERS.keys() | asked)
    statement = seal(
        Statement,
        schema="sovereign/evidence/v1",
        contract=found.intent.contract,
        run=found.intent.run,
        intent=found.intent_digest,
        outcome=outcome,
        reason=reason,
        finished=instant(now),
        steps=max(
            [row.step for row in observed.of(StepRow)] + [row.step for row in observed.of(ReportedRow)], default=0
        ),
        segments=tuple(segments),
        rows=found.row_files,
        artifacts=tuple(artifacts),
        measurements=measured,
    )
    write_atomic(folder / "evidence.json", pretty(statement.plain()))
    return statement


def seal(kind: type[RecordType], **values: Any) -> RecordType:
    """Return a record with its seal, from the values of its other fields."""
    unsealed = kind.model_construct(**values).plain()
    return kind.model_validate_json(json.dumps(sealed(unsealed)))


def abandon(root: Path, name: str, reason: str, now: datetime) -> Path:
    """Close an unconcluded run as abandoned and return its folder; a row that the crash cut off is dropped."""
    folder = open_run(root, name)
    for file in (folder / "rows").glob("*.jsonl"):
        data = file.read_bytes()
        if not data.endswith(b"\n"):
            write_atomic(file, data[: data.rfind(b"\n") + 1])
    close(folder, folder.relative_to(root).as_posix(), "abandoned", reason, now)
    return folder


def open_run(root: Path, name: str) -> Path:
    """Return the folder of an unconcluded run, named `contract/run` or by its id; raises Malformed for any other."""
    found = [path.parent for path in (root / "evidence").glob("*/*/intent.json")]
    mine = [
        path
        for path in found
        if name.rstrip("/").removeprefix("evidence/") in (path.name, f"{path.parent.name}/{path.name}")
    ]
    if not mine:
        raise Malformed([Problem(f"evidence/{name}", "no such run; `sovereign gates` lists the open ones")])
    if (mine[0] / "evidence.json").exists():
        raise Malformed([Problem(f"evidence/{name}", "is concluded; a new run is `sovereign run --contract ...`")])
    return mine[0]


def open_intent(root: Path, name: str) -> Intent:
    """Return the intent of an unconcluded run."""
    folder = open_run(root, name)
    return validate(Intent, read(folder / "intent.json", f"{folder.relative_to(root).as_posix()}/intent.json"))


def instant(moment: datetime) -> str:
    """Return a moment as evidence writes it: UTC, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
