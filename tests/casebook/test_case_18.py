"""CASE-18 Measurements made of nothing.

Stage: during the run
Outcome: digests are taken of the bytes that are saved; one digest for two states, or one that its file does not have, is INVALID (exit 4)
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from fabric import FINISHED, intent, repository, rows, write_run

from sovereign.canonical import digest_bytes
from sovereign.closing import close
from sovereign.contenders import Unsound, contenders
from sovereign.evidence.statement import Artifact
from sovereign.verification import verify


def findings(folder: Path) -> str:
    return str([one.message for one in verify(folder, f"evidence/toy/{folder.name}").findings])


def replayed(digest: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return a run's rows with two replayed steps, whose weights are digested as `digest` says."""
    again = [
        ("replay", {"checkpoint": 4, "step": step, "straight_loss": loss, "replayed_loss": loss, "straight": digest(step), "replayed": digest(step)})
        for step, loss in ((5, 4.5), (6, 4.4))
    ]  # fmt: skip
    return [*rows(), *again]


def test_a_digest_of_seed_and_epoch_is_found(tmp_path: Path) -> None:
    """Plant: sha256(seed, epoch) in place of the weights' digest: two steps with an update between them share it."""
    repository(tmp_path)
    folder = write_run(tmp_path, said=replayed(lambda step: "sha256:" + hashlib.sha256(b"1 0").hexdigest()))

    assert "the weights after steps 5 and 6 have one digest, with an update between them" in findings(folder)


def test_digests_of_states_are_not_accused(tmp_path: Path) -> None:
    """Control: each step's weights have a digest of their own."""
    repository(tmp_path)
    folder = write_run(tmp_path, said=replayed(lambda step: digest_bytes(str(step).encode())))

    assert "[]" == findings(folder)


@pytest.mark.parametrize(("last", "found"), [(b"weights of step 6", True), (b"weights of step 10", False)])
def test_two_checkpoints_with_one_digest_are_found(tmp_path: Path, last: bytes, found: bool) -> None:
    """Plant: best and last are of different steps, and listed with the same digest. Control: with their own."""
    repository(tmp_path)
    folder = write_run(tmp_path, outcome=None)
    listed = [
        Artifact(name=f"{name}: artifacts/toy/step-{step:06d}/model.safetensors", digest=digest_bytes(data), bytes=17)
        for name, step, data in (("best", 6, b"weights of step 6"), ("last", 10, last))
    ]
    close(folder, f"evidence/toy/{folder.name}", "completed", "", FINISHED, artifacts=listed)

    assert found == ("have one digest, and are of different steps" in findings(folder))


def test_a_digest_that_the_saved_bytes_do_not_have_is_found(tmp_path: Path) -> None:
    """Plant: the statement lists a digest made of the step's number; the file that was saved has another."""
    repository(tmp_path)
    folder = write_run(tmp_path, outcome=None)
    file = tmp_path / "artifacts/toy/step-000010/model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights of step 10")
    made_up = Artifact(name=f"last: {file.relative_to(tmp_path)}", digest=digest_bytes(b"10"), bytes=18)
    close(folder, f"evidence/toy/{folder.name}", "completed", "", FINISHED, artifacts=[made_up])
    other = write_run(tmp_path, intent("20260102T000000Z-bbbbbb"), rows(loss=2.0, seed=2))

    with pytest.raises(Unsound, match="is not what the run's scores are of"):
        contenders(tmp_path, [folder.name, other.name])


def test_losses_that_two_seeds_share_are_found(tmp_path: Path) -> None:
    """Plant: the second seed's curve is the first's, to the last digit."""
    from test_verification import statuses

    repository(tmp_path)
    write_run(tmp_path)
    write_run(tmp_path, intent("20260101T000000Z-bbbbbb", seed=2), rows(seed=1))

    assert {"INVALID"} == set(statuses(tmp_path).values())
