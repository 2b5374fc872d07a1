"""Every rendering of an evaluation in which every status stands, byte for byte.

After a change that is meant: GOLDEN=write pytest tests/test_report_golden.py, and read the difference.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import pytest
from reported import evaluation, judged

from sovereign import __version__
from sovereign.gate.profile import Exit
from sovereign.report.judged import Judged
from sovereign.report.renderings import RENDERINGS, render

GOLDEN = Path(__file__).parent / "golden"
STYLE = files("sovereign.report").joinpath("page.css").read_bytes()
ENDING = {
    "text": "txt", "json": "json", "junit": "xml", "sarif": "sarif", "code-scanning": "alerts.sarif", "github": "workflow",
    "markdown": "md", "badge": "badge.json", "html": "html",
}  # fmt: skip
SCENES = {
    "pr": judged(),
    # the base had no waiver, no draft and another status of TOY-005
    "release": judged(
        profile="release", base=(evaluation().model_copy(update={"criteria": evaluation().criteria[:5]}),)
    ),
    "nothing": Judged(evaluations=(), exit=Exit.NOTHING),
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("name", RENDERINGS)
def test_renderings_are_the_golden_ones(name: str, scene: str) -> None:
    """A rendering changes only on purpose, and does not depend on the hour, the machine or the order of a dict."""
    found = render(name, SCENES[scene]).replace(STYLE, b"STYLE").replace(__version__.encode(), b"VERSION")
    golden = GOLDEN / f"{scene}.{ENDING[name]}"
    if os.environ.get("GOLDEN") == "write":
        golden.write_bytes(found)

    assert golden.read_text() == found.decode()


def test_no_golden_file_is_left_over() -> None:
    """A golden file that nothing is compared with would protect nothing."""
    assert {f"{scene}.{ending}" for scene in SCENES for ending in ENDING.values()} == {
        path.name for path in GOLDEN.iterdir()
    }
