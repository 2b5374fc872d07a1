"""A GGUF file, parsed by its published layout and by nothing else: every count is checked before it is believed.

    magic "GGUF", version, tensor count, metadata count
    metadata   key, type, value
    tensors    name, dimensions (fastest first), type, offset into the data
    data       from the next multiple of general.alignment on

Source: docs/gguf.md of the ggml repository, versions 2 and 3, little-endian. Writers' libraries trust what they
read; a file from elsewhere must not be able to ask for memory it does not fill, so sizes are held against the file's own.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from sovereign.canonical import Malformed, Problem

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_TENSORS = 1 << 16
MOST_ENTRIES = 1 << 14  # of metadata
MOST_ELEMENTS = 1 << 22  # of one metadata array: vocabularies and merges
MOST_TEXT = 1 << 24  # bytes of one string: chat templates are the long ones
MOST_DIMENSIONS = 4
MOST_NAME = 64  # ggml's own limit on tensor names
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
BOOL, STRING, ARRAY = 7, 8, 9


@dataclass(frozen=True)
class Held:
    """One tensor of a file: ggml's type name, its shape with the slowest dimension first, and its bytes."""

    kind: str
    shape: tuple[int, ...]
    rows: NDArray[np.uint8] = field(repr=False)  # [rows, bytes a row], mapped from the file
    offset: int = 0  # of its first byte in the file


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file holds."""

    path: str
    metadata: Mapping[str, Any] = field(repr=False)
    tensors: Mapping[str, Held] = field(repr=False)


def read_gguf(path: Path) -> GgufFile:
    """Return the file at `path`, its tensors mapped and not yet read; raises Malformed with the offset of the first fault."""
    name = str(path)
    try:
        size = path.stat().st_size
        if size < 24:
            raise Malformed([Problem(name, f"{size} bytes are too few for a GGUF header, which has 24")])
        data = np.memmap(path, np.uint8, "r")
    except OSError as error:
        raise Malformed([Problem(name, f"cannot be read: {error.strerror}")]) from None
    except ValueError as error:
        raise Malformed([Problem(name, f"cannot be mapped: {error}")]) from None
    return _Parser(name, data).file()


class _Parser:
    """A cursor over the bytes of one file; every step says what it was reading when it fails."""

    def __init__(self, name: str, data: NDArray[np.uint8]):
        self.name, self.at, self.array = name, 0, data
        self.data: memoryview = data.data

    def fail(self, message: str) -> NoReturn:
        raise Malformed([Problem(self.name, f"offset {self.at}: {message}")])

    def take(self, count: int, what: str) -> memoryview:
        if count > len(self.data) - self.at:
            self.fail(f"{what} needs {count} bytes, and {len(self.data) - self.at} are left: the file is cut off")
        found = self.data[self.at : self.at + count]
        self.at += count
        return found

    def number(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize(code), what))[0]

    def count(self, most: int, what: str) -> int:
        found = int(self.number("Q", what))
        if found > most:
            self.at -= 8
            self.fail(f"{what} is {found}; at most {most} are read")
        return found

    def text(self, what: str, most: int = MOST_TEXT) -> str:
        length = self.count(most, f"the length of {what}")
        start = self.at
        try:
            return bytes(self.take(length, what)).decode("utf-8")
        except UnicodeDecodeError as error:
            self.at = start + error.start
            self.fail(f"{what} is not UTF-8")

    def value(self, kind: int, what: str) -> Any:
        if kind == STRING:
            return self.text(what)
        if kind not in SCALARS:
            self.fail(f"{what} has type {kind}, which is none of GGUF's (0 to 12)")
        found = self.number(SCALARS[kind], what)
        if kind == BOOL and found > 1:
            self.fail(f"{what} is {found}, where a bool is 0 or 1")
        if isinstance(found, float) and not math.isfinite(found):
            self.fail(f"{what} is {found}, not a finite number")
        return bool(found) if kind == BOOL else found

    def values(self, what: str) -> list[Any]:
        kind = int(self.number("I", f"the element type of {what}"))
        if kind == ARRAY:
            self.fail(f"{what} is an array of arrays, which no metadata of a language model is")
        count = self.count(MOST_ELEMENTS, f"the length of {what}")
        if kind in SCALARS and kind != BOOL:
            held = np.frombuffer(
                self.take(count * struct.calcsize("<" + SCALARS[kind]), what), np.dtype("<" + SCALARS[kind])
            )
            if held.dtype.kind == "f" and not np.isfinite(held).all():
                self.fail(f"{what} holds a number that is not finite")
            return list(held.tolist())
        if count * (8 if kind == STRING else 1) > len(self.data) - self.at:
            self.fail(f"{what} is said to have {count} elements, more than the rest of the file can hold")
        return [self.value(kind, f"{what}[{index}]") for index in range(count)]

    def file(self) -> GgufFile:
        if bytes(self.take(4, "the magic")) != MAGIC:
            self.at = 0
            self.fail(f"starts with {bytes(self.data[:4])!r}, not {MAGIC!r}: not a GGUF file")
        version = self.number("I", "the version")
        if version not in VERSIONS:
            swapped = " (a big-endian file)" if version & 0xFFFF == 0 else ""
            self.fail(f"version {version}{swapped}; {' and '.join(map(str, VERSIONS))}, little-endian, are read")
        tensors = self.count(MOST_TENSORS, "the number of tensors")
        entries = self.count(MOST_ENTRIES, "the number of metadata entries")
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self.text("a metadata key", 65535)
            if key in metadata:
                self.fail(f"metadata key {key!r} is given twice")
            kind = int(self.number("I", f"the type of {key}"))
            metadata[key] = self.values(key) if kind == ARRAY else self.value(kind, key)
        return GgufFile(self.name, metadata, self._tensors(tensors, metadata))

    def _tensors(self, count: int, metadata: Mapping[str, Any]) -> dict[str, Held]:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 16 or alignment & (alignment - 1):
            self.fail(f"general.alignment is {alignment!r}, not a power of two from 8 to 65536")
        listed = [self._listed(alignment) for _ in range(count)]
        names = [name for name, *_ in listed]
        if len(set(names)) != len(names):
            self.fail(f"tensor {next(name for name in names if names.count(name) > 1)!r} is listed twice")
        start = -(-self.at // alignment) * alignment
        end, found = 0, {}
        for name, kind, shape, offset in sorted(listed, key=lambda one: one[3]):
            block, packed = GGML_QUANT_SIZES[kind]
            row = shape[-1] // block * packed
            size = math.prod(shape[:-1]) * row
            if offset < end:
                self.fail(f"tensor {name!r} starts at {offset}, inside the one before it, which ends at {end}")
            if start + offset + size > len(self.data):
                self.fail(
                    f"tensor {name!r} ends at byte {start + offset + size}, and the file has {len(self.data)}: it is cut off"
                )
            if offset - end >= alignment:
                self.fail(f"{offset - end} bytes before tensor {name!r} belong to no tensor")
            end = offset + size
            held = self.array[start + offset : start + offset + size]
            found[name] = Held(kind.name, shape, held.reshape(-1, row), start + offset)
        if len(self.data) - (start + end) >= alignment and count:
            self.fail(f"{len(self.data) - start - end} bytes after the last tensor belong to none")
        return {name: found[name] for name in names}

    def _listed(self, alignment: int) -> tuple[str, GGMLQuantizationType, tuple[int, ...], int]:
        name = self.text("a tensor's name", MOST_NAME)
        dimensions = int(self.number("I", f"the number of dimensions of {name!r}"))
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            self.fail(f"tensor {name!r} has {dimensions} dimensions; 1 to {MOST_DIMENSIONS} exist")
        shape = tuple(int(self.number("Q", f"a dimension of {name!r}")) for _ in range(dimensions))[::-1]
        elements = math.prod(shape)
        if not 0 < elements <= 64 * len(self.data):  # no type packs a weight into less than an eighth of a bit
            self.fail(f"tensor {name!r} is {list(shape)}, which this file cannot hold")
        code = int(self.number("I", f"the type of {name!r}"))
        try:
            kind = GGMLQuantizationType(code)
        except ValueError:
            self.fail(f"tensor {name!r} has type {code}, which is none of ggml's")
        if shape[-1] % GGML_QUANT_SIZES[kind][0]:
            self.fail(
                f"rows of tensor {name!r} have {shape[-1]} weights, not a multiple of {kind.name}'s {GGML_QUANT_SIZES[kind][0]}"
            )
        offset = int(self.number("Q", f"the offset of {name!r}"))
        if offset % alignment:
            self.fail(f"tensor {name!r} starts at {offset}, not at a multiple of {alignment}")
        return name, kind, shape, offset
