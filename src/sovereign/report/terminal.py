"""Evaluations for the terminal: one line a criterion, its reasons beneath, and the scoreboard."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from sovereign.canonical import shown
from sovereign.gate.evaluation import CriterionStatus, Evaluation, RunNote
from sovereign.gate.scoreboard import headline, scoreboard
from sovereign.report.figures import MARK, bound, interval, number, remarks

if TYPE_CHECKING:  # a gate that is read in a terminal needs no runs, pictures or forecasts
    from sovereign.report.judged import Judged

WIDTH = 160  # characters of a line where no terminal says how wide it is

STYLE = {
    "DISCHARGED": "green",
    "PARTIAL": "yellow",
    "STALE": "yellow",
    "OPEN": "dim",
    "FALSIFIED": "bold red",
    "INVALID": "bold white on red",
    "WITHDRAWN": "dim strike",
}


def gates(evaluations: Sequence[Evaluation], why: bool = True) -> RenderableType:
    """Return every criterion with its status, value, bound and reasons."""
    parts: list[RenderableType] = []
    for evaluation in evaluations:
        parts.append(Text.assemble((f"{evaluation.spec} {evaluation.version}", "bold"), f"  {evaluation.spec_path}"))
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column("")
        table.add_column("criterion", no_wrap=True)
        table.add_column("measured", no_wrap=True)
        table.add_column("bound", no_wrap=True)
        table.add_column("n", justify="right")
        table.add_column("what it says, and why it stands so")
        for one in evaluation.criteria:
            table.add_row(
                Text(f"{MARK[one.status]} {one.shown}", style=STYLE[one.status]),
                one.id + (" (draft)" if one.stage == "draft" else ""),
                interval(one.measured),
                bound(one),
                str(one.measured.n) if one.measured else "",
                _sentence(one, why),
            )
        parts += [
            Padding(table, (0, 0, 0, 1)),
            *_remarks(evaluation),
            Text(headline(evaluation), style="bold"),
            Text(""),
        ]
    return Group(*parts)


def _sentence(one: CriterionStatus, why: bool) -> Text:
    text = Text(one.title)
    if why and one.status != "DISCHARGED":
        for reason in one.reasons[:3]:
            text.append(f"\n{reason.code}: {reason.text}", style="dim")
    for remark in remarks(one):
        text.append(f"\n{remark}", style="yellow")
    return text


def _remarks(evaluation: Evaluation) -> list[RenderableType]:
    remarks: list[RenderableType] = []
    for found in evaluation.findings[:20]:
        remarks.append(Text(f"{found.kind}: {found.path}: {found.message}", style="red"))
    if len(evaluation.findings) > 20:
        remarks.append(Text(f"+{len(evaluation.findings) - 20} findings more; see sovereign verify", style="red"))
    for run in evaluation.runs:
        if run.state in ("open", "unconcluded"):
            remarks.append(Text(f"{run.run} is {run.state}: {_way_on(run)}", style="yellow"))
    return remarks


def _way_on(run: RunNote) -> str:
    """Return the command that ends an open run: ours go on, those of other trainers died with them."""
    if run.origin == "run":
        return f"resume it with `sovereign run --resume {run.run}`"
    return f"another trainer's; if that has died, close it with `sovereign abandon {run.run} --reason ...`"


def board(evaluations: Sequence[Evaluation]) -> RenderableType:
    """Return the scoreboard: counts of statuses by category."""
    parts: list[RenderableType] = []
    for evaluation in evaluations:
        lines = scoreboard(evaluation)
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column(f"{evaluation.spec} {evaluation.version}", no_wrap=True)
        for status in lines[-1].counts:
            table.add_column(status, justify="right", style=STYLE[status])
        for name in ("of", "waived", "draft", "withdrawn"):
            table.add_column(name, justify="right")
        for line in lines:
            cells = [str(count or "·") for count in line.counts.values()]
            table.add_row(
                line.category,
                *cells,
                str(line.total),
                *(str(n or "·") for n in (line.waived, line.drafts, line.withdrawn)),
            )
        parts += [table, Text(headline(evaluation), style="bold"), Text("")]
    return Group(*parts)


class _Page(Console):
    """A console that leaves a closed pipe to its caller; rich would exit 1, which says FALSIFIED here."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class _Harmless:
    """A renderable whose text is only text: no control code of evidence reaches the terminal, rich's own colours do."""

    def __init__(self, inner: RenderableType):
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)


def harmless(text: str) -> str:
    """Return text as a terminal shows it and does nothing else."""
    return shown(text, lines=True)


def show(renderable: RenderableType, console: Console | None = None) -> None:
    """Print to standard output; wide where that is a file or a pipe, so that nothing is folded away."""
    target = console or _Page(highlight=False)
    if not target.is_terminal and console is None:
        target = _Page(highlight=False, width=WIDTH)
    target.print(_Harmless(renderable))


def plain(judged: Judged) -> str:
    """Return what a terminal shows as text: no colour, and no control code of evidence that a terminal would obey."""
    page = io.StringIO()
    Console(file=page, width=WIDTH, highlight=False, color_system=None, force_terminal=False).print(
        gates(judged.evaluations)
    )
    lines = [line.rstrip() for line in page.getvalue().split("\n")]
    # the findings stand beneath their evaluations already
    told = [fault for fault in judged.faults if fault.kind not in ("schema", "integrity") or not judged.evaluations]
    lines += [f"{fault.kind}: {fault.path}: {fault.message}" for fault in told]
    return harmless("\n".join([*lines, judged.verdict, ""]))


def explanation(one: CriterionStatus) -> RenderableType:
    """Return everything a criterion's status rests on, obligation by obligation."""
    lines: list[RenderableType] = [
        Text.assemble((f"{one.id}  ", "bold"), (one.shown, STYLE[one.status])),
        Text(one.title),
        Text(
            f"{one.metric} {one.op} {number(one.bound)} {one.unit}   (contract {one.contract}, {one.category}, {one.stage})"
        ),
        Text(f"criterion {one.digest}", style="dim"),
        Text(""),
    ]
    for obligation in one.obligations:
        line = Text.assemble(f"{obligation.name}: ", (obligation.status, STYLE[obligation.status]))
        if obligation.measured:
            line.append(f"  {interval(obligation.measured)}  n={obligation.measured.n}, {obligation.measured.method}")
            line.append(f"\n  from {obligation.measured.run}", style="dim")
        for reason in obligation.reasons:
            line.append(f"\n  {reason.code}: {reason.text}")
        lines.append(line)
    lines += [
        Text(f"{reason.code}: {reason.text}")
        for reason in one.reasons
        if reason.code in ("UNCONCLUDED", "SCHEMA", "INTEGRITY", "UNPROVEN")
    ]
    if one.status != "DISCHARGED" and one.discharge:
        lines += [Text(""), Text.assemble("to discharge it: ", (one.discharge, "bold"))]
    return Group(*lines)
