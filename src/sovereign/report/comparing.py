"""A comparison for the terminal and as Markdown: the table that a person would have typed, what differed, what follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sovereign.comparison.record import Comparison, Difference, Estimate, Pair, SideBySide, Value, Written
from sovereign.report.figures import number, short
from sovereign.report.markdown import SUMMARY, Block, code, escaped, fitted
from sovereign.report.sparkline import sparkline
from sovereign.report.terminal import harmless

STYLE = {
    "LOWER": "bold green", "HIGHER": "bold red", "SAME": "green", "INCONCLUSIVE": "yellow", "VOID": "bold white on red",
    "DESCRIPTIVE": "dim",
}  # fmt: skip
MOST_TEXT = 600  # characters of one sample
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letter(place: int) -> str:
    """Return what a run is called in its comparison: A for the first."""
    return LETTERS[place] if place < len(LETTERS) else f"R{place + 1}"


def estimate(found: Estimate | None) -> str:
    """Return a number with its interval as people read it, or a dash."""
    if found is None:
        return "–"
    if found.low is None or found.high is None or found.low == found.high:
        return _thousands(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def _thousands(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() and 1000 <= abs(value) < 1e15 else number(value)


def signed(found: Estimate) -> str:
    """Return a difference with its sign and interval."""
    if found.low is None or found.high is None:
        return f"{found.value:+.4f}"
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def value(found: Value) -> str:
    if isinstance(found, float):
        return f"{found:g}"
    return "–" if found is None else str(found)


def sentences(pair: Pair) -> Iterator[str]:
    """Yield what was found of one pair, a sentence at a time."""
    for one in pair.losses:
        at = f"{one.at}, step {one.steps[0]}" + (f" and {one.steps[1]}" if one.steps[0] != one.steps[1] else "")
        seen = f"; detectable {one.difference.detectable:.3g}" if one.difference.detectable else ""
        yield (
            f"{at}: {one.losses[0]:.4f} and {one.losses[1]:.4f}, difference {signed(one.difference)} nats/token "
            f"({one.difference.method}, n = {one.difference.n}{seen})"
        )
    if pair.noise:
        seen = f"; detectable {pair.noise.detectable:.3g}" if pair.noise.detectable else ""
        yield f"over seeds: difference {signed(pair.noise)} nats/token ({pair.noise.method}{seen})"
    for other in pair.offered:
        yield (
            f"offered, {other.name}: {other.values[0]:.4f} and {other.values[1]:.4f} {other.unit}, difference "
            f"{signed(other.difference)} ({other.remark})"
        )


# ── terminal ─────────────────────────────────────────────────────────────────────────────────────


def terminal(found: Comparison, samples: int) -> RenderableType:
    """Return a comparison for a terminal, with so many prompts beside each other."""
    parts: list[RenderableType] = []
    for place, run in enumerate(found.runs):
        line = Text.assemble((f"{letter(place)}  ", "bold"), (run.run, "bold"), f"  {_plain(run.title)}")
        said = [f"seed {run.seed}", run.outcome, run.assurance] + (
            [f"{run.repeats} seeds known"] if run.repeats > 1 else []
        )
        line.append(f"\n   {', '.join(said)}", style="dim")
        if run.deviates:
            line.append(f"\n   {_plain(run.deviates)}", style="yellow")
        parts.append(line)
    parts += [Text(""), _grid(found), Text(""), _differing(found.differences, len(found.runs))]
    for pair in found.pairs:
        parts += [Text(""), _judged(found, pair)]
    if found.samples and samples:
        parts += [
            Text(""),
            Text(
                f"{min(samples, len(found.samples))} of {found.prompts} prompts that every run continued, in order",
                "bold",
            ),
        ]
        parts += [Padding(_sample(one), (0, 0, 0, 1)) for one in found.samples[:samples]]
    return Group(*parts)


def _plain(text: str) -> str:
    return harmless(text)


def _columns(first: str, runs: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(first)
    for place in range(runs):
        table.add_column(letter(place), justify="right")
    return table


def _grid(found: Comparison) -> Table:
    table = _columns("", len(found.runs))
    table.add_column("")
    for line in found.table:
        cells = [estimate(cell) for cell in line.cells]
        style = None if len(set(cells)) > 1 else "dim"
        void = Text(f"VOID {line.void}", "red") if line.void else Text("")
        table.add_row(f"{line.name} {line.unit}".strip(), *cells, void, style=style)
    curves = [sparkline([loss for _, loss in run.validation], 16) for run in found.runs]
    if any(curves):
        table.add_row("validation loss by evaluation, each on its own scale", *curves)
    return table


def _differing(differences: Sequence[Difference], runs: int) -> RenderableType:
    if not differences:
        return Text(
            "Nothing differs: not the contract, the data, the code, the environment, the seed, or what was applied.",
            "bold",
        )
    table = _columns("what differs", runs)
    for one in differences:
        name = one.name if one.name == one.kind else f"{one.kind}: {one.name}"
        table.add_row(_plain(name), *(_plain(short(value(cell), 60)) for cell in one.values))
    return table


def _judged(found: Comparison, pair: Pair) -> Text:
    names = [run.run for run in found.runs]
    places = [letter(names.index(name)) for name in (pair.first, pair.second)]
    line = Text.assemble(
        (f"{places[1]} against {places[0]}  ", "bold"), "checkpoints ", (pair.checkpoints, STYLE[pair.checkpoints])
    )
    line.append("  recipes ")
    line.append(pair.recipes, style=STYLE[pair.recipes])
    if pair.attributed:
        line.append(f"  by {pair.attributed}", style="bold")
    for text in sentences(pair):
        line.append(f"\n  {text}")
    for reason in pair.reasons:
        line.append(f"\n  {reason.code}: {_plain(reason.text)}", style="dim" if pair.checkpoints != "VOID" else "red")
    return line


def _sample(one: SideBySide) -> Text:
    text = Text(f"\n{_plain(short(one.prompt, MOST_TEXT))}", style="bold")
    for written in one.written:
        text.append(f"\n{_marked(written)}", style="cyan")
        text.append(f"\n{_plain(short(written.text, MOST_TEXT))}", style="")
    return text


def _marked(written: Written) -> str:
    collapsed = ", DEGENERATE" if written.degenerate else ""
    return (
        f"── {f'base of {letter(written.run)}' if written.by == 'base' else f'{letter(written.run)} at step {written.step}'}: {len(written.text)} characters, {written.repeated:.0%} of 4-grams repeated, "
        f"compresses {written.ratio:.1f} times, longest run {written.longest}{collapsed}"
    )


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────


def markdown(found: Comparison, samples: int, limit: int = SUMMARY) -> str:
    """Return a comparison as Markdown within so many bytes."""
    heads = " | ".join(letter(place) for place in range(len(found.runs)))
    rule = "|".join(["---"] + ["---:"] * len(found.runs))
    runs = [
        f"- **{letter(place)}** {code(run.run)} {escaped(run.title)}: seed {run.seed}, {run.outcome}, {run.assurance}"
        + (f", {run.repeats} seeds known" if run.repeats > 1 else "")
        + (f"; **{escaped(run.deviates)}**" if run.deviates else "")
        for place, run in enumerate(found.runs)
    ]
    names = [run.run for run in found.runs]
    blocks = [
        Block("", runs),
        Block(f"|  | {heads} |\n|{rule}|", [
            f"| {escaped(f'{line.name} {line.unit}'.strip())} | {' | '.join(escaped(estimate(cell)) for cell in line.cells)}"
            + (f" **VOID** {escaped(line.void)} |" if line.void else " |")
            for line in found.table]),
        Block(f"### What differs\n\n|  | {heads} |\n|{rule}|", [
            f"| {escaped(one.name if one.name == one.kind else f'{one.kind}: {one.name}')} | "
            f"{' | '.join(escaped(value(cell)) for cell in one.values)} |" for one in found.differences]),
        *(Block(f"### {letter(names.index(pair.second))} against {letter(names.index(pair.first))}\n\n"
                f"Checkpoints **{pair.checkpoints}**, recipes **{pair.recipes}**"
                + (f", by {code(pair.attributed)}" if pair.attributed else "") + "\n",
                [*(f"- {escaped(text)}" for text in sentences(pair)),
                 *(f"- {reason.code}: {escaped(reason.text)}" for reason in pair.reasons)])
          for pair in found.pairs),
        Block(f"<details><summary>{min(samples, len(found.samples))} of {found.prompts} prompts that every run continued</summary>\n",
              [_quoted(one) for one in found.samples[:samples]], "\n</details>"),
    ]  # fmt: skip
    return fitted(
        "## " + " and ".join(f"{letter(place)} {escaped(run.contract)}" for place, run in enumerate(found.runs)),
        blocks,
        limit,
    )


def _quoted(one: SideBySide) -> str:
    lines = [f"- {code(short(one.prompt, 200))}"]
    lines += [f"  - {escaped(_marked(written)[3:])}: {code(short(written.text, 300))}" for written in one.written]
    return "\n".join(lines)
