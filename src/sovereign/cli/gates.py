"""`sovereign gates`."""

from __future__ import annotations

from pathlib import Path

import click

from sovereign.cli.options import (
    base_option,
    evaluated,
    json_option,
    open_root,
    print_json,
    profile_option,
    root_option,
)
from sovereign.cli.report import Target, report_option, write_reports


@click.command("gates")
@profile_option
@base_option
@click.option("--allow-empty", is_flag=True, help="Do not exit 5 when no predicate was evaluated; said on stderr.")
@json_option
@report_option
@root_option
def command(
    profile: str, base: str | None, allow_empty: bool, as_json: bool, reports: tuple[Target, ...], root: Path | None
) -> int:
    """Derive the status of every criterion from spec, contracts and evidence.

    \b
    sovereign gates                      what holds, what does not, and why
    sovereign gates --profile release    exit 6 unless everything is discharged or waived
    sovereign gates --base origin/main   only what is newly red fails; history must be intact
    sovereign gates --report junit=gates.xml --report html=gates.html
    sovereign gates --json | jq '.evaluations[].criteria[] | {id, status}'
    """
    repository = open_root(root)
    found = evaluated(repository, base)
    evaluations = found.head
    if as_json:
        print_json({"profile": profile, "evaluations": [one.plain() for one in evaluations]})
    elif evaluations:
        from sovereign.report.terminal import gates, show

        show(gates(evaluations))
    else:
        click.echo(f"no readable spec under {repository.root / 'spec'}: nothing to evaluate", err=True)
    if allow_empty and not any(one.evaluated for spec in evaluations for one in spec.active):
        click.echo("nothing was evaluated; --allow-empty lets that pass", err=True)
    code = found.exit_code(profile, allow_empty)
    write_reports(reports, found, profile, code, base)
    return code
