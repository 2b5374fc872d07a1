"""CASE-29 Checkpoint folders without weights.

Stage: at close
Outcome: a checkpoint without its marker, or with a file that the marker does not list, is never listed or resumed, and it is said why
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_run import only_run
from test_run_distributed import repository
from test_run_guards import Crash, execute

from sovereign.cli.main import exit_of
from sovereign.training import checkpoint


def killed_between_weights_and_state(number: int) -> Any:
    """Plant: the process dies as it has written the weights of its nth checkpoint, and not yet the optimizer."""
    real, calls = checkpoint.save_file, []

    def save_file(tensors: Any, path: Path, *more: Any) -> None:
        if path.name == "optimizer.safetensors":
            calls.append(path)
            if len(calls) == number:
                raise Crash
        real(tensors, path, *more)

    return save_file


def test_a_cut_while_saving_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in its second checkpoint, a run lists the first alone; resumed, it goes on from there and completes."""
    root = repository(tmp_path)
    with monkeypatch.context() as planted:
        planted.setattr(checkpoint, "save_file", killed_between_weights_and_state(2))
        with pytest.raises(Crash):
            execute(root)
    name = only_run(root).name
    folder = root / "artifacts/toy" / name / "checkpoints"

    assert [".step-000008.partial", "step-000004"] == sorted(path.name for path in folder.iterdir())
    assert ["step-000004"] == [path.name for path in checkpoint.checkpoints(folder)]
    assert 0 == exit_of(["run", "--resume", name, "--device", "cpu", "--root", str(root)])
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("harm", "why"), [("truncated", "bytes, COMPLETE says"), ("unmarked", "it has no COMPLETE marker")]
)
def test_a_folder_that_looks_like_one_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], harm: str, why: str
) -> None:
    """Plant: the newest checkpoint lost the end of its weights, or its marker; the run goes on from the one before, and says why."""
    root = repository(tmp_path)
    with monkeypatch.context() as planted:
        planted.setattr("sovereign.run._Execution._observe_afterwards", dies)
        with pytest.raises(Crash):
            execute(root)
    name = only_run(root).name
    folder = root / "artifacts/toy" / name / "checkpoints"
    newest = checkpoint.checkpoints(folder)[-1]
    if harm == "truncated":
        file = newest / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    else:
        (newest / checkpoint.MARKER).unlink()
    told: list[str] = []

    assert "step-000010" not in [path.name for path in checkpoint.checkpoints(folder, told.append)]
    assert (1, True) == (len(told), why in told[0] and "step-000010" in told[0])
    capsys.readouterr()
    assert 0 == exit_of(["run", "--resume", name, "--device", "cpu", "--root", str(root)])
    assert why in capsys.readouterr().err


def dies(run: Any) -> None:
    raise Crash
