"""Another trainer's log as the record of a run: as much of it as a table can tell."""

from __future__ import annotations

import math
from pathlib import Path

from sovereign.diagnosis.record import Point, RunRecord, redrawn
from sovereign.interop.logs import Format, Series, read_log


def read_record(path: Path, fmt: Format | None = None) -> RunRecord:
    """Return the record of the run that a log tells of; raises Malformed as `read_log` does."""
    return record_of(read_log(path, fmt, broken=True), str(path))


def record_of(series: Series, name: str = "") -> RunRecord:
    """Return a series as the record of its run: tier 0, with whatever settings the log carries."""
    given = {key: value for key, value in redrawn(series.remarks).items() if series.settings.val_fixed is None}
    if series.vocabulary is not None and series.settings.vocab is None:
        given["vocab"] = series.vocabulary
    points = tuple(
        Point(one.step, one.epoch, one.train_loss, one.val_loss, one.tokens, one.wall, one.scope, one.position)
        for one in series.points
    )
    settings = series.settings.model_copy(update=given)
    if settings.unit == "bits":
        points = tuple(point.scaled(math.log(2)) for point in points)
    return RunRecord(points, settings, name, series.format, series.broke, remarks=series.remarks)
