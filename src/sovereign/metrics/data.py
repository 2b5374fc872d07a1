"""Data: what the held-out sides share with what was trained on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import (
    CorpusRow,
    EvaluationRow,
    ExposureRow,
    InheritedRow,
    LineageRow,
    OverlapRow,
    UnlistedRow,
)
from sovereign.metrics.intervals import Interval, Unmeasurable, exact, ratio_difference


def shared_documents(observed: Observed) -> Interval:
    """Return how many held-out documents were trained on: by the windows consumed, and by the manifest."""
    exposures = list(observed.of(ExposureRow))
    corpus = list(observed.of(CorpusRow))
    if not exposures or not corpus:
        raise Unmeasurable("needs exposure rows and corpus rows")
    held_out = _held_out(observed).keys()
    trained = {row.document for row in exposures if row.consumed} | {
        row.document for row in corpus if row.split == "train"
    }
    return exact(float(len(held_out & trained)), len(held_out))


def shared_with_ancestors(observed: Observed) -> Interval:
    """Return how many held-out documents an ancestor was trained on, themselves or what they were cut from (CASE-08)."""
    corpus, inherited = list(observed.of(CorpusRow)), list(observed.of(InheritedRow))
    unknown = {row.ancestor for row in observed.of(LineageRow)} - {row.ancestor for row in inherited}
    if not corpus or not inherited or unknown:
        raise Unmeasurable("needs corpus rows, and what every ancestor was trained on")
    held_out = _held_out(observed)
    trained = {row.document for row in inherited}
    return exact(float(sum(bool({*one} & trained) for one in held_out.items())), len(held_out))


def _held_out(observed: Observed) -> dict[str, str]:
    """Return document -> what it was cut from, itself by default, of all that was held out: scored, listed, or counted."""
    origins = {row.document: row.origin or row.document for row in observed.of(CorpusRow) if row.split != "left_out"}
    scored = {row.document for row in observed.of(EvaluationRow) if row.split in ("validation", "control")}
    scored |= {row.document for row in observed.of(CorpusRow) if row.split in ("validation", "control")}
    counted = {one: row.origin or one for row in observed.of(UnlistedRow) for one in row.members}
    return counted | {one: origins.get(one, one) for one in scored}


def overlap_excess(observed: Observed) -> Interval:
    """Return the share of validation tokens inside 50-token matches with the train side, above the control's share."""
    return _excess(observed, lambda row: row.covered_50)


def phrase_overlap_excess(observed: Observed) -> Interval:
    """Return the share of validation tokens inside 13-token matches with the train side, above the control's share."""
    return _excess(observed, lambda row: row.covered_13)


def _excess(observed: Observed, covered: Callable[[OverlapRow], int]) -> Interval:
    sides = []
    for split in ("validation", "control"):
        rows = [row for row in observed.of(OverlapRow) if row.split == split]
        if not rows:
            raise Unmeasurable(f"no overlap rows of the {split} split")
        rows.sort(key=lambda row: row.document)
        sides.append((np.array([covered(row) for row in rows], float), np.array([row.tokens for row in rows], float)))
    return ratio_difference(sides[0], sides[1])


def round_trip_errors(observed: Observed) -> Interval:
    """Return how many documents do not come back from their ids exactly; every document used was tried."""
    used = [row for row in observed.of(CorpusRow) if row.split != "left_out"]
    if not used or any(not row.round_trip for row in used):
        raise Unmeasurable("needs corpus rows that say whether each document came back from its ids")
    return exact(float(sum(row.round_trip == "differs" for row in used)), len(used))


def bytes_per_token(observed: Observed) -> Interval:
    """Return the bytes of all documents used over their tokens; what is held out and never scored is used."""
    used: list[CorpusRow | UnlistedRow] = [row for row in observed.of(CorpusRow) if row.split != "left_out"]
    used += [row for row in observed.of(UnlistedRow) if row.split != "left_out"]
    tokens = sum(row.tokens for row in used)
    if not tokens:
        raise Unmeasurable("no corpus rows with tokens")
    documents = sum(row.documents if isinstance(row, UnlistedRow) else 1 for row in used)
    return exact(sum(row.bytes for row in used) / tokens, documents, "total over total")
