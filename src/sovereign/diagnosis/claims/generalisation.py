"""Generalisation: whether validation rises while training falls, or neither moves any more."""

from __future__ import annotations

import math

import numpy as np

from sovereign.diagnosis.bounds import LEAST, units_to_decide
from sovereign.diagnosis.checks import absent, bounded, ranged
from sovereign.diagnosis.findings import Check, Finding, Result, Verdict, settle
from sovereign.diagnosis.reading import Reading, Rise
from sovereign.diagnosis.thresholds import BEYOND_ARTIFACTS, EFFECT, FLAT, MOVES, POINTS, POWER, RISES, SMALL_GAP
from sovereign.metrics.intervals import Floats, Interval


def overfit(r: Reading, clean: np.ndarray | None = None) -> Finding:
    """Validation rises on fixed documents while training falls (P7; P3 to refute)."""
    checks = [_logged_rise(r)]
    for keep in (None, clean) if clean is not None else (None,):
        checks.append(_paired_rise(r, r.rise(keep), "over all documents" if keep is None else "over clean documents"))
    gap = r.gap
    if gap is None:
        checks.append(absent("P3 gap", "no comparable gap", "train_probe"))
    else:
        small = gap.high < SMALL_GAP
        says = f"the comparable gap is {ranged(gap)}"
        checks.append(bounded(
            "P3 gap", gap, says, threshold=f"< {SMALL_GAP}", fires=False, passes=small, needs=("more_documents",), edges=(SMALL_GAP,)
        ))  # fmt: skip
    notes = []
    stated = r.record.settings.val_trend == "rising" and (r.online_gap or 0) > BEYOND_ARTIFACTS
    if stated:
        says = f"validation is said to have risen, and the gap of {r.online_gap:.2f} exceeds any artifact"
        checks.append(Check(probe="stated rise", result="fires", says=says, value=r.online_gap, weight="MEDIUM"))
    if len(r.val) > 1:
        best = int(np.argmin(r.val.loss))
        if best == 0 and r.val.at[0] > 0:
            notes.append(
                f"the best evaluation is the first, at {r.axis} {r.val.at[0]:g}: what was before it is not known"
            )
    if r.tied and len(r.tied) > 1:
        notes.append(f"{len(r.tied)} checkpoints cannot be told from the best: steps {r.tied[0]} to {r.tied[-1]}")
    notes.append(_small(r))
    return settle("OVERFIT", checks, leaning=_overfit_leaning(r), notes=notes)


def _overfit_leaning(r: Reading) -> Verdict | None:
    if len(r.val) > 1 and r.pairs:
        lowest = min(r.pairs, key=lambda pair: pair[2])
        last = r.pairs[-1]
        if last[2] - lowest[2] > EFFECT and last[1] < lowest[1] - EFFECT:
            return "SUPPORTED"
    return "SUPPORTED" if (r.online_gap or 0) > BEYOND_ARTIFACTS else None


def _small(r: Reading) -> str:
    """Say what a logged rise would take to be significant, where the documents were counted and not scored."""
    n = r.record.settings.n_val_docs
    if n is None or r.record.validation is not None or len(r.val) < 2:
        return ""
    if n < LEAST:
        return f"{n} validation documents allow no interval at all"
    rise = float(r.val.loss[-1] - r.val.loss.min())
    spread = rise * math.sqrt(n) / 1.8
    return f"with {n} documents the rise is significant only if documents differ in it by less than {spread:.2f}"


def _logged_rise(r: Reading) -> Check:
    share, least = RISES
    if len(r.val) < POINTS:
        told = f"{len(r.val)} evaluation{'s' * (len(r.val) != 1)}; a trend has three"
        return absent("P7 logged rise", told, "evaluations", "documents")
    streak = _streak(r.val.loss)
    rise = _relative_rise(r.val.loss)
    falling = _falling(r, float(r.val.at[int(np.argmin(r.val.loss))]))
    says = f"validation ends {rise:.1%} above its lowest, after {streak} successive rises"
    fires = rise > share and streak >= least and falling
    result: Result = "fires" if fires else "passes" if rise <= share else "undecided"
    if fires and _both_halves(r.val.loss):
        says += ", in both halves of the log"
    blind = fires and int(np.argmin(r.val.loss)) == 0 and r.val.at[0] > 0
    return Check(
        probe="P7 logged rise", result=result, says=says + (", while training falls" if fires else ""), value=rise,
        n=len(r.val), threshold=f"<= {share:.0%}, or {least} rises", method="Prechelt GL5 with UP2",
        weight="MEDIUM" if result == "passes" or _both_halves(r.val.loss) else "LOW",
        needs=("documents", *(("step0",) if blind else ())) if result != "passes" else (),
    )  # fmt: skip


