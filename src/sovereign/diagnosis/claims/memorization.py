"""Memorization: whether train text is recalled word for word, beyond a control."""

from __future__ import annotations

from sovereign.diagnosis.bounds import shares_to_decide
from sovereign.diagnosis.checks import absent, bounded, ranged
from sovereign.diagnosis.findings import Check, Finding, settle
from sovereign.diagnosis.reading import Reading
from sovereign.diagnosis.thresholds import CANARIES, EXCESS, MEMORY_LIKE, PASSAGES


def memorized(r: Reading) -> Finding:
    """Train text is recalled word for word, in excess of a control (E1, E3)."""
    found = r.extraction_excess
    notes = [_repetition(r)]
    if found is None:
        checks = [absent("E1 extraction", "nothing was extracted beside a control", "extraction")]
    elif found.n < PASSAGES:
        says = f"{found.n} passages a side; {PASSAGES} are needed"
        few = Check(probe="E1 extraction", result="did not run", says=says, needs=("extraction",), enough=PASSAGES)
        checks = [few]
    else:
        says = f"{ranged(found)} more train passages than control passages are continued word for word"
        checks = [bounded(
            "E1 extraction", found, says, threshold=f"<= {EXCESS}", fires=found.low >= EXCESS, passes=found.high <= EXCESS,
            weight="HIGH", needs=("extraction",), enough=shares_to_decide(*r.extracted, EXCESS),
        )]  # fmt: skip
    if r.canary_p is None:
        checks.append(absent("E3 canaries", "no canary was planted", "canaries"))
    else:
        p, n = r.canary_p
        least, counts, clears = CANARIES
        clear = p > clears and n >= least
        says = f"{n} canaries planted once rank as they do by luck with p = {p:.3g}"
        checks.append(Check(
            probe="E3 canaries", result="passes" if clear else "undecided", says=says, value=p, n=n, threshold=f"> {clears}",
            method="rank-sum", weight="HIGH", needs=() if clear else ("extraction", "canaries"),
        ))  # fmt: skip
        if p < counts:
            notes.append("planted outliers are recalled; by itself this does not show that ordinary text is")
    likely = (r.online_gap or 0) >= MEMORY_LIKE
    if likely:
        notes.append("a gap this wide makes it likely, and only extraction can show it")
    return settle("MEMORIZED", checks, leaning="SUPPORTED" if likely else None, notes=notes)


def _repetition(r: Reading) -> str:
    epochs = r.effective_epochs
    if epochs is None or epochs <= 4:
        return ""
    return f"{epochs:.3g} passes over the text: repetition is a reason to look, and never evidence"
