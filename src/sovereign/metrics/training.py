"""Training: whether what was applied is what was promised."""

from __future__ import annotations

from statistics import median

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import CostRow, DeviceRow, EvaluationRow, ProbeRow, ReplayRow, StepRow
from sovereign.metrics.intervals import Interval, Unmeasurable, exact
from sovereign.stopping import stopped_at

SETTLED = range(20, 50)  # steps that are timed alone: caches are warm, a compiler is done, and no evaluation is near
SPAN = 2048  # tokens that a step's time is given for, whatever the size of a batch


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


def due(observed: Observed) -> int:
    """Return the step with which the run was to end: the last one planned, or the one at which it was to stop early.

    What a run says of its own stopping is not asked: the evaluations decide, by the contract's rule.
    """
    promised, planned = observed.intent.promise.training.early_stopping, observed.intent.planned.steps
    if promised is None:
        return planned
    evaluations: dict[int, dict[str, tuple[float, int]]] = {}
    for row in observed.of(EvaluationRow):
        if row.split == "validation":
            evaluations.setdefault(row.step, {})[row.document] = (row.nll, row.tokens)
    return stopped_at(evaluations, promised) or planned


def tokens_missing(observed: Observed) -> Interval:
    """Return planned target tokens, up to the step with which the run was to end, minus counted ones, as an absolute number."""
    rows, planned, end = steps(observed), observed.intent.planned, due(observed)
    tokens = planned.tokens if end == planned.steps else (planned.tokens_until or {}).get(str(end))
    if tokens is None:
        raise Unmeasurable(f"the run was to stop at step {end}, and no plan says how many tokens precede it")
    return exact(float(abs(tokens - sum(row.tokens for row in rows))), len(rows))


def replay_mismatches(observed: Observed) -> Interval:
    """Return how many replayed steps led to other weights, or another loss, than the straight run's."""
    rows = list(observed.of(ReplayRow))
    if not rows:
        raise Unmeasurable("no replay rows: nothing was resumed")
    unequal = [row for row in rows if row.straight != row.replayed or row.straight_loss != row.replayed_loss]
    return exact(float(len(unequal)), len(rows))


def replay_error(observed: Observed) -> Interval:
    """Return the largest distance in nats per token between a replayed step's loss and the straight run's."""
    rows = list(observed.of(ReplayRow))
    if not rows:
        raise Unmeasurable("no replay rows: nothing was resumed")
    worst = max(abs(row.straight_loss - row.replayed_loss) for row in rows)
    return exact(worst, len(rows), "maximum over steps")


def off_device(observed: Observed) -> Interval:
    """Return the share of bytes of weights and moments that do not lie on the device the run says it ran on.

    On a GPU what the allocator has not given out is not there either, whatever the tensors say. The worst step counts.
    """
    rows, own = list(observed.of(DeviceRow)), observed.intent.environment.device
    shares = []
    for step in sorted({row.step for row in rows}):
        held = [row for row in rows if row.step == step and row.what != "allocated"]
        there = sum(row.bytes for row in held if row.device == own)
        if own != "cpu":
            given = sum(row.bytes for row in rows if row.step == step and row.what == "allocated" and row.device == own)
            there = min(there, given)
        total = sum(row.bytes for row in held)
        if total:
            shares.append(1 - there / total)
    if not shares:
        raise Unmeasurable("no device rows: nobody asked where the tensors lie")
    return exact(max(shares), len(shares), "maximum over steps")


def settled(observed: Observed) -> list[StepRow]:
    """Return the rows of the steps that are timed alone, all of them."""
    rows = [row for row in steps(observed) if row.step in SETTLED]
    if len(rows) < len(SETTLED):
        raise Unmeasurable(f"{len(rows)} of the {len(SETTLED)} steps from {SETTLED[0]} to {SETTLED[-1]} were made")
    return rows


def step_seconds(observed: Observed) -> Interval:
    """Return the median wall time of steps 20 to 49, for 2,048 target tokens."""
    rows = settled(observed)
    return exact(median(row.seconds / row.tokens for row in rows) * SPAN, len(rows), "median of steps 20 to 49")


def settled_mfu(observed: Observed) -> Interval:
    """Return `mfu` of the median step from 20 to 49: what a long run tends to, compilation and evaluation left out."""
    rows, training, best = settled(observed), cost(observed, "training"), best_rate(observed)
    if not training.flops or not training.tokens:
        raise Unmeasurable("operations were not counted")
    rate = median(row.tokens / row.seconds if row.seconds else 0.0 for row in rows)
    return exact(training.flops / training.tokens * rate / best, len(rows), "median of steps 20 to 49")


def best_rate(observed: Observed) -> float:
    """Return the operations a second of the best matrix product, over all processes."""
    peak = cost(observed, "best matrix product")
    if not peak.flops or not peak.seconds:
        raise Unmeasurable("operations or seconds of the best matrix product were not counted")
    return peak.flops / peak.seconds * observed.intent.environment.processes


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
    rows, training, best = steps(observed), cost(observed, "training"), best_rate(observed)
    seconds = sum(row.seconds for row in rows)
    if not training.flops or not training.tokens or not seconds:
        raise Unmeasurable("operations or seconds were not counted")
    flops = training.flops / training.tokens * sum(row.tokens for row in rows)
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
