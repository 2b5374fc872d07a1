"""`sovereign compare` at the command line: what it prints, for people and programs, and the codes it ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from contending import contender, document, edited, promise, run, said
from fabric import repository, write_run
from jsonschema import Draft202012Validator
from rich.console import Console

from sovereign.canonical import pretty, sealed
from sovereign.comparison.compare import compare
from sovereign.evidence.intent import Intent
from sovereign.published import schema
from sovereign.report.comparing import markdown, terminal

OTHER = (("peak: 1.0e-3", "peak: 2.0e-3"), ("contract: toy", "contract: other"))


def sovereign(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments],
        capture_output=True, text=True, cwd=root, env=dict(os.environ), check=False,
    )  # fmt: skip


def resealed(promised: Intent) -> Intent:
    """Return an intent whose seal fits what was changed in it."""
    return Intent.model_validate_json(json.dumps(sealed(promised.plain())))


def two(root: Path) -> Path:
    """Write a run each of two contracts that differ in their rate."""
    repository(root)
    first, second = resealed(promise()), resealed(promise(edited(*OTHER), 2))
    write_run(root, first, said(first, noise=1))
    write_run(root, second, said(second, noise=2, shift=-0.4))
    return root


def test_contracts_are_compared_by_name(tmp_path: Path) -> None:
    """Two contracts mean their newest runs: the table, the difference, the detectable one, the samples, and exit 0."""
    found = sovereign(two(tmp_path), "compare", "toy", "other")

    assert 0 == found.returncode, found.stderr
    for part in (
        "B against A",
        "LOWER",
        "launched: training.schedule.peak",
        "detectable",
        "NO_REPEATS",
        "def f0():",
        "updates",
    ):
        assert part in found.stdout, part


def test_json_is_what_the_schema_says(tmp_path: Path) -> None:
    """An independent reader finds the JSON valid; Markdown holds the same verdict."""
    two(tmp_path)
    printed = sovereign(tmp_path, "compare", "toy", "other", "--json")
    Draft202012Validator(schema("comparison")).validate(json.loads(printed.stdout))

    assert "LOWER" == json.loads(printed.stdout)["pairs"][0]["checkpoints"]
    assert "Checkpoints **LOWER**" in sovereign(tmp_path, "compare", "toy", "other", "--markdown").stdout


def test_what_cannot_be_compared_has_its_own_code(tmp_path: Path) -> None:
    """VOID everywhere exits 5; one run alone 2; an unknown one 3; an edited one 4. None of them with a traceback."""
    two(tmp_path)
    third = resealed(promise(edited(("contract: toy", "contract: third")), 3, data="other"))
    write_run(tmp_path, third, said(third, documents=range(50), noise=3))
    codes = {
        "void": sovereign(tmp_path, "compare", "toy", "third"),
        "alone": sovereign(tmp_path, "compare", "toy"),
        "unknown": sovereign(tmp_path, "compare", "toy", "nobody"),
    }
    file = next((tmp_path / "evidence/other").glob("*/evidence.json"))
    document_ = json.loads(file.read_text())
    document_["measurements"][0]["n"] += 1
    file.write_bytes(pretty(document_))
    codes["edited"] = sovereign(tmp_path, "compare", "toy", "other")

    assert {"void": 5, "alone": 2, "unknown": 3, "edited": 4} == {
        name: found.returncode for name, found in codes.items()
    }
    assert not [name for name, found in codes.items() if "Traceback" in found.stderr]
    assert "OTHER_VALIDATION" in codes["void"].stdout


def test_a_folder_elsewhere_is_a_run_too(tmp_path: Path) -> None:
    """A run is also the path of its folder, in another repository too."""
    two(tmp_path / "one")
    (tmp_path / "two/spec").mkdir(parents=True)
    folders = [str(next((tmp_path / "one/evidence" / name).iterdir())) for name in ("toy", "other")]

    assert 0 == sovereign(tmp_path / "two", "compare", *folders).returncode


def test_text_of_evidence_stays_text() -> None:
    """Control codes and markup in titles and samples are shown, and never obeyed."""
    hostile = "\x1b[2J[bold]<script>|x|\u202e"
    promised = promise(edited(("title: A toy\nspec", 'title: "T\\e[2J<b>|"\nspec')))
    one = contender(promised, said(promised, text=hostile))
    found = compare([one, run(number=2, text=hostile)])
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(terminal(found, 3))
    page = markdown(found, 3)

    assert "\x1b" not in console.export_text()
    assert "[bold]" in "".join(line.strip() for line in terminal_text(found))
    assert not [mark for mark in ("\x1b", "<script>", "<b>") if mark in page]


def terminal_text(found: object) -> list[str]:
    console = Console(width=300, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(terminal(found, 3))  # type: ignore[arg-type]
    return console.export_text().splitlines()


def test_documents_are_spread_by_their_hash() -> None:
    """The toy's documents fall on both halves, as real ones do."""
    assert {0, 1} == {int(document(number), 16) & 1 for number in range(10)}
