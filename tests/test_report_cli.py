"""`--report` and `sovereign report`: files written whole, codes that no format changes, errors before work."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fabric import SPEC, repository, rows, write_run

from sovereign.cli import main as command_line
from sovereign.cli.report import FORMATS
from sovereign.report.renderings import RENDERINGS


def sovereign(monkeypatch: pytest.MonkeyPatch, root: Path, *arguments: str) -> int:
    """Return the exit code of a command, run in this process for speed."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["sovereign", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return int(ended.value.code or 0)


def test_the_formats_offered_are_the_renderings_there_are() -> None:
    """The list in the help, which loads nothing, is the list of renderings."""
    assert tuple(RENDERINGS) == FORMATS


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("loss", "code"), [(2.5, 0), (3.5, 1), (None, 5)])
def test_no_format_changes_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, loss: float | None, code: int
) -> None:
    """Satisfied, falsified and nothing evaluated exit as without a report, and each leaves its file."""
    repository(tmp_path)
    if loss is not None:
        write_run(tmp_path, said=rows(loss=loss))

    assert code == sovereign(monkeypatch, tmp_path, "gates", "--report", f"{name}=out/report")
    assert (tmp_path / "out/report").stat().st_size > 0


def test_reports_of_garbage_exit_3_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository that cannot be read exits 3 with every report written, and none of them is green."""
    (tmp_path / "spec").mkdir()
    (tmp_path / "spec/a.yaml").write_bytes(b"\xff\x00{[garbage")
    given = [argument for name in FORMATS for argument in ("--report", f"{name}={name}")]

    assert sovereign(monkeypatch, tmp_path, "gates", *given) == 3
    assert 'errors="1"' in (tmp_path / "junit").read_text()
    assert json.loads((tmp_path / "badge").read_text())["isError"] is True
    for name in ("text", "sarif", "code-scanning", "github", "markdown", "html"):
        assert "spec/a.yaml" in (tmp_path / name).read_text(), name


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("yaml=out", "no format 'yaml'; there is text, json"), ("junit", "write FORMAT=PATH"), ("junit=", "write FORMAT=PATH"),
        ("junit=spec", "is a folder"), ("junit=/dev/null/out", "nothing can be written in"),
    ],
)  # fmt: skip
def test_a_report_that_cannot_be_made_is_a_usage_error_before_anything_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str, told: str
) -> None:
    """Unknown formats and impossible paths exit 2 with what would be right; no work is done for nothing."""
    repository(tmp_path)
    monkeypatch.setattr("sovereign.repository.evaluate", None)

    assert sovereign(monkeypatch, tmp_path, "gates", "--report", given) == 2
    assert told in capsys.readouterr().err


def test_two_reports_in_one_file_are_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second would overwrite the first."""
    repository(tmp_path)

    assert sovereign(monkeypatch, tmp_path, "gates", "--report", "junit=out", "--report", "json=./out") == 2


def test_a_disk_that_is_full_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What only the writing itself finds out exits 2 as well, and leaves the old file as it was."""
    write_run(repository(tmp_path))
    (tmp_path / "out").write_text("old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)

    assert sovereign(monkeypatch, tmp_path, "gates", "--report", "junit=out") == 2
    assert "out cannot be written: No space left on device" in capsys.readouterr().err
    assert ["out"] == [path.name for path in tmp_path.iterdir() if "out" in path.name]
    assert (tmp_path / "out").read_text() == "old"


def test_the_json_report_is_what_json_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--report json=` and `--json` are one document."""
    write_run(repository(tmp_path))
    sovereign(monkeypatch, tmp_path, "gates", "--json", "--report", "json=out")

    assert capsys.readouterr().out == (tmp_path / "out").read_text()


@pytest.mark.parametrize(("loss", "profile"), [(2.5, "pr"), (3.5, "pr"), (3.5, "release")])
def test_report_reports_and_does_not_judge(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    loss: float,
    profile: str,
) -> None:
    """Whatever stands in it, a report that could be made exits 0; a path and standard output get the same bytes."""
    write_run(repository(tmp_path), said=rows(loss=loss))
    codes = [
        sovereign(monkeypatch, tmp_path, "report", "--format", "junit", "--profile", profile, *output)
        for output in ([], ["--output", "out.xml"])
    ]
    shown = [
        text.split(b"timestamp=")[1].split(b'"', 2)[2]
        for text in (capfdbinary.readouterr().out, (tmp_path / "out.xml").read_bytes())
    ]

    assert [0, 0] == codes
    assert shown[0] == shown[1]


def test_report_is_no_success_where_there_is_nothing_to_report_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty folder, a spec with only drafts, and garbage exit with their codes; the report is written all the same."""
    codes = {"empty folder": sovereign(monkeypatch, tmp_path, "report")}
    repository(
        tmp_path, SPEC.replace('op: "<="', 'stage: draft, op: "<="').replace('op: "=="', 'stage: draft, op: "=="')
    )
    codes["only drafts"] = sovereign(monkeypatch, tmp_path, "report")
    repository(tmp_path)
    (tmp_path / "spec/b.yaml").write_text("garbage: [")
    codes["one spec of two"] = sovereign(monkeypatch, tmp_path, "report", "--format", "html", "--output", "out.html")

    assert {"empty folder": 5, "only drafts": 5, "one spec of two": 3} == codes
    assert "spec/b.yaml" in (tmp_path / "out.html").read_text()


def test_the_page_shows_the_runs_behind_the_statuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a repository on disk, criteria point to their lines in the spec, and the run's losses are drawn."""
    write_run(repository(tmp_path))
    sovereign(monkeypatch, tmp_path, "report", "--format", "html", "--output", "out.html")
    page = (tmp_path / "out.html").read_text()
    line = next(number for number, text in enumerate(SPEC.splitlines(), 1) if "TOY-002" in text)

    assert f"spec/toy.yaml:{line}" in page
    assert (
        "Training loss from 4.901 at step 1 to 4.001 at step 10; validation loss from 3.5 at step 0 to 2.5 at step 10"
        in page
    )
