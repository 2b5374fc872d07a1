"""The page about diagnosis shows what the command prints, and speaks of the claims and settings that exist."""

from __future__ import annotations

import re
from pathlib import Path

from diagnosis_page import PAGE, written

from sovereign.diagnosis.findings import CLAIMS
from sovereign.diagnosis.procedure import PRECEDENCE
from sovereign.diagnosis.record import Settings


def test_the_example_is_what_the_command_prints(tmp_path: Path) -> None:
    """docs/diagnosis.md holds no output that was typed; write it again with `python tests/diagnosis_page.py`."""
    assert written(PAGE.read_text("utf-8"), tmp_path) == PAGE.read_text("utf-8")


def test_the_page_names_every_claim_in_order_and_no_setting_that_is_not() -> None:
    """Claims, precedence and settings are those of the code."""
    page = PAGE.read_text("utf-8")
    example = page.partition('"meta": {')[2].partition("}")[0]

    assert tuple(re.findall(r"^\| ([A-Z_]+) \|", page, re.MULTILINE)) == CLAIMS
    assert ", ".join(PRECEDENCE) in " ".join(page.split())
    assert set(re.findall(r'"(\w+)":', example)) <= Settings.model_fields.keys()
