"""What changed between two versions of a criterion, and of a spec: editorial, add, tighten, loosen, withdraw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sovereign.spec.criterion import LADDER, Criterion, Spec

Change = Literal["same", "editorial", "add", "tighten", "loosen", "withdraw"]
BUMP: dict[str, int] = {"same": 0, "editorial": 1, "add": 2, "tighten": 2, "loosen": 3, "withdraw": 3}
BUMP_NAMES = {1: "patch", 2: "minor", 3: "major"}


def classify(old: Criterion, new: Criterion) -> Change:
    """Return what an edit of one criterion does; what is not strictly harder is `loosen`, whatever its intention."""
    if old is new or old == new:  # thousands of runs share one object
        return "same"
    if old.digest == new.digest:
        return "editorial"
    if (old.metric, old.contract, old.category) != (new.metric, new.contract, new.category):
        return "loosen"
    return "tighten" if _at_least_as_hard(old, new) else "loosen"


def _at_least_as_hard(old: Criterion, new: Criterion) -> bool:
    before, after = old.obligations, new.obligations
    return (
        _bound_as_hard(old, new)
        and set(before.seeds) <= set(after.seeds)
        and set(before.slices) <= set(after.slices)
        and set(before.environments) <= set(after.environments)
        and before.least_n <= after.least_n
        and LADDER.index(before.assurance) <= LADDER.index(after.assurance)
        and not (old.stage == "active" and new.stage == "draft")
        and not (old.environment == "exact" and new.environment == "recorded")
        and (old.max_age_days is None or (new.max_age_days is not None and new.max_age_days <= old.max_age_days))
    )


def _bound_as_hard(old: Criterion, new: Criterion) -> bool:
    if old.op == new.op and old.bound == new.bound:
        return True
    if isinstance(old.bound, str) or isinstance(new.bound, str):
        return False
    if old.op in ("<=", "<") and new.op in ("<=", "<"):
        return new.bound < old.bound or (new.bound == old.bound and new.op == "<")
    if old.op in (">=", ">") and new.op in (">=", ">"):
        return new.bound > old.bound or (new.bound == old.bound and new.op == ">")
    return False


@dataclass(frozen=True)
class Edit:
    """What happened to one criterion id between two specs."""

    id: str
    change: Change
    old: Criterion | None
    new: Criterion | None

    @property
    def needs_amendment(self) -> bool:
        return self.change in ("loosen", "withdraw")


def edits(base: Spec, head: Spec) -> tuple[Edit, ...]:
    """Return every criterion that differs between two versions of a spec, in order of id."""
    found = []
    for id_ in sorted(base.by_id.keys() | head.by_id.keys()):
        old, new = base.by_id.get(id_), head.by_id.get(id_)
        if old and new:
            change = classify(old, new)
        elif new:
            change = "add"
        else:
            change = "withdraw"
        if change != "same":
            found.append(Edit(id_, change, old, new))
    return tuple(found)


def required_bump(changes: tuple[Edit, ...]) -> int:
    """Return the smallest version step that the edits allow: 0 none, 1 patch, 2 minor, 3 major."""
    return max((BUMP[edit.change] for edit in changes), default=0)


def bump(base: str, head: str) -> int:
    """Return the version step between two versions: 0 none, 1 patch, 2 minor, 3 major, -1 backwards."""
    before, after = (tuple(map(int, version.split("."))) for version in (base, head))
    if after < before:
        return -1
    return next((3 - index for index in range(3) if before[index] != after[index]), 0)
