"""The command line: documented exit codes, errors that teach, and no traceback for anything a user can do."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fabric import SPEC, intent, repository, rows, write_run
from jsonschema import Draft202012Validator


def sovereign(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments],
        capture_output=True, text=True, cwd=root, env={**os.environ, **variables}, check=False,
    )  # fmt: skip


EVALUATING = (
    ["gates"],
    ["scoreboard"],
    ["gates", "--json"],
    ["gates", "--profile", "release"],
    ["gates", "--profile", "draft"],
)


@pytest.mark.parametrize("arguments", EVALUATING, ids=" ".join)
def test_nothing_evaluated_is_never_success(tmp_path: Path, arguments: list[str]) -> None:
    """The empty folder, the empty spec, and the spec with only drafts exit 5, in every profile and format."""
    codes = {"empty folder": sovereign(tmp_path, *arguments).returncode}
    (tmp_path / "spec").mkdir()
    codes["empty spec folder"] = sovereign(tmp_path, *arguments).returncode
    (tmp_path / "spec/toy.yaml").write_text(SPEC[: SPEC.index("criteria:")] + "criteria: []\n")
    codes["empty spec"] = sovereign(tmp_path, *arguments).returncode
    repository(
        tmp_path, SPEC.replace('op: "<="', 'stage: draft, op: "<="').replace('op: "=="', 'stage: draft, op: "=="')
    )
    codes["only drafts"] = sovereign(tmp_path, *arguments).returncode

    assert set(codes.values()) == {5}, codes


@pytest.mark.parametrize("arguments", EVALUATING, ids=" ".join)
def test_garbage_exits_3_without_a_traceback(tmp_path: Path, arguments: list[str]) -> None:
    """Files that are no specs, contracts or evidence are named by place."""
    for name in ("spec/a.yaml", "contracts/b.yaml", "evidence/c/d/intent.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff\x00{[garbage")
    found = sovereign(tmp_path, *arguments)

    assert (found.returncode, "Traceback" in found.stderr) == (3, False), found.stderr
    assert "spec/a.yaml:1:1" in found.stderr


@pytest.mark.parametrize(
    ("loss", "arguments", "code"),
    [
        (2.5, ["gates"], 0),
        (3.5, ["gates"], 1),
        (3.5, ["gates", "--profile", "draft"], 0),
        (3.5, ["scoreboard"], 1),
        (3.5, ["gates", "--json"], 1),
        (2.5, ["gates", "--nonsense"], 2),
        (2.5, ["nonsense"], 2),
        (2.5, ["gates", "--profile", "strict"], 2),
        (2.5, ["gates", "--root", "nowhere"], 2),
        (2.5, ["explain", "TOY-009"], 2),
        (2.5, ["explain", "TOY-001"], 0),
        (2.5, ["verify"], 0),
        (2.5, ["verify", "nothing"], 2),
        (2.5, ["schema", "intent"], 0),
        (2.5, ["schema", "nonsense"], 2),
        (2.5, ["abandon", "nothing", "--reason", "x"], 3),
        (2.5, ["abandon", "toy/20260101T000000Z-aaaaaa", "--reason", "x"], 3),  # it is concluded
        (2.5, ["run"], 2),
        (2.5, ["--version"], 0),
        (2.5, ["--help"], 0),
    ],
)
def test_exit_codes_are_the_documented_ones(tmp_path: Path, loss: float, arguments: list[str], code: int) -> None:
    """Each command ends with its documented code, and never with a traceback."""
    write_run(repository(tmp_path), said=rows(loss=loss))
    found = sovereign(tmp_path, *arguments)

    assert (found.returncode, "Traceback" in found.stderr) == (code, False), found.stderr


def test_an_internal_error_is_70(tmp_path: Path) -> None:
    """A fault of ours is not mistaken for FALSIFIED, which is what a bare traceback's exit code says."""
    program = (
        "import sovereign.repository as r; r.evaluate = lambda *a, **k: 1 / 0;"
        "import sys; sys.argv = ['sovereign', 'gates']; from sovereign.cli.main import main; main()"
    )
    repository(tmp_path)
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)

    assert found.returncode == 70
    assert "ZeroDivisionError" in found.stderr


def test_the_law_works_without_torch(tmp_path: Path) -> None:
    """With every training library made unimportable, gates, scoreboard, verify and explain still work."""
    write_run(repository(tmp_path))
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("torch", "tokenizers", "safetensors", "rensa", "transformers", "filelock"):
        (blocked / f"{name}.py").write_text("raise ImportError('blocked')\n")
    path = os.pathsep.join([str(blocked), *filter(None, [os.environ.get("PYTHONPATH")])])
    codes = {
        name: sovereign(tmp_path, *name.split(), PYTHONPATH=path).returncode
        for name in ("gates", "scoreboard", "verify", "explain TOY-001", "schema", "gates --json")
    }

    assert set(codes.values()) == {0}, codes


