"""The loader: whether every batch was new text of the planned size, by losses, wall time, hashes and counted tokens (P12)."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from sovereign.diagnosis.checks import absent
from sovereign.diagnosis.findings import Check, Finding, settle
from sovereign.diagnosis.reading import Curve, Reading
from sovereign.diagnosis.thresholds import EQUAL, FAST, POINTS
from sovereign.metrics.intervals import Floats


def broken_loader(r: Reading) -> Finding:
    """The pipeline feeds constant, repeated, placeholder or miscounted batches (P12)."""
    equal = [_equal_losses(train, r) for train in r.trains] or [_equal_losses(r.train, r)]
    return settle("BROKEN_LOADER", [*equal, _wall(r), _repeats(r), _counted(r)])


def _equal_losses(train: Curve, r: Reading) -> Check:
    if len(train) < POINTS:
        return absent("P12 equal losses", f"{len(train)} training losses; three in a row are compared", "step_log")
    change = np.abs(np.diff(train.loss))
    run = longest = at = 0
    for place, same in enumerate(change < EQUAL):
        run = run + 1 if same else 0
        if run > longest:
            longest, at = run, place
    equal = longest + 1 if longest else 0
    moves = change[change >= EQUAL]
    coarse = len(moves) > 0 and float(np.median(moves)) < 10 * _resolution(train.loss)
    if equal >= POINTS and coarse:
        says = f"{equal} equal losses in a row, but they are printed too coarsely to tell"
        return Check(
            probe="P12 equal losses", result="undecided", says=says, value=equal, threshold="< 3", needs=("step_log",)
        )
    fires = equal >= POINTS
    says = (
        f"{equal} training losses in a row are {train.loss[at]:.4g}, up to {train.at[at + 1]:g}: a placeholder, or one batch"
        if fires
        else "no three training losses in a row are equal"
    )
    return Check(
        probe="P12 equal losses", result="fires" if fires else "passes", says=says, value=equal, threshold="< 3",
        weight="LOW" if r.record.steps is None else "MEDIUM",
    )  # fmt: skip


def _resolution(losses: Floats) -> float:
    """Return the smallest step that losses were printed in, in nats or in bits, as a power of ten; at least 1e-5."""
    for decimals in range(5):
        for printed in (losses, losses / math.log(2)):
            if np.allclose(np.round(printed, decimals), printed, rtol=0, atol=EQUAL / 2):
                return float(10.0**-decimals)
    return EQUAL


def _wall(r: Reading) -> Check:
    steps = r.record.steps
    if steps is not None:
        seconds, at = steps.seconds, steps.step
    else:
        timed = [(r._at(number, one), one.wall) for number, one in enumerate(r.rows) if one.wall is not None]
        places, walls = np.array([at for at, _ in timed]), np.array([wall for _, wall in timed], float)
        gaps = np.diff(places)
        seconds, at = np.diff(walls)[gaps > 0] / gaps[gaps > 0], places[1:][gaps > 0] if len(gaps) else places
    if len(seconds) < POINTS:
        return absent("P12 wall time", "wall time is not logged", "step_log")
    median = float(np.median(seconds))
    fast = np.flatnonzero(seconds < FAST * median)
    says = "every step took its time"
    if len(fast):
        says = f"{len(fast)} steps took less than a fifth of the median, first at {at[fast[0]]:g} ({seconds[fast[0]]:.3g} s against {median:.3g} s)"
    return Check(
        probe="P12 wall time", result="fires" if len(fast) else "passes", says=says, value=len(fast), threshold="0",
        n=len(seconds), weight="MEDIUM",
    )  # fmt: skip


def _repeats(r: Reading) -> Check:
    steps, batches = r.record.steps, r.record.batches
    if steps is None:
        return absent("P12 batch hashes", "batches are not hashed", "batch_hashes")
    counted = [(Counter(steps.windows), "window ids")]
    if batches:
        counted.append((Counter(row.content for row in batches), "content"))
    told = []
    for counts, what in counted:
        _, most = counts.most_common(1)[0]
        if most > steps.passes:
            told.append(f"one batch, by its {what}, was consumed {most} times in {steps.passes} passes")
    narrow = [row for row in batches if row.distinct < row.sequences]
    if narrow:
        told.append(f"{len(narrow)} batches hold a sequence twice, first at step {narrow[0].step}")
    says = "; ".join(told) or "no batch was consumed more often than the passes allow"
    return Check(
        probe="P12 batch hashes", result="fires" if told else "passes", says=says, threshold=f"<= {steps.passes}",
        n=len(steps.windows), weight="HIGH",
    )  # fmt: skip


def _counted(r: Reading) -> Check:
    steps, planned = r.record.steps, r.record.tokens_per_step
    if steps is None or planned is None:
        return absent("P12 tokens per step", "counted tokens are not logged", "step_log")
    off = np.flatnonzero(np.abs(steps.tokens - planned) > 0.01 * planned)
    padded = [row for row in r.record.batches if row.padding]
    says = "every step counted the planned tokens"
    if len(off):
        says = f"{len(off)} steps did not count the planned {planned:g} tokens, first step {steps.step[off[0]]:g} with {steps.tokens[off[0]]:g}"
    elif padded:
        says = f"{len(padded)} batches counted padding in the loss, first at step {padded[0].step}"
    bad = bool(len(off) or padded)
    return Check(
        probe="P12 tokens per step", result="fires" if bad else "passes", says=says, value=len(off) or len(padded),
        threshold="0", n=len(steps.tokens), weight="MEDIUM",
    )  # fmt: skip
