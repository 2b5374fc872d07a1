"""What a run lists of its documents and what it counts: nothing is lost between the two, and the gate sees where something is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuned import BASE, LABELS, PAIRS, carried_out, observed, planned, repository, rows, tuned

from sovereign import promising, surveying
from sovereign.corpus import examples
from sovereign.corpus.build import Listed
from sovereign.corpus.listing import listed, unlisted
from sovereign.diagnosis.record import from_run
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import CorpusRow, UnlistedRow
from sovereign.lineage import Ancestor, parent
from sovereign.metrics.measure import METRICS, measure
from sovereign.plan import Refused
from sovereign.planted.swapping import swapped
from sovereign.verification import verify

REASONS = st.sampled_from(["not_drawn", "near_duplicate", "exact_duplicate"])
SIDES = st.sampled_from(["train", "validation", "control", "left_out"])
FEW = tuned("t-few", LABELS.replace("}", ", train: 30}"), "labels").replace("documents: 20", "documents: 4")


@st.composite
def documents(draw: st.DrawFn) -> list[Listed]:
    found = []
    for number, side in enumerate(draw(st.lists(SIDES, max_size=30))):
        reason = draw(REASONS) if side == "left_out" else ""
        name = f"{number:016x}"
        found.append(
            Listed(
                document=name, name=name, split=side, reason=reason, bytes=number, tokens=number, cluster=name,
                origin=draw(st.sampled_from(["", "f" * 16])),
            )
        )  # fmt: skip
    return found


@given(documents(), st.sets(st.integers(0, 29).map(lambda number: f"{number:016x}")))
def test_every_document_is_listed_or_counted_once(some: list[Listed], scored: set[str]) -> None:
    """Counts, bytes and tokens of both add up to the source's, and every document held out is named with its side and origin."""
    alone = [CorpusRow(run="r", **one.plain()) for one in listed(some, scored)]
    together = [UnlistedRow(run="r", **fields) for fields in unlisted(some, scored)]
    named = {one.document: (one.split, one.origin) for one in alone} | {
        one: (row.split, row.origin) for row in together for one in row.members
    }

    assert len(some) == len(alone) + sum(row.documents for row in together)
    assert sum(one.bytes for one in some) == sum(row.bytes for row in (*alone, *together))
    assert sum(one.tokens for one in some) == sum(row.tokens for row in (*alone, *together))
    assert {one.document: (one.split, one.origin) for one in some if one.split != "left_out"} == named
    assert {one.document for one in some if one.split == "train"} <= {row.document for row in alone}


@pytest.mark.parametrize(
    "changed", [{"documents": 3}, {"ids": "sha256:" + "0" * 64}, {"members": ()}, {"reason": "not_drawn"}]
)
def test_members_are_those_that_are_counted(changed: dict[str, Any]) -> None:
    """A row that names other documents than it counts, or names none of what it holds out, is no row."""
    some = [
        Listed(document=f"{number:016x}", name="n", split="control", bytes=1, tokens=1, cluster="") for number in (1, 2)
    ]
    (fields,) = unlisted(some, ())

    assert 2 == UnlistedRow(run="r", **fields).documents
    with pytest.raises(ValueError, match="members"):
        UnlistedRow(run="r", **(fields | changed))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with a base, and a classifier that uses 30 texts of 120 and scores four of each side."""
    place = repository(tmp_path_factory.mktemp("listing") / "repository")
    told = (place / "labels.tsv").read_text()
    (place / "labels.tsv").write_text(told + told.splitlines()[1] + "\n")  # a duplicate: one id, twice
    assert carried_out(place, BASE).outcome == "completed"
    assert carried_out(place, FEW).outcome == "completed"
    return place


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    (found,) = (root / "evidence/t-few").iterdir()
    return found


def findings(folder: Path) -> list[str]:
    return [str(one) for one in verify(folder, folder.name).findings]


def test_a_run_lists_what_it_uses_and_counts_the_rest(root: Path, folder: Path) -> None:
    """Train side and scored texts have a row each; the others are counted by reason, and together they are the source's."""
    used = [row["split"] for row in rows(folder, "corpus")]
    rest = rows(folder, "unlisted")
    held = json.loads((folder / "intent.json").read_text())["planned"]["documents"]

    assert (30, 4, 4) == (used.count("train"), used.count("validation"), used.count("control"))
    assert {"exact_duplicate", "not_drawn", "not_scored"} == {row["reason"] for row in rest}
    assert 121 == held == len(used) + sum(row["documents"] for row in rest)
    assert [] == findings(folder)


