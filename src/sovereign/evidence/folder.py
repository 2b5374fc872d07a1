"""A run's folder: intent.json, rows/, and evidence.json once it is concluded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from sovereign.canonical import (
    Document,
    Malformed,
    Problem,
    canonical_bytes,
    digest,
    digest_file,
    read,
    sealed,
    validate,
)
from sovereign.evidence.envelope import SIGNABLE, TYPE, Envelope, Signable, file_name
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import KINDS, Misplaced, Row, read_rows
from sovereign.evidence.statement import RowFile, Statement

RowType = TypeVar("RowType", bound=Row)


@dataclass(frozen=True, eq=False)  # the same only as itself, so that what was derived from it can be remembered
class Observed:
    """What a run intended and what it observed: all that a measurement may be computed from."""

    intent: Intent
    rows: Mapping[str, tuple[Row, ...]]

    def of(self, kind: type[RowType]) -> tuple[RowType, ...]:
        """Return the rows of one kind, in the order in which they were written."""
        return cast("tuple[RowType, ...]", self.rows.get(kind.model_fields["kind"].default, ()))


@dataclass(frozen=True)
class RunFolder:
    """A run's folder as read: each document strictly parsed, or the problems that prevented it."""

    path: Path
    name: str
    intent: Intent | None
    intent_digest: str | None
    statement: Statement | None
    statement_digest: str | None
    rows: Mapping[str, tuple[Row, ...]]
    row_files: tuple[RowFile, ...]
    problems: tuple[Problem, ...]
    row_problems: tuple[Problem, ...]  # an open run may end in a torn line: it was killed, and nothing is stated yet
    out_of_place: tuple[Problem, ...]  # well-formed, yet changed after they were written, or of another run
    envelopes: tuple[Signable, ...] = ()  # documents that have one beside them

    @property
    def contract(self) -> str:
        return self.path.parent.name

    @property
    def run(self) -> str:
        return self.path.name


def run_folders(evidence: Path) -> list[Path]:
    """Return every run's folder under `evidence/`, in order; what is no folder is no run."""
    if not evidence.is_dir():
        return []
    return [contract / run for contract in map(evidence.joinpath, _folders(evidence)) for run in _folders(contract)]


def _folders(place: Path) -> list[str]:
    with os.scandir(place) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def read_folder(path: Path, name: str) -> RunFolder:
    """Return the run's folder at `path`; whatever cannot be read stands in `problems`, with its place."""
    problems: list[Problem] = []
    out_of_place: list[Problem] = []
    intent = statement = intent_digest = statement_digest = None
    try:
        document = read(path / "intent.json", f"{name}/intent.json")
        intent_digest = digest(document.value)
        intent = validate(Intent, document)
        out_of_place += seal_problems(document)
    except Malformed as error:
        problems += error.problems
    if (path / "evidence.json").exists():
        try:
            document = read(path / "evidence.json", f"{name}/evidence.json")
            statement_digest = digest(document.value)
            statement = validate(Statement, document)
            out_of_place += seal_problems(document)
        except Malformed as error:
            problems += error.problems
    envelopes: list[Signable] = []
    for kind in SIGNABLE:
        if (path / file_name(kind)).exists():
            envelopes.append(kind)
            try:
                out_of_place += _envelope_problems(path, name, kind)
            except Malformed as error:
                problems += error.problems
    rows: dict[str, tuple[Row, ...]] = {}
    row_problems: list[Problem] = []
    files: list[RowFile] = []
    for file in sorted((path / "rows").glob("*.jsonl")):
        try:
            rows[file.stem] = read_rows(file, f"{name}/rows/{file.name}", path.name)
            files.append(row_file(file, len(rows[file.stem])))
        except Misplaced as error:
            out_of_place += error.problems
        except Malformed as error:
            row_problems += error.problems
    return RunFolder(
        path, name, intent, intent_digest, statement, statement_digest, rows, tuple(files), tuple(problems),
        tuple(row_problems), tuple(out_of_place), tuple(envelopes),
    )  # fmt: skip


def seal_problems(document: Document) -> list[Problem]:
    """Return what a document's seal gives away: a value that was changed after it was written."""
    if document.value["seal"] == sealed(document.value)["seal"]:
        return []
    return [
        document.problem(("seal",), "does not fit the rest of the document: a value was changed after it was written")
    ]


def _envelope_problems(path: Path, name: str, kind: Signable) -> list[Problem]:
    """Return what is not so about an envelope, whoever signed it: it must hold the very bytes of the document beside it."""
    document = read(path / file_name(kind), f"{name}/{file_name(kind)}")
    envelope = validate(Envelope, document)
    if not (path / f"{kind}.json").exists():
        return [document.problem(("payload",), f"signs {kind}.json, which is not there")]
    beside = read(path / f"{kind}.json", f"{name}/{kind}.json")
    if envelope.type_ != TYPE[kind]:
        return [document.problem(("payloadType",), f"{envelope.type_} is not {TYPE[kind]}")]
    if envelope.content != canonical_bytes(beside.value):
        return [document.problem(("payload",), f"signs other bytes than {kind}.json holds")]
    return []


def row_file(path: Path, count: int) -> RowFile:
    """Return the statement's line about one file of rows."""
    return RowFile(path=f"rows/{path.name}", digest=digest_file(path), count=count)


def known_files() -> frozenset[str]:
    """Return the names a concluded run's folder may hold."""
    return frozenset(
        {"intent.json", "evidence.json", *map(file_name, SIGNABLE), *(f"rows/{kind}.jsonl" for kind in KINDS)}
    )
