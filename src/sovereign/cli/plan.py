"""`sovereign plan`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sovereign.cli.options import json_option, open_root, print_json, root_option
from sovereign.cli.promise import contract_options, promised, telling
from sovereign.contract.contract import Contract


@click.command("plan")
@contract_options
@click.option("--nproc", type=click.IntRange(min=1), default=1, show_default=True, help="Plan for that many processes.")
@click.option(
    "--calibrate/--no-calibrate", default=True, show_default=True, help="Time a few real steps, 20 s at most."
)
@click.option(
    "--card",
    type=click.FloatRange(min=1),
    default=None,
    metavar="GIB",
    help="Say only whether training fits a card with so much memory, and which switch makes it fit.",
)
@json_option
@root_option
def command(
    contract: Path | None, overrides: tuple[str, ...], seed: int | None, device: str, nproc: int, calibrate: bool,
    card: float | None, as_json: bool, root: Path | None,
) -> int:  # fmt: skip
    """Say what a contract would do on this machine: sizes, memory, passes, precision, time, and every refusal.

    The corpus is built, or found, under artifacts/; nothing is written to evidence/. With --card nothing is built or fetched
    at all: a model of the hub is as large as the file says that the contract names as `method.base.config`.

    \b
    sovereign plan --contract contracts/model2.yaml
    sovereign plan --contract contracts/model2.yaml --set training.steps=2000 --json
    sovereign plan --contract contracts/model2.yaml --nproc 2 --no-calibrate
    sovereign plan --contract contracts/voice-158-xl.yaml --card 16
    """
    from sovereign.gate.profile import Exit

    if contract is None:
        raise click.UsageError("give --contract FILE")
    repository = open_root(root)
    promise, _ = promised(repository, contract, overrides)
    if card is not None:
        return fitted(promise, repository.root, card, as_json)
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


def fitted(contract: Contract, root: Path, card: float, as_json: bool) -> int:
    """Print whether training fits a card, as the contract stands and with a switch changed; refused where it does not."""
    from sovereign.fitting import GIB, fits, room  # loads torch
    from sovereign.gate.profile import Exit
    from sovereign.model.pretrained import Unfit

    found = []
    try:
        for one in fits(contract, root, card):
            found.append(one)
            if not as_json:
                changed = " and ".join(one.changed) or "as the contract stands"
                click.echo(f"{one.bytes / GIB:6.1f} GiB  {'fits' if one.fits else 'DOES NOT FIT'}  {changed}")
    except Unfit as reason:
        click.echo(f"refused: {reason}", err=True)
        return int(Exit.REFUSED)
    if as_json:
        told = [{"changed": list(one.changed), "bytes": one.bytes, "fits": one.fits} for one in found]
        print_json({"card_gib": card, "room_bytes": room(card), "variants": told})
    else:
        click.echo(f"a card of {card:g} GiB has room for {room(card) / GIB:.1f} GiB of tensors")
    return int(Exit.SATISFIED if found[0].fits else Exit.REFUSED)


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting of a document as a dotted path and its value in JSON."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from flat(one, f"{path}.{key}" if path else key)
    else:
        yield path, json.dumps(value, ensure_ascii=False)
