"""CASE-08 New split of a memorized text.

Stage: before step 0
Outcome: refused (exit 7) as lineage contamination, with counts; with data.split.inherit every ancestor's side is kept
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuned import BASE, TEXT, carried_out, observed, planned, repository, rows, tuned

from sovereign.corpus.split import Contaminated, inherited
from sovereign.diagnosis.record import from_run
from sovereign.plan import Refused

SIDES = st.sampled_from(["train", "validation", "control"])
SPLITS = st.dictionaries(st.text("abc", min_size=1, max_size=3), SIDES)


@given(drawn=SPLITS, known=SPLITS)
def test_no_side_changes_along_a_lineage(drawn: dict, known: dict) -> None:
    """Whatever was drawn, a known document keeps its side, or the split is refused; an unknown one stays where it was drawn."""
    kept = inherited(drawn, known, inherit=True)

    assert {key: known.get(key, side) for key, side in drawn.items()} == kept
    moved = {
        key for key in drawn.keys() & known.keys() if "train" in (drawn[key], known[key]) and drawn[key] != known[key]
    }
    if moved:
        with pytest.raises(Contaminated, match="lineage contamination"):
            inherited(drawn, known, inherit=False)
    else:
        assert drawn == inherited(drawn, known, inherit=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = repository(tmp_path_factory.mktemp("case-08") / "r")
    assert carried_out(place, BASE).outcome == "completed"
    assert carried_out(place, tuned("first", TEXT, "full")).outcome == "completed"
    return place


SECOND = "{kind: full, base: {run: first}, context: 48}"


def test_a_second_phase_may_not_draw_the_split_anew(root: Path) -> None:
    """Plant: two phases over one text, the second split with another salt."""
    with pytest.raises(Refused, match="lineage contamination") as refused:
        planned(root, tuned("second", TEXT, SECOND, split=", salt: another"))
    assert "data.split.inherit: true" in refused.value.refusals[0]


def test_an_inherited_split_keeps_the_whole_lineage_held_out(root: Path) -> None:
    """With the sides inherited, no document that either ancestor trained on is held out; each ancestor leaves its rows."""
    concluded = carried_out(root, tuned("second", TEXT, SECOND, split=", salt: another, inherit: true"))
    trained = {row["document"] for row in rows(concluded.folder, "inherited")}
    held_out = {
        row["document"] for row in rows(concluded.folder, "corpus") if row["split"] in ("validation", "control")
    }

    assert concluded.outcome == "completed"
    assert trained
    assert set() == trained & held_out
    assert ["first", "toy"] == [row["ancestor"].partition("/")[0] for row in rows(concluded.folder, "lineage")]
    assert from_run(observed(concluded.folder)).identity.complete
