"""Documents: found in a source in a fixed order, cleaned by what the contract declares, named by their content."""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sovereign.canonical import Malformed, Problem, parse_json
from sovereign.contract.data import (
    Data,
    Folder,
    HubDataset,
    JsonLines,
    Mixture,
    Parquet,
    Part,
    Source,
    StandardLibrary,
    TextFile,
)

Reason = Literal["too_short", "too_long", "not_utf8", "exact_duplicate", "licence", "near_duplicate", "over_share"]

# parts of the standard library that distributions leave out or add to; what remains is nearly the same everywhere
NOT_LIBRARY = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "ensurepip", "site-packages", "dist-packages", "__pycache__", "turtledemo"}
)


@dataclass(frozen=True)
class Found:
    """One document as the source holds it: a name that is stable on this machine, and its bytes."""

    name: str
    data: bytes
    licence: str | None = None


@dataclass(frozen=True)
class Text:
    """A document that may be used; `document` is the first 16 hex digits of the sha256 of its text."""

    document: str
    name: str
    text: str
    bytes: int


@dataclass(frozen=True)
class LeftOut:
    """A document that may not be used, and why."""

    document: str
    name: str
    reason: Reason
    bytes: int


def gather(source: Source, root: Path) -> Iterator[Found]:
    """Yield the documents of a source in order of name; paths are relative to `root`.

    Raises Malformed for what is missing, empty or unreadable, with its place.
    """
    if isinstance(source, Mixture):
        for part in source.parts:
            for one in gather(part.source, root):
                yield replace(one, name=f"{part.name}/{one.name}")
    elif isinstance(source, StandardLibrary):
        yield from _library() if source.part == "source" else _docstrings()
    elif isinstance(source, Folder):
        yield from _folder(root / source.path, source)
    elif isinstance(source, TextFile):
        for number, text in enumerate(_read(root / source.path, source.path).split(source.separator.encode())):
            yield Found(f"{source.path}#{number:07d}", text)
    elif isinstance(source, JsonLines):
        yield from _json_lines(root / source.path, source)
    elif isinstance(source, Parquet):
        yield from _parquet(root / source.path, source)
    elif isinstance(source, HubDataset):
        yield from _hub(source)


def _library() -> Iterator[Found]:
    top = Path(sysconfig.get_path("stdlib"))
    files = [
        path
        for path in top.rglob("*.py")
        if not any(part in NOT_LIBRARY or part.startswith("config-") for part in path.relative_to(top).parts)
    ]
    for path in sorted(files, key=lambda file: file.relative_to(top).as_posix()):
        yield Found(path.relative_to(top).as_posix(), _read(path, str(path)))


