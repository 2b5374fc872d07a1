"""The renderings by name, and the one function that makes bytes of an evaluation in any of them."""

from __future__ import annotations

import json
from collections.abc import Callable

from sovereign.gate.document import document
from sovereign.report.badge import badge
from sovereign.report.github import github
from sovereign.report.html import html
from sovereign.report.judged import Judged
from sovereign.report.junit import junit
from sovereign.report.markdown import markdown
from sovereign.report.sarif import code_scanning, sarif
from sovereign.report.terminal import plain

WITH_RUNS = frozenset({"markdown", "html"})  # renderings that draw curves, and need the rows of runs


def _json(judged: Judged) -> str:
    found = document(judged.evaluations, judged.profile, judged.exit, judged.findings)
    return json.dumps(found.plain(), indent=2, ensure_ascii=False) + "\n"


RENDERINGS: dict[str, Callable[[Judged], str]] = {
    "text": plain,
    "json": _json,
    "junit": junit,
    "sarif": sarif,
    "code-scanning": code_scanning,
    "github": github,
    "markdown": markdown,
    "badge": badge,
    "html": html,
}


def render(name: str, judged: Judged) -> bytes:
    """Return one rendering as UTF-8; a name on disk that is no UTF-8 is shown with question marks."""
    return RENDERINGS[name](judged).encode("utf-8", "replace")