def test_a_bare_install_is_told_what_running_needs(tmp_path: Path) -> None:
    """Running without the train extra says which install brings it, and exits 2."""
    repository(tmp_path)
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = sovereign(tmp_path, "run", "--contract", "contracts/toy.yaml", PYTHONPATH=path)

    assert (found.returncode, "Traceback" in found.stderr) == (2, False), found.stderr
    assert "pip install 'sovereign[train]'" in found.stderr


def nothing_there(root: Path) -> None:
    """No spec at all."""


def garbage(root: Path) -> None:
    (root / "spec").mkdir()
    (root / "spec/a.yaml").write_bytes(b"\xff\x00{[garbage")


def tampered(root: Path) -> None:
    folder = write_run(repository(root))
    (folder / "notes.txt").write_text("x")


def drafts(root: Path) -> None:
    repository(root, SPEC.replace('op: "<="', 'stage: draft, op: "<="').replace('op: "=="', 'stage: draft, op: "=="'))


def waived(root: Path) -> None:
    write_run(repository(root), said=rows(loss=3.5))
    assert sovereign(root, "waive", "TOY-001", "--reason", "r", "--owner", "a", "--approver", "b").returncode == 0


def with_an_open_run(root: Path) -> None:
    write_run(repository(root), said=rows(documents=5))
    write_run(root, intent("20260101T000000Z-bbbbbb", seed=2), outcome=None)


@pytest.mark.parametrize(
    ("made", "more", "code"),
    [
        (nothing_there, (), 5), (garbage, (), 3), (tampered, (), 4), (drafts, (), 5), (waived, (), 0), (with_an_open_run, (), 0),
        (with_an_open_run, ("--profile", "release"), 6), (waived, ("--what-if", "validation/loss=2.0"), 0),
    ],
)  # fmt: skip
def test_the_json_is_valid_by_its_published_schema(
    tmp_path: Path, made: Callable[[Path], None], more: tuple[str, ...], code: int
) -> None:
    """What `gates --json` and `--report json` really print is the document that `sovereign schema gates` describes.

    Caught: a key beside the evaluations that no schema named.
    """
    made(tmp_path)
    printed = json.loads(sovereign(tmp_path, "gates", "--json", "--report", "json=out.json", *more).stdout)
    described = json.loads(sovereign(tmp_path, "schema", "gates").stdout)
    validator = Draft202012Validator(described)
    reported = json.loads((tmp_path / "out.json").read_text())

    for found in (printed, reported):
        validator.validate(found)
        assert not validator.is_valid({**found, "more": 1})
        assert found["exit"] == code
    assert {**printed, "what_if": []} == reported
    for tally, one in zip(printed["tallies"], printed["evaluations"], strict=True):
        active = [each for each in one["criteria"] if each["stage"] == "active" and each["status"] != "WITHDRAWN"]
        assert tally["of"] == sum(tally["counts"].values()) == len(active)


def test_json_holds_what_the_table_shows(tmp_path: Path) -> None:
    """`gates --json` has the statuses of the table, with counts that the scoreboard repeats."""
    write_run(repository(tmp_path), said=rows(loss=3.5))
    found = json.loads(sovereign(tmp_path, "gates", "--json").stdout)
    board = json.loads(sovereign(tmp_path, "scoreboard", "--json").stdout)

    assert {"TOY-001": "FALSIFIED", "TOY-002": "DISCHARGED"} == {
        one["id"]: one["status"] for one in found["evaluations"][0]["criteria"]
    }  # fmt: skip
    assert (board[-1]["of"], board[-1]["DISCHARGED"], board[-1]["FALSIFIED"]) == (2, 1, 1)
    assert (found["tallies"][0]["of"], found["tallies"][0]["counts"]["FALSIFIED"]) == (2, 1)


def test_explain_says_why_and_what_would_discharge(tmp_path: Path) -> None:
    """The explanation names the value, the reason code, the run, and the command."""
    write_run(repository(tmp_path), said=rows(loss=3.5))
    found = sovereign(tmp_path, "explain", "TOY-001").stdout

    for part in (
        "FALSIFIED",
        "validation/loss <= 3",
        "FAILS",
        "20260101T000000Z-aaaaaa",
        "sovereign run --contract contracts/toy.yaml",
    ):
        assert part in found, found


