"""Position: whether the gap follows the place in the data where training stood when it was measured (P13)."""

from __future__ import annotations

import numpy as np

from sovereign.diagnosis.checks import absent
from sovereign.diagnosis.findings import Check, Finding, Result, settle
from sovereign.diagnosis.reading import Reading
from sovereign.diagnosis.thresholds import POSITION
from sovereign.metrics.intervals import Floats, resampled


def position_artifact(r: Reading) -> Finding:
    """The gap follows the position in the data, or the phase of its wrap (P13)."""
    logged = [(row.position, val - train) for _, train, val, row in r.pairs if row.position is not None]
    derived = [(near, val - train) for at, train, val, _ in r.pairs if (near := near_the_head(r, at)) is not None]
    if max(len(logged), len(derived)) < POSITION[0]:
        says = f"{max(len(logged), len(derived))} evaluations with their position in the data; {POSITION[0]} are needed"
        needs = () if r.record.settings.shuffled else ("position", "evaluations")
        return settle("POSITION_ARTIFACT", [absent("P13 position", says, *needs)])
    return settle(
        "POSITION_ARTIFACT", [_follows(r, np.array(one)) for one in (logged, derived) if len(one) >= POSITION[0]]
    )


def _follows(r: Reading, placed: Floats) -> Check:
    """Return whether a gap follows a position, shape [evaluations, 2], by R squared and a permutation test."""
    _, enough, alpha = POSITION
    x, gap = placed[:, 0], placed[:, 1]
    if x.std() == 0 or gap.std() == 0:
        return absent("P13 position", "position, or gap, never changes", "position")
    r2 = float(np.corrcoef(x, gap)[0, 1] ** 2)
    permuted = ((x - x.mean()) @ gap[_permutations(len(gap), r.seed)].T / len(gap) / x.std() / gap.std()) ** 2
    p = (1 + int((permuted >= r2 - 1e-12).sum())) / (len(permuted) + 1)
    result: Result = "fires" if r2 > enough and p < alpha else "passes" if r2 <= enough else "undecided"
    return Check(
        probe="P13 position", result=result, value=r2, n=len(gap), threshold=f"<= {enough}",
        says=f"position explains {r2:.0%} of the gap over {len(gap)} evaluations (p = {p:.4f})",
        method=f"permutation test, {len(permuted)} permutations, seed {r.seed}",
        needs=("evaluations",) if result == "undecided" else (),
    )  # fmt: skip


def near_the_head(r: Reading, at: float) -> float | None:
    """Return the share of the steps behind a logged mean that lay at the head of an unshuffled, wrapping stream.

    Validation cut off the head of a stream resembles what follows it there; the head is as long as one logged mean.
    """
    settings = r.record.settings
    batch = settings.effective_batch or settings.batch
    if settings.shuffled is not False or not (settings.corpus_tokens and batch and settings.seq_len):
        return None
    around = settings.corpus_tokens / (batch * settings.seq_len)
    if r.axis == "epoch" and settings.steps_per_epoch:
        window = settings.steps_per_epoch
        first = at * window
    elif r.axis == "step" and settings.train_window_steps:
        window = settings.train_window_steps
        first = max(0.0, at - window)
    else:
        return None
    if window >= around:
        return None
    phase = (first + np.arange(window)) % around
    return float((phase < window).mean())


def _permutations(n: int, seed: int) -> np.ndarray:
    """Return permutations, shape [RESAMPLES, n], from the resampling stream that every machine has."""
    keys = (resampled(n, 10 * seed) * n + resampled(n, 10 * seed + 1)) * n + resampled(n, 10 * seed + 2)
    return np.argsort(keys, axis=1, kind="stable")
