"""Training: whether what was applied is what was promised."""

from __future__ import annotations

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import ReplayRow, StepRow
from sovereign.metrics.intervals import Interval, Unmeasurable, exact


def steps(observed: Observed) -> list[StepRow]:
    """Return the step rows in order of step."""
    rows = list(observed.of(StepRow))
    if not rows:
        raise Unmeasurable("no step rows")
    return sorted(rows, key=lambda row: row.step)


def rate_error(observed: Observed) -> Interval:
    """Return the largest distance of an applied learning rate from the promised schedule, as a share of its peak."""
    rows, promised = steps(observed), observed.intent.promise.training
    errors = [abs(row.learning_rate - promised.schedule.rate(row.step, promised.steps)) for row in rows]
    return exact(max(errors) / promised.schedule.peak, len(rows), "maximum over steps")


def tokens_missing(observed: Observed) -> Interval:
    """Return planned target tokens minus counted ones, as an absolute number."""
    rows = steps(observed)
    return exact(float(abs(observed.intent.planned.tokens - sum(row.tokens for row in rows))), len(rows))


def replay_mismatches(observed: Observed) -> Interval:
    """Return how many replayed steps led to other weights, or another loss, than the straight run's."""
    rows = list(observed.of(ReplayRow))
    if not rows:
        raise Unmeasurable("no replay rows: nothing was resumed")
    unequal = [row for row in rows if row.straight != row.replayed or row.straight_loss != row.replayed_loss]
    return exact(float(len(unequal)), len(rows))


def tokens_per_second(observed: Observed) -> Interval:
    """Return target tokens over the summed wall time of all steps: nothing is left out."""
    rows = steps(observed)
    seconds = sum(row.seconds for row in rows)
    if seconds <= 0:
        raise Unmeasurable("the steps took no time")
    return exact(sum(row.tokens for row in rows) / seconds, len(rows), "total over total")
