"""A run on several processes, from the command line: the same run, and one that another number goes on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_run import FULL_CONTRACT, FULL_SPEC, environment, only_run, rows, sovereign, start, text


def repository(root: Path, contract: str = FULL_CONTRACT) -> Path:
    for name, content in {"spec/toy.yaml": FULL_SPEC, "contracts/toy.yaml": contract}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "data").mkdir(parents=True)
    for number in range(60):
        (root / f"data/{number:03d}.py").write_text(text(number))
    return root


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    root = repository(tmp_path_factory.mktemp("alone"))
    assert start(root).returncode == 0
    return rows(only_run(root))


def same(found: dict[str, list[dict[str, Any]]], expected: dict[str, list[dict[str, Any]]]) -> None:
    """Hold two runs' rows to each other: the same tokens in the same order, losses to 1e-5."""
    assert [row["windows"] for row in found["step"]] == [row["windows"] for row in expected["step"]]
    assert [row["loss"] for row in found["step"]] == pytest.approx([row["loss"] for row in expected["step"]], abs=1e-5)
    assert [(row["step"], row["split"], row["document"]) for row in found["evaluation"]] == [
        (row["step"], row["split"], row["document"]) for row in expected["evaluation"]
    ]
    assert [row["nll"] for row in found["evaluation"]] == pytest.approx(
        [row["nll"] for row in expected["evaluation"]], rel=1e-5
    )
    assert found["exposure"] == expected["exposure"]


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["ddp", "fsdp"])
def test_two_processes_leave_the_evidence_of_one(
    sharing: str, alone: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """`--nproc 2`: one set of rows, each once, that the gate believes; resuming is shown to be exact there too."""
    root = repository(
        tmp_path, FULL_CONTRACT.replace("checkpoint_every: 4", f"checkpoint_every: 4\n  distributed: {sharing}")
    )
    ran = start(root, "--nproc", "2")
    assert ran.returncode == 0, ran.stderr
    statement = json.loads((only_run(root) / "evidence.json").read_text())
    intent = json.loads((only_run(root) / "intent.json").read_text())
    gated = json.loads(sovereign(root, "gates", "--json").stdout)["evaluations"][0]["criteria"]

    same(rows(only_run(root)), alone)
    assert ran.stdout.count("completed: ") == 1
    assert [one["processes"] for one in statement["segments"]] == [intent["environment"]["processes"]] == [2]
    assert {one["status"] for one in gated} == {"DISCHARGED"}
    assert [row["straight"] == row["replayed"] for row in rows(only_run(root))["replay"]] == [True, True]
    assert sovereign(root, "verify").returncode == 0


@pytest.mark.slow
def test_plain_torchrun_does_the_same(alone: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    """`torchrun ... -m sovereign run ...` is `--nproc`."""
    root = repository(tmp_path)
    ran = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sovereign", "run",
            "--contract", str(root / "contracts/toy.yaml"), "--device", "cpu", "--root", str(root),
        ],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stderr
    same(rows(only_run(root)), alone)


def test_a_step_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    """Three processes cannot share two sequences: refused with the numbers, once, before anything is written."""
    root = repository(tmp_path)
    planned = sovereign(root, "plan", "--contract", str(root / "contracts/toy.yaml"), "--nproc", "3", "--device", "cpu")
    refused = start(root, "--nproc", "3")

    assert (planned.returncode, refused.returncode) == (7, 7), refused.stderr
    assert refused.stderr.count("refused: 2 sequences a step cannot be shared evenly by 3 processes") == 1
    assert "Traceback" not in refused.stderr
    assert not (root / "evidence").exists()


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1])
def test_a_dead_rank_leaves_a_run_that_one_process_finishes(
    dead: int, alone: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """SIGKILL to one of two processes: exit 8, the run open; alone it goes on to the same tokens and losses."""
    root = repository(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "sovereign", "run", "--contract", str(root / "contracts/toy.yaml"), "--device", "cpu",
         "--nproc", "2", "--root", str(root)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    while process.poll() is None and not list(root.glob("artifacts/toy/*/checkpoints/step-*")):
        time.sleep(0.002)
    for child in ranks_of(process.pid):
        if child[0] == dead:
            os.kill(child[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    folder = only_run(root)
    assert process.returncode == 8, errors
    assert not (folder / "evidence.json").exists()
    resumed = sovereign(root, "run", "--resume", folder.name, "--device", "cpu")
    assert resumed.returncode == 0, resumed.stderr

    same(rows(folder), alone)
    assert [one["processes"] for one in json.loads((folder / "evidence.json").read_text())["segments"]] == [2, 1]


def ranks_of(parent: int) -> list[tuple[int, int]]:
    """Return rank and process id of each process of a run that `parent` launched."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if int((place / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                variables = dict(one.split("=", 1) for one in (place / "environ").read_text().split("\0") if "=" in one)
                if "RANK" in variables:
                    found.append((int(variables["RANK"]), int(place.name)))
        except OSError:  # it ended while we looked
            continue
    return found


ABORTING_END = """
import atexit, os, sys
from sovereign.cli.main import main
atexit.register(os.abort)
sys.argv = ["sovereign", "gates", "--no-such-option"]
main()
"""


@pytest.mark.parametrize(("processes", "code"), [("", -signal.SIGABRT), ("1", -signal.SIGABRT), ("2", 2), ("two", 2)])
def test_the_code_of_one_of_several_outlives_an_aborting_end(processes: str, code: int) -> None:
    """The interpreter's ending aborts, as a thread of the exchange may make it: among several, the code still arrives.

    Alone, where no such thread lives, an abort is seen for what it is.
    """
    ended = subprocess.run(
        [sys.executable, "-c", ABORTING_END],
        env=environment() | {"WORLD_SIZE": processes},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == code
    assert "no-such-option" in ended.stderr
