"""The instrument: whether the losses are what they are called, and whether training and validation are measured alike."""

from __future__ import annotations

import math
import re

from sovereign.diagnosis.checks import absent, bounded, ranged
from sovereign.diagnosis.findings import Check, Finding, settle
from sovereign.diagnosis.reading import Reading
from sovereign.diagnosis.record import of_one_batch
from sovereign.diagnosis.thresholds import ARTIFACT, BELOW_UNIGRAM, DROPOUT_ALLOWANCE, LARGE_GAP, PATHS


def eval_path(r: Reading) -> Finding:
    """Evaluation computes another loss than training optimises."""
    paths, margin = r.record.paths, r.permuted_margin
    if paths:
        apart = {row: abs(row.train_nll - row.eval_nll) / row.tokens for row in paths}
        worst = max(paths, key=lambda row: apart[row] / PATHS[row.precision])
        limit = PATHS[worst.precision]
        fires = apart[worst] > limit
        says = f"the two paths differ by {apart[worst]:.2g} nats per token on one batch ({worst.precision})"
        same = Check(
            probe="same batch", result="fires" if fires else "passes", says=says, value=apart[worst],
            threshold=f"<= {limit:g}", n=len(paths), weight="MEDIUM",
        )  # fmt: skip
    else:
        same = absent("same batch", "no batch was put through both paths", "same_batch")
    if margin is None:
        shuffled = absent("permuted validation", "permuted validation was not scored", "permuted")
    else:
        says = f"permuted validation scores {ranged(margin)} from the unigram level"
        shuffled = bounded(
            "permuted validation", margin, says, threshold=f">= -{BELOW_UNIGRAM}", fires=margin.high < -BELOW_UNIGRAM,
            passes=margin.low >= -BELOW_UNIGRAM, needs=("permuted",), edges=(-BELOW_UNIGRAM,),
        )  # fmt: skip
    return settle("EVAL_PATH", [same, shuffled])


def comparability_violated(r: Reading) -> Finding:
    """The reported train and validation numbers differ in mode, checkpoint, reduction, masking or subset."""
    settings, scores = r.record.settings, r.record.validation
    window, fixed, checkpoint = settings.train_window_steps, settings.val_fixed, settings.same_checkpoint
    if (window or 1) > 1 or re.search(r"\bmean (of|since|over)\b|running mean", r.scope, re.IGNORECASE):
        checkpoint = False  # a mean over steps is of as many weights
    if scores is not None and len(scores.steps) > 1 and (fixed is None or not scores.fixed):
        fixed = scores.fixed  # one evaluation alone shows no other draw, and not the same one either
    single = of_one_batch(r.scope)
    respects: tuple[tuple[str, bool | None, str, str], ...] = (
        ("mode", None if r.mode is None else r.mode == "eval", "training is scored in training mode, validation in evaluation mode", "scope"),
        ("checkpoint", checkpoint, f"the training number is {r.scope or f'a mean over {window} steps'}, the validation number is of one checkpoint", "scope"),
        ("reduction", r.same_reduction, r.reductions or "the two are not means over the same unit", "scope"),
        ("masking", settings.same_masking, "other tokens carry the two losses", "scope"),
        ("subset", False if single else fixed, "the training number is one batch" if single else "validation is drawn anew at each evaluation", "validation_set"),
    )  # fmt: skip
    checks = [
        absent(name, f"{name}: not stated", need)
        if same is None
        else Check(
            probe=name, result="passes" if same else "fires", says=f"{name}: equal" if same else f"{name}: {differs}"
        )
        for name, same, differs, need in respects
    ]
    return settle("COMPARABILITY_VIOLATED", checks, notes=_of_the_gap(r))


def _of_the_gap(r: Reading) -> list[str]:
    """Say what a reported gap is worth, where nothing comparable stands beside it."""
    if r.gap is not None or r.online_gap is None or abs(r.online_gap) <= ARTIFACT:
        return []
    gap, train = r.online_gap, r.pairs[-1][1]
    told = f"the gap of {gap:+.3f} nats is a factor of {math.exp(min(gap, 50)):.2f} in perplexity"
    if train > 0:
        told += f"; as {abs(gap) / train:.0%} of a log loss it means nothing"
    notes = [told]
    if abs(gap) < LARGE_GAP:
        notes.append("sequences differ by 1.0 to 1.5 nats, so even 256 of them leave a gap uncertain by 0.2")
    return notes


def metric_artifact(r: Reading) -> Finding:
    """The reported gap misstates the comparable gap by more than 0.05 nats (P4)."""
    found = r.artifact
    if found is None:
        check = absent("P4 online gap", "no train probe was scored in evaluation mode", "train_probe")
        explained, inverted = _explained(r)
        likely = bool(inverted) and 2 * explained > inverted
        note = (
            f"{explained} of {inverted} inverted gaps are no larger than the lag of the training mean and dropout allow: likely an artifact"
            if likely
            else ""
        )
        return settle("METRIC_ARTIFACT", [check], leaning="SUPPORTED" if likely else None, notes=[note])
    says = f"the reported training loss misses the probe's by {ranged(found)}"
    check = bounded(
        "P4 online gap", found, says, threshold=f"within {ARTIFACT}",
        fires=found.low > ARTIFACT or found.high < -ARTIFACT, passes=-ARTIFACT <= found.low and found.high <= ARTIFACT,
        needs=("train_probe",), edges=(-ARTIFACT, ARTIFACT),
    )  # fmt: skip
    return settle("METRIC_ARTIFACT", [check])


def _explained(r: Reading) -> tuple[int, int]:
    """Return how many inverted gaps the lag of a training mean and dropout explain, and how many there are."""
    settings = r.record.settings
    window = settings.train_window_steps
    allowance = DROPOUT_ALLOWANCE * max(settings.dropout or 0.0, settings.lora_dropout or 0.0)
    explained = inverted = 0
    for number, (_, train, val, _) in enumerate(r.pairs):
        if val >= train:
            continue
        inverted += 1
        lag = lag_bound(r, number, window) if window and r.axis == "step" else 0.0
        if lag + allowance >= train - val:
            explained += 1
    return explained, inverted


def lag_bound(r: Reading, number: int, window: int) -> float:
    """Return how far a mean over the last `window` steps lies above the loss at its end: half the window's descent."""
    if len(r.pairs) < 2:
        return 0.0
    one, two = (number - 1, number) if number else (0, 1)
    slope = (r.pairs[two][1] - r.pairs[one][1]) / (r.pairs[two][0] - r.pairs[one][0])
    return abs(slope) * window / 2
