"""Checkpoints: folders that are whole or not there, and from which a run goes on bit for bit.

    step-000100/
      model.safetensors      the weights, under the names `transformers` knows
      optimizer.safetensors  <parameter>.<state>, as exp_avg and exp_avg_sq; whole, however many processes share them
      state.json             step, optimizer settings, random states, and the caller's own values
      COMPLETE               size and sha256 of each file above; written last

A folder is built under another name, synced, and renamed. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sovereign.canonical import Malformed, digest_file, parse_json, pretty, sync_directory
from sovereign.training.distributed import ALONE, Ranks, like, own, whole
from sovereign.training.optimizer import expected, kept, restore

FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
MARKER = "COMPLETE"


class Unusable(Exception):
    """A checkpoint that cannot be written, or does not fit what it is loaded into."""


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    keep: int,
    named: Collection[int] = (),
    ranks: Ranks = ALONE,
) -> Path:
    """Write the checkpoint of `step` and return its folder; then remove all but the last `keep` and the `named` steps.

    `state` is JSON of the caller's, given back by `load`. All processes call this together; the first writes,
    tensors whole, so that any number of processes can go on from it. Raises Unusable, on each of them, when the
    disk refuses (full, say): what was there before stays, and nothing partial is left.
    """
    final = folder / f"step-{step:06d}"
    tensors = {
        name: _written(weight.detach(), ranks) for name, weight in weights(model)
    }  # every process takes part in making tensors whole, in the same order
    moments = {
        f"{name}.{key}": _written(value, ranks)
        for name, weight in _trained(model, optimizer).items()
        for key, value in kept(optimizer, weight).items()
    }
    fault = ""
    if ranks.first:
        groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        try:
            _write(
                final, tensors, moments, {"step": step, "groups": groups, "random": _random_states(), "caller": state}
            )
        except (OSError, SafetensorError) as error:
            fault = f"{final}: the checkpoint could not be written: {error}; earlier checkpoints are untouched"
    fault = ranks.from_first(fault)
    if fault:
        raise Unusable(fault)
    if ranks.first:
        listed = sorted(path for path in folder.glob("step-*") if (path / MARKER).is_file())
        for old in listed[: max(0, len(listed) - keep)]:
            if step_of(old) not in named:
                _remove(old)
    return final


def _written(tensor: Tensor, ranks: Ranks) -> Tensor:
    """Return a tensor whole where it is written, and nothing of it elsewhere."""
    complete = whole(tensor)
    # off the device one by one: a GPU that shares a model has no room for all of it
    return complete.cpu().contiguous() if ranks.first else torch.empty(0)


def _write(final: Path, tensors: dict[str, Tensor], moments: dict[str, Tensor], state: dict[str, Any]) -> None:
    partial = final.with_name(f".{final.name}.partial")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed here
        partial.mkdir()
        save_file(tensors, partial / FILES[0], {"format": "pt"})
        save_file(moments, partial / FILES[1])
        (partial / FILES[2]).write_bytes(pretty(state))
        listed = {
            name: {"bytes": (partial / name).stat().st_size, "sha256": digest_file(partial / name)} for name in FILES
        }
        (partial / MARKER).write_bytes(pretty(listed))
        for file in partial.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        sync_directory(partial)
        if final.exists():  # the same step again, after a resume from an earlier one
            _remove(final)
        partial.rename(final)
        sync_directory(final.parent)
    except (OSError, SafetensorError):
        shutil.rmtree(partial, ignore_errors=True)
        raise


def checkpoints(folder: Path, explain: Callable[[str], None] = lambda message: None) -> list[Path]:
    """Return the whole checkpoints in `folder`, by step; `explain` is told why any other folder is not among them."""
    found = []
    for path in sorted(folder.glob("step-*"), key=step_of):
        fault = _fault(path)
        if fault:
            explain(f"{path}: {fault}; not used")
        else:
            found.append(path)
    return found


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint's weights, optimizer and random states in place; return {"step": ..., **the caller's values}.

    It does not matter how many processes wrote it, nor how many load it, each for itself. Raises Unusable, naming them, for tensors that are missing, extra, or of another shape or dtype. Nothing
    has been changed then.
    """
    fault = _fault(path)
    if fault:
        raise Unusable(f"{path}: {fault}")
    state = parse_json((path / FILES[2]).read_bytes(), str(path / FILES[2])).value
    saved, moments = load_file(path / FILES[0]), load_file(path / FILES[1])
    present, trained = dict(weights(model)), _trained(model, optimizer)
    _require_match(path / FILES[0], saved, present)
    _require_match(
        path / FILES[1],
        moments,
        {f"{name}.{key}": one for name, weight in trained.items() for key, one in expected(optimizer, weight).items()},
    )
    if len(state["groups"]) != len(optimizer.param_groups):
        raise Unusable(
            f"{path}: {len(state['groups'])} optimizer groups were saved, {len(optimizer.param_groups)} are there"
        )

    with torch.no_grad():
        for name, weight in present.items():
            weight.copy_(like(saved[name], weight))
    for group, settings in zip(optimizer.param_groups, state["groups"], strict=True):
        group.update({key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})
    for name, weight in trained.items():
        own_moments = {key: moments[f"{name}.{key}"] for key in expected(optimizer, weight)}
        restore(optimizer, weight, {key: _placed(value, weight) for key, value in own_moments.items()})
    _require_loaded(path / FILES[0], saved, model)
    _restore_random_states(state["random"])
    return {"step": state["step"], **state["caller"]}


