"""Prompts for a parity check: from a file, from the documents a run held out, or from the library every machine has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from sovereign.canonical import Malformed, Problem, parse_json
from sovereign.contract.data import StandardLibrary
from sovereign.corpus.documents import gather

PROMPTS, TOKENS = 32, 128


def from_file(path: Path) -> list[str]:
    """Return the prompts in a JSONL file: one string a line, or one object with `text`. Raises Malformed with the line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise Malformed([Problem(str(path), f"cannot be read: {error.strerror}")]) from None
    found: list[str] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = parse_json(line, str(path), number).value
        except Malformed as error:
            problems += error.problems
            continue
        text = value.get("text") if isinstance(value, dict) else value
        if not isinstance(text, str) or not text:
            problems.append(Problem(str(path), "is neither a string nor an object with a text", number))
        else:
            found.append(text)
    if problems:
        raise Malformed(problems)
    return found


def held_out(tokenizer: Path) -> Iterator[str]:
    """Yield the held-out texts of the corpus that a tokenizer stands in, as they were written."""
    with (tokenizer.parent / "texts.jsonl").open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def of_the_library() -> Iterator[str]:
    """Yield the modules of the running Python's standard library."""
    for found in gather(StandardLibrary(kind="stdlib"), Path()):
        try:
            yield found.data.decode("utf-8")
        except UnicodeDecodeError:
            continue
