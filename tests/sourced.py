"""A small repository with text of its own, and its commands in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fabric import CONTRACT, SPEC
from fabric import repository as written


def repository(root: Path, *changes: tuple[str, str]) -> Path:
    """Return a repository whose toy contract has the changes (old text, new text), over 60 documents."""
    contract = CONTRACT
    for old, new in changes:
        assert old in contract
        contract = contract.replace(old, new)
    written(root, SPEC, contract)
    (root / "data").mkdir(exist_ok=True)
    for number in range(60):
        (root / f"data/{number:02d}.txt").write_text(" ".join(f"w{number}x{at}" for at in range(60)))
    return root


def sovereign(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments],
        cwd=root, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
