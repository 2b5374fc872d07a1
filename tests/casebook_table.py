"""docs/casebook.md, from the docstrings of the tests in tests/casebook: `python tests/casebook_table.py` writes it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/casebook.md"
FORM = re.compile(r"CASE-(\d\d) (.+?)\.\n\nStage: (.+)\nOutcome: (.+)", re.DOTALL)
HEAD = """\
# Casebook

How runs of public projects misled their owners, and where sovereign stops or flags the same. Each entry is a test that
plants the failure at small scale. This page is written by `python tests/casebook_table.py` from those tests.

| case | title | stage | what sovereign does | tests |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Entry:
    """One test module of the casebook, as its docstring introduces it."""

    number: str
    title: str
    stage: str
    outcome: str
    file: str
    tests: int


def entries() -> list[Entry]:
    """Return the entries in order of their cases; raises ValueError for a module that does not introduce itself."""
    found = []
    for path in sorted((HERE / "casebook").glob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        said = FORM.fullmatch((ast.get_docstring(tree) or "").strip())
        if said is None:
            raise ValueError(f"{path.name}: begins `CASE-NN Title.`, a blank line, `Stage: ...`, `Outcome: ...`")
        if f"_{said[1]}" not in path.stem:
            raise ValueError(f"{path.name}: tells of CASE-{said[1]}, and is named after another")
        tests = sum(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in tree.body)
        found.append(Entry(*(" ".join(part.split()) for part in said.groups()), f"tests/casebook/{path.name}", tests))
    return sorted(found, key=lambda one: (one.number, one.file))


def page() -> str:
    """Return the page."""
    rows = [
        f"| CASE-{one.number} | {one.title} | {one.stage} | {one.outcome} | [{one.tests}](../{one.file}) |\n"
        for one in entries()
    ]
    cases = len({one.number for one in entries()})
    return HEAD + "".join(rows) + f"\n{cases} cases, {sum(one.tests for one in entries())} tests.\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
