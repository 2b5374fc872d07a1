"""Token shards: raw little-endian ids on disk, and a manifest that says what they must be.

A folder of shards is one long run of ids: each document's, then one end-of-text id. The manifest is
written last and sealed with its own digest, so a folder without one is not a folder of shards, and a
changed byte anywhere, in a shard or in the manifest, is found at open and named.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sovereign.canonical import (
    Document,
    Malformed,
    Problem,
    Record,
    canonical_bytes,
    digest,
    digest_file,
    read,
    validate,
    write_atomic,
)
from sovereign.corpus.scoring import Ids

MANIFEST = "manifest.json"
SHARD_TOKENS = 1 << 28  # half a gigabyte of uint16: few files at 100 GB, and each still quick to copy

RecordType = TypeVar("RecordType", bound=Record)


class UnreadableShard(Malformed):
    """A shard that is not what its manifest says: missing, cut off, changed, or in another's place."""


class Shard(Record):
    """One file of ids, and the documents in it."""

    file: str = Field(pattern=r"^shard-[0-9]{5}\.bin$")
    sha256: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    bytes: int = Field(ge=1)
    tokens: int = Field(ge=1, description="ids in the file, end-of-text ids included")
    documents: tuple[tuple[str, Annotated[int, Field(ge=0)]], ...] = Field(
        description="document and its ids, end-of-text not counted, in the order of the file"
    )


class Manifest(Record):
    """What a folder of shards holds."""

    format: Literal["sovereign/shards/v1"]
    dtype: Literal["uint16", "uint32"]
    vocabulary: int = Field(ge=1)
    end_of_text: int = Field(ge=0)
    tokenizer: str = Field(description="digest of the tokenizer that made the ids")
    shards: tuple[Shard, ...]
    digest: str = Field(description="digest of this record without this line")

    @property
    def item(self) -> np.dtype[Any]:
        return np.dtype("<u2" if self.dtype == "uint16" else "<u4")


# ── sealed records ───────────────────────────────────────────────────────────────────────────────


def sealed(values: Mapping[str, Any]) -> bytes:
    """Return a record's canonical bytes with its own digest added, so that no value in it changes unnoticed."""
    return canonical_bytes({**values, "digest": digest(values)}) + b"\n"


def unsealed(kind: type[RecordType], path: Path) -> RecordType:
    """Return the sealed record at `path`, or raise Malformed when it is not the one that was written."""
    document: Document = read(path)
    record = validate(kind, document)
    if document.value["digest"] != digest({key: value for key, value in document.value.items() if key != "digest"}):
        raise Malformed([document.problem(("digest",), "does not match the rest of the file; something was changed")])
    return record


# ── writing ──────────────────────────────────────────────────────────────────────────────────────


