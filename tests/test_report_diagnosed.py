"""A diagnosis in the page of a run, and on the screen: what was found, and nothing that the text of a log commands."""

from __future__ import annotations

from dataclasses import replace

from reported import judged
from simulated import Plan, diagnosed

from sovereign.diagnosis.procedure import diagnose
from sovereign.diagnosis.record import Point, RunRecord, Settings
from sovereign.report.diagnosed import plain_screen
from sovereign.report.html import html


def page(**changes: object) -> str:
    shown = judged()
    return html(replace(shown, runs=tuple(replace(view, **changes) for view in shown.runs)))


def test_the_page_of_a_run_shows_its_claims() -> None:
    """Each settled claim stands with its verdict, its reason and what would overturn it; the open ones are named."""
    shown = page(diagnosis=diagnosed(Plan(documents=300, leak=0.03)))

    assert "Diagnosis: CONTAMINATED" in shown
    assert "9 of 300 validation documents were trained on" in shown
    assert "hashes that show the shared sequences were never consumed" in shown
    assert "Open: " in shown
    assert "Diagnosis" not in page()


def test_a_page_cannot_be_broken_out_of_by_what_a_log_says() -> None:
    """The scope of a loss is free text: it is shown as text."""
    evil = "mean of <script>alert(1)</script> steps"
    found = diagnose(RunRecord((Point(step=1, train=2.0, val=3.0),), Settings(train_scope=evil)))

    assert "<script>" not in page(diagnosis=found)
    assert "&lt;script&gt;" in page(diagnosis=found)


def test_a_screen_holds_a_run_with_everything_open_and_one_with_much_shown() -> None:
    """At most 40 lines of 100 columns, however much there is to say."""
    for plan in (
        Plan(documents=9),
        Plan(documents=60, leak=0.1, overfit=0.5, exhausted=150, constant=True, path_error=0.1, lag=0.3),
    ):
        lines = plain_screen(diagnosed(plan)).splitlines()

        assert len(lines) <= 40
        assert max(map(len, lines)) <= 100
