"""Text: whether sampled function bodies are Python that does something."""

from __future__ import annotations

from functools import cache
from typing import Any

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import SampleRow
from sovereign.metrics.intervals import Interval, Unmeasurable, newcombe, wilson

GRAMMAR = "3.11"  # one grammar for every machine: the running interpreter's would change the verdict
LEAST_STATEMENTS = 2


@cache
def _grammar() -> Any:
    from parso.grammar import load_grammar  # here: only samples need it

    return load_grammar(version=GRAMMAR)


def body(prompt: str, text: str) -> str:
    """Return the function a continuation writes: cut where it dedents, or before a last line that is unfinished."""
    lines = (prompt + text).split("\n")
    head = prompt.count("\n")
    for number, one in enumerate(lines):
        if number > head and one.strip() and not one.startswith((" ", "\t")):
            return "\n".join(lines[:number]) + "\n"
    return "\n".join(lines[:-1]) + "\n"


@cache
def writes_a_function(prompt: str, text: str) -> bool:
    """Say whether the continuation parses and holds at least two statements that are not trivial.

    A docstring, `pass`, `...` and a bare name or constant are trivial.
    """
    tree = _grammar().parse(body(prompt, text))
    if next(iter(_grammar().iter_errors(tree)), None) is not None:
        return False
    functions = [
        node for node in _children(tree) if node.type in ("funcdef", "async_stmt", "async_funcdef", "decorated")
    ]
    return bool(functions) and _statements(functions[0]) >= LEAST_STATEMENTS


def _children(node: Any) -> list[Any]:
    return list(getattr(node, "children", ()))


TRIVIAL = frozenset({"name", "number", "string", "strings", "operator", "keyword"})
COMPOUND = frozenset(
    {"if_stmt", "for_stmt", "while_stmt", "try_stmt", "with_stmt", "funcdef", "classdef", "async_stmt", "match_stmt"}
)


def _statements(node: Any) -> int:
    total = 0
    for child in _children(node):
        if child.type == "simple_stmt":
            total += sum(1 for part in _children(child)[:-1] if part.type not in TRIVIAL or _is_word(part))
        elif child.type in COMPOUND:
            total += 1 + _statements(child)
        else:
            total += _statements(child)
    return total


def _is_word(part: Any) -> bool:
    return part.type == "keyword" and part.value in ("return", "break", "continue", "raise")


def _written(observed: Observed, sampler: str) -> tuple[int, int]:
    rows = [row for row in observed.of(SampleRow) if row.sampler == sampler]
    if not rows:
        raise Unmeasurable(f"no samples by {sampler}")
    last = max(row.step for row in rows)
    rows = [row for row in rows if row.step == last]
    return sum(writes_a_function(row.prompt, row.text) for row in rows), len(rows)


def function_rate(observed: Observed) -> Interval:
    """Return the share of held-out function heads that the model continues to a working function body."""
    return wilson(*_written(observed, "model"))


def function_excess(observed: Observed) -> Interval:
    """Return the model's share of working bodies above a bigram sampler's, from the same prompts."""
    return newcombe(_written(observed, "model"), _written(observed, "bigram"))


def newline_rate(observed: Observed) -> Interval:
    """Return the share of working bodies by a sampler of newlines: the control, which must write none."""
    return wilson(*_written(observed, "newline"))
