"""Strict reading of JSON and YAML, canonical bytes, digests, and atomic writes.

Everything that crosses a file passes through here once, at the edge. A document is parsed strictly
(duplicate keys, NaN and infinities are refused), validated by a frozen pydantic model, and digested
as RFC 8785 canonical JSON, so that indentation and line endings never change what a file means.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import rfc8785
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

Keys = tuple[str | int, ...]
Place = tuple[int, int]  # line and column, both counted from 1
RecordType = TypeVar("RecordType", bound="Record")


LARGEST_INTEGER = 2**53 - 1  # RFC 8785 has no canonical form beyond


class Record(BaseModel):
    """What crosses a file: frozen, strict, finite, and closed to unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    def plain(self) -> dict[str, Any]:
        """Return the record as plain JSON values, every default written out, absent optionals left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def meaning(self) -> dict[str, Any]:
        """Return what sets the record apart from its defaults, so that a field added later changes no old digest."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


def shown(text: str, lines: bool = False) -> str:
    """Return text as a terminal may show it, on one line unless `lines`: no character moves a cursor or starts a line.

    A line of a build's log that begins with `::` is a command to the machine that builds.
    """
    return "".join(one if one.isprintable() or (lines and one == "\n") else repr(one)[1:-1] for one in text)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one file, and where."""

    path: str
    message: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return shown(f"{self.path}:{self.line}:{self.column}: {self.message}")


class Malformed(Exception):
    """A file that cannot be read as what it claims to be; carries every problem found."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Document:
    """A strictly parsed file: plain JSON values, and the place of each key path."""

    path: str
    value: Any
    place: Callable[[Keys], Place] = field(default=lambda keys: (1, 1), compare=False)

    def problem(self, keys: Keys, message: str) -> Problem:
        line, column = self.place(keys)
        where = dotted(keys)
        return Problem(self.path, f"{where}: {message}" if where else message, line, column)


def dotted(keys: Keys) -> str:
    """Return a key path as people write it: training.schedule.peak, claims[2]."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


class _DuplicateKey(ValueError):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _DuplicateKey(twice)
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that evidence may hold; write a finite number or leave the key out")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} overflows a 64-bit float; write a finite number")
    return value


def _exact_integer(text: str) -> int:
    if abs(value := int(text)) > LARGEST_INTEGER:
        raise ValueError(f"{value} is beyond 2^53 - 1, where JSON readers no longer agree on integers")
    return value


_json_value = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_float=_finite_float,
    parse_int=_exact_integer,
).decode  # fmt: skip


def parse_json(data: bytes, path: str, line: int = 1) -> Document:
    """Return the one meaning of strict JSON bytes; `line` is where they start in `path`.

    Raises Malformed for duplicate keys, NaN, infinities, invalid UTF-8, and syntax errors.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        at = data.count(b"\n", 0, error.start) + line
        raise Malformed(
            [Problem(path, f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}", at)]
        ) from None
    try:
        return Document(path, _json_value(text), _json_places(text, line))
    except json.JSONDecodeError as error:
        raise Malformed([Problem(path, f"not JSON: {error.msg}", error.lineno + line - 1, error.colno)]) from None
    except _DuplicateKey as error:
        key = str(error)
        second = [at for at in _occurrences(text, json.dumps(key, ensure_ascii=False)) if _is_key(text, at, key)][1:]
        row, column = _line_column(text, second[0]) if second else (1, 1)
        raise Malformed([Problem(path, f"{key}: key given twice; keep one", row + line - 1, column)]) from None
    except RecursionError:
        raise Malformed([Problem(path, "nested too deeply to be a document of ours", line)]) from None
    except ValueError as error:
        token = next((word for word in ("NaN", "-Infinity", "Infinity") if str(error).startswith(word)), "")
        row, column = _line_column(text, max(0, text.find(token))) if token else (1, 1)
        raise Malformed([Problem(path, str(error), row + line - 1, column)]) from None


def _occurrences(text: str, part: str) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)


def _is_key(text: str, at: int, key: str) -> bool:
    return text[at + len(json.dumps(key, ensure_ascii=False)) :].lstrip()[:1] == ":"


