"""Options and output that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sovereign.gate.admission import VerifiedRun
    from sovereign.gate.evaluation import Evaluation
    from sovereign.history import Against
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


def base_option(function: Function) -> Function:
    return click.option(
        "--base", metavar="REF", default=None,
        help="Compare with a git ref: evidence is append-only, bounds give way only by amendment, red counts when new.",
    )(function)  # fmt: skip


def signature_option(function: Function) -> Function:
    return click.option(
        "--require-signature", is_flag=True,
        help="A run is INVALID unless someone whom spec/allowed_signers lists has signed it; with --base, the base's file.",
    )(function)  # fmt: skip


@dataclass(frozen=True)
class Evaluated:
    """What a gate found at the head, and at the base where one was given."""

    repository: Repository
    head: list[Evaluation]
    base: list[Evaluation]
    against: Against | None = None

    def exit_code(self, profile: Any, allow_empty: bool = False) -> int:
        """Return the exit code; files that could not be read count even where no spec could be."""
        from sovereign.gate.profile import Exit, exit_code

        if not self.head and self.repository.problems:
            return int(Exit.SCHEMA)
        return int(exit_code(self.head, profile, self.base, allow_empty))


def evaluated(repository: Repository, base: str | None = None, require_signature: bool = False) -> Evaluated:
    """Return the evaluations of a repository as of now, telling what could not be read on stderr.

    Raises history.Unresolvable where a base is asked for that git cannot give.
    """
    import gc
    from datetime import UTC, datetime

    from sovereign.repository import current_subjects, evaluate, verified_runs
    from sovereign.signing import policy_at

    gc.set_threshold(
        100_000
    )  # what is read of thousands of runs stays: looking through it for cycles takes a fifth of the time
    now = datetime.now(UTC)
    if base is None:
        runs = verified_runs(repository.root, policy=policy_at(repository.root, require_signature))
        found = Evaluated(repository, evaluate(repository, now, runs=runs), [])
    else:
        from sovereign.history import compare, tree_at  # here: it needs git, and most calls do not

        with tree_at(repository.root, base) as tree:
            against = compare(repository, tree)
            runs = against.runs(verified_runs(repository.root, policy=policy_at(tree, require_signature)))
            head = evaluate(repository, now, runs=runs, broken=against.criteria, findings=against.findings)
            found = Evaluated(
                repository,
                head,
                evaluate(against.base, now, runs=against.base_runs, subjects=current_subjects(repository)),
                against,
            )
    tell_signatures(runs)
    if not found.head:
        for problem in repository.problems:
            tell(str(problem))
    return found


def tell_signatures(runs: Iterable[VerifiedRun]) -> None:
    """Say which documents are signed by keys that nobody listed: such a signature shows nothing."""
    for run in runs:
        for one in run.signatures:
            if not one.signer:
                key = f"a key that spec/allowed_signers does not list ({one.keyid or 'unnamed'})"
                tell(f"evidence/{run.name}/{one.document}.json: signed by {key}")


def tell(text: str) -> None:
    """Say something on standard error; what evidence made of it moves no cursor and colours nothing."""
    from sovereign.report.terminal import harmless  # here: most calls have nothing to say

    click.echo(harmless(text), err=True)


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
