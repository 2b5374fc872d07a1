"""Which runs a name means, verified and read: by run id, by `contract/run`, by contract, or by path."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sovereign.canonical import Malformed, Problem, digest_file
from sovereign.comparison.compare import Contender
from sovereign.evidence.folder import Observed, read_folder, run_folders
from sovereign.evidence.statement import Artifact
from sovereign.gate.admission import Finding, VerifiedRun
from sovereign.remembered import Memory, memory


class Unsound(Exception):
    """Runs that are not what they say; their numbers are compared with nothing."""

    def __init__(self, findings: Sequence[Finding]):
        self.findings = tuple(findings)
        super().__init__("\n".join(map(str, findings)))


def contenders(root: Path, names: Sequence[str]) -> list[Contender]:
    """Return the runs that the names mean, in their order; a contract's name means its newest completed run.

    Raises Malformed where a name means no run, and Unsound where a run's files or weights are not what it states.
    """
    with memory() as known:
        return [_contender(root, named(root, name), known) for name in names]


def all_of(root: Path, contract: str) -> list[Contender]:
    """Return every sound, completed run of a contract that was promised before step 0, oldest first."""
    found = []
    with memory() as known:
        for folder in run_folders(root / "evidence"):
            if folder.parent.name == contract and _completed(folder):
                with suppress(Unsound):
                    found.append(_contender(root, folder, known))
    return [one for one in found if one.observed.intent.confirmatory]


def named(root: Path, name: str) -> Path:
    """Return the folder of the run that a name means; raises Malformed where it means none."""
    path = Path(name)
    for place in (path, root / path, root / "evidence" / path):
        if (place / "intent.json").is_file():
            return place.resolve()
    found = run_folders(root / "evidence")
    mine = [folder for folder in found if folder.name == name]
    if not mine:
        of_contract = [folder for folder in found if folder.parent.name == name and (folder / "intent.json").is_file()]
        concluded = [folder for folder in of_contract if (folder / "evidence.json").is_file()]
        mine = [folder for folder in concluded if _completed(folder)] or concluded or of_contract
    if not mine:
        known = ", ".join(sorted({folder.parent.name for folder in found})) or "none"
        raise Malformed([
            Problem(name, f"no such run, contract or folder; runs of these contracts are under evidence/: {known}")
        ])  # fmt: skip
    return max(mine, key=lambda folder: folder.name)  # ids begin with the moment of the intent


def _completed(folder: Path) -> bool:
    found = read_folder(folder, folder.name)
    return found.statement is not None and found.statement.outcome == "completed"


def _contender(root: Path, folder: Path, known: Memory) -> Contender:
    name = f"evidence/{folder.parent.name}/{folder.name}"
    run = known.verified(folder, name)
    read = read_folder(folder, name)
    findings = (*run.findings, *_replaced(root, read.statement.artifacts if read.statement else (), name))
    if findings or read.intent is None:
        raise Unsound(findings)
    return Contender(
        observed=Observed(read.intent, read.rows),
        outcome=read.statement.outcome if read.statement else "open",
        assurance=run.assurance,
        repeats=_repeats(folder, run, known),
    )


def _replaced(root: Path, artifacts: Sequence[Artifact], name: str) -> list[Finding]:
    """Return a finding for each of the run's files in the work tree that is not the one it was scored with (CASE-37)."""
    findings = []
    for one in artifacts:
        file = root / one.name.partition(": ")[2]
        if not file.is_file() or file.stat().st_size == 0:
            continue  # big files live elsewhere, and most machines have none of them
        found = digest_file(file)
        if found != one.digest:
            text = f"{file.relative_to(root)} is not what the run's scores are of: {found[:19]} in place of {one.digest[:19]}"
            findings.append(Finding("integrity", name, text))
    return findings


def _repeats(folder: Path, run: VerifiedRun, known: Memory) -> dict[int, float]:
    """Return the last validation loss by seed of every sound, completed run of the same recipe, the newest of each seed."""
    mine = run.intent
    found: dict[int, float] = {}
    if mine is None or run.assurance == "reported":
        return found
    for place in run_folders(folder.parent.parent):
        if place.parent != folder.parent or not (place / "evidence.json").is_file():
            continue
        other = run if place == folder else known.verified(place, f"evidence/{place.parent.name}/{place.name}")
        theirs = other.intent
        if other.findings or theirs is None or other.statement is None or other.statement.outcome != "completed":
            continue
        if any(
            getattr(theirs.subjects, key) != getattr(mine.subjects, key)
            for key in ("code", "data", "tokenizer", "model")
        ):
            continue
        if theirs.environment.class_ != mine.environment.class_ or (theirs.seed == mine.seed and place != folder):
            continue
        value = next((one.value for one in other.measurements if one.metric == "validation/loss"), None)
        if isinstance(value, int | float):
            found[theirs.seed] = float(value)
    return found