def write_shards(
    folder: Path,
    documents: Iterable[tuple[str, Ids]],
    *,
    vocabulary: int,
    end_of_text: int,
    tokenizer: str,
    shard_tokens: int = SHARD_TOKENS,
) -> Manifest:
    """Write documents as shards, the manifest last, and return it; memory is that of the longest document.

    A document is never cut between two shards: a new one starts after the document that reaches
    `shard_tokens`. Raises ValueError for an id outside the vocabulary, a document that holds the
    end-of-text id (its end would be read as two), and one given twice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = "uint16" if vocabulary <= 65536 else "uint32"
    item = np.dtype("<u2" if dtype == "uint16" else "<u4")
    closing = np.array([end_of_text], dtype=item).tobytes()
    seen: set[str] = set()
    shards: list[dict[str, Any]] = []
    pending = iter(documents)
    following = next(pending, None)
    while following is not None:
        path = folder / f"shard-{len(shards):05d}.bin"
        content = hashlib.sha256()
        held: list[list[str | int]] = []
        tokens = 0
        with path.open("wb") as file:
            while following is not None and tokens < shard_tokens:
                document, ids = following
                _refuse_unwritable(document, ids, vocabulary, end_of_text, seen)
                data = np.asarray(ids).astype(item).tobytes() + closing
                file.write(data)
                content.update(data)
                held.append([document, len(ids)])
                tokens += len(ids) + 1
                following = next(pending, None)
            file.flush()
            os.fsync(file.fileno())
        shards.append(
            {
                "file": path.name,
                "sha256": "sha256:" + content.hexdigest(),
                "bytes": tokens * item.itemsize,
                "tokens": tokens,
                "documents": held,
            }
        )
    values = {
        "format": "sovereign/shards/v1",
        "dtype": dtype,
        "vocabulary": vocabulary,
        "end_of_text": end_of_text,
        "tokenizer": tokenizer,
        "shards": shards,
    }
    write_atomic(folder / MANIFEST, sealed(values))
    return unsealed(Manifest, folder / MANIFEST)


def _refuse_unwritable(document: str, ids: Ids, vocabulary: int, end_of_text: int, seen: set[str]) -> None:
    if document in seen:
        raise ValueError(f"document {document} is given twice; a document stands in the shards once")
    seen.add(document)
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary:
        raise ValueError(f"document {document} holds ids {ids.min()} to {ids.max()}; the vocabulary has {vocabulary}")
    if bool((ids == end_of_text).any()):
        raise ValueError(f"document {document} holds the end-of-text id {end_of_text} inside its text")


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def open_shards(folder: Path) -> Shards:
    """Return the shards of a folder, every byte of them verified against the manifest.

    Raises Malformed for the manifest, and UnreadableShard naming each shard that is missing, of
    another length, changed, or swapped with another.
    """
    path = folder / MANIFEST
    manifest = unsealed(Manifest, path)
    problems = [Problem(str(path), message) for message in _contradictions(manifest)]
    if problems:
        raise Malformed(problems)
    owners = {shard.sha256: shard.file for shard in manifest.shards}
    faults = [
        Problem(str(folder / shard.file), fault)
        for shard in manifest.shards
        if (fault := _fault(folder, shard, owners))
    ]
    if faults:
        raise UnreadableShard(faults)
    return Shards(folder, manifest)


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """Yield what the manifest says that cannot be true of any shards."""
    if manifest.dtype != ("uint16" if manifest.vocabulary <= 65536 else "uint32"):
        yield f"dtype {manifest.dtype} is not the one for a vocabulary of {manifest.vocabulary}"
    if manifest.end_of_text >= manifest.vocabulary:
        yield f"end_of_text {manifest.end_of_text} is outside the vocabulary of {manifest.vocabulary}"
    for shard in manifest.shards:
        counted = sum(tokens + 1 for _, tokens in shard.documents)
        if counted != shard.tokens:
            yield f"{shard.file}: its documents and their ends are {counted} tokens, not {shard.tokens}"
        if shard.bytes != shard.tokens * manifest.item.itemsize:
            yield f"{shard.file}: {shard.tokens} {manifest.dtype} tokens are not {shard.bytes} bytes"
    names = [document for shard in manifest.shards for document, _ in shard.documents]
    if len(set(names)) != len(names):
        yield "a document is listed twice"


def _fault(folder: Path, shard: Shard, owners: Mapping[str, str]) -> str:
    path = folder / shard.file
    try:
        size = path.stat().st_size
        found = digest_file(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}; the manifest lists it"
    if found == shard.sha256:
        return ""
    if found in owners:
        return f"holds what the manifest says of {owners[found]}; the two were swapped or copied"
    if size != shard.bytes:
        return f"is {size} bytes, {'cut off from' if size < shard.bytes else 'grown beyond'} {shard.bytes}"
    return f"its content changed: {found[:19]}..., not {shard.sha256[:19]}..."


class Shards:
    """The shards of one folder, memory-mapped and read as one run of ids.

    Offsets are global: 0 is the first id of the first shard. Memory is the document index and
    whatever is asked for, whatever the size of the files. `open_shards` is the way in that verifies.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder = folder
        self.manifest = manifest
        listed = [entry for shard in manifest.shards for entry in shard.documents]
        self.documents: tuple[str, ...] = tuple(document for document, _ in listed)
        # starts[i] is the offset of document i, and starts[-1] the number of tokens
        self.starts: NDArray[np.int64] = np.cumsum([0] + [tokens + 1 for _, tokens in listed], dtype=np.int64)
        self._bounds: NDArray[np.int64] = np.cumsum([0] + [shard.tokens for shard in manifest.shards], dtype=np.int64)
        # as plain arrays: slicing numpy's memmap class costs several times as much as slicing an array
        self._maps = [
            np.asarray(np.memmap(folder / shard.file, dtype=manifest.item, mode="r")) for shard in manifest.shards
        ]

    @property
    def tokens(self) -> int:
        """All ids, end-of-text ids included."""
        return int(self.starts[-1])

    @property
    def vocabulary(self) -> int:
        return self.manifest.vocabulary

    @property
    def end_of_text(self) -> int:
        return self.manifest.end_of_text

    @cached_property
    def _index(self) -> dict[str, int]:
        return {document: index for index, document in enumerate(self.documents)}

    def document_at(self, offset: int) -> str:
        """Return the document that the token at a global offset belongs to, its end-of-text included."""
        if not 0 <= offset < self.tokens:
            raise IndexError(f"offset {offset} is outside the {self.tokens} tokens")
        return self.documents[int(np.searchsorted(self.starts, offset, side="right")) - 1]

    def ids(self, document: str) -> Ids:
        """Return a document's ids without its end-of-text; raises KeyError for one that is not here."""
        index = self._index[document]
        return self.read(int(self.starts[index]), int(self.starts[index + 1]) - 1)

    def read(self, start: int, stop: int) -> Ids:
        """Return the ids from `start` to `stop`: a view of the map where they lie in one shard, else a copy."""
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"tokens {start} to {stop} are outside the {self.tokens} there are")
        first = int(np.searchsorted(self._bounds, start, side="right")) - 1
        pieces: list[Ids] = []
        for index in range(first, len(self._maps)):
            low = int(self._bounds[index])
            if low >= stop:
                break
            pieces.append(self._maps[index][max(0, start - low) : stop - low])
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=self.manifest.item)

    def gather(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Return the runs of `length` ids that begin at `starts`, shape [len(starts), length]."""
        found = np.empty((len(starts), length), dtype=np.int64)
        shards = np.searchsorted(self._bounds, starts, side="right") - 1
        inside = starts + length <= self._bounds[shards + 1]
        for row, (start, shard, whole) in enumerate(
            zip(starts.tolist(), shards.tolist(), inside.tolist(), strict=True)
        ):
            if whole:
                at = start - int(self._bounds[shard])
                found[row] = self._maps[shard][at : at + length]
            else:
                found[row] = self.read(start, start + length)
        return found
