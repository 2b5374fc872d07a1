"""Jobs in a queue: submitit's local executor, which starts, signals and requeues as Slurm does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_run import FULL_CONTRACT, command, environment, only_run, rows, sovereign, start
from test_run_distributed import repository, same


def controller(root: Path, *more: str) -> int:
    """Submit the toy contract to the local executor and return the process that stands for the queue."""
    arguments = [
        "submit",
        "--contract",
        str(root / "contracts/toy.yaml"),
        "--device",
        "cpu",
        "--executor",
        "local",
        *more,
    ]
    said = root / "said"
    with said.open("w") as out:  # not a pipe: the queue's process inherits it, and would hold it open
        code = subprocess.run(
            command(root, *arguments), stdout=out, stderr=out, env=environment(), check=False
        ).returncode
    found = re.fullmatch(r"run (\S+), job (\d+): logs under artifacts/queue/\1\n", said.read_text())
    assert code == 0, said.read_text()
    assert found, said.read_text()
    return int(found[2])


def until(holds, seconds=180.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_preempted_job_is_requeued_and_goes_on(processes: int, tmp_path: Path) -> None:
    """A job that is told to leave after its first checkpoint ends as one run, with the rows of an undisturbed one."""
    contract = FULL_CONTRACT.replace("steps: 10", "steps: 400\n  wrap_around: true\n  most_passes: 99")
    straight = repository(tmp_path / "straight", contract)
    assert start(straight).returncode == 0
    root = repository(tmp_path / "queued", contract)
    job = controller(root, "--nproc", str(processes))
    until(lambda: list(root.glob("artifacts/toy/*/checkpoints/step-*")))
    preempt(job)
    until(lambda: list(root.glob("evidence/toy/*/evidence.json")))
    folder = only_run(root)
    segments = json.loads((folder / "evidence.json").read_text())["segments"]

    same(rows(folder), rows(only_run(straight)))
    assert [one["processes"] for one in segments] == [processes] * 2
    assert sovereign(root, "verify").returncode == 0


def preempt(job: int) -> None:
    """Send what Slurm sends before it takes the nodes away, to every task."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if int((place / "stat").read_text().rsplit(")", 1)[1].split()[1]) == job:
                os.kill(int(place.name), signal.SIGUSR2)
        except OSError:
            continue


def test_the_code_a_queue_leaves_with_comes_out(tmp_path: Path) -> None:
    """A handler that exits a running command so that the task is requeued is not taken for a closed pipe."""
    (tmp_path / "spec").mkdir()
    os.mkfifo(tmp_path / "spec/never-written.yaml")
    code = (
        "import signal, sys; from sovereign.cli.main import exit_of\n"
        "signal.signal(signal.SIGALRM, lambda *_: sys.exit(144)); signal.setitimer(signal.ITIMER_REAL, 0.3)\n"
        "sys.exit(exit_of(['spec', 'lint', '--root', '.']))"
    )

    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, check=False).returncode == 144


def test_a_faulty_contract_is_told_before_it_is_queued(tmp_path: Path) -> None:
    """What `run` would refuse as malformed never reaches a queue."""
    root = repository(tmp_path)
    refused = sovereign(
        root,
        "submit",
        "--contract",
        str(root / "contracts/toy.yaml"),
        "--set",
        "training.stpes=3",
        "--executor",
        "local",
    )

    assert (refused.returncode, (root / "artifacts").exists()) == (3, False)
    assert "did you mean steps?" in refused.stderr