def test_open_runs_are_named_with_the_way_on(tmp_path: Path) -> None:
    """A run that was killed stands in the gates' output with the command that resumes it."""
    write_run(repository(tmp_path), intent(), outcome=None)
    found = sovereign(tmp_path, "gates")

    assert "sovereign run --resume toy/20260101T000000Z-aaaaaa" in found.stdout


def test_what_if_is_always_exploratory(tmp_path: Path) -> None:
    """A supposed value is judged and labelled; no status, count or exit code changes by it."""
    write_run(repository(tmp_path), said=rows(loss=3.5))
    plain = sovereign(tmp_path, "gates")
    supposed = sovereign(tmp_path, "gates", "--what-if", "validation/loss=1.0")
    wrong = {
        text: sovereign(tmp_path, "gates", "--what-if", text).returncode
        for text in ("nothing=1", "validation/loss", "validation/loss=nan")
    }

    assert (plain.returncode, supposed.returncode) == (1, 1)
    assert supposed.stdout.startswith(plain.stdout)
    assert "exploratory — not recorded: with 1.0, TOY-001 (validation/loss <= 3.0) would hold" in supposed.stdout
    assert set(wrong.values()) == {2}


@pytest.mark.parametrize(
    "arguments", [["gates"], ["gates", "--json"], ["--help"], ["schema", "contract"], ["verify"]], ids=" ".join
)
def test_a_closed_pipe_is_quiet_and_no_verdict(tmp_path: Path, arguments: list[str]) -> None:
    """Where the reader has gone, a command says nothing more and exits 141: neither 0, satisfied, nor 1, FALSIFIED.

    Caught: click's and rich's own exit 1, and 120 of an interpreter that flushes at its end.
    """
    write_run(repository(tmp_path))
    command = [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments]
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    os.close(writer)

    assert (found.returncode, found.stderr) == (141, "")


def test_the_terminal_obeys_no_evidence(tmp_path: Path) -> None:
    """What evidence and specs say reaches a live terminal as text: no colour, title or cursor of theirs.

    Caught: escape characters of a title printed as they stand.
    """
    hostile = "\\e[2J\\e]0;owned\\a\\u202eIt learns"
    write_run(repository(tmp_path, SPEC.replace("title: It learns", f'title: "{hostile}"')), said=rows(loss=3.5))
    (folder,) = (tmp_path / "evidence/toy").iterdir()
    (folder / "\x1b[31mred").write_text("")
    for arguments in (["gates"], ["explain", "TOY-001"], ["verify"]):
        printed = terminal(tmp_path, *arguments)
        left = re.sub(r"\x1b\[[0-9;]*m", "", printed)  # the colours are ours: sgr codes, never within a word

        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", left), repr(left)
        assert "\x1b[31mred" not in printed


def terminal(root: Path, *arguments: str) -> str:
    """Return what a command prints to a terminal: standard output and error, as one stream."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments]
    process = subprocess.Popen(
        command, stdout=theirs, stderr=theirs, cwd=root, env={**os.environ, "TERM": "xterm-256color"}
    )
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # so Linux ends a terminal
        while data := os.read(ours, 4096):
            printed += data
    process.wait()
    os.close(ours)
    return printed.decode()


def test_a_remembered_gate_loads_no_arithmetic(tmp_path: Path) -> None:
    """Where runs are remembered, `gates` measures and draws nothing: numpy, scipy, torch and schema readers stay out.

    Caught: the terminal's page importing the renderings, which import comparisons, which import numpy.
    """
    write_run(repository(tmp_path), said=rows(loss=3.5))
    sovereign(tmp_path, "gates")
    program = (
        "import sys; sys.argv = ['sovereign', 'gates']\nfrom sovereign.cli.main import exit_of\nexit_of(['gates'])\n"
        "heavy = {'numpy', 'scipy', 'torch', 'jsonschema', 'jsonschema_rs', 'securesystemslib'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)

    assert found.stderr == "[]\n"


@pytest.mark.parametrize(
    ("codes", "exit_"),
    [
        ([], 0),
        ([7, 7], 7),
        ([7, -15, -15], 7),
        ([-15, 8], 8),
        ([-9, 8], 8),
        ([-9, -15], 8),
        ([-15, -15], 8),
        ([70, -15], 70),
    ],
)
def test_what_the_launcher_ends_is_no_end_of_its_own(codes: list[int], exit_: int) -> None:
    """Of several processes the one that ended by itself decides; a signal from elsewhere leaves the run open: 8.

    The planted bug is the first form, which took the launcher's SIGTERM for a death: a refusal of three ranks exited 8
    whenever two of them were a moment slower to leave.
    """
    from sovereign.cli.run import ended

    assert exit_ == ended(codes)
