"""Documents: found in a source in a fixed order, cleaned by what the contract declares, named by their content."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sovereign.canonical import Malformed, Problem, parse_json
from sovereign.contract.data import Data, Folder, JsonLines, Source, StandardLibrary, TextFile

Reason = Literal["too_short", "too_long", "not_utf8", "exact_duplicate"]

# parts of the standard library that distributions leave out or add to; what remains is nearly the same everywhere
NOT_LIBRARY = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "ensurepip", "site-packages", "dist-packages", "__pycache__", "turtledemo"}
)


@dataclass(frozen=True)
class Found:
    """One document as the source holds it: a name that is stable on this machine, and its bytes."""

    name: str
    data: bytes


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
    if isinstance(source, StandardLibrary):
        yield from _library()
    elif isinstance(source, Folder):
        yield from _folder(root / source.path, source)
    elif isinstance(source, TextFile):
        for number, part in enumerate(_read(root / source.path, source.path).split(source.separator.encode())):
            yield Found(f"{source.path}#{number:07d}", part)
    elif isinstance(source, JsonLines):
        yield from _json_lines(root / source.path, source)


def _library() -> Iterator[Found]:
    top = Path(sysconfig.get_path("stdlib"))
    files = [
        path
        for path in top.rglob("*.py")
        if not any(part in NOT_LIBRARY or part.startswith("config-") for part in path.relative_to(top).parts)
    ]
    for path in sorted(files, key=lambda file: file.relative_to(top).as_posix()):
        yield Found(path.relative_to(top).as_posix(), _read(path, str(path)))


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
            text = value.get(source.field) if isinstance(value, dict) else None
            if not isinstance(text, str):
                known = ", ".join(sorted(value)) if isinstance(value, dict) else "no fields"
                raise Malformed(
                    [Problem(source.path, f"no text in field {source.field!r}; the line has {known}", number)]
                )
            yield Found(f"{source.path}#{number:07d}", text.encode("utf-8", "surrogatepass"))


def _read(path: Path, name: str, most: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise Malformed([Problem(name, f"cannot be read: {error.strerror}")]) from None


def clean(found: Iterable[Found], data: Data) -> tuple[list[Text], list[LeftOut]]:
    """Return the documents that may be used and those left out; of exact duplicates the first name stays."""
    texts: list[Text] = []
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    for one in found:
        document = hashlib.sha256(one.data).hexdigest()[:16]
        try:
            text = one.data.decode("utf-8")
        except UnicodeDecodeError:
            left_out.append(LeftOut(document, one.name, "not_utf8", len(one.data)))
            continue
        reason: Reason | None = None
        if len(one.data) < data.least_bytes:
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
