"""`sovereign verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sovereign.cli.options import base_option, json_option, open_root, print_json, root_option, tell

if TYPE_CHECKING:
    from sovereign.gate.admission import Finding
    from sovereign.repository import Repository


@click.command("verify")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@base_option
@json_option
@root_option
def command(runs: tuple[str, ...], base: str | None, as_json: bool, root: Path | None) -> int:
    """Hash, validate and measure evidence again, and say what is not so.

    RUN is `contract/run`, or a run's id; without one, every run under evidence/ is checked.

    \b
    sovereign verify
    sovereign verify model2/20260101T120000Z-1a2b3c
    sovereign verify --base origin/main      and nothing that stood there may be gone or changed
    """
    from sovereign.gate.profile import Exit
    from sovereign.repository import verified_runs

    repository = open_root(root)
    found = verified_runs(repository.root)
    chosen = [run for run in found if not runs or run.name in runs or run.run in runs]
    unknown = [name for name in runs if not any(name in (run.name, run.run) for run in found)]
    if unknown:
        raise click.UsageError(
            f"no such run: {', '.join(unknown)}; there is {', '.join(run.name for run in found) or 'none'}"
        )
    broken = history_findings(repository, base) if base is not None else []
    findings = [*repository.findings, *broken, *(finding for run in chosen for finding in run.findings)]
    if as_json:
        print_json({
            "runs": [
                {"run": run.name, "concluded": run.statement is not None, "measured": len(run.measurements),
                 "findings": [{"kind": one.kind, "path": one.path, "message": one.message} for one in run.findings]}
                for run in chosen
            ],
            "findings": [{"kind": one.kind, "path": one.path, "message": one.message} for one in (*repository.findings, *broken)],
        })  # fmt: skip
    else:
        for finding in findings:
            tell(str(finding))
        for run in chosen:
            state = "is not so" if run.findings else "verified" if run.statement else "open, nothing stated yet"
            click.echo(f"{run.name}: {state}; {len(run.measurements)} measurements repeated from rows")
    if findings:
        return int(Exit.SCHEMA if all(one.kind == "schema" for one in findings) else Exit.INTEGRITY)
    if not chosen:
        click.echo("no run under evidence/: nothing was verified", err=True)
        return int(Exit.NOTHING)
    return int(Exit.SATISFIED)


def history_findings(repository: Repository, base: str) -> list[Finding]:
    """Return what was done since the base to what is append-only, and to criteria without an amendment."""
    from sovereign.gate.admission import Finding
    from sovereign.history import compare, tree_at

    with tree_at(repository.root, base) as tree:
        against = compare(repository, tree)
    return [
        *against.findings,
        *(Finding("integrity", f"evidence/{name}", why) for name, why in against.changed.items()),
        *(Finding("integrity", criterion, why) for criterion, why in against.criteria.items()),
    ]
