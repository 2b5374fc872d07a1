"""Samples side by side: what several runs, and several checkpoints of them, made of the same prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from sovereign.comparison.record import SideBySide, Written
from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import GenerationRow, SampleRow
from sovereign.metrics.degeneration import signs

Answer = SampleRow | GenerationRow


def side_by_side(runs: Sequence[Observed]) -> tuple[SideBySide, ...]:
    """Return the prompts that every run continued, in order, with what each wrote first and last.

    A prompt is known by its text and by the document that it stands in, so that the same number over another
    validation set is not taken for the same prompt. Of a tuned model a contract's own prompts come first, every answer
    to each; those of its base are shown once, where all runs begin from the same answers.
    """
    by_run: list[dict[tuple[str, str], list[Answer]]] = []
    for run in runs:
        found: dict[tuple[str, str], list[Answer]] = {}
        rows: list[Answer] = [*run.of(SampleRow), *run.of(GenerationRow)]
        for row in rows:
            if not isinstance(row, SampleRow) or row.sampler == "model":
                found.setdefault((row.document, row.prompt), []).append(row)
        by_run.append(found)
    shared = set.intersection(*(set(found) for found in by_run)) if by_run else set()
    order = sorted(shared, key=lambda key: (bool(key[0]), min(row.prompt_id for row in by_run[0][key]), key))
    return tuple(
        SideBySide(prompt=key[1], written=tuple(_all_written([found[key] for found in by_run]))) for key in order
    )


def _all_written(by_run: Sequence[Sequence[Answer]]) -> Iterator[Written]:
    """Yield what a base answered, once where all runs have the same of it, and then what each run wrote."""
    bases = [
        [row for row in rows if isinstance(row, GenerationRow) and row.writer == "base"] for rows in by_run
    ]  # fmt: skip
    same = all([row.text for row in one] == [row.text for row in bases[0]] for one in bases)
    for place, rows in enumerate(by_run):
        for row in bases[place] if place == 0 or not same else ():
            yield _written(place, row, "base")
        answers = [row for row in rows if isinstance(row, GenerationRow) and row.writer == "tuned"]
        yield from (_written(place, row) for row in answers)
        yield from (_written(place, row) for row in _ends([row for row in rows if isinstance(row, SampleRow)]))


def _ends(rows: Sequence[SampleRow]) -> list[SampleRow]:
    """Return the first and the last of one prompt's samples, which are one where it was sampled once."""
    if not rows:
        return []
    ordered = sorted(rows, key=lambda row: (row.step, row.seed))
    return [ordered[0], ordered[-1]] if ordered[0].step != ordered[-1].step else [ordered[-1]]


def _written(place: int, row: Answer, by: Literal["run", "base"] = "run") -> Written:
    found = signs(row.text)
    return Written(
        run=place, by=by, step=row.step, seed=row.seed, text=row.text, repeated=found.repeated, ratio=found.ratio,
        longest=found.longest, degenerate=found.degenerate,
    )  # fmt: skip
