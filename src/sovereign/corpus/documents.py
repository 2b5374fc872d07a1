"""Where text comes from: every source becomes named documents, and what is left out is counted with its reason."""

from __future__ import annotations

import hashlib
import json
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sovereign.canonical import Malformed, Problem, parse_json
from sovereign.contract.data import Data, Folder, JsonLines, Source, StandardLibrary, TextFile

Reason = Literal["too_short", "too_long", "not_utf8", "exact_duplicate"]

# Tests, programs with a window, and what pip put there: present on some machines and not on others, or not library code.
NOT_LIBRARY = frozenset(
    ("test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "site-packages", "dist-packages", "__pycache__")
)


@dataclass(frozen=True)
class Found:
    """One document as its source holds it; the name is relative to the source, so the same on every machine."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Text:
    """One document that is kept; `document` is the first 16 hex digits of its text's sha256."""

    document: str
    name: str
    text: str
    bytes: int


@dataclass(frozen=True)
class LeftOut:
    """One document that is not kept, and why."""

    document: str
    name: str
    reason: Reason
    bytes: int


def document_id(data: bytes) -> str:
    """Return the first 16 hex digits of the sha256 of a document's bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def gather(source: Source, root: Path) -> Iterator[Found]:
    """Yield the documents of a source in a fixed order: files by name, lines and passages as they stand.

    Raises Malformed, naming file and line, for a path that is missing or unreadable, a folder in which
    nothing matches, a line that is not JSON or lacks its field.
    """
    match source:
        case StandardLibrary():
            yield from _files(Path(sysconfig.get_path("stdlib")), _library_names)
        case Folder():
            yield from _files(root / source.path, lambda folder: _matching_names(folder, source.include))
        case TextFile():
            yield from _passages(root / source.path, source.separator)
        case JsonLines():
            yield from _json_lines(root / source.path, source.field)


def _files(folder: Path, names: Callable[[Path], Iterable[str]]) -> Iterator[Found]:
    if not folder.is_dir():
        raise Malformed([Problem(str(folder), "is not a folder" if folder.exists() else "no such folder")])
    found = sorted(names(folder))
    if not found:
        raise Malformed([Problem(str(folder), "holds no file that the source asks for")])
    for name in found:
        yield Found(name, _content(folder / name))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Malformed([Problem(str(path), f"cannot be read: {error.strerror}")]) from None


def _library_names(folder: Path) -> Iterator[str]:
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in NOT_LIBRARY and not name.startswith("config-")]
        for name in files:
            path = Path(where, name)
            # a link (sitecustomize.py on Debian) and the build's own settings belong to the machine, not to the library
            if name.endswith(".py") and not name.startswith("_sysconfigdata") and not path.is_symlink():
                yield path.relative_to(folder).as_posix()


def _matching_names(folder: Path, patterns: Iterable[str]) -> set[str]:
    paths = {path for pattern in patterns for path in folder.glob(pattern)}
    return {path.relative_to(folder).as_posix() for path in paths if not path.is_dir()}


def _passages(path: Path, separator: str) -> Iterator[Found]:
    content = _content(path)
    line = 1
    for part in content.split(separator.encode()) if separator else [content]:
        if part:  # between two separators in a row there is nothing
            yield Found(f"{path.name}:{line}", part)
        line += part.count(b"\n") + separator.count("\n")


def _json_lines(path: Path, field: str) -> Iterator[Found]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                value = parse_json(line, str(path), number).value
                if not isinstance(value, dict) or not isinstance(value.get(field), str):
                    raise Malformed([Problem(str(path), f"{field}: required, and must be text", number)])
                # half of a surrogate pair is JSON but not UTF-8: `clean` leaves it out, and counts it
                yield Found(f"{path.name}:{number}", value[field].encode("utf-8", "surrogatepass"))
    except OSError as error:
        raise Malformed([Problem(str(path), f"cannot be read: {error.strerror}")]) from None


def clean(found: Iterable[Found], data: Data) -> tuple[list[Text], list[LeftOut]]:
    """Return the documents kept, and those left out with the reason; of exact duplicates the first is kept."""
    texts: list[Text] = []
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    for one in found:
        document, size = document_id(one.data), len(one.data)
        try:
            text = one.data.decode("utf-8")
        except UnicodeDecodeError:
            left_out.append(LeftOut(document, one.name, "not_utf8", size))
            continue
        reason: Reason | None = None
        if size < data.least_bytes:
            reason = "too_short"
        elif data.most_bytes is not None and size > data.most_bytes:
            reason = "too_long"
        elif document in seen:
            reason = "exact_duplicate"
        if reason:
            left_out.append(LeftOut(document, one.name, reason, size))
        else:
            seen.add(document)
            texts.append(Text(document, one.name, text, size))
    return texts, left_out


def write_texts(path: Path, texts: Iterable[Text]) -> None:
    """Write texts as one JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for text in texts:
            file.write(json.dumps({"document": text.document, "name": text.name, "text": text.text}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_texts(path: Path) -> list[Text]:
    """Return the texts written to `path`; raises Malformed for one that no longer is the document it is named for."""
    texts: list[Text] = []
    for number, line in enumerate(_content(path).splitlines(), 1):
        value = parse_json(line, str(path), number).value
        data = value["text"].encode()
        if document_id(data) != value["document"]:
            raise Malformed([Problem(str(path), f"the text is no longer that of document {value['document']}", number)])
        texts.append(Text(value["document"], value["name"], value["text"], len(data)))
    return texts