def _docstrings() -> Iterator[Found]:
    """Yield the docstrings of each module as one document; modules without any, or of another Python, give none."""
    for found in _library():
        try:
            tree = ast.parse(found.data)
        except SyntaxError:  # templates and the like
            continue
        told = [
            ast.get_docstring(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        if prose := "\n\n".join(filter(None, told)):
            yield Found(found.name, prose.encode("utf-8", "surrogatepass"))


def _folder(top: Path, source: Folder) -> Iterator[Found]:
    if not top.is_dir():
        raise Malformed([Problem(source.path, "no such folder; data.source.path is relative to the repository's root")])
    files = {path for pattern in source.include for path in top.glob(pattern) if path.is_file()}
    if not files:
        raise Malformed([Problem(source.path, f"no file matches {', '.join(source.include)}")])
    for path in sorted(files, key=lambda file: file.relative_to(top).as_posix()):
        yield Found(path.relative_to(top).as_posix(), _read(path, str(path)))


def _json_lines(path: Path, source: JsonLines) -> Iterator[Found]:
    _read(path, source.path, 1)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            value = parse_json(line.rstrip(b"\r\n"), source.path, number).value
            row = value if isinstance(value, dict) else {}
            yield _row(
                f"{source.path}#{number:07d}",
                row,
                source.field,
                source.licence,
                Problem(source.path, "the line", number),
            )


def _parquet(path: Path, source: Parquet) -> Iterator[Found]:
    from pyarrow import ArrowException  # here: the extra `data` brings it, and other sources do without
    from pyarrow.parquet import ParquetFile

    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise Malformed([Problem(source.path, "no *.parquet file stands below it")])
    for file in files:
        name = file.relative_to(path.parent if path.is_file() else path).as_posix()
        _read(file, str(file), 1)
        try:
            opened = ParquetFile(file)
            columns = [source.field, *filter(None, [source.licence])]
            missing = [column for column in columns if column not in opened.schema_arrow.names]
            if missing:
                known = ", ".join(opened.schema_arrow.names)
                raise Malformed([Problem(str(file), f"no column {missing[0]!r}; the file has {known}")])
            rows = (row for batch in opened.iter_batches(columns=columns) for row in batch.to_pylist())
            for number, row in enumerate(rows):
                yield _row(
                    f"{name}#{number:07d}", row, source.field, source.licence, Problem(str(file), f"row {number}")
                )
        except ArrowException as error:
            raise Malformed([Problem(str(file), f"not a Parquet file: {error}")]) from None


def _hub(source: HubDataset) -> Iterator[Found]:
    """Yield the rows of a hub data set; raises Malformed unless what was loaded is of the pinned commit."""
    from datasets import load_dataset_builder  # here: the extra `data` brings it, and other sources do without

    place = f"{source.dataset}@{source.revision[:12]}"
    try:
        builder = load_dataset_builder(source.dataset, source.config, revision=source.revision)
        # without a connection the library takes whatever revision it kept, and says so in the log alone
        if builder.hash != source.revision:
            raise Malformed(
                [
                    Problem(
                        place,
                        f"revision {builder.hash} was loaded instead, from the library's cache; connect to the hub",
                    )
                ]
            )
        builder.download_and_prepare()
        rows = builder.as_dataset(split=source.split)
    except (OSError, ValueError, RuntimeError) as error:
        raise Malformed([Problem(place, f"cannot be loaded: {error}")]) from None
    for number, row in enumerate(rows):
        yield _row(f"{place}#{number:07d}", row, source.field, source.licence, Problem(place, f"row {number}"))


def _row(name: str, row: Mapping[str, object], field: str, licence: str | None, place: Problem) -> Found:
    """Return the document in a row's field, or raise Malformed at its place with the fields that there are."""
    text = row.get(field)
    if not isinstance(text, str):
        known = ", ".join(sorted(row)) or "no fields"
        raise Malformed([replace(place, message=f"no text in field {field!r}; {place.message} has {known}")])
    said = row.get(licence) if licence else None
    return Found(name, text.encode("utf-8", "surrogatepass"), said if isinstance(said, str) else None)


def _read(path: Path, name: str, most: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise Malformed([Problem(name, f"cannot be read: {error.strerror}")]) from None


def clean(found: Iterable[Found], data: Data) -> tuple[list[Text], list[LeftOut]]:
    """Return the documents that may be used and those left out; of exact duplicates the first name stays.

    Raises Malformed for a document that is no UTF-8, where the contract says to.
    """
    texts: list[Text] = []
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    for one in found:
        document = hashlib.sha256(one.data).hexdigest()[:16]
        try:
            text = one.data.decode("utf-8")
        except UnicodeDecodeError as error:
            if data.undecodable == "refuse":
                raise Malformed([Problem(one.name, f"no UTF-8: {error.reason} at byte {error.start}")]) from None
            left_out.append(LeftOut(document, one.name, "not_utf8", len(one.data)))
            continue
        reason: Reason | None = None
        if data.licences is not None and one.licence not in data.licences:
            reason = "licence"
        elif len(one.data) < data.least_bytes:
            reason = "too_short"
        elif data.most_bytes is not None and len(one.data) > data.most_bytes:
            reason = "too_long"
        elif document in seen:
            reason = "exact_duplicate"
        if reason:
            left_out.append(LeftOut(document, one.name, reason, len(one.data)))
            continue
        seen.add(document)
        texts.append(Text(document, one.name, text, len(one.data)))
    return texts, left_out


def left(one: Text, reason: Reason) -> LeftOut:
    return LeftOut(one.document, one.name, reason, one.bytes)


def to_shares(texts: Sequence[Text], parts: Sequence[Part]) -> tuple[list[Text], list[LeftOut]]:
    """Return the documents of a mixture cut to its weights, and what was too much, both in the order given.

    Bytes are counted. Documents stay in the order of their hashes, so another one moves few. Raises ValueError for
    a part that has none.
    """
    sizes = {part.name: sum(one.bytes for one in texts if _part(one) == part.name) for part in parts}
    empty = [name for name, size in sizes.items() if not size]
    if empty:
        raise ValueError(f"part {empty[0]} of the mixture has no document that may be used")
    whole = min(sizes[part.name] / part.weight for part in parts)
    room = {part.name: whole * part.weight for part in parts}
    kept: set[str] = set()
    for one in sorted(texts, key=lambda one: one.document):
        if one.bytes <= room[_part(one)] * (1 + 1e-9):
            room[_part(one)] -= one.bytes
            kept.add(one.document)
    return (
        [one for one in texts if one.document in kept],
        [left(one, "over_share") for one in texts if one.document not in kept],
    )


def _part(one: Text) -> str:
    return one.name.partition("/")[0]
