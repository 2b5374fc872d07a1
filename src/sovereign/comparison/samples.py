"""Samples side by side: what several runs, and several checkpoints of them, made of the same prompts."""

from __future__ import annotations

from collections.abc import Sequence

from sovereign.comparison.record import SideBySide, Written
from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import SampleRow
from sovereign.metrics.degeneration import signs


def side_by_side(runs: Sequence[Observed]) -> tuple[SideBySide, ...]:
    """Return the prompts that every run continued, in order, with what each wrote first and last.

    A prompt is known by its text and by the document that it stands in, so that the same number over another
    validation set is not taken for the same prompt.
    """
    by_run: list[dict[tuple[str, str], list[SampleRow]]] = []
    for run in runs:
        found: dict[tuple[str, str], list[SampleRow]] = {}
        for row in run.of(SampleRow):
            if row.sampler == "model":
                found.setdefault((row.document, row.prompt), []).append(row)
        by_run.append(found)
    shared = set.intersection(*(set(found) for found in by_run)) if by_run else set()
    order = sorted(shared, key=lambda key: (min(row.prompt_id for row in by_run[0][key]), key))
    return tuple(
        SideBySide(
            prompt=key[1],
            written=tuple(_written(place, row) for place, found in enumerate(by_run) for row in _ends(found[key])),
        )
        for key in order
    )


def _ends(rows: Sequence[SampleRow]) -> list[SampleRow]:
    """Return the first and the last of one prompt's samples, which are one where it was sampled once."""
    ordered = sorted(rows, key=lambda row: (row.step, row.seed))
    return [ordered[0], ordered[-1]] if ordered[0].step != ordered[-1].step else [ordered[-1]]


def _written(place: int, row: SampleRow) -> Written:
    found = signs(row.text)
    return Written(
        run=place, step=row.step, seed=row.seed, text=row.text, repeated=found.repeated, ratio=found.ratio,
        longest=found.longest, degenerate=found.degenerate,
    )  # fmt: skip