def _relative_rise(losses: Floats) -> float:
    return float(losses[-1] / losses.min() - 1)


def _streak(losses: Floats) -> int:
    """Return the most successive rises after the lowest loss."""
    longest = run = 0
    for change in np.diff(losses[int(np.argmin(losses)) :]):
        run = run + 1 if change > 0 else 0
        longest = max(longest, run)
    return longest


def _both_halves(losses: Floats) -> bool:
    """Say whether each half of the evaluations shows the rise by itself: two series that agree."""
    middle = len(losses) // 2
    return all(
        len(half) >= POINTS and _relative_rise(half) > RISES[0] and _streak(half) >= RISES[1]
        for half in (losses[: middle + 1], losses[middle:])
    )


def _falling(r: Reading, since: float) -> bool:
    """Say whether training is lower at the end than at a place, by the probe or by the logged losses."""
    probe = r.record.train_probe
    found = []
    if probe is not None and r.axis == "step" and since in probe.steps:
        found.append(bool(probe.losses[-1] < probe.losses[probe.steps.index(int(since))] - EFFECT))
    then = [train for at, train, _, _ in r.pairs if at <= since]
    if then:
        found.append(r.pairs[-1][1] < then[-1] - EFFECT)
    return any(found)


def _paired_rise(r: Reading, rise: Rise | None, over: str) -> Check:
    probe = "P7 paired rise"
    if rise is None:
        return absent(probe, "no per-document losses at three checkpoints", "documents")
    falling = _falling(r, float(rise.best))
    found = rise.interval
    says = f"since step {rise.best} validation moved {ranged(found)} {over} (detectable: {rise.detectable:.3f})"
    if found.low > EFFECT and falling:
        says += ", while training falls"
    weak = found.high < EFFECT and rise.detectable > POWER
    return bounded(
        probe, found, f"underpowered: {says}" if weak else says, threshold=f"< {EFFECT}",
        fires=found.low > EFFECT and falling, passes=found.high < EFFECT and not weak, needs=("more_documents",), edges=(EFFECT,),
        enough=units_to_decide(Interval(0.0, -rise.detectable, rise.detectable, found.n, ""), (-POWER, POWER)) if weak else None,
    )  # fmt: skip


def plateau(r: Reading, contaminated: Finding) -> Finding:
    """Validation and training are flat, shown by an equivalence test (P10)."""
    val, train = r.drift(r.record.validation), r.drift(r.record.train_probe)
    if val is None or train is None:
        says = "too few evaluations by document in the last fifth of the run"
        return settle("PLATEAU", [absent("P10 equivalence", says, "documents", "train_probe", "late_evaluations")])
    flat = [-FLAT < one.low and one.high < FLAT for one in (val, train)]
    moved = None if r.record.steps is None else r.record.steps.changed
    says = f"over the last fifth validation moves {ranged(val)} and training {ranged(train)} per tenth of the run"
    if all(flat) and contaminated.open:
        says += "; whether validation is clean is not known"
    needs = ["more_documents", "late_evaluations"]
    if all(flat) and moved is None:
        says += "; whether updates moved the weights at all was not measured"
        needs = ["movement"]
    elif all(flat) and moved is not None and moved < MOVES:  # weights that cannot move show nothing (CASE-26)
        says += f"; but an update changed {moved:.2%} of the weights: nothing was tried"
        needs = ["larger_updates"]
    fires = all(flat) and not contaminated.open and moved is not None and moved >= MOVES
    check = bounded(
        "P10 equivalence", val, says, threshold=f"within {FLAT}", fires=fires,
        passes=any(one.high < -FLAT or one.low > FLAT for one in (val, train)), needs=tuple(needs),
    )  # fmt: skip
    return settle("PLATEAU", [check])
