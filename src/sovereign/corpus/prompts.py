"""Prompts: heads of functions from held-out Python documents, for a model to write the bodies of."""

from __future__ import annotations

import ast
import hashlib
import tokenize
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MOST_CHARACTERS = 400
MOST_DOCSTRING_LINES = 5
LEAST_STATEMENTS = 2  # in the real body: a one-line wrapper shows little about a model

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Prompt:
    """A text that ends where the line before a function's body ends: with an indented `pass` after it, it is Python.

    It ends before the line end, where tokenizers split in any case: after `\\n    ` a model would be asked to go on
    from inside a token that it has always seen joined to the word behind it.
    """

    prompt_id: int
    document: str
    prompt: str


def function_heads(texts: Sequence[tuple[str, str]], count: int, seed: int) -> list[Prompt]:
    """Return at most `count` different prompts from (document, text) pairs; `prompt_id` is the rank.

    The documents take turns, so a long one gives no more than its share. A hash with the seed orders the
    documents, and the functions in each, so that neither the order of `texts` nor `count` changes which
    prompts come first. Documents that are not Python are passed over.
    """
    drawn = sorted(texts, key=lambda one: _drawn(seed, one[0]))
    turns = deque((document, _heads(document, text, seed)) for document, text in drawn)
    found: dict[str, str] = {}
    while turns and len(found) < count:
        document, heads = turns.popleft()
        prompt = next((head for head in heads if head not in found), None)
        if prompt is not None:
            found[prompt] = document
            turns.append((document, heads))
    return [Prompt(rank, document, prompt) for rank, (prompt, document) in enumerate(found.items())]


def _drawn(seed: int, *of: str | int) -> bytes:
    return hashlib.sha256("/".join(map(str, (seed, *of))).encode()).digest()


def _heads(document: str, text: str, seed: int) -> Iterator[str]:
    """Yield the prompts of one document in drawn order; it is parsed when its first turn comes."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    tree = _parsed(text)
    if tree is None:
        return
    lines = text.split("\n")  # as the parser counts them; splitlines() would also cut at form feeds
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    for node in sorted(functions, key=lambda one: _drawn(seed, document, one.lineno)):
        head = _head(node, lines)
        # whatever stands in a file strangely (bodies on the line of the def, other indents) shows here
        if head and len(head) <= MOST_CHARACTERS and _parsed(f"{head}\n    pass\n") is not None:
            yield head


def _head(node: Function, lines: Sequence[str]) -> str:
    """Return the prompt of one function, or nothing where its body is too short to ask for."""
    docstring = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
    body = node.body[1:] if docstring else node.body
    if len(body) < LEAST_STATEMENTS:
        return ""
    last = _last_line_of_def(node, lines)
    if docstring and _end(docstring) - docstring.lineno < MOST_DOCSTRING_LINES:
        last = _end(docstring)
    if last >= body[0].lineno:
        return ""
    indent = lines[node.lineno - 1][: node.col_offset]
    # a line inside a string may stand further left than the def
    return "\n".join(line.removeprefix(indent) for line in lines[node.lineno - 1 : last])


def _last_line_of_def(node: Function, lines: Sequence[str]) -> int:
    """Return where the logical line of `def ...:` ends: brackets, strings and comments in it are no ends."""
    read = iter(f"{line}\n" for line in lines[node.lineno - 1 :])
    for token in tokenize.generate_tokens(lambda: next(read, "")):
        if token.type == tokenize.NEWLINE:
            return node.lineno + token.start[0] - 1
    raise AssertionError(f"line {node.lineno} was parsed as a def, yet does not end")


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _parsed(text: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a held-out document's bad escapes are no business of the run
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
