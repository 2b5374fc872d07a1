"""CASE-23 Resume forgets.

Stage: during the run
Outcome: a resumed run has the straight run's batches, rates, counters and losses, and a segment of its own; one that forgets is FALSIFIED
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_run import only_run, rows
from test_run_distributed import repository
from test_run_guards import Crash, crash_at, execute, started

from sovereign.canonical import read
from sovereign.cli.main import exit_of
from sovereign.evidence.folder import Observed, read_folder
from sovereign.metrics.measure import METRICS, measure
from sovereign.planted.training import resume_forgets
from sovereign.training import loop


def killed_and_resumed(root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Cut a run of ten steps off in its seventh, behind the checkpoint of the fourth, and go on with it."""
    with monkeypatch.context() as planted:
        planted.setattr(loop, "windows_digest", crash_at(7))
        with pytest.raises(Crash):
            execute(root)
    return exit_of(["run", "--resume", only_run(root).name, "--device", "cpu", "--root", str(root)])


def kept(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what a straight and a resumed run must share: batches, rates, counters, losses, every evaluation."""
    return {kind: rows(only_run(root))[kind] for kind in ("step", "evaluation", "exposure")}


def measured(root: Path, metric: str) -> float:
    found = read_folder(only_run(root), only_run(root).name)
    assert found.intent is not None
    return float(measure(Observed(found.intent, found.rows), METRICS.keys() & {metric})[0][0].value)


def test_a_resumed_run_is_the_straight_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows, rates, passes, tokens and losses of all ten steps are the same; the statement lists two segments."""
    straight, resumed = repository(tmp_path / "straight"), repository(tmp_path / "resumed")
    assert (0, 0) == (started(straight), killed_and_resumed(resumed, monkeypatch))
    segments = read(only_run(resumed) / "evidence.json").value["segments"]

    assert kept(straight) == kept(resumed)
    assert [0, 4] == [one["from_step"] for one in segments]


def test_moments_that_were_forgotten_are_falsified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: every load forgets the optimizer's moments. Steps repeated from a checkpoint then lead elsewhere, and are counted."""
    forgetful, sound = repository(tmp_path / "forgetful"), repository(tmp_path / "sound")
    with resume_forgets():
        started(forgetful)
    assert started(sound) == 0

    assert (0.0, 2.0) == tuple(measured(root, "training/replay_mismatches") for root in (sound, forgetful))
    assert 1 == exit_of(["gates", "--root", str(forgetful)])


def test_a_schedule_that_begins_again_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plant: behind the resume the optimizer's rates come from a schedule of its own, which begins anew: exit 8 at that step."""
    from test_run_guards import FAULTS

    root = repository(tmp_path)
    with monkeypatch.context() as planted:
        planted.setattr(loop, "windows_digest", crash_at(7))
        with pytest.raises(Crash):
            execute(root)
    place, name, deaf, guard, *_ = FAULTS["a rate that is not applied"]
    monkeypatch.setattr(place, name, deaf)
    code = exit_of(["run", "--resume", only_run(root).name, "--device", "cpu", "--root", str(root)])

    assert 8 == code
    assert f"guard {guard} at step 5" in capsys.readouterr().err
