"""`sovereign submit`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from sovereign.cli.options import open_root, root_option
from sovereign.cli.promise import contract_options, promised


class Work:
    """What each task of a job runs: `sovereign run --name`, which goes on with the run where a requeue finds it open."""

    def __init__(self, arguments: list[str]):
        self.arguments = arguments

    def __call__(self) -> int:
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        from sovereign.cli.main import exit_of

        if JobEnvironment().num_tasks > 1:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        code = exit_of(self.arguments)
        if code:  # so that the queue counts the job as failed
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return code

    def checkpoint(self) -> object:
        """Return the same work: the run's own checkpoints hold how far it came."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@click.command("submit")
@contract_options
@click.option("--executor", type=click.Choice(["slurm", "local"]), default="slurm", show_default=True)
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--nproc", type=click.IntRange(min=1), default=1, show_default=True, help="Processes on each node.")
@click.option("--gpus", type=click.IntRange(min=0), default=0, show_default=True, help="GPUs on each node.")
@click.option("--cpus", type=click.IntRange(min=1), default=2, show_default=True, help="Cores of each process.")
@click.option(
    "--minutes", type=click.IntRange(min=1), default=60, show_default=True, help="Before the job is requeued."
)
@click.option("--requeues", type=click.IntRange(min=0), default=20, show_default=True, help="After so many it ends.")
@click.option("--partition", default=None, help="Slurm's partition.")
@root_option
def command(
    contract: Path | None, overrides: tuple[str, ...], seed: int | None, device: str, executor: str, nodes: int, nproc: int,
    gpus: int, cpus: int, minutes: int, requeues: int, partition: str | None, root: Path | None,
) -> int:  # fmt: skip
    """Put a run into a Slurm queue; when its time is up it is queued again, and goes on from its last checkpoint.

    The run's name is fixed here, so that every attempt is the same run. Logs stand under artifacts/queue/.

    \b
    sovereign submit --contract contracts/model2.yaml --nodes 2 --nproc 8 --gpus 8 --minutes 240
    sovereign submit --contract contracts/model2.yaml --executor local
    """
    if contract is None:
        raise click.UsageError("give --contract FILE")
    repository = open_root(root)
    promised(repository, contract, overrides)  # a fault is better told here than in an hour
    try:
        from submitit import AutoExecutor
    except ImportError as error:
        raise click.ClickException(f"this needs submitit ({error}): pip install 'sovereign[slurm]'") from None
    from sovereign.promising import new_name

    name = new_name()
    work = [
        "run",
        "--contract",
        str(contract.resolve()),
        "--device",
        device,
        "--name",
        name,
        "--root",
        str(repository.root),
    ]
    work += [word for one in overrides for word in ("--set", one)] + ([] if seed is None else ["--seed", str(seed)])
    logs = repository.root / "artifacts" / "queue" / name
    options = {"slurm_max_num_timeout": requeues} if executor == "slurm" else {"local_max_num_timeout": requeues}
    queue = AutoExecutor(folder=logs, cluster=executor, **options)
    queue.update_parameters(
        name="sovereign", nodes=nodes, tasks_per_node=nproc, gpus_per_node=gpus, cpus_per_task=cpus, timeout_min=minutes,
        **({"slurm_partition": partition} if partition else {}),
    )  # fmt: skip
    job = queue.submit(Work(work))
    click.echo(f"run {name}, job {job.job_id}: logs under {logs.relative_to(repository.root)}")
    return 0
