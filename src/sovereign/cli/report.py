"""`sovereign report`, and `--report FORMAT=PATH`, by which a gate leaves renderings behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sovereign.cli.options import base_option, evaluated, open_root, profile_option, root_option

if TYPE_CHECKING:
    from sovereign.cli.options import Evaluated
    from sovereign.report.judged import Judged
    from sovereign.report.typed import Known

Function = TypeVar("Function", bound=Callable[..., Any])
# spelt out, so that a command that renders nothing does not load the renderings; a test compares
FORMATS = ("text", "json", "junit", "sarif", "code-scanning", "github", "markdown", "badge", "html")


@dataclass(frozen=True)
class Target:
    """A rendering asked for, and the file that it goes to."""

    format: str
    path: Path


def report_option(function: Function) -> Function:
    return click.option(
        "--report", "reports", metavar="FORMAT=PATH", multiple=True, callback=_targets,
        help=f"Also write a rendering to a file; repeatable. FORMAT is one of {', '.join(FORMATS)}.",
    )(function)  # fmt: skip


def _targets(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Target, ...]:
    """Return the renderings asked for; whatever cannot be done is said before anything is evaluated."""
    targets = []
    for value in values:
        name, equals, path = value.partition("=")
        if not equals or not path:
            raise click.UsageError(f"--report {value}: write FORMAT=PATH, as in --report junit=gates.xml")
        if name not in FORMATS:
            raise click.UsageError(f"--report {value}: no format {name!r}; there is {', '.join(FORMATS)}")
        targets.append(Target(name, writable(Path(path), f"--report {value}")))
    if len({target.path.resolve() for target in targets}) < len(targets):
        raise click.UsageError("--report: two renderings would go to one file")
    return tuple(targets)


def writable(path: Path, given: str) -> Path:
    """Return the path if a file can be put there as far as can be told beforehand, or raise a usage error."""
    if path.is_dir():
        raise click.UsageError(f"{given}: {path} is a folder")
    if {"spec", "contracts", "evidence"} & set(path.resolve().parts[-4:-1]):
        raise click.UsageError(f"{given}: a report does not go where specs, contracts or evidence stand")
    above = next(place for place in path.absolute().parents if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise click.UsageError(f"{given}: nothing can be written in {above}")
    return path


def write(content: bytes, path: Path) -> None:
    """Write a rendering whole or not at all; a full disk is the caller's to mend, as a wrong path is."""
    from sovereign.canonical import write_atomic

    try:
        if path.exists() and not path.is_file():  # a device or a pipe is written to, never replaced
            path.write_bytes(content)
        else:
            write_atomic(path.resolve(), content)
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}") from None


def write_reports(targets: tuple[Target, ...], found: Evaluated, profile: Any, code: int, base: str | None) -> None:
    """Write the renderings of what a gate found; they show the code it exits with, and do not change it."""
    if not targets:
        return
    from sovereign.report.renderings import WITH_RUNS, render

    shown = judgement(found, profile, code, base, with_runs=any(target.format in WITH_RUNS for target in targets))
    for target in targets:
        write(render(target.format, shown), target.path)


def judgement(found: Evaluated, profile: Any, code: int, base: str | None, with_runs: bool) -> Judged:
    """Return what was found as renderings take it."""
    from sovereign.gate.profile import Exit
    from sovereign.history import commit
    from sovereign.report.judged import judged

    head = commit(found.repository.root) if with_runs else ""  # the renderings for people name it
    return judged(found.repository, found.head, profile, Exit(code), found.base if base else None, with_runs, head)


