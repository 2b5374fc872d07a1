"""Consistency: whether the record may be read at all: its units, its steps, its documents and their token counts."""

from __future__ import annotations

import math

from sovereign.diagnosis.checks import absent
from sovereign.diagnosis.findings import Check, Finding, settle
from sovereign.diagnosis.reading import Reading


def invalid_data(r: Reading) -> Finding:
    """The record contradicts its units or itself."""
    settings, scores = r.record.settings, r.record.validation
    checks = []
    if settings.vocab is None:
        checks.append(absent("units", "the size of the vocabulary is not known", "vocabulary"))
    else:
        stated, due = settings.uniform_nats, math.log(settings.vocab)
        wrong = stated is not None and abs(stated - due) > 0.01
        says = f"ln V is {due:.3f} for V = {settings.vocab:,}" + (f", and {stated:g} is stated" if wrong else "")
        checks.append(
            Check(probe="units", result="fires" if wrong else "passes", says=says, value=stated, weight="MEDIUM")
        )
    faults = list(r.record.invalid)
    last = max((point.step for point in r.record.points if point.step is not None), default=None)
    if last is not None and settings.max_steps is not None and last > settings.max_steps:
        faults.append(f"a row is of step {last}, and the run had {settings.max_steps} at most")
    says = "; ".join(faults) or "steps and settings agree"
    checks.append(Check(probe="steps", result="fires" if faults else "passes", says=says, weight="MEDIUM"))
    if scores is None:
        checks.append(absent("documents", "no losses by document to add up again", "documents"))
    else:
        summed = dict(zip(scores.steps, scores.losses.tolist(), strict=True))
        apart = [
            f"step {point.step} reports {point.val:.4f}, and its documents add up to {summed[point.step]:.4f}"
            for point in r.record.points
            if point.step in summed and point.val is not None and abs(point.val - summed[point.step]) > 1e-3
        ]
        says = "; ".join(apart[:2]) or "documents add up to the reported losses"
        checks.append(Check(probe="documents", result="fires" if apart else "passes", says=says, weight="MEDIUM"))
    if scores is None or len(scores.steps) < 2:
        checks.append(absent("token counts", "no document was scored twice", "evaluations", "documents"))
    else:
        says = "every document has the same token count at each step"
        if scores.retokenized:
            says = "a document has other token counts at another step: another tokenizer, or another text"
        checks.append(
            Check(probe="token counts", result="fires" if scores.retokenized else "passes", says=says, weight="MEDIUM")
        )
    return settle("INVALID_DATA", checks)