def weights_digest(model: nn.Module) -> str:
    """Return `sha256:...` over name, dtype, shape and raw bytes of every weight, in name order; all processes ask together."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights(model)):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}\n".encode())
        digest.update(whole(weight.detach()).cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return "sha256:" + digest.hexdigest()


def weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the model's parameters and persistent buffers, a tensor with two names (tied embeddings) once.

    Where some are frozen, those that move: the others are the base's, which its own digest names.
    """
    seen: set[int] = set()
    frozen = any(not weight.requires_grad for weight in model.parameters())
    for name, weight in model.state_dict(keep_vars=True).items():
        if id(weight) not in seen and (weight.requires_grad or not frozen):
            seen.add(id(weight))
            yield name, weight


def step_of(path: Path) -> int:
    """Return the step that a checkpoint's folder is named after."""
    return int(path.name.removeprefix("step-"))


def _trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the parameters that the optimizer moves, by name."""
    moved = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    return {name: weight for name, weight in model.named_parameters() if id(weight) in moved}


def _placed(moment: Tensor, weight: Tensor) -> Tensor:
    """Return what is kept of a weight where the weight is: in its parts if it has its shape, whole otherwise."""
    return like(moment, weight) if moment.shape == weight.shape else moment.to(weight.device)


def _require_loaded(path: Path, saved: dict[str, Tensor], model: nn.Module) -> None:
    """Raise Unusable if the model computes with other weights than those that were put in place (CASE-31)."""
    lost = [
        name
        for name, weight in model.named_parameters()
        if name in saved and not torch.equal(own(weight.detach()), own(like(saved[name], weight)))
    ]
    if lost:
        raise Unusable(f"{path}: weights not loaded: the model still computes with another {', '.join(lost[:5])}")


def _require_match(path: Path, saved: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - saved.keys())]
    faults += [f"{name} is not known here" for name in sorted(saved.keys() - wanted.keys())]
    for name in sorted(saved.keys() & wanted.keys()):
        there, here = saved[name], wanted[name]
        if there.shape != here.shape or there.dtype != here.dtype:
            faults.append(f"{name} is {list(there.shape)} {there.dtype}, expected {list(here.shape)} {here.dtype}")
    if faults:
        raise Unusable(f"{path}: " + "; ".join(faults))


def _fault(path: Path) -> str:
    """Return why a checkpoint's folder is not whole, or nothing."""
    if not (path / MARKER).is_file():
        return f"it has no {MARKER} marker"
    try:
        listed = parse_json((path / MARKER).read_bytes(), str(path / MARKER)).value
        if not isinstance(listed, dict) or sorted(listed) != sorted(FILES):
            return f"{MARKER} does not list {', '.join(FILES)}"
        for name in FILES:
            size = (path / name).stat().st_size
            if size != listed[name]["bytes"]:
                return f"{name} has {size} bytes, {MARKER} says {listed[name]['bytes']}"
            if digest_file(path / name) != listed[name]["sha256"]:
                return f"{name} is not the file that {MARKER} lists: its sha256 differs"
    except (Malformed, OSError, KeyError, TypeError) as error:
        return str(error)
    return ""


def _remove(path: Path) -> None:
    """Delete a checkpoint so that, whenever the process dies, it is whole or not listed."""
    doomed = path.with_name(f".{path.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {"torch": torch.get_rng_state().numpy().tobytes().hex()}
    if torch.cuda.is_initialized():
        states["cuda"] = [state.numpy().tobytes().hex() for state in torch.cuda.get_rng_state_all()]
    return states


def _restore_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray.fromhex(states["torch"]), dtype=torch.uint8))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(
            [torch.frombuffer(bytearray.fromhex(one), dtype=torch.uint8) for one in states["cuda"]]
        )
