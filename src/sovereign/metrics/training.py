"""Training: whether what was applied is what was promised."""

from __future__ import annotations

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import CostRow, ProbeRow, ReplayRow, StepRow
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


def cost(observed: Observed, part: str) -> CostRow:
    """Return the last row of what a part cost."""
    rows = [row for row in observed.of(CostRow) if row.part == part]
    if not rows:
        raise Unmeasurable(f"no cost row of {part}")
    return rows[-1]


def mfu(observed: Observed) -> Interval:
    """Return the rate of counted operations over all steps, as a share of the best matrix product's on one process.

    Operations are the contract's count a token (PaLM, appendix B); the wall time of no step is left out.
    """
    rows, training, peak = steps(observed), cost(observed, "training"), cost(observed, "best matrix product")
    seconds = sum(row.seconds for row in rows)
    if not training.flops or not training.tokens or not peak.flops or not seconds or not peak.seconds:
        raise Unmeasurable("operations or seconds were not counted")
    flops = training.flops / training.tokens * sum(row.tokens for row in rows)
    best = peak.flops / peak.seconds * observed.intent.environment.processes
    return exact(flops / seconds / best, len(rows), "total over total")


def memory_error(observed: Observed) -> Interval:
    """Return how far the measured peak memory of training lies from the planned one, as a share of the measured."""
    planned, measured = observed.intent.planned.peak_bytes, cost(observed, "training").peak_bytes
    if planned is None or not measured:
        raise Unmeasurable("the plan predicted no peak memory, or none was measured")
    return exact(abs(planned - measured) / measured, 1)


def overfit_loss(observed: Observed) -> Interval:
    """Return the loss after the last update on one batch, in nats per token: what can learn has learnt it by heart."""
    rows = [row for row in observed.of(ProbeRow) if row.probe == "overfit_one_batch"]
    if not rows:
        raise Unmeasurable("no probe rows of overfitting one batch")
    return exact(max(rows, key=lambda row: row.update).loss, len(rows), "the last update")
