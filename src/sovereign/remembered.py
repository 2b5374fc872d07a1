"""Verified runs and judged controls, remembered: what is found of a folder's bytes is found once on a machine.

An entry is keyed by every byte of the folder, its name, and the source of everything that verifies. So a
changed file, or a changed check, is a new key; and since an entry that is missing or damaged is only worked
out again, deleting or corrupting this memory never changes a status.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple
from functools import cache, lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from sovereign import __version__
from sovereign.canonical import Record
from sovereign.contract.contract import Contract
from sovereign.controls import CONTROLS, Control, controls_of
from sovereign.evidence.envelope import Signable
from sovereign.evidence.intent import Environment, Intent, Planned, Subjects, Worktree
from sovereign.evidence.statement import Measurement, Outcome
from sovereign.gate.admission import Closing, Finding, VerifiedRun
from sovereign.spec.criterion import Assurance, Criterion, Spec
from sovereign.subjects import PACKAGE
from sovereign.verification import verify

RecordType = TypeVar("RecordType", bound=Record)
READ = 1 << 16  # bytes at a time
BATCH = 500  # runs found that an interruption costs at most
LAW = (
    "canonical",
    "closing",
    "contract",
    "controls",
    "evidence",
    "gate",
    "metrics",
    "remembered",
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
        self._shared: dict[str, Intent] = {}

    def verified(self, path: Path, name: str) -> VerifiedRun:
        """Return what `verify` returns for the folder at `path`, from memory where its bytes are known."""
        key = _key(path, name)
        run = self._recalled(key)
        if run is None:
            entry, shared = _entry(verify(path, name))
            self._keep(bytes.fromhex(entry.shared), shared.encode())
            self._keep(key, entry.model_dump_json(by_alias=True).encode())
            # as a later look finds it: what thousands of runs share stands in memory once
            run = _run(entry, _parts(shared))
        return run

    def controls(self, root: Path, spec: Spec, criterion: Criterion) -> tuple[Control, ...]:
        """Return what `controls_of` returns, from memory where criterion and controls are known."""
        folders = [root / CONTROLS / criterion.id / side for side in ("good", "bad")]
        if not any(folder.is_dir() for folder in folders):
            return controls_of(root, spec, criterion)  # that nothing is there is quicker seen than recalled
        judged = hashlib.sha256(json.dumps([criterion.digest, spec.metrics[criterion.metric].plain()]).encode())
        for folder in folders:
            judged.update(_key(folder, folder.relative_to(root).as_posix()))
        key = judged.digest()
        try:
            return tuple(Control(*one) for one in json.loads(self._kept(key) or b"")["controls"])
        except (ValueError, TypeError, KeyError):
            found = controls_of(root, spec, criterion)
            self._keep(key, json.dumps({"controls": [list(astuple(one)) for one in found]}).encode())
            return found

    def _recalled(self, key: bytes) -> VerifiedRun | None:
        try:
            kept = self._kept(key)
            if kept is None:
                return None
            entry = _Entry.model_validate_json(kept)
            if entry.shared not in self._shared:
                self._shared[entry.shared] = _parts((self._kept(bytes.fromhex(entry.shared)) or b"").decode())
            return _run(entry, self._shared[entry.shared])
        except (ValidationError, ValueError, KeyError, TypeError):
            return None  # damaged: it is worked out again

    def _kept(self, key: bytes) -> bytes | None:
        """Return what is remembered under a key; None where nothing is, or what is there is damaged."""
        if self._database is None:
            return None
        try:
            row = self._database.execute("SELECT entry, seal FROM verified WHERE key = ?", (key,)).fetchone()
            return row[0] if row is not None and hashlib.sha256(row[0]).digest() == row[1] else None
        except (sqlite3.Error, TypeError):
            return None

    def _keep(self, key: bytes, entry: bytes) -> None:
        if self._database is None:
            return
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


def _key(path: Path, name: str) -> bytes:
    """Return the key of a folder as it stands: its name, and the names, kinds and bytes of all that lies in it."""
    place = os.fspath(path)
    linked = b"link" if path.is_symlink() or path.parent.is_symlink() else b""
    found = hashlib.sha256(_checks() + linked + b"\0" + name.encode())
    for folder, prefix in ((place, ""), (f"{place}/rows", "rows/")):
        for entry in _entries(folder):
            kind = "link" if entry.is_symlink() else "folder" if entry.is_dir() else "file"
            called = f"\0{kind} {prefix}{entry.name}\0".encode(errors="surrogateescape")
            if kind == "file":
                data = _bytes(entry.path)
                found.update(b"%b%d\0" % (called, len(data)))
                found.update(data)
            elif kind == "folder" and (prefix or entry.name != "rows"):
                # no run has other folders; whatever lies in them makes every look a first one
                found.update(called + os.urandom(16))
            else:
                found.update(called)
    return found.digest()


def _bytes(path: str) -> bytes:
    """Return what a file holds, in three calls of the system: for thousands of small files a stream takes twice as long."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(file, READ)]
        while len(parts[-1]) == READ:  # a file gives less than it is asked for only where it ends
            parts.append(os.read(file, READ))
    finally:
        os.close(file)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=attrgetter("name"))
    except (FileNotFoundError, NotADirectoryError):
        return []


