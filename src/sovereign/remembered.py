"""Verified runs and judged controls, remembered: what is found of a folder's bytes is found once on a machine.

An entry is keyed by every byte of the folder, its name, and the source of everything that verifies. So a
changed file, or a changed check, is a new key; and since an entry that is missing or damaged is only worked
out again, deleting or corrupting this memory never changes a status.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from sovereign import __version__
from sovereign.canonical import Record
from sovereign.contract.contract import Contract
from sovereign.controls import CONTROLS, Control, controls_of
from sovereign.evidence.intent import Environment, Intent, Planned, Subjects, Worktree
from sovereign.evidence.statement import Measurement
from sovereign.gate.admission import Closing, Finding, VerifiedRun
from sovereign.spec.criterion import Criterion, Spec
from sovereign.subjects import PACKAGE
from sovereign.verification import verify

RecordType = TypeVar("RecordType", bound=Record)
BATCH = 500  # runs found that an interruption costs at most
LAW = (
    "canonical",
    "closing",
    "contract",
    "controls",
    "evidence",
    "gate",
    "metrics",
    "spec",
    "subjects",
    "verification",
    "schemas",
)


def place() -> Path:
    """Return the file that remembers: $SOVEREIGN_CACHE, or one under the user's cache folder."""
    chosen = os.environ.get("SOVEREIGN_CACHE")
    if chosen:
        return Path(chosen)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "sovereign" / "verified.sqlite"


class Memory:
    """The runs verified on this machine; one that cannot be opened or written remembers nothing, silently."""

    def __init__(self, database: sqlite3.Connection | None):
        self._database = database
        self._unsaved = 0

    def verified(self, path: Path, name: str) -> VerifiedRun:
        """Return what `verify` returns for the folder at `path`, from memory where its bytes are known."""
        key, documents = _key(path, name)
        run = self._recalled(key, documents)
        if run is None:
            entry = _entry(verify(path, name))
            self._keep(key, entry)
            # as a later look finds it: what thousands of runs share stands in memory once
            run = _run(entry, documents)
        return run

    def controls(self, root: Path, spec: Spec, criterion: Criterion) -> tuple[Control, ...]:
        """Return what `controls_of` returns, from memory where criterion and controls are known."""
        folders = [root / CONTROLS / criterion.id / side for side in ("good", "bad")]
        if not any(folder.is_dir() for folder in folders):
            return controls_of(root, spec, criterion)  # that nothing is there is quicker seen than recalled
        judged = hashlib.sha256(json.dumps([criterion.digest, spec.metrics[criterion.metric].plain()]).encode())
        for folder in folders:
            judged.update(_key(folder, folder.relative_to(root).as_posix())[0])
        key = judged.digest()
        try:
            known = self._entry(key)
            return tuple(Control(*one) for one in known["controls"])
        except (TypeError, KeyError):
            found = controls_of(root, spec, criterion)
            self._keep(key, {"controls": [list(astuple(one)) for one in found]})
            return found

    def _recalled(self, key: bytes, documents: dict[str, bytes]) -> VerifiedRun | None:
        try:
            return _run(self._entry(key), documents)
        except (ValidationError, ValueError, KeyError, TypeError):
            return None  # unknown, or damaged: it is worked out again

    def _entry(self, key: bytes) -> Any:
        """Return what is remembered under a key; None where nothing is, or what is there is damaged."""
        if self._database is None:
            return None
        try:
            row = self._database.execute("SELECT entry, seal FROM verified WHERE key = ?", (key,)).fetchone()
            if row is None or hashlib.sha256(row[0]).digest() != row[1]:
                return None
            return json.loads(row[0])
        except (sqlite3.Error, ValueError, TypeError):
            return None

    def _keep(self, key: bytes, value: Any) -> None:
        if self._database is None:
            return
        entry = json.dumps(value).encode()
        with suppress(sqlite3.Error):
            self._database.execute(
                "INSERT OR REPLACE INTO verified VALUES (?, ?, ?)", (key, entry, hashlib.sha256(entry).digest())
            )
            self._unsaved += 1
            if self._unsaved >= BATCH:
                self.save()

    def save(self) -> None:
        """Put on disk what was found since the last time."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.commit()
        self._unsaved = 0


@contextmanager
def memory() -> Iterator[Memory]:
    """Yield this machine's memory; what was newly verified is kept, also where the block is interrupted."""
    try:
        file = place()
        file.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(file, timeout=1.0)
    except (OSError, sqlite3.Error):
        yield Memory(None)
        return
    with closing(database):
        try:
            database.execute("CREATE TABLE IF NOT EXISTS verified (key BLOB PRIMARY KEY, entry BLOB, seal BLOB)")
        except sqlite3.Error:
            yield Memory(None)
            return
        known = Memory(database)
        try:
            yield known
        finally:
            known.save()


