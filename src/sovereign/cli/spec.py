"""`sovereign spec`: lint, test, diff and amend."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from sovereign.cli.options import json_option, open_root, print_json, root_option


@click.group("spec")
def command() -> None:
    """Check a spec, say what changed in it, and let a bound give way in the open."""


@command.command("lint")
@root_option
def lint(root: Path | None) -> int:
    """Say which criteria cannot fail, cannot pass, cannot be shown by any contract, or have no controls.

    \b
    sovereign spec lint
    """
    from sovereign.canonical import Problem
    from sovereign.gate.profile import Exit
    from sovereign.measurable import METRICS
    from sovereign.metrics.measure import SLICED
    from sovereign.repository import unproven
    from sovereign.spec.lint import faults

    repository = open_root(root)
    claimed = {name: contract.claims for name, contract in repository.contracts.items()}
    seeds = {name: contract.seeds for name, contract in repository.contracts.items()}
    told = [str(problem) for problem in repository.problems]
    for located in repository.specs:
        for name, why in faults(located.spec, METRICS, claimed, seeds, SLICED):
            told.append(str(Problem(located.path, f"{name}: {why}", located.line(name))))
        for name, why in unproven(repository, located.spec).items():
            told.append(str(Problem(located.path, f"{name}: {why}", located.line(name))))
    for line in told:
        click.echo(line, err=True)
    if not repository.specs and not told:
        click.echo("no spec under spec/: nothing was checked", err=True)
        return int(Exit.NOTHING)
    click.echo(f"{sum(len(one.spec.criteria) for one in repository.specs)} criteria checked, {len(told)} faults")
    return int(Exit.SCHEMA if told else Exit.SATISFIED)


@command.command("test")
@click.argument("criteria", nargs=-1)
@click.option("--retrain", is_flag=True, help="First record the controls anew, by training a small contract: minutes.")
@json_option
@root_option
def test(criteria: tuple[str, ...], retrain: bool, as_json: bool, root: Path | None) -> int:
    """Run the gate on each active criterion's controls: the good one must be DISCHARGED, the bad one FALSIFIED.

    Controls are rows recorded from a clean and from a planted run, under spec/controls/ID/. Exits 1 where one does
    not come out, 6 where one is missing that the spec requires, 5 where there is nothing to test.

    \b
    sovereign spec test
    sovereign spec test --retrain MODEL-2-004
    """
    from dataclasses import asdict

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from sovereign.canonical import shown
    from sovereign.cli.promise import telling
    from sovereign.gate.profile import Exit
    from sovereign.repository import controls

    repository = open_root(root)
    if repository.problems:
        for problem in repository.problems:
            click.echo(str(problem), err=True)
        return int(Exit.SCHEMA)
    active = {one.id: located for located in repository.specs for one in located.spec.criteria if one.stage == "active"}
    unknown = sorted(set(criteria) - active.keys())
    if unknown:
        raise click.UsageError(f"no active criterion {', '.join(unknown)}; there are {', '.join(active) or 'none'}")
    wanted = [name for name in active if name in criteria or not criteria]
    if not wanted:
        click.echo("no active criterion: nothing was tested", err=True)
        return int(Exit.NOTHING)
    if retrain:
        from sovereign.recording import record  # loads torch

        for located in repository.specs:
            mine = [one for one in located.spec.criteria if one.id in wanted and active[one.id] is located]
            with telling() as told:
                record(repository.root, located, mine, told)
    found = [
        one for located in repository.specs for name, these in controls(repository, located.spec).items()
        if name in wanted for one in these
    ]  # fmt: skip
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        table = Table("criterion", "control", "the gate says", "measured", box=None)
        for one in found:
            table.add_row(
                one.criterion, one.side, f"[{'red' if one.fault else 'green'}]{one.status}[/]", escape(one.value)
            )
        Console().print(table)
    faults = [one for one in found if one.fault]
    for one in faults:
        click.echo(shown(f"{one.criterion}: {one.fault}"), err=True)
    if any(one.status == "UNREADABLE" for one in faults):
        return int(Exit.SCHEMA)
    if any(one.status != "MISSING" for one in faults):
        return int(Exit.FALSIFIED)
    missing = [one for one in faults if active[one.criterion].spec.controls == "required"]
    if missing:
        return int(Exit.INCOMPLETE)
    return int(Exit.NOTHING if len(faults) == len(found) else Exit.SATISFIED)


@command.command("diff")
@click.option("--base", metavar="REF", required=True, help="The git ref to compare with.")
@json_option
@root_option
def diff(base: str, as_json: bool, root: Path | None) -> int:
    """Classify every edit of a criterion since a ref: editorial, add, tighten, loosen, withdraw.

    Exits 4 where a criterion was loosened or withdrawn without an amendment, or the version step is too small.

    \b
    sovereign spec diff --base origin/main
    """
    from sovereign.canonical import shown
    from sovereign.gate.profile import Exit
    from sovereign.history import compare, tree_at

    repository = open_root(root)
    with tree_at(repository.root, base) as tree:
        against = compare(repository, tree)
    if as_json:
        print_json([
            {"criterion": edit.id, "change": edit.change, "from": edit.old.sentence if edit.old else None,
             "to": edit.new.sentence if edit.new else None, "fault": against.criteria.get(edit.id)}
            for edit in against.edits
        ])  # fmt: skip
    else:
        for edit in against.edits:
            was, now = (one.sentence if one else "–" for one in (edit.old, edit.new))
            click.echo(shown(f"{edit.change:>9}  {edit.id}  {was}" + (f"  ->  {now}" if was != now else "")))
        click.echo(f"{len(against.edits)} criteria differ from {base}")
    faults = [*(f"{name}: {why}" for name, why in against.criteria.items())]
    faults += [str(one) for one in against.findings if one.path.startswith("spec/")]
    for fault in faults:
        click.echo(shown(fault), err=True)
    if repository.problems:
        return int(Exit.SCHEMA)
    return int(Exit.INTEGRITY if faults else Exit.SATISFIED)


@command.command("amend")
@click.argument("criterion")
@click.option("--base", metavar="REF", required=True, help="The git ref that holds the criterion as it was.")
@click.option("--reason", required=True, help="Why it gives way.")
@click.option("--author", required=True)
@click.option("--approver", required=True, help="Who lets it give way; not the author.")
@root_option
def amend(criterion: str, base: str, reason: str, author: str, approver: str, root: Path | None) -> int:
    """Write the amendment of an edited criterion, with every result that had been seen under its old form.

    Edit the criterion in the spec first, and raise the version; then:

    \b
    sovereign spec amend MODEL-2-003 --base origin/main --reason "..." --author a --approver b
    """
    from pydantic import ValidationError

    from sovereign.amending import amendment
    from sovereign.history import tree_at
    from sovereign.repository import open_repository

    repository = open_root(root)
    with tree_at(repository.root, base) as tree:
        before = open_repository(tree)
    try:
        path, written = amendment(
            repository, before, criterion, reason=reason, author=author, approver=approver, now=datetime.now(UTC)
        )
    except LookupError as error:
        raise click.UsageError(str(error.args[0])) from None
    except ValidationError as error:
        raise click.UsageError(
            "; ".join(str(one["msg"]).removeprefix("Value error, ") for one in error.errors())
        ) from None
    click.echo(f"{path.relative_to(repository.root)}: {written.change}, after {len(written.results_seen)} results")
    return 0
