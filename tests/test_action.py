"""The GitHub action: its scripts are run as a runner runs them, and take nothing from a change that they must not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fabric import intent, repository, rows, write_run
from ruamel.yaml import YAML
from test_spec_life import committed, git

HERE = Path(__file__).parent.parent
STEPS: list[dict[str, Any]] = YAML(typ="safe").load((HERE / "action.yml").read_text())["runs"]["steps"]
WORKFLOWS = sorted((HERE / ".github/workflows").glob("*.yml"))
BY_NAME = {step["name"]: step for step in STEPS if "name" in step}


def run(root: Path, step: str, **variables: str) -> tuple[int, str, dict[str, str], str]:
    """Return exit code, standard output, outputs and summary of one step, run by bash as a runner does."""
    place = root.parent / "runner"
    binaries = place / "sovereign-venv/bin"
    binaries.mkdir(parents=True, exist_ok=True)
    command = binaries / "sovereign"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from sovereign.cli.main import main; main()" "$@"\n')
    command.chmod(0o755)
    given = {"RUNNER_TEMP": place, "GITHUB_OUTPUT": place / "output", "GITHUB_STEP_SUMMARY": place / "summary"}
    (place / "output").write_text("")
    (place / "summary").write_text("")
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", BY_NAME[step]["run"]],
        cwd=root, capture_output=True, text=True, check=False,
        env={**os.environ, **{name: str(path) for name, path in given.items()}, **variables},
    )  # fmt: skip
    outputs = dict(line.split("=", 1) for line in (place / "output").read_text().splitlines())
    return done.returncode, done.stdout + done.stderr, outputs, (place / "summary").read_text()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_run(repository(tmp_path / "repository"), said=rows(loss=2.5))
    return committed(tmp_path / "repository")


def gate(
    root: Path, base: str = "main", profile: str = "pr", signed: str = "false"
) -> tuple[int, str, dict[str, str], str]:
    return run(root, "Gate", BASE=base, PROFILE=profile, SIGNED=signed, HEAD="cafe")


def test_the_gate_step_leaves_every_report_and_its_code(root: Path) -> None:
    """A change that turns something red: the step itself passes, hands on code 1, and leaves what later steps take."""
    git(root, "checkout", "-qb", "change")
    write_run(root, intent("20260102T000000Z-bbbbbb"), rows(loss=3.5, seed=5))
    code, said, outputs, summary = gate(root)
    left = {path.name for path in (root.parent / "runner/sovereign").iterdir()}

    assert (0, {"code": "1"}) == (code, outputs), said
    assert {"gates.json", "gates.xml", "gates.sarif", "alerts.sarif", "gates.html", "badge.json", "annotations.txt", "gates.md",
            "summary.md", "comment.md"} == left  # fmt: skip
    assert "::error file=spec/toy.yaml" in said
    assert summary.startswith("<!-- sovereign-review:toy:pr -->")
    assert (
        "Head <code>cafe</code> against <code>main</code>" in (root.parent / "runner/sovereign/comment.md").read_text()
    )
    assert (1, 70) == (run(root, "Verdict", CODE="1")[0], run(root, "Verdict", CODE="")[0])


@pytest.mark.parametrize(
    ("base", "signed", "expected"),
    [("main", "false", "0"), ("nowhere", "false", "4"), ("", "false", "0"), ("0" * 40, "false", "0"), ("main", "true", "4"),
     ("$(touch owned)", "false", "4"), ("--help", "false", "4")],
)  # fmt: skip
def test_a_base_is_compared_with_or_said_to_be_missing(root: Path, base: str, signed: str, expected: str) -> None:
    """A base that is named and not there exits 4, none is said, and no input is text of the script.

    Caught: an empty base handed on, by which every scheduled run was red.
    """
    code, said, outputs, _ = gate(root, base, signed=signed)

    assert (0, {"code": expected}) == (code, outputs), said
    assert (base.strip("0") == "") == ("no base" in said)
    assert not (root / "owned").exists()


def test_a_gate_that_cannot_run_is_red(root: Path) -> None:
    """Where nothing can be read the code is not 0, and the verdict is its."""
    (root / "spec/toy.yaml").write_text("{[")
    _, _, outputs, _ = gate(root)

    assert outputs == {"code": "3"}


def test_nothing_of_an_event_is_text_of_a_script() -> None:
    """Branch names, titles and inputs reach scripts as variables: as text they would be commands of whoever wrote them."""
    files = [*STEPS, *(step for file in WORKFLOWS for job in YAML(typ="safe").load(file.read_text())["jobs"].values()
                       for step in job["steps"])]  # fmt: skip

    assert [] == [step for step in files if "${{" in step.get("run", "")]


def test_forks_and_checkouts_are_kept_apart() -> None:
    """A fork's head runs with a token that may only read, and what lies in its checkout is not imported to install the gate."""
    for name in ("Comment", "Code scanning"):
        assert "head.repo.full_name == github.repository" in BY_NAME[name]["if"]
    for file in WORKFLOWS:
        workflow = YAML(typ="safe").load(file.read_text())
        assert "pull_request_target" not in workflow["on"]
        assert workflow["permissions"] == {"contents": "read"}
    pythons = [line for line in BY_NAME["Install"]["run"].splitlines() if "python" in line and "-m" in line]
    assert len(pythons) == 2
    assert all(" -I -m " in line for line in pythons)


def test_the_comment_is_one_and_ours() -> None:
    """The comment brought up to date is the first of a bot's that begins with the marker; nobody else's is edited."""
    script = BY_NAME["Comment"]["run"]
    program = script[script.index("awk -F") : script.index("END { print id }'") + len("END { print id }'")]
    listed = "7\tother\n8\t<!-- m -->\n9\t<!-- m -->\n"
    found = subprocess.run(["bash", "-c", program], input=listed, capture_output=True, text=True, check=True,
                           env={**os.environ, "marker": "<!-- m -->"})  # fmt: skip

    assert found.stdout.strip() == "8"
    assert 'select(.user.type == "Bot")' in script
