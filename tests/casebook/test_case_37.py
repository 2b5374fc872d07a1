"""CASE-37 Old score, new checkpoint.

Stage: comparison
Outcome: exit 4: rows of another run, and weights that are not those that were scored, are compared with nothing
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fabric import FINISHED, intent, repository, rows, write_run

from sovereign.canonical import Malformed, digest_bytes
from sovereign.closing import close
from sovereign.contenders import Unsound, contenders
from sovereign.evidence.statement import Artifact

FIRST, SECOND = "20260101T000000Z-aaaaaa", "20260102T000000Z-bbbbbb"


def two_runs(root: Path) -> tuple[Path, Path]:
    repository(root)
    return write_run(root, intent(FIRST)), write_run(root, intent(SECOND), rows(loss=2.0, seed=2))


def test_a_metrics_file_copied_beside_new_weights_is_refused(tmp_path: Path) -> None:
    """The better run's evaluations in the other run's folder: every row names its run, and the statement its digest."""
    first, second = two_runs(tmp_path)
    shutil.copy(second / "rows/evaluation.jsonl", first / "rows/evaluation.jsonl")

    with pytest.raises(Unsound, match="belongs to run"):
        contenders(tmp_path, [FIRST, SECOND])


def test_other_weights_under_the_scored_name_are_refused(tmp_path: Path) -> None:
    """A checkpoint that was trained on after its scores were taken is not the checkpoint that they are of."""
    repository(tmp_path)
    first = write_run(tmp_path, intent(FIRST), outcome=None)
    weights = tmp_path / "artifacts/toy/model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"30,000 steps")
    artifact = Artifact(name="best: artifacts/toy/model.safetensors", digest=digest_bytes(b"30,000 steps"), bytes=12)
    close(first, f"evidence/toy/{FIRST}", "completed", "", FINISHED, artifacts=[artifact])
    write_run(tmp_path, intent(SECOND), rows(loss=2.0, seed=2))

    assert 2 == len(contenders(tmp_path, [FIRST, SECOND]))
    weights.write_bytes(b"80,000 steps")
    with pytest.raises(Unsound, match=r"model\.safetensors is not what the run's scores are of"):
        contenders(tmp_path, [FIRST, SECOND])


def test_a_name_that_means_no_run_is_said(tmp_path: Path) -> None:
    """An unknown name is refused with what there is."""
    two_runs(tmp_path)

    with pytest.raises(
        Malformed, match="no such run, contract or folder; runs of these contracts are under evidence/: toy"
    ):
        contenders(tmp_path, ["tpy", FIRST])
