"""`sovereign waive`."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click

from sovereign.cli.options import evaluated, open_root, root_option


@click.command("waive")
@click.argument("criterion")
@click.option("--reason", required=True)
@click.option("--owner", required=True, help="Who answers for mending it.")
@click.option("--approver", required=True, help="Who lets it pass until then; not the owner.")
@click.option("--days", type=click.IntRange(1, 90), default=30, show_default=True, help="How long it holds.")
@root_option
def command(criterion: str, reason: str, owner: str, approver: str, days: int, root: Path | None) -> int:
    """Write a waiver for a criterion as it stands today. The state stays visible beneath it.

    \b
    sovereign waive MODEL-2-003 --reason "fewer documents than we hoped" --owner ann --approver bob --days 30
    """
    from pydantic import ValidationError

    from sovereign.canonical import pretty, write_atomic
    from sovereign.spec.amendment import Waiver

    repository = open_root(root)
    found = next((one for spec in evaluated(repository).head for one in spec.criteria if one.id == criterion), None)
    if found is None:
        raise click.UsageError(f"no criterion {criterion} in any spec")
    if found.status not in ("OPEN", "PARTIAL", "STALE", "FALSIFIED"):
        raise click.UsageError(f"{criterion} is {found.status}; only OPEN, PARTIAL, STALE and FALSIFIED can be waived")
    today: date = datetime.now(UTC).date()
    try:
        waiver = Waiver(
            schema="sovereign/waiver/v1", id=f"{today:%Y-%m-%d}-{criterion.lower()}", criterion=criterion,
            digest=found.digest, state=found.status, reason=reason, owner=owner, approver=approver,
            granted=today, expires=today + timedelta(days=days),
        )  # fmt: skip
    except ValidationError as error:
        raise click.UsageError(
            "; ".join(str(one["msg"]).removeprefix("Value error, ") for one in error.errors())
        ) from None
    path = repository.root / "spec" / "waivers" / f"{waiver.id}.yaml"
    if path.exists():
        raise click.UsageError(f"{path.relative_to(repository.root)} stands there already; waivers are append-only")
    write_atomic(path, pretty(waiver.plain()))
    click.echo(f"{path.relative_to(repository.root)}: {criterion} {found.status} waived until {waiver.expires}")
    return 0