def test_what_is_counted_is_still_held_out(root: Path, folder: Path) -> None:
    """Metrics, diagnosis and lineage see the documents held out and never scored beside those that were."""
    corpus = planned(root, FEW).corpus
    sides = {one.document: one.split for one in corpus.documents if one.split != "left_out"}
    found = {one.metric: one for one in measure(observed(folder), METRICS)[0]}
    identity = from_run(observed(folder)).identity
    assert sides == parent("t-few", root).sides()
    assert len(corpus.held_out) == found["data/shared_documents"].n > 8
    assert {one for one, side in sides.items() if side == "validation"} == identity.validation


def test_a_later_phase_may_not_train_on_what_was_counted(root: Path) -> None:
    """A split drawn anew is refused with every document that it would train on and the first phase held out, scored or not.

    Planted: an ancestor whose unlisted rows are not read knows only of those that were scored.
    """
    first = tuned("t-first", PAIRS, "full", steps=10).replace("documents: 20", "documents: 2")
    assert "completed" == carried_out(root, first).outcome
    second = tuned("t-second", PAIRS, "full", split=", salt: another").replace("run: toy", "run: t-first")

    def refused() -> int:
        with pytest.raises(Refused, match="lineage contamination") as why:
            planned(root, second)
        (count,) = re.findall(r"trains on ([0-9]+) that it held out", why.value.refusals[0])
        return int(count)

    sides = parent("t-first", root).sides()
    drawn = {
        one.document: one.split
        for one in planned(root, second.replace("another", "another, inherit: true")).corpus.documents
    }
    assert sides == drawn
    known = refused()
    with swapped(Ancestor, "sides", lambda self: {row.document: row.split for row in self._rows("corpus")}):
        assert refused() < known


def test_a_text_that_is_counted_and_trained_on_is_seen(folder: Path) -> None:
    """Plant: a text held out and never scored was consumed; the shared documents are one."""
    before = observed(folder)
    (member, *_) = next(row.members for row in before.of(UnlistedRow) if row.members)
    exposure = before.rows["exposure"]
    leaked = exposure[0].model_copy(update={"document": member, "consumed": 1})
    after = replace(before, rows={**before.rows, "exposure": (*exposure, leaked)})

    def shared(seen: Any) -> Any:
        return {one.metric: one.value for one in measure(seen, METRICS)[0]}["data/shared_documents"]

    assert (0, 1) == (shared(before), shared(after))


def test_a_loader_that_loses_a_document_is_found(root: Path) -> None:
    """Plant: one text is dropped between reading and splitting, and nothing says so; the run is INVALID."""
    clean = examples._cleaned

    def losing(found: Any, data: Any) -> Any:
        return clean(found[:-2], data)

    with swapped(examples, "_cleaned", losing):
        concluded = carried_out(root, FEW.replace("t-few", "t-lost"))

    assert "completed" == concluded.outcome
    assert any("the source held 121" in one for one in findings(concluded.folder))


def test_a_scored_text_without_a_row_is_found(root: Path) -> None:
    """Plant: the texts that are scored are counted among those that are not."""

    def nothing(some: Any, scored: Any) -> Any:
        return listed(some, ())

    def everything(some: Any, scored: Any) -> Any:
        return unlisted(some, ())

    with swapped(surveying, "listed", nothing), swapped(surveying, "unlisted", everything):
        concluded = carried_out(root, FEW.replace("t-few", "t-unseen"))

    assert any("8 documents were trained on or scored, and no corpus row" in one for one in findings(concluded.folder))


def test_counts_without_a_total_are_found(root: Path) -> None:
    """Plant: an intent that never said how many documents the source held; counts beside it bind nothing."""
    promised = promising.intent_of

    def silent(*arguments: Any) -> Intent:
        intent = promised(*arguments)
        planned = intent.planned.model_copy(update={"documents": None})
        return promising.seal(
            Intent, **{key: getattr(intent, key) for key in Intent.model_fields if key not in ("seal", "planned", "schema_")}, planned=planned
        )  # fmt: skip

    with swapped(promising, "intent_of", silent):
        concluded = carried_out(root, FEW.replace("t-few", "t-silent"))

    assert any("its intent does not say how many the source held" in one for one in findings(concluded.folder))
