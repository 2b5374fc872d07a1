"""Data: what the held-out sides share with what was trained on."""

from __future__ import annotations

import numpy as np

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import CorpusRow, EvaluationRow, ExposureRow, OverlapRow
from sovereign.metrics.intervals import Interval, Unmeasurable, exact, ratio_difference


def shared_documents(observed: Observed) -> Interval:
    """Return how many held-out documents were trained on: by the windows consumed, and by the manifest."""
    exposures = list(observed.of(ExposureRow))
    corpus = list(observed.of(CorpusRow))
    if not exposures or not corpus:
        raise Unmeasurable("needs exposure rows and corpus rows")
    scored = {row.document for row in observed.of(EvaluationRow) if row.split in ("validation", "control")}
    held_out = scored | {row.document for row in corpus if row.split in ("validation", "control")}
    trained = {row.document for row in exposures if row.consumed} | {
        row.document for row in corpus if row.split == "train"
    }
    return exact(float(len(held_out & trained)), len(held_out))


def overlap_excess(observed: Observed) -> Interval:
    """Return the share of validation tokens inside 50-token matches with the train side, above the control's share."""
    sides = []
    for split in ("validation", "control"):
        rows = [row for row in observed.of(OverlapRow) if row.split == split]
        if not rows:
            raise Unmeasurable(f"no overlap rows of the {split} split")
        rows.sort(key=lambda row: row.document)
        sides.append((np.array([row.covered_50 for row in rows], float), np.array([row.tokens for row in rows], float)))
    return ratio_difference(sides[0], sides[1])
