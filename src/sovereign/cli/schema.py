"""`sovereign schema`."""

from __future__ import annotations

import click

from sovereign.cli.options import print_json


@click.command("schema")
@click.argument("name", required=False)
def command(name: str | None) -> int:
    """Print the JSON Schema (draft 2020-12) of a document kind; without a name, list the kinds.

    \b
    sovereign schema contract > contract.schema.json
    """
    from sovereign.published import DOCUMENTS, schema

    if name is None:
        click.echo("\n".join(DOCUMENTS))
        return 0
    if name not in DOCUMENTS:
        raise click.UsageError(f"no schema {name!r}; there is {', '.join(DOCUMENTS)}")
    print_json(schema(name))
    return 0
