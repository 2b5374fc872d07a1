"""Several processes on one run: who they are, how they share a model, and how they agree.

Every process runs the same program on its share of each batch; the first one writes. DDP keeps a whole
model on each (Li et al. 2020), FSDP2 a part of each tensor (Zhao et al. 2023, `fully_shard`). Started by
torchrun, which says through the environment who is who.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sovereign.training.layers import layers

Sharing = Literal["ddp", "fsdp"]
Value = TypeVar("Value")
PATIENCE = timedelta(hours=2)  # for another process, which may be building a corpus; a dead one is noticed at once
METHODS = ("loss", "losses", "step")  # what is called on a model beside its forward


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. A single one needs no other, and every exchange is then its own value."""

    rank: int = 0
    size: int = 1
    local: int = 0  # its number on its machine: which GPU it takes

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sums(self, *values: float) -> tuple[float, ...]:
        """Return each value summed over all processes, in float64."""
        if self.size == 1:
            return values
        reduced = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(reduced)
        return tuple(reduced.tolist())

    def every(self, value: Value) -> list[Value]:
        """Return the value of each process, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Value) -> Value:
        """Return the first process's value."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]

    def wait(self) -> None:
        """Wait until every process has come here."""
        self.sums(0.0)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process go through before the others, even where it fails."""
        if not self.first:
            self.wait()
        try:
            yield
        finally:
            if self.first:
                self.wait()


ALONE = Ranks()


def launched() -> bool:
    """Say whether torchrun, or something that speaks like it, started this process among others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined() -> Iterator[Ranks]:
    """Yield this process's place among those that were started together; alone where none were.

    Tensors on a CPU travel by gloo, those on a GPU by NCCL.
    """
    if not launched():
        yield ALONE
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()


def launch(processes: int, command: Sequence[str]) -> list[int]:
    """Run `python *command` as that many processes of one run, here, and return the exit codes that are not 0.

    What torchrun does with --standalone: when one process ends badly the others are ended, and nothing is restarted. A
    negative code is the signal that ended a process.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # half a second, for those who launch
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        run_id=f"sovereign-{os.getpid()}", max_restarts=0, monitor_interval=0.1,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as failed:
        return [failure.exitcode for _, failure in sorted(failed.failures.items())]
    return []


def shard(model: nn.Module, ranks: Ranks, sharing: Sharing, device: torch.device) -> None:
    """Leave this process its part of every tensor of `model`, in place, where the run shares it so.

    The layers are gathered one at a time. To be done before an optimizer takes hold of the parameters.
    """
    if ranks.size == 1 or sharing == "ddp":
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # a second, for those who share so

    mesh = init_device_mesh(device.type, (ranks.size,))
    for layer in layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for name in METHODS:
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


class _Scored(nn.Module):
    """A model whose forward is its loss: what DDP wraps."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.model.loss(inputs, targets)  # type: ignore[operator]


def shared_loss(
    model: nn.Module, ranks: Ranks
) -> tuple[Callable[..., Tensor], Callable[[bool], AbstractContextManager[Any]]]:
    """Return the model's loss over this process's windows, and `exchanging(now)`.

    A backward pass within `exchanging(True)` leaves the mean of all processes' gradients in the weights; within
    `exchanging(False)` it adds to this process's alone, to be exchanged later.
    """
    if ranks.size == 1:
        return model.loss, lambda now: nullcontext()  # type: ignore[return-value]
    if any(in_parts(weight) for weight in model.parameters()):

        @contextmanager
        def exchanging(now: bool) -> Iterator[None]:
            model.set_requires_gradient_sync(now)  # type: ignore[operator]
            yield

        return model.loss, exchanging  # type: ignore[return-value]
    # an expert that no token of a batch is sent to has no gradient
    routed = any(".experts." in name for name, _ in model.named_parameters())
    wrapped = DistributedDataParallel(_Scored(model), broadcast_buffers=False, find_unused_parameters=routed)
    return wrapped, lambda now: nullcontext() if now else wrapped.no_sync()


def in_parts(tensor: Tensor) -> bool:
    """Say whether each process holds a part of a tensor; where none was ever made so, nothing is loaded to know it."""
    made = sys.modules.get("torch.distributed.tensor")
    return made is not None and isinstance(tensor, made.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor as it would be in one process; all processes must ask together."""
    return tensor.full_tensor() if in_parts(tensor) else tensor  # type: ignore[attr-defined]


def own(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds."""
    return tensor.to_local() if in_parts(tensor) else tensor  # type: ignore[attr-defined]


def like(tensor: Tensor, wanted: Tensor) -> Tensor:
    """Return a whole tensor, which every process has, on the device and in the parts of `wanted`."""
    if in_parts(wanted):
        from torch.distributed.tensor import distribute_tensor

        mesh, placements = wanted.device_mesh, wanted.placements  # type: ignore[attr-defined]
        return distribute_tensor(tensor.to(wanted.device), mesh, placements, src_data_rank=None)
    return tensor.to(wanted.device)
