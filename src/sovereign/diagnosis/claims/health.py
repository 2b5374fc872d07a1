"""Health: whether every condition of a good run is shown; it is read from the other claims, and comes last."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sovereign.diagnosis.checks import absent, bounded, ranged
from sovereign.diagnosis.findings import LADDER, Check, Claim, Finding, Result, conclude
from sovereign.diagnosis.reading import Reading
from sovereign.diagnosis.thresholds import IMPROVED, SMALL_GAP
from sovereign.metrics.degeneration import signs

SICK: tuple[Claim, ...] = ("BROKEN_LOADER", "EVAL_PATH", "DIVERGED", "CONTAMINATED", "NOT_LEARNED", "OVERFIT")


def healthy(r: Reading, findings: Iterable[Finding], clean: np.ndarray | None) -> Finding:
    """Comparable, clean, learning, not overfitting: every condition shown, none assumed.

    A condition that is shown passes; one that is contradicted fires against health, and refutes it.
    """
    by_claim = {finding.claim: finding for finding in findings}
    checks = []
    for name in SICK:
        finding = by_claim[name]
        result: Result = "passes" if finding.refuted else "fires" if finding.supported else "undecided"
        word = {"passes": "refuted", "fires": "supported", "undecided": "open"}[result]
        checks.append(Check(probe=name, result=result, says=f"{name} is {word}", weight=finding.confidence or "LOW"))
    contradicted = [one for one in checks if one.result == "fires"]
    checks += [_comparable(r), _improved(r, clean), _small_gap(r)]
    if by_claim["IMPLAUSIBLE"].supported:
        checks.append(Check(probe="IMPLAUSIBLE", result="undecided", says="validation is lower than is plausible"))
    notes = ["ceiling not checked"] if r.ceiling is None else []
    last = max((row.step for row in r.record.samples if row.sampler == "model"), default=None)
    written = [row.text for row in r.record.samples if row.sampler == "model" and row.step == last]
    fallen = sum(signs(text).degenerate for text in written)
    if 2 * fallen > len(written):
        says = f"{fallen} of {len(written)} samples repeat themselves: a loss does not see it"
        checks.append(Check(probe="samples", result="undecided", says=says, value=fallen, n=len(written)))
    if not written:
        notes.append("output not checked")
    if contradicted:
        because, confidence = "; ".join(one.says for one in contradicted), max(_weights(contradicted))
        return conclude("HEALTHY", "REFUTED", checks, because, notes, LADDER[confidence])
    if all(one.result == "passes" for one in checks):
        return conclude(
            "HEALTHY", "SUPPORTED", checks, "every condition is shown", notes, LADDER[min(_weights(checks))]
        )
    because = "; ".join(one.says for one in checks if one.result != "passes")
    return conclude("HEALTHY", "INCONCLUSIVE", checks, because, notes)


def _weights(checks: Iterable[Check]) -> list[int]:
    return [LADDER.index(one.weight) for one in checks]


def _comparable(r: Reading) -> Check:
    scores = r.record.validation
    if r.gap is None or not r.record.settings.same_reduction or scores is None or not scores.fixed:
        return absent(
            "comparable", "no train probe of equal reduction beside fixed validation documents", "train_probe"
        )
    says = "validation and a train probe are scored alike, on fixed documents"
    return Check(probe="comparable", result="passes", says=says, weight="MEDIUM")


def _improved(r: Reading, clean: np.ndarray | None) -> Check:
    found = r.improvement(clean)
    if found is None:
        return absent("improvement", "improvement by document was not shown", "documents", "step0")
    says = f"validation moved {ranged(found)} since the first evaluation"
    return bounded("improvement", found, says, threshold=f"< -{IMPROVED}", fires=False, passes=found.high < -IMPROVED,
                   needs=("more_documents",), edges=(-IMPROVED,))  # fmt: skip


def _small_gap(r: Reading) -> Check:
    if r.gap is None:
        return absent("P3 gap", "no comparable gap", "train_probe")
    says = f"the comparable gap is {ranged(r.gap)}"
    return bounded(
        "P3 gap", r.gap, says, threshold=f"<= {SMALL_GAP}", fires=False, passes=r.gap.high <= SMALL_GAP, needs=("more_documents",),
        edges=(SMALL_GAP,),
    )  # fmt: skip