def _line_column(text: str, offset: int) -> Place:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _json_places(text: str, first_line: int) -> Callable[[Keys], Place]:
    """Return a finder of places in JSON text; it composes the text as YAML only when first asked."""

    def place(keys: Keys) -> Place:
        row, column = _nearest(_places_in(text), keys)
        return row + first_line - 1, column

    return place


@lru_cache(maxsize=8)  # a document is asked for several places, one after another
def _places_in(text: str) -> Mapping[Keys, Place]:
    try:
        return _yaml_document(text, "")[1]
    except Malformed:
        return {}


def _nearest(places: Mapping[Keys, Place], keys: Keys) -> Place:
    while keys and keys not in places:
        keys = keys[:-1]
    return places.get(keys, (1, 1))


def parse_yaml(data: bytes, path: str) -> Document:
    """Return the one meaning of YAML 1.2 bytes: `1e-4` is a float, `no` a string, a date a string.

    Raises Malformed for duplicate keys, NaN, infinities, aliases, keys that are not strings, and syntax errors.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        at = data.count(b"\n", 0, error.start) + 1
        raise Malformed(
            [Problem(path, f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}", at)]
        ) from None
    value, places = _yaml_document(text, path)
    return Document(path, value, lambda keys: _nearest(places, keys))


def _yaml_document(text: str, path: str) -> tuple[Any, dict[Keys, Place]]:
    # imported here: JSON evidence, which the gate reads by the thousand, never needs it
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

    reader = YAML(typ="safe", pure=True)
    places: dict[Keys, Place] = {}
    problems: list[Problem] = []

    def at(node: Node) -> Place:
        return node.start_mark.line + 1, node.start_mark.column + 1

    def fault(node: Node, keys: Keys, message: str) -> None:
        problems.append(Problem(path, f"{dotted(keys)}: {message}" if keys else message, *at(node)))

    def scalar(node: ScalarNode, keys: Keys) -> Any:
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if kind in ("str", "timestamp"):
            return node.value
        if kind not in ("int", "float", "bool", "null"):
            return fault(node, keys, f"{node.value!r} has tag {node.tag}; only plain values are read")
        try:
            value = reader.constructor.construct_object(node)
        except (YAMLError, ValueError) as error:
            return fault(node, keys, f"{node.value!r} is not a {kind}: {error}")
        if isinstance(value, float) and not math.isfinite(value):
            return fault(node, keys, f"{node.value} is not a finite number")
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            return fault(node, keys, f"{node.value} is beyond 2^53 - 1, where JSON readers no longer agree on integers")
        return value

    seen: set[int] = set()

    def build(node: Node, keys: Keys) -> Any:
        places.setdefault(keys, at(node))
        if id(node) in seen:
            return fault(node, keys, "aliases are not read; write the value out")
        seen.add(id(node))
        if isinstance(node, ScalarNode):
            return scalar(node, keys)
        if isinstance(node, SequenceNode):
            return [build(item, (*keys, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, MappingNode)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode) or str(key_node.tag) != "tag:yaml.org,2002:str":
                name = getattr(key_node, "value", "?")
                fault(key_node, keys, f"key {name!r} is not a string; quote it")
                continue
            key = key_node.value
            inner = (*keys, key)
            if key in result:
                fault(key_node, inner, "key given twice; keep one")
                continue
            places[inner] = at(key_node)
            result[key] = build(value_node, inner)
        return result

    try:
        root = reader.compose(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        row, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise Malformed([Problem(path, f"not YAML: {error.problem or error.context}", row, column)]) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise Malformed(
            [Problem(path, f"not YAML: {str(error).splitlines()[0] if str(error) else type(error).__name__}")]
        ) from None
    if root is None:
        return None, places
    value = build(root, ())
    if problems:
        raise Malformed(problems)
    return value, places


def read(path: Path, name: str | None = None) -> Document:
    """Return the strictly parsed document at `path`, YAML or JSON by its ending."""
    shown = name or str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Malformed([Problem(shown, f"cannot be read: {error.strerror}")]) from None
    return parse_yaml(data, shown) if path.suffix in (".yaml", ".yml") else parse_json(data, shown)


# ── validating ───────────────────────────────────────────────────────────────────────────────────


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def validate(kind: type[RecordType], document: Document) -> RecordType:
    """Return the document as a record, or raise Malformed with one problem per fault, each at its place."""
    try:
        # JSON mode: strict, yet a list is a tuple and a string an enum or a date, as files spell them
        return _adapter(kind).validate_json(json.dumps(document.value))  # type: ignore[no-any-return]
    except ValidationError as error:
        raise Malformed([_explained(kind, document, fault) for fault in error.errors()]) from None


def _explained(kind: type[BaseModel], document: Document, fault: Any) -> Problem:
    keys = _present(document.value, fault["loc"])
    if fault["type"] == "extra_forbidden":
        known, present = _siblings(kind, keys[:-1], document.value), document.value
        for key in keys[:-1]:
            present = present[key]
        wrong = str(keys[-1])
        near = difflib.get_close_matches(wrong, known, 1, 0.5)
        if near and near[0] in present:  # what stands there already was hardly meant again, unless it is much nearer
            nearness = difflib.SequenceMatcher(None, near[0], wrong).ratio()
            free = [name for name in known if name not in present]
            near = difflib.get_close_matches(wrong, free, 1, max(0.5, nearness - 0.1)) or near
        hint = f"; did you mean {near[0]}?" if near else ""
        return document.problem(keys, f"unknown key{hint}")
    if fault["type"] == "missing":
        return document.problem(keys, "required, and not given")
    if fault["type"] == "union_tag_not_found":  # the key that says which of several a section is
        wanted = fault["ctx"]["discriminator"].strip("'")
        near = difflib.get_close_matches(wanted, map(str, fault["input"]), n=1, cutoff=0.7)
        if near:
            return document.problem((*keys, near[0]), f"unknown key; did you mean {wanted}?")
        return document.problem((*keys, wanted), "required, and not given")
    message = fault["msg"].removeprefix("Value error, ")
    given = fault.get("input")
    shown = (
        ""
        if isinstance(given, dict | list) or fault["type"] == "value_error"
        else f", not {json.dumps(given, default=str)}"
    )
    names = message[1:2].isupper()  # it begins with an id or a name, which stays as it is written
    return document.problem(keys, (message[:1] if names else message[:1].lower()) + message[1:] + shown)


def _present(value: Any, location: tuple[str | int, ...]) -> Keys:
    """Drop from a pydantic location what is not a key of the document (tags of unions)."""
    keys: list[str | int] = []
    for index, key in enumerate(location):
        in_mapping = isinstance(value, dict) and key in value
        in_list = isinstance(value, list) and isinstance(key, int) and key < len(value)
        if in_mapping or in_list:
            value = value[key]
        elif index < len(location) - 1:
            continue
        keys.append(key)
    return tuple(keys)


def _siblings(kind: type[BaseModel], keys: Keys, value: Any) -> list[str]:
    """Return the keys that the model knows at a key path."""
    kinds: list[Any] = [kind]
    for key in keys:
        inner: list[Any] = []
        for one in kinds:
            if isinstance(one, type) and issubclass(one, BaseModel) and key in one.model_fields:
                inner += _models(one.model_fields[str(key)].annotation)
            elif isinstance(one, type) and issubclass(one, BaseModel):
                continue
            else:
                inner.append(one)
        kinds = inner or kinds
    return sorted(
        {
            field.alias or name
            for one in kinds
            if isinstance(one, type) and issubclass(one, BaseModel)
            for name, field in one.model_fields.items()
        }
    )


def _models(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models(inner)]


# ── canonical bytes and digests ──────────────────────────────────────────────────────────────────


def canonical_bytes(value: Any) -> bytes:
    """Return the RFC 8785 (JCS) bytes of plain JSON values."""
    return rfc8785.dumps(value)


def digest(value: Any) -> str:
    """Return the sha256 of the canonical bytes, as `sha256:<hex>`."""
    return digest_bytes(canonical_bytes(value))


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with its own digest added as `seal`, so that no value in it changes by accident."""
    return {**document, "seal": digest({key: value for key, value in document.items() if key != "seal"})}


def digest_bytes(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's raw bytes, as `sha256:<hex>`."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


# ── writing ──────────────────────────────────────────────────────────────────────────────────────


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader, or a crash, finds the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable (a rename is not, until its directory is synced)."""
    if os.name == "nt":  # directories cannot be opened there, and renames are journalled
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def pretty(value: Any) -> bytes:
    """Return JSON for people: sorted keys, two spaces, a final newline."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"
