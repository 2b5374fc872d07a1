"""The scoreboard: integers by category and status. No averages, no percentages that mix kinds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sovereign.gate.evaluation import WORST_FIRST, Evaluation, Status


@dataclass(frozen=True)
class Line:
    """One category: how many of its active criteria stand in each status."""

    category: str
    counts: dict[Status, int]
    waived: int
    drafts: int
    withdrawn: int

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def scoreboard(evaluation: Evaluation) -> tuple[Line, ...]:
    """Return a line for each category in the spec's order, and their sum last."""
    categories = list(dict.fromkeys(one.category for one in evaluation.criteria))
    return (*(_line(evaluation, [category], category) for category in categories), _line(evaluation, categories, "all"))


def _line(evaluation: Evaluation, categories: list[str], name: str) -> Line:
    mine = [one for one in evaluation.criteria if one.category in categories]
    gating = [one for one in mine if one.stage == "active" and one.status != "WITHDRAWN"]
    counted = Counter(one.status for one in gating)
    return Line(
        category=name,
        counts={status: counted[status] for status in reversed(WORST_FIRST)},
        waived=sum(1 for one in gating if one.waiver),
        drafts=sum(1 for one in mine if one.stage == "draft" and one.status != "WITHDRAWN"),
        withdrawn=sum(1 for one in mine if one.status == "WITHDRAWN"),
    )


def headline(evaluation: Evaluation) -> str:
    """Return the evaluation in one line: `12/15 discharged · 1 FALSIFIED · 1 waived (exp 2026-12-01)`."""
    total = scoreboard(evaluation)[-1]
    parts = [f"{total.counts['DISCHARGED']}/{total.total} discharged"]
    parts += [
        f"{count} {status}" for status in WORST_FIRST if status != "DISCHARGED" and (count := total.counts[status])
    ]
    expiries = [one.waiver.expires for one in evaluation.active if one.waiver]
    parts += [f"{len(expiries)} waived (exp {min(expiries)})"] if expiries else []
    parts += [f"{total.drafts} draft"] if total.drafts else []
    unconcluded = sum(1 for run in evaluation.runs if run.state == "unconcluded")
    parts += [f"{unconcluded} unconcluded run(s)"] if unconcluded else []
    return " · ".join(parts)
