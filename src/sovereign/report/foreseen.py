"""Forecasts, hypotheses and the critical path for the terminal; the other renderings take their sentences."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from sovereign.foresight import Decided, Foreseen, Scored
from sovereign.gate.path import Fix

STYLE = {
    "HIT": "green", "MISSED": "bold red", "PENDING": "dim", "NOT_REACHED": "yellow", "UNMEASURED": "yellow",
    "HYPOTHESIS": "yellow", "SUPPORTED": "green", "REFUTED": "bold red",
}  # fmt: skip


def beside(found: Foreseen, contract: str, metric: str) -> Foreseen:
    """Return what was foreseen of one metric by one contract: what stands beside a criterion."""
    return Foreseen(
        tuple(one for one in found.forecasts if one.run.startswith(f"{contract}/") and one.forecast.metric == metric),
        tuple(
            one
            for one in found.hypotheses
            if one.hypothesis.decides_by.metric == metric
            and contract in (one.contract, one.hypothesis.decides_by.contract, one.hypothesis.decides_by.beside)
        ),
    )


def foreseen(found: Foreseen) -> RenderableType:
    """Return forecasts and hypotheses, a line each; nothing where nothing was foreseen."""
    lines: list[RenderableType] = []
    if found.forecasts:
        lines += [Text(""), Text("forecasts", "bold"), *(_forecast(one) for one in found.forecasts)]
    if found.hypotheses:
        lines += [Text(""), Text("hypotheses", "bold"), *(_hypothesis(one) for one in found.hypotheses)]
    return Group(*lines)


def _forecast(one: Scored) -> Text:
    line = Text.assemble((one.outcome, STYLE[one.outcome]), f"  {one.sentence}", (f"\n  frozen by {one.run}", "dim"))
    return line.append(f": {one.forecast.because}", style="dim") if one.forecast.because else line


def _hypothesis(one: Decided) -> Text:
    return Text.assemble(
        (one.state, STYLE[one.state]), f"  {one.sentence}", (f"\n  held by contract {one.contract}", "dim")
    )


def path(fixes: Sequence[Fix]) -> RenderableType:
    """Return the critical path: what to do, how many criteria wait for it, and which."""
    if not fixes:
        return Text("Nothing is open: every active criterion is discharged or waived.", "green")
    lines: list[RenderableType] = [Text("what one fix would discharge, the most first", "bold")]
    for fix in fixes:
        cost = f", {fix.runs} run{'s' if fix.runs > 1 else ''}" if fix.runs else ""
        lines.append(
            Text.assemble(
                (f"{len(fix.criteria):3}  ", "bold"),
                (fix.do, "bold"),
                (cost, "dim"),
                f"\n     {', '.join(fix.criteria)}",
            )
        )
    return Group(*lines)
