"""`sovereign import`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sovereign.cli.options import json_option, open_root, print_json, root_option

FORMATS = ("transformers", "csv", "jsonl", "mlx-lm", "nanogpt", "series")  # as interop.logs has them; a test holds it


@click.command("import")
@click.argument("log", type=click.Path(path_type=Path))
@click.option(
    "--contract", type=click.Path(path_type=Path), required=True, help="The contract whose run the log tells of."
)
@click.option("--format", "fmt", type=click.Choice(FORMATS), default=None, help="By default, what the content shows.")
@click.option("--seed", type=int, default=None, help="The seed of the run, where the contract has several.")
@json_option
@root_option
def command(log: Path, contract: Path, fmt: str | None, seed: int | None, as_json: bool, root: Path | None) -> int:
    """Turn the log of another trainer into a run folder whose numbers are reported.

    An imported run is exploratory: its intent was not frozen before step 0, so it is shown and counted, and can
    neither discharge nor falsify. Exits 8 where the log ends before the contract's last step.

    \b
    sovereign import output/trainer_state.json --contract contracts/tune.yaml
    sovereign import train.log --format mlx-lm --contract contracts/tune.yaml
    """
    from datetime import UTC, datetime

    from sovereign.cli.promise import promised
    from sovereign.evidence.places import retold
    from sovereign.gate.profile import Exit
    from sovereign.interop.logs import read_log
    from sovereign.interop.reported import import_series

    repository = open_root(root)
    promise, spec = promised(repository, contract, ())
    series = read_log(log, fmt)  # type: ignore[arg-type]
    given = retold(["sovereign", *sys.argv[1:]], repository.root, (log, contract, root))
    folder, statement = import_series(series, log, promise, spec, repository.root, datetime.now(UTC), seed, given)
    name = folder.relative_to(repository.root).as_posix()
    if as_json:
        print_json({
            "run": name, "format": series.format, "points": len(series.points), "steps": series.steps,
            "outcome": statement.outcome, "reason": statement.reason, "remarks": list(series.remarks),
        })  # fmt: skip
    else:
        click.echo(f"read as {series.format}: {len(series.points)} points, to step {series.steps}")
        for remark in series.remarks:
            click.echo(f"· {remark}", err=True)
        click.echo(f"{statement.outcome}: {name} (reported, exploratory)")
        if statement.reason:
            click.echo(statement.reason, err=True)
    return int(Exit.SATISFIED if statement.outcome == "completed" else Exit.STOPPED)
