"""`sovereign plan`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sovereign.cli.options import json_option, open_root, print_json, root_option
from sovereign.cli.promise import contract_options, promised, telling


@click.command("plan")
@contract_options
@click.option("--nproc", type=click.IntRange(min=1), default=1, show_default=True, help="Plan for that many processes.")
@click.option(
    "--calibrate/--no-calibrate", default=True, show_default=True, help="Time a few real steps, 20 s at most."
)
@json_option
@root_option
def command(
    contract: Path | None, overrides: tuple[str, ...], seed: int | None, device: str, nproc: int, calibrate: bool,
    as_json: bool, root: Path | None,
) -> int:  # fmt: skip
    """Say what a contract would do on this machine: sizes, memory, passes, precision, time, and every refusal.

    The corpus is built, or found, under artifacts/; nothing is written to evidence/.

    \b
    sovereign plan --contract contracts/model2.yaml
    sovereign plan --contract contracts/model2.yaml --set training.steps=2000 --json
    sovereign plan --contract contracts/model2.yaml --nproc 2 --no-calibrate
    """
    from sovereign.gate.profile import Exit

    if contract is None:
        raise click.UsageError("give --contract FILE")
    repository = open_root(root)
    promise, _ = promised(repository, contract, overrides)
    from sovereign.plan import Refused, plan  # loads torch: only once the contract is known to be sound
    from sovereign.training.distributed import Ranks

    with telling() as told:
        try:
            found = plan(promise, repository.root, device, told, seed, Ranks(size=nproc))
        except Refused as refused:
            click.echo("\n".join(f"refused: {one}" for one in refused.refusals), err=True)
            return int(Exit.REFUSED)
    figures = found.figures()
    if calibrate and not found.refusals:
        figures |= found.calibrate().figures()
    effective = promise.model_dump(mode="json", by_alias=True)  # what is not asked for too, as null
    if as_json:
        print_json({**figures, "refusals": list(found.refusals), "effective": effective})
    else:
        settings = dict(flat(effective))
        width = max(map(len, [*figures, *settings]))
        for name, value in figures.items():
            click.echo(f"{name:>{width}}  {value:,}" if isinstance(value, int) else f"{name:>{width}}  {value}")
        click.echo("\nthe contract as it is meant, with every default:")
        for name, value in settings.items():
            click.echo(f"{name:>{width}}  {value}")
    click.echo("\n".join(f"refused: {one}" for one in found.refusals), err=True, nl=bool(found.refusals))
    return int(Exit.REFUSED if found.refusals else Exit.SATISFIED)


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting of a document as a dotted path and its value in JSON."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from flat(one, f"{path}.{key}" if path else key)
    else:
        yield path, json.dumps(value, ensure_ascii=False)
