"""Memory of training: what it will take, found without taking it, and the most that was taken."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sovereign.contract.training import Training
from sovereign.model.kernels import WRITTEN_OUT
from sovereign.training.device import Precision, multiplying
from sovereign.training.layers import training_layers
from sovereign.training.optimizer import optimizer_for

PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm, torch.ops.aten.baddbmm)
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# what a process on a CPU grew by beyond its tensors, over shapes, precisions, batches and methods of 3 to 40M parameters:
# kernels that are loaded when first used, the code that oneDNN compiles for each size of product, and holes in the heap
LIBRARIES = 50 * 2**20
PRODUCT, PRODUCTS_KEPT = 0.6 * 2**20, 1024
HEAP = 1.2


@dataclass(frozen=True)
class Taken:
    """What training takes: bytes of tensors alive at once, and matrix products of so many kinds and sizes, fp32 left out."""

    tensors: int
    products: int


class _Tally(TorchDispatchMode):
    """Counts the bytes of every tensor from the operation that makes it until the last reference is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.seen: set[int] = set()
        self.products: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WRITTEN_OUT:
            with self:
                return WRITTEN_OUT[func](*args)
        made = func(*args, **(kwargs or {}))
        if func.overloadpacket in PRODUCTS and made.dtype != torch.float32:
            self.products.add((func, *((tuple(one.shape), one.stride()) for one in args if isinstance(one, Tensor))))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.count(tensor)
        return made

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return
        self.seen.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.alive -= size


def taken(
    build: Callable[[], nn.Module], settings: Training, windows: int, context: int, precision: Precision, device: str
) -> Taken:
    """Return the most bytes of tensors alive at once while a process trains on `windows` windows a step.

    Two updates of the very model, optimizer and micro-batches, on tensors that have a shape and no content
    (`FakeTensorMode`): weights, gradients, moments, kept activations and passing ones. `build` is called inside; what it
    returns may stand on the device "meta". What kernels hold for themselves, and a compiler's savings, are not seen.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        model = build()
        _move(model, device)
    with fake, _Tally() as tally, training_layers(model, recomputed=settings.activation_checkpointing):
        for tensor in (*model.parameters(), *model.buffers()):
            tally.count(tensor)
        # bitsandbytes' kernels know no tensors without content; its moments are counted as the two bytes they are
        eight = settings.optimizer.kind == "adamw8bit"
        optimizer = None if eight else optimizer_for(model, settings.optimizer)
        size = settings.micro_batch or windows
        windows = min(windows, 2 * size)  # further micro-batches take nothing more
        for _ in range(2):
            ids = torch.zeros(windows, context + 1, dtype=torch.int64, device=device)
            for part in ids.split(size):
                with multiplying(precision, device):
                    loss = model.loss(part[:, :-1], part[:, 1:])  # type: ignore[operator]
                loss.backward()
                del loss
            norms = torch._foreach_norm([one.grad for one in model.parameters() if one.grad is not None])
            del norms
            if optimizer is not None:
                optimizer.step()
            model.zero_grad(set_to_none=True)
        trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
        return Taken(tally.peak + (2 * trained if eight else 0), len(tally.products))


def expected_peak(found: Taken, lengths: int = 1) -> int:
    """Return the most memory, in bytes, that this process will hold while it trains on a CPU.

    Beside what it holds now and what training takes, each of so many `lengths` of batches has code compiled for it.
    """
    settle()
    compiled = PRODUCT * min(found.products * lengths, PRODUCTS_KEPT)
    return int(resident_bytes() + LIBRARIES + compiled + HEAP * found.tensors)


def _move(model: nn.Module, device: str) -> None:
    """Put the model's tensors without content on a device, tied ones still tied; `to` cannot swap them."""
    moved: dict[int, Any] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                fresh = nn.Parameter(torch.empty_like(weight, device=device), weight.requires_grad)
                module._parameters[name] = moved.setdefault(id(weight), fresh)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device=device)


def settle() -> None:
    """Hand what was freed back to the system, where it takes it: what is resident then is needed."""
    gc.collect()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # another C library than glibc has none
        if trim is not None:
            trim(0)


def resident_bytes() -> int:
    """Return what this process holds in memory now."""
    if STATUS.exists():
        return _status("VmRSS")
    return peak_bytes()


def peak_bytes() -> int:
    """Return the most that this process has held in memory, since it began or since `forget_peak`."""
    if STATUS.exists():  # getrusage would count the parent's memory at the fork as ours
        return _status("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak(device: torch.device) -> None:
    """Let peaks be counted from here on, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif RESET.exists():
        try:
            RESET.write_text("5")
        except OSError:  # a container that allows it not; the peak is then that of the whole process
            return


def device_peak_bytes(device: torch.device) -> int:
    """Return the peak of the device's memory: of tensors on a GPU, of the process on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes()


def _status(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024
