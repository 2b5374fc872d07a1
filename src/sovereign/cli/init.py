"""`sovereign init`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("init")
@click.argument("name", default="first")
@click.option(
    "--root", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Where; here by default."
)
def command(name: str, root: Path) -> int:
    """Write a first spec and a first contract, to be read, changed and committed.

    \b
    sovereign init
    sovereign init mymodel --root elsewhere
    """
    import re

    from sovereign.starting import start

    if not re.fullmatch(r"[a-z][a-z0-9]*", name):
        raise click.UsageError(f"NAME {name!r}: use lower-case letters and digits, beginning with a letter")
    try:
        written = start(root, name)
    except FileExistsError as error:
        raise click.UsageError(str(error)) from None
    for path in written:
        click.echo(str(path))
    click.echo(f"next: commit these, then sovereign plan --contract contracts/{name}.yaml", err=True)
    return 0
