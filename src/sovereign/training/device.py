"""Where a run computes and in what precision: what was asked for, or an error; never a silent substitute."""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import nn

Precision = Literal["bf16", "fp16", "fp32"]
DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Unavailable(Exception):
    """What was asked for is not on this machine."""


def choose_device(asked: str, local: int = 0) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is a GPU if there is one.

    `local` is the number of this process on its machine: where no GPU is named, each takes the one of its number. Raises Unavailable, saying what is there, before anything is built on the device.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        asked = "cuda" if gpus else "cpu"
    if asked == "cpu":
        return torch.device("cpu")
    kind, _, number = asked.partition(":")
    if kind != "cuda" or (":" in asked and not number.isdecimal()):
        raise Unavailable(f"device {asked!r}: expected auto, cpu, cuda or cuda:N")
    if not gpus:
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        raise Unavailable(
            f"device {asked!r}: no GPU is visible (torch {torch.__version__}, built with {built}); use cpu or auto"
        )
    index = int(number) if number else local
    if index >= gpus:
        raise Unavailable(f"device {asked!r}, number {index}: {gpus} GPU(s) are visible, cuda:0 to cuda:{gpus - 1}")
    return torch.device(f"cuda:{index}")


def choose_precision(asked: Literal["auto", "bf16", "fp16", "fp32"], device: torch.device) -> tuple[Precision, str]:
    """Return the precision of matrix products, and why; `auto` is the one that the hardware multiplies fast.

    bf16 before fp16, whose gradients need a scaled loss. Raises Unavailable when bf16 is asked for and would only be
    emulated; fp16 may be, so that what is meant for a GPU can be tried on a CPU.
    """
    fast, why = _fast(device)
    if asked == "auto":
        return fast, why
    if asked == "bf16" and fast != "bf16":
        raise Unavailable(f"precision 'bf16': {why}; use {'fp16, ' if fast == 'fp16' else ''}fp32 or auto")
    if asked == "fp16" and device.type == "cpu":
        return asked, "asked for; a CPU multiplies it slowly"
    return asked, "asked for"


def _fast(device: torch.device) -> tuple[Precision, str]:
    """Return the precision below fp32 that a device multiplies faster, else fp32, and what says so."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        why = f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}; bf16 needs 8.0, fp16 7.0"
        return ("bf16" if major >= 8 else "fp16" if major == 7 else "fp32"), why
    if torch.cpu._is_amx_tile_supported():
        return "bf16", "this CPU multiplies bf16 in AMX tiles"
    if torch.cpu._is_avx512_bf16_supported():
        return "bf16", "this CPU multiplies bf16 with AVX-512"
    return "fp32", "this CPU has no bf16 instructions (AVX-512 BF16 or AMX)"


def multiplying(precision: Precision, device: str) -> AbstractContextManager[None]:
    """Return a context in which a kind of device, `cpu` or `cuda`, multiplies matrices in a precision."""
    return torch.autocast(device, DTYPES[precision], enabled=precision != "fp32")


def multiplying_as_kept(model: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which a model goes forward whose weights are kept in two dtypes: in the narrower one."""
    kinds = {weight.dtype: weight.device.type for weight in model.parameters() if weight.is_floating_point()}
    narrow = [(device, kind) for kind, device in kinds.items() if kind in (torch.bfloat16, torch.float16)]
    return torch.autocast(*narrow[0]) if narrow and len(kinds) > 1 else nullcontext()


def keep_freed_memory() -> bool:
    """Let freed memory stay with this process for the next step; return whether the allocator could be told.

    glibc hands large blocks back to the kernel when they are freed, and the next step pays for
    every page again: about a tenth of a training step at 4M parameters on two cores.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library, musl for one
        return False
    # from malloc.h: M_TRIM_THRESHOLD is -1, M_MMAP_THRESHOLD is -3; 32 MiB and more would be refused on older glibc
    return bool(mallopt(-1, 2**31 - 1) and mallopt(-3, 2**25))


def keep_as(model: nn.Module, weights: Precision) -> None:
    """Keep the weights of a model in bf16 or fp16, in place, tied ones still tied: all, or those that stand still.

    Where only some move, as adapters do, those are few, and stay in fp32: so no update of theirs is lost. Raises
    Unavailable for a weight that float16 cannot hold.
    """
    if weights == "fp32":
        return
    all_move = all(weight.requires_grad for weight in model.parameters())
    made: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, weight in module._parameters.items():
            if weight is not None and weight.dtype == torch.float32 and (all_move or not weight.requires_grad):
                kept = weight.detach().to(DTYPES[weights])
                if (
                    weights == "fp16"
                    and type(kept) is torch.Tensor
                    and kept.device.type != "meta"
                    and kept.isinf().any()
                ):
                    raise Unavailable(
                        f"weights 'fp16': {path}.{name} holds {weight.abs().max().item():.6g}, and float16 ends at 65504; "
                        "keep them in bf16 or fp32"
                    )
                module._parameters[name] = made.setdefault(id(weight), nn.Parameter(kept, weight.requires_grad))
