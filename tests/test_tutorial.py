"""The tutorial is true: its commands are run, in order, and end with the codes that it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parent.parent / "docs/tutorial.md"
BLOCK = re.compile(r"^```sh(?: exit=(\d+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `sovereign` is this one, and git commits as somebody."""
    command = tmp_path / "bin/sovereign"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from sovereign.cli.main import main; main()" "$@"\n')
    command.chmod(0o755)
    people = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in {"NAME": "a", "EMAIL": "a@b"}.items()
    }
    return {**os.environ, **people, "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.skipif(sys.platform == "darwin", reason="BSD sed edits in place otherwise")
def test_the_tutorial_ends_as_it_says(tmp_path: Path, shell: dict[str, str]) -> None:
    """From an empty folder to a red gate, an amendment and a green one."""
    folder = tmp_path / "first"
    folder.mkdir()
    blocks = BLOCK.findall(TUTORIAL.read_text())
    told = []
    for code, commands in blocks:
        ran = subprocess.run(
            ["sh", "-e", "-c", commands], cwd=folder, env=shell, capture_output=True, text=True, check=False
        )
        assert ran.returncode == int(code or 0), f"{commands}\n{ran.stdout}\n{ran.stderr}"
        told.append(ran.stdout)

    assert len(blocks) > 8
    assert "amended after results ×1" in told[-2]
    assert "was FALSIFIED @" in told[-2]
