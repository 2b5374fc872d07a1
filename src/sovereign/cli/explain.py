"""`sovereign explain`."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import click

from sovereign.cli.options import evaluated, json_option, open_root, print_json, root_option


@click.command("explain")
@click.argument("criterion")
@json_option
@root_option
def command(criterion: str, as_json: bool, root: Path | None) -> int:
    """Say why a criterion stands where it does, and what would discharge it.

    \b
    sovereign explain MODEL-2-001
    """
    found = [one for spec in evaluated(open_root(root)).head for one in spec.criteria]
    mine = next((one for one in found if one.id == criterion), None)
    if mine is None:
        near = get_close_matches(criterion, [one.id for one in found], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise click.UsageError(f"no criterion {criterion} in any spec.{hint}")
    if as_json:
        print_json(mine.plain())
        return 0
    from sovereign.report.terminal import explanation, show

    show(explanation(mine))
    return 0
