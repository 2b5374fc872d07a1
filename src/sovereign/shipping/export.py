"""Export: a model as a Hugging Face folder or a GGUF file, whole or not there, and read again before it is believed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from gguf.constants import LlamaFileType
from torch import Tensor

from sovereign.canonical import digest_file, sync_directory
from sovereign.shipping.gguf_model import read_gguf_model, write_gguf
from sovereign.shipping.huggingface import read_folder, write_folder
from sovereign.shipping.packing import pack, recipe
from sovereign.shipping.weights import Weights, as_llama

FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_k": LlamaFileType.MOSTLY_Q4_K_S, "q4_k_m": LlamaFileType.MOSTLY_Q4_K_M,
}  # fmt: skip
IN_FOLDERS = {"f32": "F32", "f16": "F16"}


class Unexportable(Exception):
    """A model that the format cannot hold, or a place that is taken; nothing was written."""


class Unfaithful(Exception):
    """A file that, read again, is not what was written; it was removed."""


@dataclass(frozen=True)
class Exported:
    """What was written: where, each file's size and digest, and the type of each tensor."""

    path: Path
    files: Mapping[str, tuple[int, str]]  # name -> bytes, digest
    kinds: Mapping[str, str]


def export_gguf(
    weights: Weights, out: Path, quantize: str, about: Mapping[str, str], *, force: bool = False
) -> Exported:
    """Write a GGUF file in one of FILE_TYPES' recipes.

    Raises Unexportable for what the format or the recipe cannot hold, or where `out` exists without `force`.
    """
    _require_free(out, force)
    partial = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        kinds = recipe(quantize, weights.shape, weights.vocabulary)
        write_gguf(partial, weights, kinds, pack, int(FILE_TYPES[quantize]), about)
        _require_same(weights, read_gguf_model(partial), kinds)
        _sync(partial)
        os.replace(partial, out)
        sync_directory(out.parent)
    except ValueError as error:
        raise Unexportable(str(error)) from None
    finally:
        partial.unlink(missing_ok=True)
    return Exported(out, {out.name: (out.stat().st_size, digest_file(out))}, kinds)


def export_folder(weights: Weights, out: Path, quantize: str, card: bytes, *, force: bool = False) -> Exported:
    """Write a Hugging Face folder with matrices in f32 or f16; raises Unexportable as `export_gguf` does."""
    _require_free(out, force)
    if quantize not in IN_FOLDERS:
        raise Unexportable(f"a Hugging Face folder holds {' or '.join(IN_FOLDERS)}; {quantize} needs --to gguf")
    kind = IN_FOLDERS[quantize]
    kinds = dict.fromkeys(weights.stored, kind)
    partial, old = (out.with_name(f".{out.name}.{what}") for what in ("partial", "replaced"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write_folder(partial, weights, kind, card)
        _require_same(weights, read_folder(partial), kinds)
        for file in partial.iterdir():
            _sync(file)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        partial.rename(out)
        sync_directory(out.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    files = {file.name: (file.stat().st_size, digest_file(file)) for file in sorted(out.iterdir())}
    return Exported(out, files, kinds)


def converted(kind: str, tensor: Tensor) -> Tensor:
    """Return what a float32 tensor is after it was stored in a type."""
    from sovereign.shipping.gguf_model import unpacked

    return tensor if kind == "F32" else unpacked(kind, pack(kind, tensor)).reshape(tensor.shape)


def _require_free(out: Path, force: bool) -> None:
    if out.exists() and not force:
        raise Unexportable(f"{out} exists; name another with --out, or write over it with --force")


def _require_same(given: Weights, again: Weights, kinds: Mapping[str, str]) -> None:
    """Hold what was read again to what was given: types, settings, token ids, and every weight, bit for bit."""
    faults = []
    if again.kinds != kinds:
        wrong = [name for name in kinds if again.kinds.get(name) != kinds[name]]
        faults.append(
            f"{wrong[0]} is {again.kinds.get(wrong[0])}, not {kinds[wrong[0]]}, as are {len(wrong) - 1} others"
        )
    if again.shape != as_llama(given.shape) or again.vocabulary != given.vocabulary:
        faults.append(f"its shape is {again.shape}, not {given.shape}")
    if again.specials != given.specials:
        faults.append(f"its special tokens are {again.specials}, not {given.specials}")
    for name, kind in kinds.items():
        if name in again.stored and not torch.equal(again.tensor(name), converted(kind, given.tensor(name))):
            faults.append(f"{name} is not what {kind} makes of it")
    if faults:
        raise Unfaithful(f"{again.origin}: read again, {'; '.join(faults[:5])}")


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