@click.command("report")
@click.option("--format", "name", type=click.Choice(FORMATS), default="text", show_default=True, help="What to render.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=None, help="The file to write; standard output without it."
)
@click.option(
    "--svg",
    "picture",
    metavar="RUN",
    default=None,
    help="Draw one run instead: its losses with intervals, and its gap.",
)
@click.option(
    "--check",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="Hold a text to the evidence instead: its tables of losses, its numbers with a marker, its words for the method.",
)
@click.option("--run", "run", metavar="RUN", default=None, help="With --check: the run that the text speaks of first.")
@profile_option
@base_option
@root_option
def command(
    name: str, output: Path | None, picture: str | None, check: Path | None, run: str | None, profile: str, base: str | None,
    root: Path | None,
) -> int:  # fmt: skip
    """Render what the gates say. It reports and does not judge: FALSIFIED exits 0 here.

    Exits 3 where a spec cannot be read, since a report without it would look better than things are, and 5 where
    there is no active criterion to report on.

    \b
    sovereign report --format html --output report.html
    sovereign report --format markdown --base origin/main >> "$GITHUB_STEP_SUMMARY"
    sovereign report --svg model2 --output losses.svg
    sovereign report --check notes.md --run model2      exits 1 where the evidence contradicts it
    """
    if output is not None:
        writable(output, f"--output {output}")
    if check is not None:
        return _check(check, run, name, root)
    if picture is not None:
        return _draw(picture, output, root)
    from sovereign.gate.profile import Exit
    from sovereign.report.renderings import WITH_RUNS, render

    found = evaluated(open_root(root), base)
    _put(render(name, judgement(found, profile, found.exit_code(profile), base, name in WITH_RUNS)), output)
    read = {located.path for located in found.repository.specs}
    if any(
        one.path.startswith("spec/") and one.path.count("/") == 1 and one.path not in read
        for one in found.repository.problems
    ):
        return int(Exit.SCHEMA)
    if not any(spec.active for spec in found.head):
        click.echo("no active criterion stands in any spec: there was nothing to report on", err=True)
        return int(Exit.NOTHING)
    return int(Exit.SATISFIED)


def _put(content: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    else:
        write(content, output)


def _draw(run: str, output: Path | None, root: Path | None) -> int:
    """Write the picture of one run, named as `sovereign compare` names it."""
    from sovereign.contenders import named
    from sovereign.evidence.folder import read_folder
    from sovereign.report.pictures import of_run
    from sovereign.report.runs import run_view

    folder = named(open_root(root).root, run)
    _put(of_run(run_view(read_folder(folder, folder.name))).encode("utf-8", "replace"), output)
    return 0


def _check(file: Path, run: str | None, name: str, root: Path | None) -> int:
    """Print every statement that the evidence does not bear out; exit 1 for any, and 5 where none was recognised."""
    from sovereign.canonical import Malformed
    from sovereign.contenders import Unsound, contenders
    from sovereign.gate.profile import Exit
    from sovereign.report.typed import Known

    place = open_root(root).root

    def known(named: str) -> Known | None:
        try:
            found = contenders(place, [named])[0]
        except Malformed:
            return None  # an id of a run elsewhere: what is said of it is not judged
        return Known.of(found.name, found.observed)

    try:
        return _checked(file, run, name, known)
    except Unsound as unsound:
        for finding in unsound.findings:
            click.echo(str(finding), err=True)
        click.echo("not checked: a run that the text speaks of is not what it states", err=True)
        return int(Exit.INTEGRITY)


def _checked(file: Path, run: str | None, name: str, known: Callable[[str], Known | None]) -> int:
    import json

    from sovereign.canonical import Malformed, Problem
    from sovereign.gate.profile import Exit
    from sovereign.report.typed import check

    first = known(run) if run is not None else None
    if run is not None and first is None:
        raise click.UsageError(f"--run {run}: no such run or contract under evidence/")
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed([Problem(str(file), f"not UTF-8: byte at offset {error.start}")]) from None
    found = check(text, str(file), known, first)
    if name == "json":
        click.echo(json.dumps([vars(one) for one in found.statements], indent=2, ensure_ascii=False))
    else:
        for one in found.faults:
            click.echo(str(one))
    agree = len(found.statements) - len(found.faults)
    unnamed = f"; {found.without_run} table(s) of losses name no run" if found.without_run else ""
    click.echo(f"{agree} of {len(found.statements)} statements agree with the evidence{unnamed}", err=True)
    if found.faults:
        return int(Exit.FALSIFIED)
    return int(Exit.SATISFIED if found.statements else Exit.NOTHING)
