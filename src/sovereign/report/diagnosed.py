"""A diagnosis for people: what is shown, what is ruled out, what is open, and what to do next, within one screen."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sovereign.diagnosis.findings import MEANING, Finding
from sovereign.diagnosis.procedure import Diagnosis
from sovereign.report.figures import short
from sovereign.report.terminal import harmless

SCREEN = 100  # columns, where nobody says
NOTES, NEXT, LONGEST = 5, 4, 190  # so that a screen of 40 lines holds it
WORD = {"SUPPORTED": "shown", "REFUTED": "ruled out", "INCONCLUSIVE": "open"}
TIERS = (
    "a table of losses", "losses by document", "losses by document, joined with what was trained on",
    "a clean control with extraction or canaries", "an intervention",
)  # fmt: skip


def screen(diagnosis: Diagnosis) -> RenderableType:
    """Return what a terminal shows."""
    supported = [finding for finding in diagnosis.findings if finding.supported]
    parts: list[RenderableType] = [_head(diagnosis)]
    if supported:
        parts += [Text("\nShown", style="bold"), _table(_ranked(diagnosis, supported))]
    notes = told(diagnosis)
    if notes:
        parts += [Text("\nWhat you may not have known", style="bold")]
        parts += [_item(f"· {short(note, LONGEST)}") for note in notes[:NOTES]]
    parts.append(Text())
    for title, chosen in (
        ("Ruled out", [finding for finding in diagnosis.findings if finding.refuted]),
        ("Open", [finding for finding in diagnosis.findings if finding.open]),
    ):
        if chosen:
            parts.append(Text.assemble((f"{title}: ", "bold"), ", ".join(map(_name, chosen))))
    first = next((finding for finding in supported if finding.claim == diagnosis.headline), None)
    if first is not None:
        parts.append(Text.assemble(("Would overturn it: ", "bold"), first.overturned_by))
    if diagnosis.missing:
        parts.append(Text("\nTo do next, cheapest first", style="bold"))
        for number, one in enumerate(diagnosis.missing[:NEXT], 1):
            settles = ", ".join(
                f"{claim} (about {one.enough[claim]:,})" if claim in one.enough else claim for claim in one.settles[:5]
            )
            parts.append(_item(f"{number}. {one.do} ({one.cost}): {settles}"))
        rest = len(diagnosis.missing) - NEXT
        if rest > 0:
            parts.append(_item(f"and {rest} more; --json lists them"))
    return Group(*parts)


def told(diagnosis: Diagnosis) -> list[str]:
    """Return what else is known: the notes of what is shown, then intervals that leave zero out, then the rest."""
    ordered = sorted(diagnosis.findings, key=lambda finding: (not finding.supported, finding.leaning is None))
    first = [note for finding in ordered for note in finding.notes if finding.supported or finding.leaning]
    apart = [
        f"{check.says}: too little to show {finding.claim}"
        for finding in ordered
        for check in finding.checks
        if finding.open and check.result == "undecided" and ((check.low or 0) > 0 or (check.high or 0) < 0)
    ]
    rest = [
        note for finding in ordered for note in finding.notes if finding.claim != "HEALTHY"
    ]  # what health lacks is open
    return [clean(note) for note in dict.fromkeys([*first, *apart, *rest])]


def _head(diagnosis: Diagnosis) -> Text:
    head = next((finding for finding in diagnosis.findings if finding.claim == diagnosis.headline), None)
    said = (
        f"{diagnosis.headline}: {MEANING[head.claim]} ({head.confidence} confidence)"
        if head
        else "INCONCLUSIVE: nothing that would come first is shown, and nothing is healthy by default"
    )
    style = "bold green" if diagnosis.headline == "HEALTHY" else "bold yellow" if head is None else "bold red"
    name = f"{clean(diagnosis.run)}  " if diagnosis.run else ""
    source = f"{diagnosis.source}, " if diagnosis.source else ""
    return Text.assemble(f"{name}({source}tier {diagnosis.tier}: {TIERS[diagnosis.tier]})\n", (said, style))


def _ranked(diagnosis: Diagnosis, supported: list[Finding]) -> list[Finding]:
    return sorted(supported, key=lambda finding: finding.claim != diagnosis.headline)


def _table(findings: Iterable[Finding]) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in findings:
        table.add_row(finding.claim, finding.confidence or "", Text(short(clean(finding.because), LONGEST)))
    return Padding(table, (0, 0, 0, 2))


def _item(text: str) -> RenderableType:
    return Padding(Text(clean(text)), (0, 0, 0, 2))


def _name(finding: Finding) -> str:
    return f"{finding.claim} (leaning towards it)" if finding.leaning == "SUPPORTED" else finding.claim


def clean(text: str) -> str:
    """Return text from outside as one line of words: nothing in it that a terminal would obey."""
    return harmless(text.replace("\n", " "))


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print to standard output, at the width of the terminal, or at a screen's where there is none."""
    console = Console(highlight=False, markup=False)
    if console.is_terminal:
        console.print(screen(diagnosis))
    else:
        print(plain_screen(diagnosis))


def plain_screen(diagnosis: Diagnosis) -> str:
    """Return the screen as text."""
    page = io.StringIO()
    Console(file=page, width=SCREEN, highlight=False, markup=False, color_system=None, force_terminal=False).print(
        screen(diagnosis)
    )
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip().split("\n"))
