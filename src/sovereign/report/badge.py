"""The JSON that a Shields endpoint badge is drawn from: how many criteria are discharged, coloured by the worst."""

from __future__ import annotations

import json

from sovereign.gate.evaluation import WORST_FIRST, Status
from sovereign.report.judged import Judged

COLOUR: dict[Status, str] = {
    "INVALID": "critical", "FALSIFIED": "red", "OPEN": "lightgrey", "STALE": "yellow", "PARTIAL": "yellow",
    "DISCHARGED": "brightgreen",
}  # fmt: skip
REFRESHED = 300  # seconds a badge may be cached for; Shields takes nothing shorter


def badge(judged: Judged) -> str:
    """Return the badge of all specs together; a waiver is not green, and a broken file is an error."""
    active = [one for evaluation in judged.evaluations for one in evaluation.active]
    states = {one.status for one in active if not one.waiver}
    worst = next((state for state in WORST_FIRST if state in states), None)
    colour = COLOUR[worst] if worst else "lightgrey"
    if worst in ("DISCHARGED", None) and any(one.waiver for one in active):
        colour = "yellow"
    broken = worst == "INVALID" or any(fault.kind in ("schema", "integrity") for fault in judged.faults)
    discharged = sum(1 for one in active if one.status == "DISCHARGED")
    return json.dumps({
        "schemaVersion": 1,
        "label": "gates",
        "message": f"{discharged}/{len(active)}" if active else "nothing evaluated",
        "color": COLOUR["INVALID"] if broken else colour,
        "isError": broken,
        "cacheSeconds": REFRESHED,
    }) + "\n"  # fmt: skip
