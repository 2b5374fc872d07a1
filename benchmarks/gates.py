"""Claim: `sovereign gates` answers in under a second with the committed evidence, and linearly in run folders.

Times whole commands (interpreter start included) against the floor of any Python command line, an interpreter that
imports pydantic and click and exits. With --folders N, generates N run folders of a toy contract (at least 100
validation rows each) and times N/2 and N, cold and warm, with peak memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
GATES = "from sovereign.cli.main import main; main()"
FLOOR = "import click, pydantic"


@dataclass(frozen=True)
class Cost:
    """What one whole process took: wall and processor seconds, and the largest resident memory in MiB."""

    wall: float
    cpu: float
    peak: float


def process(program: str, arguments: list[str], memory: Path) -> Cost:
    began = time.perf_counter()
    started = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "SOVEREIGN_CACHE": str(memory)},
    )  # fmt: skip
    _, _, used = os.wait4(started.pid, 0)
    started.returncode = 0  # it is waited for already
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return Cost(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / scale)


def timed(program: str, arguments: list[str], memory: Path) -> float:
    """Return the wall seconds of one whole process."""
    return process(program, arguments, memory).wall


def committed(place: Path, rounds: int) -> None:
    arguments = ["gates", "--root", str(ROOT)]
    cold = []
    for number in range(rounds):
        cold.append(timed(GATES, arguments, place / f"cold-{number}.sqlite"))
    warm, floor = [], []
    for _ in range(rounds):  # alternating, so that both see the same machine
        warm.append(timed(GATES, arguments, place / "cold-0.sqlite"))
        floor.append(timed(FLOOR, [], place / "none"))
    print(f"committed evidence   warm {median(warm):.3f} s [{min(warm):.3f}, {max(warm):.3f}]   "
          f"cold {median(cold):.3f} s   floor {median(floor):.3f} s   warm/floor {median(warm) / median(floor):.2f}")  # fmt: skip


def many(place: Path, folders: int) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from fabric import intent, repository, rows, write_run

    for size in (folders // 2, folders):
        root = repository(place / f"repository-{size}")
        began = time.perf_counter()
        for number in range(size):
            write_run(root, intent(f"20260101T000000Z-{number:06d}", seed=1), rows(loss=2.5, documents=60, seed=number))
        made = time.perf_counter() - began
        memory = place / f"memory-{size}.sqlite"
        cold = process(GATES, ["gates", "--root", str(root)], memory)
        warm = min((process(GATES, ["gates", "--root", str(root)], memory) for _ in range(3)), key=lambda one: one.wall)
        print(f"{size:>6} folders   cold {_told(cold)}   warm {_told(warm)}, {1e3 * warm.wall / size:.3f} ms a folder   "
              f"(generated in {made:.0f} s)")  # fmt: skip


def _told(cost: Cost) -> str:
    return f"{cost.wall:.2f} s ({cost.cpu:.2f} s of processor), peak {cost.peak:.0f} MiB"


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--folders", type=int, default=0)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        committed(Path(folder), asked.rounds)
        if asked.folders:
            many(Path(folder), asked.folders)
