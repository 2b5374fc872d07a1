"""`sovereign run`."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from sovereign.cli.options import open_root, root_option
from sovereign.cli.promise import contract_options, promised, telling


@click.command("run")
@contract_options
@click.option("--resume", metavar="RUN", help="Go on with an unconcluded run, from its last whole checkpoint.")
@root_option
def command(
    contract: Path | None,
    overrides: tuple[str, ...],
    seed: int | None,
    device: str,
    resume: str | None,
    root: Path | None,
) -> int:
    """Carry out a contract: freeze the intent, train, observe, and close with evidence.

    \b
    sovereign run --contract contracts/model2.yaml
    sovereign run --contract contracts/model2.yaml --set training.steps=50    (exploratory)
    sovereign run --resume model2/20260101T120000Z-1a2b3c
    """
    from sovereign.gate.profile import Exit

    repository = open_root(root)
    if (contract is None) == (resume is None):
        raise click.UsageError("give --contract FILE for a new run, or --resume RUN for one that was interrupted")
    if resume and (overrides or seed is not None):
        raise click.UsageError("--resume goes on as the intent was frozen; --set and --seed are for a new run")
    if contract is not None:
        promise, spec = promised(repository, contract, overrides)
    from rich.console import Console

    from sovereign import run as execution  # loads torch: only once the contract is known to be sound
    from sovereign.closing import open_intent
    from sovereign.plan import Refused, plan
    from sovereign.repository import falsifying
    from sovereign.training.checkpoint import Unusable
    from sovereign.training.progress import shown

    talk = Console(stderr=True)
    with telling() as told:
        try:
            if contract is not None:
                planned = plan(promise, repository.root, device, told, seed)
                # a new run answers what has falsified its claims, and says so before it starts
                answers = falsifying(repository, promise.claims, datetime.now(UTC))
                with shown(promise.training.steps, talk) as progress:
                    concluded = execution.run(
                        planned, spec, repository.root, overrides=overrides, answers=answers,
                        command=shlex.join(["sovereign", *sys.argv[1:]]), told=told, progress=progress,
                    )  # fmt: skip
            else:
                intent = open_intent(repository.root, str(resume))
                if intent.origin != "run":
                    told_by = f"{intent.contract}/{intent.run} is another trainer's run"
                    raise click.UsageError(f"{told_by}; close it with `sovereign abandon {intent.run} --reason ...`")
                planned = plan(intent.promise, repository.root, device, told, intent.seed)
                with shown(intent.promise.training.steps, talk) as progress:
                    concluded = execution.resume(planned, intent, repository.root, told=told, progress=progress)
        except Refused as refused:
            click.echo("\n".join(f"refused: {one}" for one in refused.refusals), err=True)
            return int(Exit.REFUSED)
        except Unusable as reason:
            click.echo(f"{reason}\nthe run is open: `sovereign run --resume RUN` goes on with it", err=True)
            return int(Exit.STOPPED)
    click.echo(f"{concluded.outcome}: {concluded.folder.relative_to(repository.root)}")
    if concluded.outcome != "completed":
        click.echo(concluded.reason, err=True)
        return int(Exit.STOPPED)
    return int(Exit.SATISFIED)
