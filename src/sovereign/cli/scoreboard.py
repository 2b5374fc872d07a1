"""`sovereign scoreboard`."""

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


@click.command("scoreboard")
@profile_option
@base_option
@json_option
@root_option
def command(profile: str, base: str | None, as_json: bool, root: Path | None) -> int:
    """Count statuses by category: integers, no averages. Exits as `sovereign gates` does.

    \b
    sovereign scoreboard
    sovereign scoreboard --json
    """
    from sovereign.gate.scoreboard import scoreboard

    repository = open_root(root)
    found = evaluated(repository, base)
    evaluations = found.head
    if as_json:
        print_json([
            {"spec": one.spec, "category": line.category, "of": line.total, **line.counts,
             "waived": line.waived, "draft": line.drafts, "withdrawn": line.withdrawn}
            for one in evaluations for line in scoreboard(one)
        ])  # fmt: skip
    elif evaluations:
        from sovereign.report.terminal import board, show

        show(board(evaluations))
    else:
        click.echo(f"no readable spec under {repository.root / 'spec'}: nothing to count", err=True)
    return found.exit_code(profile)
