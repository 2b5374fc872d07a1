"""Run folders of somebody else's trainer: an intent, reported rows, a statement; read from a log, or watched live.

Nothing that the trainer did not say is written: what cannot be known is left out of the intent, and what could
not be seen equals nothing that the gate compares it with.
"""

from __future__ import annotations

import platform
import secrets
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sovereign import __version__
from sovereign.canonical import Malformed, Problem, pretty, read, validate, write_atomic
from sovereign.closing import close, instant, seal
from sovereign.contract.contract import Contract
from sovereign.evidence.folder import run_folders
from sovereign.evidence.intent import Environment, Intent, Origin, Planned, Subjects
from sovereign.evidence.journal import Journal
from sovereign.evidence.statement import Artifact, Statement
from sovereign.interop.logs import Series
from sovereign.spec.criterion import Spec
from sovereign.subjects import evaluator_digest, worktree

UNKNOWN = Environment(device="unknown", precision="unknown", python="unknown", torch="unknown", platform="unknown")


def begin(
    contract: Contract, spec: Spec, root: Path, now: datetime, *, origin: Origin, seed: int, vocabulary: int | None,
    parameters: int | None = None, subjects: Subjects | None = None, environment: Environment = UNKNOWN,
    paths: Iterable[Path] = (), scripts: Sequence[str] = (), answers: Sequence[str] = (), command: str = "",
) -> Intent:  # fmt: skip
    """Write the intent of a run that another trainer carries out, durably, and return it.

    `paths` are files that decide the run beside the spec and the contract: uncommitted changes are told of all.
    """
    training = contract.training
    intent = seal(
        Intent,
        schema="sovereign/intent/v1",
        contract=contract.contract,
        run=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        origin=origin,
        written=instant(now),
        spec=spec.spec,
        spec_version=spec.version,
        criteria={claim: spec.by_id[claim] for claim in contract.claims},
        promise=contract,
        seed=seed,
        subjects=subjects or Subjects(model=contract.subject, evaluator=evaluator_digest()),
        environment=environment,
        worktree=worktree(root, [root / contract.spec, root / "contracts" / f"{contract.contract}.yaml", *paths]),
        planned=Planned(
            steps=training.steps,
            tokens=training.steps * training.sequences * contract.context,
            parameters=parameters,
            vocabulary=vocabulary,
        ),
        ttl_hours=contract.ttl_hours,
        answers=tuple(answers),
        command=command,
        scripts=tuple(scripts),
        sovereign=__version__,
    )
    folder = folder_of(intent, root)
    (folder / "rows").mkdir(parents=True)
    write_atomic(folder / "intent.json", pretty(intent.plain()))
    return intent


def folder_of(intent: Intent, root: Path) -> Path:
    return root / "evidence" / intent.contract / intent.run


def import_series(
    series: Series, log: Path, contract: Contract, spec: Spec, root: Path, now: datetime,
    seed: int | None = None, command: str = "",
) -> tuple[Path, Statement]:  # fmt: skip
    """Write the run that a log tells of, concluded, and return its folder and statement.

    Raises Malformed where the log is of another run than the contract's, or is imported already.
    """
    problems = [Problem(str(log), message, line) for line, message in _objections(series, contract, root, seed)]
    if problems:
        raise Malformed(problems)
    vocabulary = series.vocabulary or promised_vocabulary(contract)
    intent = begin(
        contract, spec, root, now, origin="import", seed=contract.seeds[0] if seed is None else seed,
        vocabulary=vocabulary, parameters=contract.decoder.parameters(vocabulary) if vocabulary else None, command=command,
    )  # fmt: skip
    folder = folder_of(intent, root)
    journal = Journal(folder / "rows", intent.run)
    journal.log(
        "notice", step=0, name="format", got=series.format, message=f"read as {series.format}, in {series.unit}"
    )
    for remark in series.remarks:
        journal.log("notice", step=series.steps, name="remark", message=remark)
    for point in series.points:
        journal.log("reported", **vars(point))
    if series.steps > (series.points[-1].step or 0):
        journal.log("reported", step=series.steps)
    journal.close()
    planned = contract.training.steps
    short = "" if series.steps == planned else f"the log ends at step {series.steps} of {planned} planned"
    name = log.resolve()
    shown = name.relative_to(root).as_posix() if name.is_relative_to(root) else name.name
    statement = close(
        folder, folder.relative_to(root).as_posix(), "abandoned" if short else "completed", short, now,
        artifacts=[Artifact(name=f"log: {shown}", digest=series.digest, bytes=series.size)],
    )  # fmt: skip
    return folder, statement


def promised_vocabulary(contract: Contract) -> int | None:
    """Return the entries of the contract's tokenizer, where the contract says how many."""
    size = getattr(contract.tokenizer, "vocabulary", None)
    return size if isinstance(size, int) else None


def _objections(series: Series, contract: Contract, root: Path, seed: int | None) -> Iterable[tuple[int, str]]:
    """Yield line and sentence for every reason why a log cannot be this contract's run."""
    planned, last = contract.training.steps, series.points[-1]
    if any(point.step is None for point in series.points):
        yield 1, "counts no steps, and a run is counted in them: `sovereign diagnose` reads it, an import cannot"
    if series.steps > planned:
        told = (
            f"runs to step {series.steps}, and contract {contract.contract} promises {planned}: it is another run's log"
        )
        yield last.entry if series.format in ("csv", "jsonl", "mlx-lm", "nanogpt") else 1, told
    promised = promised_vocabulary(contract)
    if series.vocabulary and promised and series.vocabulary != promised:
        yield 1, f"tells of a vocabulary of {series.vocabulary}, where contract {contract.contract} promises {promised}"
    if seed is None and len(contract.seeds) > 1:
        yield 1, f"does not say its seed, and contract {contract.contract} has {list(contract.seeds)}: give --seed"
    if seed is not None and seed not in contract.seeds:
        yield 1, f"seed {seed} is not one of contract {contract.contract}'s seeds {list(contract.seeds)}"
    imported = _imported_as(series.digest, root)
    if imported:
        yield 1, f"is imported already, as {imported}: one log is one run (CASE-37)"


def _imported_as(digest: str, root: Path) -> str:
    """Return the name of the run that was imported from a log with this digest, or nothing."""
    for folder in run_folders(root / "evidence"):
        path = folder / "evidence.json"
        if not path.exists():
            continue
        try:
            statement = validate(Statement, read(path))
        except Malformed:
            continue  # `sovereign verify` says what is wrong with it
        if any(one.digest == digest and one.name.startswith("log: ") for one in statement.artifacts):
            return f"{statement.contract}/{statement.run}"
    return ""


def here(device: str, accelerator: str, precision: str, threads: int | None) -> Environment:
    """Return this machine as the environment of a run: a device or precision that no obligation names is `unknown`."""
    values: dict[str, Any] = {
        "device": device if device in ("cpu", "cuda", "mps") else "unknown",
        "precision": precision if precision in ("bf16", "fp16", "fp32") else "unknown",
    }
    return Environment(
        **values,
        accelerator=accelerator,
        python=platform.python_version(),
        torch=_version("torch"),
        platform=f"{sys.platform} {platform.machine()}",
        threads=threads,
        packages={
            name: found for name in ("accelerate", "numpy", "transformers") if (found := _version(name)) != "unknown"
        },
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
