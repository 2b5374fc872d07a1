"""`sovereign run`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from sovereign.cli.options import open_root, root_option
from sovereign.cli.promise import contract_options, promised, telling

Progress = Callable[[int, float, int, float], None]


@click.command("run")
@contract_options
@click.option("--resume", metavar="RUN", help="Go on with an unconcluded run, from its last whole checkpoint.")
@root_option
def command(
    contract: Path | None, overrides: tuple[str, ...], seed: int | None, device: str, resume: str | None, root: Path | None
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
    from sovereign.closing import open_intent
    from sovereign import run as execution  # loads torch: only once the contract is known to be sound
    from sovereign.plan import Refused, plan

    with telling() as told:
        try:
            if contract is not None:
                planned = plan(promise, repository.root, device, told, seed)
                answers = falsifiers(repository, planned.contract.claims)
                with bar(promise.training.steps) as progress:
                    concluded = execution.run(
                        planned, spec, repository.root, overrides=overrides, answers=answers,
                        command=shlex.join(["sovereign", *sys.argv[1:]]), told=told, progress=progress,
                    )  # fmt: skip
            else:
                intent = open_intent(repository.root, str(resume))
                planned = plan(intent.promise, repository.root, device, told, intent.seed)
                with bar(intent.promise.training.steps) as progress:
                    concluded = execution.resume(planned, intent, repository.root, told=told, progress=progress)
        except Refused as refused:
            click.echo("\n".join(f"refused: {one}" for one in refused.refusals), err=True)
            return int(Exit.REFUSED)
    click.echo(f"{concluded.outcome}: {concluded.folder.relative_to(repository.root)}")
    if concluded.outcome != "completed":
        click.echo(concluded.reason, err=True)
        return int(Exit.STOPPED)
    return int(Exit.SATISFIED)


def falsifiers(repository: object, claims: tuple[str, ...]) -> tuple[str, ...]:
    """Return the evidence that falsified any of the claims: a new run answers it, and says so before it starts."""
    from datetime import UTC, datetime

    from sovereign.repository import Repository, falsifying

    assert isinstance(repository, Repository)
    return falsifying(repository, claims, datetime.now(UTC))


@contextmanager
def bar(steps: int) -> Iterator[Progress]:
    """Yield a function to call after each step: a live bar on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        every = max(1, steps // 20)

        def line(step: int, loss: float, tokens: int, seconds: float) -> None:
            if step == 1 or step % every == 0 or step == steps:
                click.echo(f"  step {step}/{steps}  loss {loss:.4f}  {tokens / seconds:,.0f} tokens/s", err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task("training", total=steps, said="")

        def advance(step: int, loss: float, tokens: int, seconds: float) -> None:
            shown.update(task, completed=step, said=f"loss {loss:.4f}  {tokens / seconds:,.0f} tokens/s")

        yield advance