class _Entry(Record):
    """What is remembered of a run: its own share of the intent, the digest of what it has in common, what was found."""

    contract: str
    run: str
    intent: dict[str, Any] | None
    shared: str
    statement: tuple[Outcome, str, str, int] | None
    digest: str
    measurements: tuple[Measurement, ...]
    unmeasured: dict[str, str]
    moved: frozenset[str]
    assurance: Assurance
    losses: str
    envelopes: tuple[Signable, ...]
    findings: tuple[tuple[Literal["schema", "integrity"], str, str], ...]


SHARED: dict[str, type[Record]] = {
    "promise": Contract, "subjects": Subjects, "environment": Environment, "worktree": Worktree, "planned": Planned,
}  # fmt: skip


def _entry(run: VerifiedRun) -> tuple[_Entry, str]:
    """Return what to remember of a run, and the part of its intent that thousands of runs of one contract share."""
    intent = run.intent.plain() if run.intent else {}
    intent.pop("schema", None)  # there is one
    shared = json.dumps({name: intent.pop(name) for name in ("criteria", *SHARED)} if run.intent else {})
    entry = _Entry(
        contract=run.contract, run=run.run, intent=intent or None, shared=hashlib.sha256(shared.encode()).hexdigest(),
        statement=astuple(run.statement) if run.statement else None, digest=run.digest, measurements=run.measurements,
        unmeasured=dict(run.unmeasured), moved=run.moved, assurance=run.assurance, losses=run.losses,
        envelopes=run.envelopes, findings=tuple((one.kind, one.path, one.message) for one in run.findings),
    )  # fmt: skip
    return entry, shared


def _run(entry: _Entry, shared: Intent) -> VerifiedRun:
    """Return the run that an entry describes."""
    return VerifiedRun(
        contract=entry.contract, run=entry.run, intent=_intent(entry.intent, shared) if entry.intent else None,
        statement=Closing(*entry.statement) if entry.statement else None, digest=entry.digest,
        measurements=entry.measurements, unmeasured=entry.unmeasured, moved=entry.moved, assurance=entry.assurance,
        losses=entry.losses, envelopes=entry.envelopes, findings=tuple(Finding(*one) for one in entry.findings),
    )  # fmt: skip


def _intent(own: dict[str, Any], shared: Intent) -> Intent:
    """Return the intent of a document that was read strictly when its entry was made."""
    lists = {name: tuple(own[name]) for name in ("overrides", "answers", "scripts")}
    return shared.model_copy(update={**own, **lists})  # a third of what constructing one takes


def _parts(text: str) -> Intent:
    """Return an intent of nothing but the parts that runs share, each once in memory, though runs may differ in another."""
    parts: dict[str, Any] = {
        name: {id_: _once(Criterion, json.dumps(one)) for id_, one in part.items()}
        if name == "criteria"
        else _once(SHARED[name], json.dumps(part))
        for name, part in json.loads(text).items()
    }
    return Intent.model_construct(**parts)


@lru_cache(maxsize=4096)
def _once(kind: type[RecordType], text: str) -> RecordType:
    return kind.model_validate_json(text)
