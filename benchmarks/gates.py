"""Claim: `sovereign gates` answers in under half a second with the committed evidence, and linearly in run folders.

Times whole commands (interpreter start included) against the floor of any Python command line, an interpreter that
imports pydantic and click and exits. With --folders N, generates N run folders of a toy contract (at least 100
validation rows each) and times N/2 and N, cold and warm, with peak memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
GATES = "from sovereign.cli.main import main; main()"
FLOOR = "import click, pydantic"


def timed(program: str, arguments: list[str], memory: Path) -> float:
    """Return the wall seconds of one whole process."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, env={**os.environ, "SOVEREIGN_CACHE": str(memory)},
    )  # fmt: skip
    return time.perf_counter() - began


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
        cold = timed(GATES, ["gates", "--root", str(root)], memory)
        warm = min(timed(GATES, ["gates", "--root", str(root)], memory) for _ in range(3))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"{size:>6} folders   cold {cold:.2f} s   warm {warm:.2f} s   {1e3 * warm / size:.3f} ms a folder warm   "
              f"peak of any so far {peak:.0f} MiB   (generated in {made:.0f} s)")  # fmt: skip


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--folders", type=int, default=0)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        committed(Path(folder), asked.rounds)
        if asked.folders:
            many(Path(folder), asked.folders)
