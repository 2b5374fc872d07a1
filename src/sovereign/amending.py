"""Amending: the record of a bound that gave way, with what had been seen computed and not remembered."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from sovereign.canonical import pretty, write_atomic
from sovereign.gate.admission import VerifiedRun
from sovereign.repository import Repository, verified_runs
from sovereign.spec.amendment import Amendment
from sovereign.spec.criterion import Criterion
from sovereign.spec.diff import classify


def amendment(
    head: Repository, base: Repository, id_: str, *, reason: str, author: str, approver: str, now: datetime
) -> tuple[Path, Amendment]:  # fmt: skip
    """Write the amendment that leads from the base's form of a criterion to the head's, and return it.

    Raises LookupError where there is nothing to amend: the criterion is unknown, unchanged, or only edited in prose.
    """
    old = _criterion(base, id_)
    if old is None:
        raise LookupError(f"the base holds no criterion {id_}; a new one needs no amendment")
    open_runs = [run.name for run in verified_runs(head.root) if _open_under(run, old)]
    if open_runs:
        raise LookupError(
            f"{open_runs[0]} is open under the old form: resume or abandon it, so that its result is listed"
        )
    new = _criterion(head, id_)
    change = "withdraw" if new is None else classify(old, new)
    if change not in ("tighten", "loosen", "withdraw"):
        raise LookupError(f"{id_} means what it meant ({change}): edit the spec first, then amend")
    values: dict[str, Any] = {
        "schema": "sovereign/amendment/v1",
        "id": f"{now:%Y-%m-%d}-{id_.lower()}-{(new.digest if new else 'withdrawn')[-8:]}",
        "criterion": id_,
        "change": change,
        "from": old.digest,
        "to": new.digest if new else None,
        "from_sentence": old.sentence,
        "to_sentence": new.sentence if new else "",
        "reason": reason,
        "results_seen": tuple(sorted(results_under(head, old))),
        "author": author,
        "approver": approver,
        "written": now.date(),
    }
    written = Amendment(**values)
    path = head.root / "spec" / "amendments" / f"{written.id}.yaml"
    # JSON is YAML: the strict reader takes it, and nothing needs quoting rules
    write_atomic(path, pretty(written.plain()))
    return path, written


def results_under(repository: Repository, criterion: Criterion) -> set[str]:
    """Return the digests of all evidence that was held to this form of a criterion."""
    return {
        run.digest
        for run in verified_runs(repository.root)
        if run.statement is not None
        and run.intent is not None
        and criterion.id in run.intent.criteria
        and run.intent.criteria[criterion.id].digest == criterion.digest
    }


def _open_under(run: VerifiedRun, criterion: Criterion) -> bool:
    """Say whether a run that was held to this form of a criterion may yet bring a result."""
    frozen = run.intent.criteria.get(criterion.id) if run.intent else None
    return run.statement is None and frozen is not None and frozen.digest == criterion.digest


def _criterion(repository: Repository, id_: str) -> Criterion | None:
    return next((one.spec.by_id[id_] for one in repository.specs if id_ in one.spec.by_id), None)
