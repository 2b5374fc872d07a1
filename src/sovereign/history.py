"""History: what stood at a git ref, and what was changed since that must not be.

Evidence, amendments and waivers are append-only against the base; a criterion gives way only by an
amendment. No evaluator can see by itself that something is gone: memory outside the tree can.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sovereign.canonical import Malformed, canonical_bytes, parse_json, read, validate
from sovereign.evidence.envelope import Envelope
from sovereign.gate.admission import Finding, VerifiedRun
from sovereign.repository import Repository, open_repository, verified_runs
from sovereign.spec.diff import BUMP_NAMES, Edit, bump, edits, required_bump

KEPT = ("evidence", "spec/amendments", "spec/waivers")
READ = ("spec", "contracts", "evidence")


class Unresolvable(Exception):
    """A base that git cannot give: nothing can be compared with it, so nothing may pass."""


@contextmanager
def tree_at(root: Path, ref: str) -> Iterator[Path]:
    """Yield a folder with spec/, contracts/ and evidence/ as they stood at `ref`.

    Raises Unresolvable where git, the repository or the ref is missing (a shallow clone, say).
    """
    commit = _git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").decode().strip()
    prefix = _git(root, "rev-parse", "--show-prefix").decode().strip()
    listed = _git(root, "ls-tree", "-r", "-z", "--full-tree", commit, "--", *(prefix + name for name in READ))
    entries = [entry.split(b"\t", 1) for entry in listed.split(b"\0") if entry]
    # blobs and not `git archive`, whose export-ignore and line-end attributes would leave out or change files
    blobs = _git(root, "cat-file", "--batch", stdin=b"".join(meta.split()[2] + b"\n" for meta, _ in entries))
    with tempfile.TemporaryDirectory(prefix="sovereign-base-") as place:
        at = 0
        for _, name in entries:
            line_end = blobs.index(b"\n", at)
            size = int(blobs[at:line_end].split()[2])
            at = line_end + 1
            file = Path(place) / os.fsdecode(name)[len(prefix) :]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(blobs[at : at + size])  # a link becomes a file that says where it led
            at += size + 1
        yield Path(place)


def commit(root: Path) -> str:
    """Return the commit that is checked out, or nothing where there is none."""
    try:
        return _git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").decode().strip()
    except Unresolvable:
        return ""


def _git(root: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, input=stdin).stdout
    except OSError as error:
        raise Unresolvable(f"git cannot be run: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else "no such commit here; in CI, check out with fetch-depth: 0"
        raise Unresolvable(f"git {' '.join(arguments[:2])} {arguments[-1]}: {why}") from None


@dataclass(frozen=True)
class Against:
    """A head compared with a base: what was broken, by run, by criterion, and otherwise."""

    base: Repository
    base_runs: tuple[VerifiedRun, ...]
    edits: tuple[Edit, ...]
    changed: dict[str, str]  # run -> what was done to it
    criteria: dict[str, str]  # criterion -> why it may not stand as it does
    findings: tuple[Finding, ...]

    def runs(self, head: Sequence[VerifiedRun]) -> list[VerifiedRun]:
        """Return the head's runs with those of the base that were changed or removed, each with its finding.

        A run that is gone still touches the criteria it was held to: silence about it is no pass.
        """
        touched = [
            replace(run, findings=(*run.findings, Finding("integrity", f"evidence/{run.name}", self.changed[run.name])))
            for run in self.base_runs
            if run.name in self.changed
        ]
        return [run for run in head if run.name not in self.changed] + touched


def compare(head: Repository, base_root: Path) -> Against:
    """Return what the head did to what stood at the base."""
    base = open_repository(base_root)
    base_runs = tuple(verified_runs(base_root))
    changed, findings = _kept(base_root, head.root)
    criteria: dict[str, str] = {}
    found: list[Edit] = []
    heads = {one.spec.spec: one for one in head.specs}
    for before in base.specs:
        after = heads.get(before.spec.spec)
        if after is None:
            findings.append(Finding("integrity", before.path, f"spec {before.spec.spec} stood at the base and is gone"))
            continue
        lost = {one.id for one in before.spec.withdrawn} - {one.id for one in after.spec.withdrawn}
        told = "was withdrawn at the base, and its tombstone is gone; an id is never used again"
        findings += [Finding("integrity", after.path, f"{id_} {told}") for id_ in sorted(lost)]
        if (before.spec.controls, after.spec.controls) == ("required", "advised"):
            told = "controls were required at the base, and are advised now: a check that was there may not vanish"
            findings.append(Finding("integrity", after.path, told))
        mine = edits(before.spec, after.spec)
        found += mine
        criteria |= {edit.id: why for edit in mine if (why := _unamended(edit, head))}
        needed, given = required_bump(mine), bump(before.spec.version, after.spec.version)
        if given < needed:
            told = (
                f"version {before.spec.version} -> {after.spec.version}: these edits need a {BUMP_NAMES[needed]} step"
            )
            findings.append(Finding("integrity", after.path, told))
    return Against(base, base_runs, tuple(found), changed, criteria, tuple(findings))


def _unamended(edit: Edit, head: Repository) -> str:
    """Return why a criterion may not have changed as it did, or nothing."""
    if not edit.needs_amendment or edit.old is None:
        return ""
    to = edit.new.digest if edit.new else None
    for one in head.amendments:
        if (one.criterion, one.from_, one.to) == (edit.id, edit.old.digest, to):
            return ""
    now = edit.new.sentence if edit.new else "nothing"
    return f"was {edit.old.sentence}, is {now}, and no amendment says why: `sovereign spec amend {edit.id} --base REF`"


def _kept(base: Path, head: Path) -> tuple[dict[str, str], list[Finding]]:
    """Return what append-only files of the base were changed or removed: of runs by name, and others."""
    runs: dict[str, str] = {}
    findings: list[Finding] = []
    for file in sorted(path for folder in KEPT for path in (base / folder).rglob("*") if path.is_file()):
        name = file.relative_to(base)
        now = head / name
        told = "was removed" if not now.is_file() else "was changed" if not _kept_its_meaning(file, now) else ""
        if not told:
            continue
        if name.parts[0] == "evidence" and len(name.parts) > 3:
            folder = base.joinpath(*name.parts[:3])
            if not (folder / "evidence.json").exists() and name.parts[3] == "rows":
                continue  # an open run goes on writing
            runs.setdefault("/".join(name.parts[1:3]), f"{name.as_posix()} stood at the base and {told}")
        else:
            findings.append(Finding("integrity", name.as_posix(), f"stood at the base and {told}; it is append-only"))
    return runs, findings


def _kept_its_meaning(base: Path, head: Path) -> bool:
    """Say whether a file says what it said; an envelope may gain signatures, and lose none."""
    if not base.name.endswith(".dsse.json"):
        return _meaning(base) == _meaning(head)
    try:
        before, after = (validate(Envelope, read(file)) for file in (base, head))
    except Malformed:
        return _meaning(base) == _meaning(head)
    same = (before.payload, before.type_) == (after.payload, after.type_)
    return same and set(before.signatures) <= set(after.signatures)


def _meaning(file: Path) -> bytes:
    """Return what an append-only file says: JSON whatever its layout, everything else to the byte."""
    data = file.read_bytes()
    if file.suffix != ".json":
        return data
    try:
        return canonical_bytes(parse_json(data, file.name).value)
    except Malformed:
        return data
