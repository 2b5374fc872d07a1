"""`sovereign plan`."""

from __future__ import annotations

from pathlib import Path

import click

from sovereign.cli.options import json_option, open_root, print_json, root_option
from sovereign.cli.promise import contract_options, promised, telling


@click.command("plan")
@contract_options
@json_option
@root_option
def command(
    contract: Path | None, overrides: tuple[str, ...], seed: int | None, device: str, as_json: bool, root: Path | None
) -> int:
    """Say what a contract would do on this machine: sizes, passes, precision, and every refusal.

    The corpus is built, or found, under artifacts/; nothing is written to evidence/.

    \b
    sovereign plan --contract contracts/model2.yaml
    sovereign plan --contract contracts/model2.yaml --set training.steps=2000
    """
    from sovereign.gate.profile import Exit

    if contract is None:
        raise click.UsageError("give --contract FILE")
    repository = open_root(root)
    promise, _ = promised(repository, contract, overrides)
    from sovereign.plan import Refused, plan  # loads torch: only once the contract is known to be sound

    with telling() as told:
        try:
            found = plan(promise, repository.root, device, told, seed)
        except Refused as refused:
            click.echo("\n".join(f"refused: {one}" for one in refused.refusals), err=True)
            return int(Exit.REFUSED)
    if as_json:
        print_json({**found.figures(), "refusals": list(found.refusals), "effective": promise.plain()})
    else:
        width = max(map(len, found.figures()))
        for name, value in found.figures().items():
            click.echo(f"{name:>{width}}  {value:,}" if isinstance(value, int) else f"{name:>{width}}  {value}")
    click.echo("\n".join(f"refused: {one}" for one in found.refusals), err=True, nl=bool(found.refusals))
    return int(Exit.REFUSED if found.refusals else Exit.SATISFIED)