@cache
def _checks() -> bytes:
    """Return a digest of everything that verifies: its source, and the version of Python that runs it."""
    found = hashlib.sha256(f"{__version__} {sys.version}".encode())
    for room in LAW:
        files = [PACKAGE / f"{room}.py", *(PACKAGE / room).glob("*")]
        for file in sorted(path for path in files if path.is_file()):
            found.update(f"{file.name}\0".encode() + file.read_bytes())
    return found.digest()


def _key(path: Path, name: str) -> tuple[bytes, dict[str, bytes]]:
    """Return the key of a folder as it stands, and the bytes of its two documents."""
    linked = b"link" if path.is_symlink() or path.parent.is_symlink() else b""
    found = hashlib.sha256(_checks() + linked + b"\0" + name.encode())
    documents: dict[str, bytes] = {}
    for folder, prefix in ((path, ""), (path / "rows", "rows/")):
        with os.scandir(folder) if folder.is_dir() else _nothing() as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                kind = "link" if entry.is_symlink() else "folder" if entry.is_dir() else "file"
                found.update(f"\0{kind} {prefix}{entry.name}\0".encode(errors="surrogateescape"))
                if kind == "file":
                    with io.FileIO(
                        entry.path
                    ) as file:  # thousands of small files: a stream takes twice as long for each
                        data = file.readall()
                    found.update(hashlib.sha256(data).digest())
                    if not prefix and entry.name in ("intent.json", "evidence.json"):
                        documents[entry.name] = data
                elif kind == "folder" and (prefix or entry.name != "rows"):
                    # no run has other folders; whatever lies in them makes every look a first one
                    found.update(os.urandom(16))
    return found.digest(), documents


@contextmanager
def _nothing() -> Iterator[tuple[()]]:
    yield ()


def _entry(run: VerifiedRun) -> dict[str, Any]:
    return {
        "contract": run.contract,
        "run": run.run,
        "intent": run.intent is not None,
        "statement": astuple(run.statement) if run.statement else None,
        "digest": run.digest,
        "measurements": [one.plain() for one in run.measurements],
        "unmeasured": dict(run.unmeasured),
        "moved": sorted(run.moved),
        "assurance": run.assurance,
        "losses": run.losses,
        "envelopes": list(run.envelopes),
        "findings": [[one.kind, one.path, one.message] for one in run.findings],
    }


def _run(entry: dict[str, Any], documents: dict[str, bytes]) -> VerifiedRun:
    """Return the run that an entry and the very bytes it was made from describe."""
    return VerifiedRun(
        contract=entry["contract"],
        run=entry["run"],
        intent=_intent(documents["intent.json"]) if entry["intent"] else None,
        statement=Closing(*entry["statement"]) if entry["statement"] else None,
        digest=entry["digest"],
        measurements=tuple(Measurement.model_construct(**one) for one in entry["measurements"]),
        unmeasured=entry["unmeasured"],
        moved=frozenset(entry["moved"]),
        assurance=entry["assurance"],
        losses=entry["losses"],
        envelopes=tuple(entry["envelopes"]),
        findings=tuple(Finding(*one) for one in entry["findings"]),
    )


def _intent(data: bytes) -> Intent:
    """Return the intent in bytes that were read strictly when their entry was made.

    Thousands of runs of one contract share its promise and criteria: these are parsed once, and stand in
    memory once.
    """
    value = json.loads(data)
    shared = _parts(json.dumps([value["criteria"], *(value[name] for name in SHARED)]))
    lists = {name: tuple(value[name]) for name in ("overrides", "answers", "scripts") if name in value}
    return Intent.model_construct(**{**value, **shared, **lists, "schema_": value["schema"]})


SHARED: dict[str, type[Record]] = {
    "promise": Contract, "subjects": Subjects, "environment": Environment, "worktree": Worktree, "planned": Planned,
}  # fmt: skip


@lru_cache(maxsize=256)
def _parts(text: str) -> dict[str, Any]:
    """Return the parts of an intent that runs share, each once, though runs may differ in one of them."""
    criteria, *others = json.loads(text)
    return {
        "criteria": {id_: _shared(Criterion, json.dumps(one)) for id_, one in criteria.items()},
        **{name: _shared(kind, json.dumps(one)) for (name, kind), one in zip(SHARED.items(), others, strict=True)},
    }


@lru_cache(maxsize=4096)
def _shared(kind: type[RecordType], text: str) -> RecordType:
    return kind.model_validate_json(text)
