"""`sovereign run`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sovereign.cli.options import open_root, root_option
from sovereign.cli.promise import contract_options, promised, telling

if TYPE_CHECKING:
    from sovereign.contract.contract import Contract

RUN_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-z-]{2,40}")


@click.command("run")
@contract_options
@click.option("--resume", metavar="RUN", help="Go on with an unconcluded run, from its last whole checkpoint.")
@click.option(
    "--nproc", type=click.IntRange(min=1), default=1, show_default=True, help="Processes on this machine; as torchrun."
)
@click.option("--name", metavar="ID", help="Name the run, or go on with it where it is open: what a queue asks again.")
@root_option
def command(
    contract: Path | None,
    overrides: tuple[str, ...],
    seed: int | None,
    device: str,
    resume: str | None,
    nproc: int,
    name: str | None,
    root: Path | None,
) -> int:
    """Carry out a contract: freeze the intent, train, observe, and close with evidence.

    \b
    sovereign run --contract contracts/model2.yaml
    sovereign run --contract contracts/model2.yaml --set training.steps=50    (exploratory)
    sovereign run --contract contracts/model2.yaml --nproc 2
    torchrun --nnodes 2 --nproc-per-node 8 ... -m sovereign run --contract contracts/model2.yaml
    sovereign run --contract contracts/voice-158.yaml    (a missing base run is made first)
    sovereign run --resume model2/20260101T120000Z-1a2b3c
    """
    from sovereign.gate.profile import Exit

    repository = open_root(root)
    if (contract is None) == (resume is None):
        raise click.UsageError("give --contract FILE for a new run, or --resume RUN for one that was interrupted")
    if resume and (overrides or seed is not None or name is not None):
        raise click.UsageError("--resume goes on as the intent was frozen; --set, --seed and --name are for a new run")
    if name is not None and not RUN_NAME.fullmatch(name):
        raise click.UsageError(f"--name {name}: write it as 20260101T120000Z-word, small letters, digits and -")
    if contract is not None:
        promise, spec = promised(repository, contract, overrides)
        if name is not None and (repository.root / "evidence" / promise.contract / name).exists():
            contract, resume = None, f"{promise.contract}/{name}"
    from rich.console import Console

    from sovereign import run as execution  # loads torch: only once the contract is known to be sound
    from sovereign.closing import open_intent
    from sovereign.evidence.places import retold
    from sovereign.plan import Refused, plan
    from sovereign.repository import falsifying
    from sovereign.training.checkpoint import Unusable
    from sovereign.training.distributed import joined, launch, launched
    from sovereign.training.progress import shown

    if nproc > 1 and not launched():
        return ended(launch(nproc, ["-m", "sovereign", *sys.argv[1:]]))

    if contract is not None and promise.tuned is not None and not launched():
        made = make_bases(promise, repository.root, device)
        if made != Exit.SATISFIED:
            return made

    talk = Console(stderr=True)
    with joined() as ranks, telling(ranks.first) as told:
        say = click.echo if ranks.first else silent
        try:
            if contract is not None:
                with ranks.in_turn():  # the first builds the corpus, the others find it
                    planned = plan(promise, repository.root, device, told, seed, ranks)
                # a new run answers what has falsified its claims, and says so before it starts
                answers = falsifying(repository, promise.claims, datetime.now(UTC))
                with shown(promise.training.steps, talk, quiet=not ranks.first) as progress:
                    concluded = execution.run(
                        planned, spec, repository.root, overrides=overrides, answers=answers, name=name,
                        command=retold(["sovereign", *sys.argv[1:]], repository.root, (contract, root)), told=told, progress=progress, ranks=ranks,
                    )  # fmt: skip
            else:
                intent = open_intent(repository.root, str(resume))
                if intent.origin != "run":
                    told_by = f"{intent.contract}/{intent.run} is another trainer's run"
                    raise click.UsageError(f"{told_by}; close it with `sovereign abandon {intent.run} --reason ...`")
                with ranks.in_turn():
                    planned = plan(intent.promise, repository.root, device, told, intent.seed, ranks, intent.parent)
                with shown(intent.promise.training.steps, talk, quiet=not ranks.first) as progress:
                    concluded = execution.resume(
                        planned, intent, repository.root, told=told, progress=progress, ranks=ranks
                    )  # fmt: skip
        except Refused as refused:
            say("\n".join(f"refused: {one}" for one in refused.refusals), err=True)
            ranks.wait()  # until the first has said it
            return int(Exit.REFUSED)
        except Unusable as reason:
            say(f"{reason}\nthe run is open: `sovereign run --resume RUN` goes on with it", err=True)
            return int(Exit.STOPPED)
        say(f"{concluded.outcome}: {concluded.folder.relative_to(repository.root)}")
        if concluded.reason:
            say(concluded.reason, err=True)
        ranks.wait()
    return int(Exit.SATISFIED if concluded.outcome == "completed" else Exit.STOPPED)


def ended(codes: Sequence[int]) -> int:
    """Return the exit code of several processes from theirs, which are not 0; a negative one is the signal that ended it.

    A process that a signal ended leaves the run open; otherwise all of them end alike. The launcher sends SIGTERM to
    those that have not ended yet when one has: that is no end of their own.
    """
    from sovereign.gate.profile import Exit

    own = [code for code in codes if code != -signal.SIGTERM] or list(codes)
    return int(Exit.STOPPED) if min(own, default=0) < 0 else max(own, default=0)


def make_bases(promise: Contract, root: Path, device: str) -> int:
    """Carry out the contracts of base runs that are missing, the oldest first, each said on stderr; return an exit code."""
    from sovereign.contract.contract import Contract
    from sovereign.lineage import Missing, parent

    method = promise.tuned
    if method is None or not method.base.run:
        return 0
    try:
        parent(method.base.run, root)
    except Missing as missing:
        file = root / "contracts" / f"{missing.contract}.yaml"
        if "/" in method.base.run or not file.is_file():
            click.echo(f"refused: {missing}", err=True)
            return 7
        before = make_bases(Contract.load(file), root, device)
        if before:
            return before
        click.echo(f"· the base run is missing: {missing}; it is made first", err=True)
        command = [
            sys.executable,
            "-m",
            "sovereign",
            "run",
            "--contract",
            str(file),
            "--device",
            device,
            "--root",
            str(root),
        ]
        return subprocess.run(command, check=False).returncode
    return 0


def silent(*_: Any, **__: Any) -> None:
    """Say nothing: another process of the run does."""
