"""CASE-14 Seed recorded, never set.

Stage: before step 0
Outcome: every start with one seed is the same start; two that are not, or two seeds that are one, are said and conclude nothing
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tuned import BASE, carried_out, observed, repository

from sovereign.comparison.compare import Contender, compare
from sovereign.evidence.rows import StepRow
from sovereign.plan import Plan
from sovereign.verification import twins

SHORT = (
    BASE.replace("steps: 60", "steps: 10").replace("every: 30", "every: 10").replace("checkpoint_every: 10", "checkpoint_every: 5")
)  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [row.loss for row in observed(folder).of(StepRow)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repository(tmp_path / "r")


def test_one_seed_is_one_start_and_another_is_another(root: Path) -> None:
    """Ten losses are the same to the last bit, wherever torch's random state stood, and the runs SAME; the other seed's are not."""
    folders = []
    for text in (SHORT, SHORT, SHORT.replace("seeds: [1, 2]", "seeds: [2]")):
        torch.manual_seed(len(folders))
        folders.append(carried_out(root, text).folder)
    one, same, other = map(losses, folders)
    pair = compare([Contender(observed(folder)) for folder in folders[:2]]).pairs[0]

    assert one == same
    assert all(abs(first - second) > 1e-4 for first, second in zip(one, other, strict=True))
    assert ("SAME", False) == (pair.checkpoints, "SEED_IGNORED" in {told.code for told in pair.reasons})


def test_a_seed_that_is_only_stored_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: each model is drawn from wherever a generator stands; the intent holds the seed all the same."""
    real, drawn = Plan.fresh, itertools.count(100)

    def unseeded(plan: Plan, seed: int | None = None) -> Any:
        return real(plan, next(drawn))

    monkeypatch.setattr(Plan, "fresh", unseeded)
    one, two = (carried_out(root, SHORT) for _ in range(2))
    pair = compare([Contender(observed(one.folder)), Contender(observed(two.folder))]).pairs[0]

    assert (1, 1) == (observed(one.folder).intent.seed, observed(two.folder).intent.seed)
    assert ("INCONCLUSIVE", "INCONCLUSIVE") == (pair.checkpoints, pair.recipes)
    assert (
        "the seed that is recorded is not what decides the run"
        in {one.code: one.text for one in pair.reasons}["SEED_IGNORED"]
    )


def test_two_seeds_with_one_course_were_not_two_seeds() -> None:
    """Plant: the seed reaches nothing, so that two seeds give the same losses to the last digit."""
    assert twins({"a": (1, "same"), "b": (2, "same"), "c": (3, "other")}) == {
        "b": "every loss equals that of a, which had another seed"
    }
