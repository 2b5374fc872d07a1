"""What a report shows of a run beyond its outcome: curves, samples, cost. Computed from rows, like every number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sovereign.evidence.folder import Observed, RunFolder, read_folder
from sovereign.evidence.rows import (
    CostRow,
    EvaluationRow,
    ExposureRow,
    FloorRow,
    NoticeRow,
    PositionRow,
    ReportedRow,
    SampleRow,
    StepRow,
)

if TYPE_CHECKING:
    from sovereign.diagnosis.procedure import Diagnosis
    from sovereign.metrics.intervals import Interval

Evaluations = dict[int, dict[str, tuple[float, int]]]  # step -> document -> nats, target tokens
Curve = tuple[tuple[int, float], ...]  # step, nats per target token


@dataclass(frozen=True)
class SamplePair:
    """What the model wrote after a held-out prompt, beside what a bigram sampler wrote."""

    prompt: str
    model: str
    bigram: str


@dataclass(frozen=True)
class Stretch:
    """The loss over a run of positions, in nats per token, and how many documents reach it."""

    start: int
    stop: int
    loss: float
    documents: int


@dataclass(frozen=True)
class RunView:
    """One run as a report draws it; whatever its rows do not hold is empty."""

    run: str
    title: str = ""
    planned_steps: int = 0
    parameters: int | None = None
    environment: str = ""
    training: Curve = ()
    validation: Curve = ()
    intervals: tuple[tuple[int, float, float], ...] = ()  # step, ends: of the validation losses, over documents
    tied: tuple[int, ...] = ()  # the steps that no paired test tells from the best one
    gaps: tuple[tuple[int, float, float, float], ...] = ()  # step, validation minus train probe, and its ends
    reported: bool = False  # the curves are another trainer's word, and nothing was recomputed
    floors: tuple[tuple[str, float], ...] = ()  # name, nats per token: what knowing nothing, or counting, would score
    exposures: tuple[tuple[int, int], ...] = ()  # passes over a document's windows, and documents trained on so often
    positions: tuple[Stretch, ...] = ()
    context: int = 0  # tokens of a window that was trained on
    samples: tuple[SamplePair, ...] = ()
    costs: tuple[CostRow, ...] = ()
    notices: tuple[NoticeRow, ...] = ()
    diagnosis: Diagnosis | None = None


def run_views(evidence: Path, runs: Iterable[str], most: int) -> tuple[RunView, ...]:
    """Return the views of the newest runs among those named `contract/run`, newest first."""
    newest = sorted(runs, key=lambda name: name.partition("/")[2], reverse=True)[:most]
    return tuple(run_view(read_folder(evidence / name, f"evidence/{name}")) for name in newest)


def run_view(folder: RunFolder) -> RunView:
    """Return what there is to draw of a run; a folder whose intent cannot be read has nothing."""
    name = f"{folder.contract}/{folder.run}"
    if folder.intent is None:
        return RunView(name)
    observed = Observed(folder.intent, folder.rows)
    planned = folder.intent.planned
    told = observed.of(ReportedRow)
    known = () if planned.vocabulary is None else (("ln V", math.log(planned.vocabulary)),)
    from sovereign.diagnosis.procedure import diagnose  # here, as in _interval
    from sovereign.diagnosis.record import from_run
    from sovereign.metrics.loss import by_step, tied_best

    evaluations = by_step(observed, "validation")
    return RunView(
        run=name,
        title=folder.intent.promise.title,
        planned_steps=planned.steps,
        parameters=planned.parameters,
        environment=folder.intent.environment.class_,
        training=tuple(sorted((row.step, row.loss) for row in observed.of(StepRow)))
        or tuple((row.step, row.train_loss) for row in told if row.train_loss is not None),
        validation=_validation(observed.of(EvaluationRow))
        or tuple((row.step, row.val_loss) for row in told if row.val_loss is not None),
        intervals=_intervals(evaluations),
        tied=tied_best(evaluations) if len(evaluations) > 1 else (),
        gaps=_gaps(evaluations, by_step(observed, "train_probe")),
        reported=bool(told),
        floors=(*known, *_floors(observed.of(FloorRow))),
        exposures=_exposures(observed.of(ExposureRow)),
        positions=_positions(observed.of(PositionRow)),
        context=folder.intent.promise.context,
        samples=_samples(observed.of(SampleRow)),
        costs=observed.of(CostRow),
        notices=observed.of(NoticeRow),
        diagnosis=diagnose(from_run(observed, name)),
    )


def _validation(rows: Sequence[EvaluationRow]) -> Curve:
    sums: dict[int, tuple[float, int]] = {}
    for row in rows:
        if row.split == "validation":
            nll, tokens = sums.get(row.step, (0.0, 0))
            sums[row.step] = (nll + row.nll, tokens + row.tokens)
    return tuple((step, nll / tokens) for step, (nll, tokens) in sorted(sums.items()))


def _intervals(evaluations: Evaluations) -> tuple[tuple[int, float, float], ...]:
    found = [(step, _interval(documents)) for step, documents in evaluations.items() if len(documents) > 1]
    return tuple((step, one.low, one.high) for step, one in found)


def _interval(documents: dict[str, tuple[float, int]]) -> Interval:
    from sovereign.metrics.intervals import linear_ratio  # here: a report without pages needs no numpy
    from sovereign.metrics.loss import columns

    return linear_ratio(*columns(documents))


def _gaps(validation: Evaluations, probe: Evaluations) -> tuple[tuple[int, float, float, float], ...]:
    """Return validation minus train probe at every step that evaluated both, as two independent sets of documents."""
    found = []
    for step in validation.keys() & probe.keys():
        if min(len(validation[step]), len(probe[step])) > 1:
            one, two = (_interval(side[step]) for side in (validation, probe))
            reach = math.hypot((one.high - one.low) / 2, (two.high - two.low) / 2)
            value = one.value - two.value
            found.append((step, value, value - reach, value + reach))
    return tuple(sorted(found))


def _floors(rows: Sequence[FloorRow]) -> tuple[tuple[str, float], ...]:
    tokens = sum(row.tokens for row in rows)
    if not tokens:
        return ()
    return (
        ("unigram", sum(row.unigram_nll for row in rows) / tokens),
        ("bigram", sum(row.bigram_nll for row in rows) / tokens),
    )


def _exposures(rows: Sequence[ExposureRow]) -> tuple[tuple[int, int], ...]:
    """Return how many documents were passed over how often: 0 never, 1 for each window once, in at most twenty groups."""
    passes = [row.consumed / row.windows for row in rows if row.windows]
    wide = max(1, math.ceil(max(passes, default=0) / 20))
    # what was begun is not in the group of what was never seen
    grouped = Counter(max(1, round(one / wide)) * wide if one else 0 for one in passes)
    return tuple(sorted(grouped.items()))


def _positions(rows: Sequence[PositionRow]) -> tuple[Stretch, ...]:
    """Return the loss by position at the last step; the last stretch of a document ends where the document does."""
    last = max((row.step for row in rows), default=0)
    sums: dict[int, tuple[int, float, int, int]] = {}
    for row in rows:
        if row.step == last:
            stop, nll, tokens, documents = sums.get(row.start, (0, 0.0, 0, 0))
            sums[row.start] = (max(stop, row.stop), nll + row.nll, tokens + row.tokens, documents + 1)
    return tuple(
        Stretch(start, stop, nll / tokens, documents) for start, (stop, nll, tokens, documents) in sorted(sums.items())
    )


def _samples(rows: Sequence[SampleRow]) -> tuple[SamplePair, ...]:
    """Return the prompts that both samplers continued, with the continuations of the last step."""
    last: dict[tuple[int, str], SampleRow] = {}
    for row in sorted(rows, key=lambda row: row.step):
        last[row.prompt_id, row.sampler] = row
    prompts = sorted({prompt for prompt, sampler in last if sampler == "model" and (prompt, "bigram") in last})
    return tuple(
        SamplePair(last[prompt, "model"].prompt, last[prompt, "model"].text, last[prompt, "bigram"].text)
        for prompt in prompts
    )
