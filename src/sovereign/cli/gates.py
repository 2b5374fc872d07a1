"""`sovereign gates`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sovereign.cli.options import (
    base_option,
    evaluated,
    json_option,
    open_root,
    print_json,
    profile_option,
    root_option,
    signature_option,
)
from sovereign.cli.report import Target, report_option, write_reports

if TYPE_CHECKING:
    from sovereign.gate.profile import Profile


@click.command("gates")
@profile_option
@base_option
@click.option("--allow-empty", is_flag=True, help="Do not exit 5 when no predicate was evaluated; said on stderr.")
@click.option(
    "--what-if",
    "supposed",
    multiple=True,
    metavar="METRIC=VALUE",
    help="Say how criteria would read a value that nobody measured: exploratory, and no status or exit code changes.",
)
@signature_option
@json_option
@report_option
@root_option
def command(
    profile: Profile,
    base: str | None,
    allow_empty: bool,
    supposed: tuple[str, ...],
    require_signature: bool,
    as_json: bool,
    reports: tuple[Target, ...],
    root: Path | None,
) -> int:
    """Derive the status of every criterion from spec, contracts and evidence.

    \b
    sovereign gates                      what holds, what does not, and why
    sovereign gates --profile release    exit 6 unless everything is discharged or waived
    sovereign gates --base origin/main   only what is newly red fails; history must be intact
    sovereign gates --what-if validation/gap=0.2
    sovereign gates --report junit=gates.xml --report html=gates.html
    sovereign gates --json | jq '.evaluations[].criteria[] | {id, status}'
    """
    from sovereign.gate.whatif import parsed, suppose

    try:
        given = dict(map(parsed, supposed))
    except ValueError as error:
        raise click.UsageError(f"--what-if {error}") from None
    repository = open_root(root)
    known = {metric for located in repository.specs for metric in located.spec.metrics}
    unknown = sorted(given.keys() - known)
    if unknown and known:
        raise click.UsageError(f"--what-if {unknown[0]}: no such metric; there is {', '.join(sorted(known))}")
    found = evaluated(repository, base, require_signature)
    evaluations, code = found.head, found.exit_code(profile, allow_empty)
    told = [one for located in repository.specs for one in suppose(located.spec.criteria, given)]
    if as_json:
        from sovereign.gate.document import document
        from sovereign.gate.evaluation import FindingNote
        from sovereign.gate.profile import Exit

        broken = [FindingNote(kind=one.kind, path=one.path, message=one.message) for one in repository.findings]
        print_json(document(evaluations, profile, Exit(code), broken, told).plain())
    elif evaluations:
        from sovereign.report.terminal import gates, show

        show(gates(evaluations))
        for one in told:
            click.echo(str(one))
    else:
        click.echo(f"no readable spec under {repository.root / 'spec'}: nothing to evaluate", err=True)
    if allow_empty and not any(one.evaluated for spec in evaluations for one in spec.active):
        click.echo("nothing was evaluated; --allow-empty lets that pass", err=True)
    write_reports(reports, found, profile, code, base)
    return code
