"""Options and output that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sovereign.gate.evaluation import Evaluation
    from sovereign.repository import Repository

Function = TypeVar("Function", bound=Callable[..., Any])


def root_option(function: Function) -> Function:
    return click.option(
        "--root", type=click.Path(file_okay=False, path_type=Path), default=None,
        help="The repository; by default the nearest folder upward that holds spec/.",
    )(function)  # fmt: skip


def json_option(function: Function) -> Function:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)


def profile_option(function: Function) -> Function:
    return click.option(
        "--profile", type=click.Choice(["draft", "pr", "main", "release"]), default="pr", show_default=True,
        help="How much must hold: draft (files are sound), pr (nothing newly falsified), main, release (all discharged).",
    )(function)  # fmt: skip


def open_root(root: Path | None) -> Repository:
    """Return the repository that a command works on."""
    from sovereign.repository import find_root, open_repository

    if root is not None and not root.is_dir():
        raise click.UsageError(f"--root {root}: no such folder")
    return open_repository(find_root(root or Path.cwd()) if root is None else root.resolve())


def evaluated(repository: Repository) -> list[Evaluation]:
    """Return the evaluations of a repository as of now, telling what could not be read on stderr."""
    from datetime import UTC, datetime

    from sovereign.repository import evaluate

    evaluations = evaluate(repository, datetime.now(UTC))
    if not evaluations:
        for problem in repository.problems:
            click.echo(str(problem), err=True)
    return evaluations


def exit_of(repository: Repository, evaluations: list[Evaluation], profile: Any, allow_empty: bool = False) -> int:
    """Return the exit code of a gate; files that could not be read count even where no spec could be."""
    from sovereign.gate.profile import Exit, exit_code

    if not evaluations and repository.problems:
        return int(Exit.SCHEMA)
    return int(exit_code(evaluations, profile, allow_empty=allow_empty))


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
