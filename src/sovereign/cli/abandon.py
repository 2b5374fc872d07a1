"""`sovereign abandon`."""

from __future__ import annotations

from pathlib import Path

import click

from sovereign.cli.options import open_root, root_option


@click.command("abandon")
@click.argument("run")
@click.option("--reason", required=True, help="Why it will not be resumed; it stays in the evidence.")
@root_option
def command(run: str, reason: str, root: Path | None) -> int:
    """Close a run that died. Its rows stay; it is counted and listed for ever, and decides nothing.

    \b
    sovereign abandon model2/20260101T120000Z-1a2b3c --reason "the machine was taken away"
    """
    from datetime import UTC, datetime

    from sovereign.closing import abandon

    if not reason.strip():
        raise click.UsageError("--reason must say something")
    repository = open_root(root)
    folder = abandon(repository.root, run, reason.strip(), datetime.now(UTC))
    click.echo(f"abandoned: {folder.relative_to(repository.root)}")
    return 0
