"""Validation: whether it was held out, whether it is as hard as its control, and whether its loss is plausible."""

from __future__ import annotations

import math

import numpy as np

from sovereign.diagnosis.bounds import shares_to_decide
from sovereign.diagnosis.checks import absent, bounded, ranged
from sovereign.diagnosis.findings import Check, Finding, settle
from sovereign.diagnosis.reading import Reading
from sovereign.diagnosis.thresholds import CEILING, EFFECT, EXCESS, SHIFTED


def contaminated(r: Reading) -> Finding:
    """Validation content is in what was trained on, in this run or in an ancestor (O1 to O4)."""
    identity, settings = r.record.identity, r.record.settings
    share, says, complete, because = None, "", settings.lineage_complete, ""
    if identity is not None:
        share = len(identity.shared) / len(identity.validation)
        says = f"{len(identity.shared)} of {len(identity.validation)} validation documents were trained on"
        complete, because = identity.complete and complete is not False, identity.incomplete_because
    if settings.val_in_train is not None and (share is None or settings.val_in_train > share):
        share = settings.val_in_train
        says = f"{share:.0%} of validation was trained on: {settings.val_in_train_from}"
    if share is None:
        checks = [absent("O1 identities", "validation was never joined with what was trained on", "hashes")]
    elif share > 0:
        checks = [Check(probe="O1 identities", result="fires", says=says, value=share, threshold="0", weight="HIGH")]
    elif complete:
        checks = [Check(probe="O1 identities", result="passes", says=says, value=share, threshold="0", weight="HIGH")]
    else:
        told = f"{says}, but {because or 'the lineage is not known to be complete'}"
        checks = [
            Check(probe="O1 identities", result="undecided", says=told, value=share, threshold="0", needs=("lineage",))
        ]
    for probe, found, sides, what, need, fires in (
        ("O3 50-token matches", r.overlap_excess, r.record.covered, "lie mostly inside 50-token matches with the train side", "overlap", True),
        ("O4 near-duplicates", r.near_excess, r.record.near, "have a near-duplicate on the train side", "near", False),
    ):  # fmt: skip
        if found is None:
            checks.append(absent(probe, f"{probe[3:]} with the train side were not counted against a control", need))
            continue
        checks.append(bounded(
            probe, found, f"{ranged(found)} more of validation than of the control {what}", threshold=f"< {EXCESS}",
            fires=fires and found.low > EXCESS, passes=found.high < EXCESS, weight="HIGH", needs=("more_documents",),
            enough=shares_to_decide(sides.validation, sides.control, EXCESS) if sides else None,
        ))  # fmt: skip
    return settle("CONTAMINATED", checks, notes=[_material(r), _inverted(r)])


def _material(r: Reading) -> str:
    effect, everything, rest = r.overlap_effect, r.level(), r.level(r.clean)
    if effect is None or everything is None or rest is None:
        return ""
    moved = rest.value - everything.value
    if effect.high < 0 and abs(moved) > EFFECT:
        return f"MATERIAL: without the overlapping documents validation is {rest.value:.3f}, and not {everything.value:.3f}"
    return f"without the overlapping documents validation moves by {moved:+.3f}"


def _inverted(r: Reading) -> str:
    if r.online_gap is None or r.online_gap >= 0:
        return ""
    return "validation below training shows that the two are not comparable; it shows neither a leak nor its absence"


def shift(r: Reading, contaminated: Finding, clean: np.ndarray | None) -> Finding:
    """Validation is harder or easier than the control for reasons other than a leak."""
    found, everything = r.against_control(clean), r.against_control()
    if found is None or everything is None:
        needs = ("control",) if r.record.control is None else ("more_documents",)
        return settle("SHIFT", [absent("validation against control", "no control to compare with", *needs)])
    harder = max(found.low, everything.low) > SHIFTED
    easier = found.high < -SHIFTED and contaminated.refuted
    says = f"validation lies {ranged(found)} from the control"
    check = bounded(
        "validation against control", found, says, threshold=f"within {SHIFTED}", fires=harder or easier,
        passes=-SHIFTED <= found.low and found.high <= SHIFTED and everything.high <= SHIFTED, needs=("more_documents",),
        edges=(-SHIFTED, SHIFTED),
    )  # fmt: skip
    return settle("SHIFT", [check])


def implausible(r: Reading) -> Finding:
    """Validation is lower than any honest model should reach (P2); always over the full validation set."""
    if r.ceiling is None or not len(r.val):
        says = "the ceiling was not checked: no score of a model without access to the text"
        return settle("IMPLAUSIBLE", [absent("P2 ceiling", says, "reference")])
    last = float(r.val.loss[-1])
    away = last - r.ceiling
    parent = r.record.settings.parent
    who = "the parent phase" if parent is not None and parent.val_loss == r.ceiling else "the reference"
    says = f"validation is {last:.3f}, {away:+.2f} from what {who} scores on the same text ({r.ceiling:.2f})"
    check = Check(
        probe="P2 ceiling", result="fires" if away < -CEILING else "passes", says=says, value=away, threshold=f">= -{CEILING}",
        weight="MEDIUM",
    )  # fmt: skip
    note = f"a loss of {last:.3f} is a perplexity of {math.exp(min(last, 50)):.2f}"
    return settle("IMPLAUSIBLE", [check], notes=[note])
