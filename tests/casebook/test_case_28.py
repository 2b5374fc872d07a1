"""CASE-28 Best weights not kept.

Stage: at close
Outcome: best and last stand in the statement with their digests, or the run closes as abandoned (exit 8); a child names one by bytes
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_run import only_run
from test_run_distributed import repository
from test_run_guards import EARLY, started
from tuned import rows

from sovereign.canonical import digest_file, read
from sovereign.lineage import parent
from sovereign.training import checkpoint

# forty passes at a high rate over forty small files: past its best long before its end
TOO_LONG = EARLY.replace("early_stopping: {patience: 2}", "clip: 1.0").replace("steps: 60", "steps: 40")


def listed(root: Path) -> dict[str, tuple[Path, str]]:
    """Return what the run's statement lists: name -> file and digest."""
    artifacts = read(only_run(root) / "evidence.json").value["artifacts"]
    return {one["name"].partition(": ")[0]: (root / one["name"].partition(": ")[2], one["digest"]) for one in artifacts}


def losses(folder: Path) -> dict[int, float]:
    """Return step -> validation loss, from the rows."""
    found: dict[int, list[tuple[float, int]]] = {}
    for row in rows(folder, "evaluation"):
        if row["split"] == "validation":
            found.setdefault(row["step"], []).append((row["nll"], row["tokens"]))
    return {step: sum(nll for nll, _ in scored) / sum(count for _, count in scored) for step, scored in found.items()}


def test_best_and_last_are_kept_by_digest_and_a_child_names_the_best(tmp_path: Path) -> None:
    """On an overfitting run they are of two steps: the lowest validation loss is the best, and what a child begins from."""
    root = repository(tmp_path, TOO_LONG)
    assert started(root) == 0
    found, scored = listed(root), losses(only_run(root))
    best = min((loss, step) for step, loss in scored.items() if step)[1]
    base = parent("toy", root)

    assert 0 < best < 40
    assert (f"step-{best:06d}", "step-000040") == (found["best"][0].parent.name, found["last"][0].parent.name)
    assert all(digest_file(file) == digest for file, digest in found.values())
    assert (best, found["best"][1]) == (base.step, base.weights_digest)


def test_a_best_that_was_thrown_away_is_not_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plant: only the last checkpoint is kept, whatever is named beside it."""
    real = checkpoint.save

    def last_only(*given: Any, **more: Any) -> Path:
        return real(*given, **{**more, "keep": 1, "named": ()})

    monkeypatch.setattr(checkpoint, "save", last_only)
    root = repository(tmp_path, TOO_LONG)
    code = started(root)

    assert (8, "abandoned") == (code, read(only_run(root) / "evidence.json").value["outcome"])
    assert "guard incomplete at step 40: the best checkpoint, of step " in capsys.readouterr().err
    assert "best" not in listed(root)
