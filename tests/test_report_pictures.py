"""Pictures: what is in them comes from rows, and they stand alone as files that any reader of XML takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
from contending import document, promise, said
from fabric import repository, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compare_cli import resealed, two

from sovereign.evidence.folder import read_folder
from sovereign.evidence.rows import ExposureRow
from sovereign.metrics.intervals import linear_ratio, ratio
from sovereign.metrics.loss import tied_best
from sovereign.report.pictures import gap, of_comparison, of_run, scatter, several
from sovereign.report.runs import RunView, _exposures, run_view

SVG = "{http://www.w3.org/2000/svg}"
LOSSES = st.dictionaries(st.integers(0, 500).map(document), st.floats(0, 1e6), max_size=60)


def evaluations(*shifts: float, n: int = 40, seed: int = 0) -> dict[int, dict[str, tuple[float, int]]]:
    drawn = np.random.default_rng(seed)
    own = drawn.normal(3, 1, n)
    return {
        at * 5: {document(number): (float(own[number] + shift + 0.05 * drawn.normal()) * 9, 9) for number in range(n)}
        for at, shift in enumerate(shifts)
    }


def test_the_best_is_a_set() -> None:
    """Evaluations that a paired test does not tell from the least one are tied with it; the others are not.

    Planted: unpaired intervals, of documents that scatter by one nat, would tie all of them.
    """
    assert (10, 15) == tied_best(evaluations(1.0, 0.3, 0.0, 0.001, 0.2))
    assert (0,) == tied_best(evaluations(0.0, 0.5))
    assert () == tied_best({})


@given(st.lists(st.floats(0, 2), min_size=1, max_size=6), st.integers(0, 5))
def test_the_best_is_tied_with_itself(shifts: list[float], seed: int) -> None:
    """The step of the least loss is always in the set, whatever the order of documents."""
    found = evaluations(*shifts, seed=seed)
    totals = {step: sum(nll for nll, _ in one.values()) for step, one in found.items()}
    turned = {step: dict(reversed(one.items())) for step, one in found.items()}

    assert min(totals, key=lambda step: totals[step]) in tied_best(found)
    assert tied_best(turned) == tied_best(found)


def test_an_evaluation_of_other_documents_is_not_tied() -> None:
    """What was scored on another set is not the same best."""
    found = evaluations(0.0, 0.0)
    found[5].pop(document(3))

    assert 1 == len(tied_best(found))


def test_the_linear_interval_is_the_t_interval() -> None:
    """Of few documents it is the very interval that the metric states."""
    drawn = np.random.default_rng(5)
    tokens = drawn.integers(5, 500, 40).astype(float)
    sums = tokens * drawn.lognormal(1, 0.3, 40)

    assert ratio(sums, tokens) == linear_ratio(sums, tokens)


def test_a_run_is_drawn_with_intervals_ties_and_gap(tmp_path: Path) -> None:
    """Whiskers, rings and the gap's band are there, at the places of the rows' numbers, described in words."""
    promised = resealed(promise())
    rows = said(promised)
    rows += [(kind, {**values, "split": "train_probe", "document": values["document"][::-1], "nll": values["nll"] - 2})
             for kind, values in rows if kind == "evaluation"]  # fmt: skip
    view = run_view(read_folder(write_run(repository(tmp_path), promised, rows), "run"))
    drawn = Xml.fromstring(of_run(view))
    classes = [one.get("class") for one in drawn.iter()]

    assert (3, 2, 3) == (classes.count("whisker"), classes.count("tied"), len(view.gaps))
    assert [0.1] * 3 == [round(value, 6) for _, value, _, _ in view.gaps]
    assert all(low <= loss <= high for (_, loss), (_, low, high) in zip(view.validation, view.intervals, strict=True))
    assert any("tied with it: step 5, 10" in (one.get("aria-label") or "") for one in drawn.iter(f"{SVG}svg"))


@given(LOSSES, LOSSES)
@settings(max_examples=40)
def test_a_scatter_has_a_dot_for_each_document_of_both(first: dict[str, float], second: dict[str, float]) -> None:
    """Documents of one run alone are not drawn; every dot lies within the frame; the count of better ones is said."""
    drawn = Xml.fromstring(
        scatter(("A", "B"), first, second).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    )
    dots = [(float(one.get("cx", "nan")), float(one.get("cy", "nan"))) for one in drawn.iter(f"{SVG}circle")]
    shared = first.keys() & second.keys()

    assert len(shared) == len(dots)
    assert all(0 <= x <= 420 and 0 <= y <= 420 for x, y in dots)
    assert drawn.get("aria-label", "").startswith(f"{sum(second[key] < first[key] for key in shared)} of {len(shared)}")


@given(st.lists(st.lists(st.floats(0, 1e9), max_size=20), min_size=1, max_size=8))
@settings(max_examples=40)
def test_any_curves_can_be_drawn(curves: list[list[float]]) -> None:
    """Runs that diverge, hold one evaluation or none are drawn without a number that SVG cannot read."""
    drawn = several([(f"run {at}", tuple(enumerate(curve))) for at, curve in enumerate(curves)], 860, 330)

    assert not re.search(r'="[^"]*\b(nan|inf)\b', drawn)
    assert sum(bool(curve) for curve in curves) == drawn.count("<polyline")


def test_exposures_are_drawn_by_how_often_documents_were_seen(tmp_path: Path) -> None:
    """What was never seen has a bar of its own: rounded down, documents that were begun would stand among them (planted)."""
    seen = [{"document": document(at), "windows": 3, "consumed": consumed, "most": consumed}
            for at, consumed in enumerate((0, 0, 1, 3, 3, 6))]  # fmt: skip
    promised = resealed(promise())
    rows = [*said(promised), *(("exposure", one) for one in seen)]
    view = run_view(read_folder(write_run(repository(tmp_path), promised, rows), "run"))
    drawn = Xml.fromstring(of_run(view))

    assert ((0, 2), (1, 3), (2, 1)) == view.exposures
    assert 3 == sum(one.get("class") == "dot" for one in drawn.iter(f"{SVG}polygon"))


def test_many_exposures_are_grouped() -> None:
    """A run of a thousand passes has at most twenty-one bars, and none is lost."""
    rows = [ExposureRow(run="r", document=document(at), windows=1, consumed=at, most=at) for at in range(1001)]

    assert len(grouped := _exposures(rows)) <= 21
    assert 1001 == sum(documents for _, documents in grouped)
    assert (0, 1) == grouped[0]


def test_a_gap_is_drawn_against_zero() -> None:
    """Zero is in the picture, however far from it the gap is."""
    drawn = gap(RunView("run", gaps=((0, 3.0, 2.9, 3.1), (5, 4.0, 3.8, 4.2))), 400, 200)

    assert 'class="zero"' in drawn
    assert "from 3 at step 0 to 4 at step 5" in drawn


def test_text_of_evidence_stays_text() -> None:
    """A title is text in the picture, whatever it says."""
    hostile = '"><script>alert(1)</script><title>\x1b'
    drawn = Xml.fromstring(of_run(RunView(hostile, title=hostile, validation=((0, 1.0), (1, 2.0)))))
    compared = Xml.fromstring(of_comparison([(hostile, ((0, 1.0),), {}), (hostile, ((0, 2.0),), {})]))

    assert not [one for page in (drawn, compared) for one in page.iter() if "script" in one.tag]


def test_a_picture_asks_for_nothing_and_needs_no_variable() -> None:
    """No address but the namespace, no script, no variable that a viewer may not know, and both light and dark."""
    drawn = of_comparison([("A", ((0, 1.0), (5, 2.0)), {document(1): 2.0}), ("B", ((0, 1.5),), {document(1): 1.0})])

    assert ["http://www.w3.org/2000/svg"] == re.findall(r"https?://[^\"' ]*", drawn)
    assert not re.search(r"var\(|@import|url\(|<script", drawn)
    assert "prefers-color-scheme: dark" in drawn


def test_pictures_are_written_by_the_commands(tmp_path: Path) -> None:
    """`compare --svg` and `report --svg` write files that are well-formed, and refuse to write among the evidence."""
    two(tmp_path)

    def sovereign(*arguments: str) -> int:
        command = [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments]
        return subprocess.run(command, capture_output=True, cwd=tmp_path, env=dict(os.environ), check=False).returncode

    codes = [
        sovereign("compare", "toy", "other", "--svg", "both.svg"),
        sovereign("report", "--svg", "toy", "--output", "one.svg"),
        sovereign("compare", "toy", "other", "--svg", "evidence/both.svg"),
    ]

    assert [0, 0, 2] == codes
    assert 40 == sum(one.get("class") == "dot" for one in Xml.parse(tmp_path / "both.svg").getroot().iter())
    assert Xml.parse(tmp_path / "one.svg").getroot().tag == f"{SVG}svg"
