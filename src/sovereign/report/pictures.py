"""Pictures that stand alone: the losses of a run and its gap, the curves of several runs, and their documents one by one.

Each is an SVG file of its own, without script, request or font; colours follow the reader's light or dark.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

from sovereign.report.curves import Frame, grid, label, losses, points
from sovereign.report.figures import number
from sovereign.report.markup import Content, Markup, element
from sovereign.report.runs import Curve, RunView

WIDTH = 860  # pixels, of every picture
COLOURS = 6  # lines that a reader tells apart
SIDE = 420  # of a scatter
ROOT = re.compile(r":root \{([^}]*)\}")
VARIABLE = re.compile(r"--([a-z]+): ([^;]+);")
USED = re.compile(r"var\(--([a-z]+)\)")


def of_run(view: RunView) -> str:
    """Return one run: its losses with intervals, floors and the evaluations tied with the best, its gap, and its exposures."""
    panels = [(losses(view, WIDTH, 330, "broad"), WIDTH, 330)]
    if view.gaps:
        panels.append((gap(view, WIDTH, 200), WIDTH, 200))
    if view.exposures:
        panels.append((exposures(view, WIDTH, 200), WIDTH, 200))
    return alone(f"{view.run}  {view.title}", panels)


def of_comparison(runs: Sequence[tuple[str, Curve, Mapping[str, float]]]) -> str:
    """Return several runs, each with its name, its validation curve and its last loss by document; the first is the measure."""
    panels = [(several([(name, curve) for name, curve, _ in runs], WIDTH, 330), WIDTH, 330)]
    first, _, mine = runs[0]
    panels += [
        (scatter((first, name), mine, theirs), SIDE, SIDE)
        for name, _, theirs in runs[1:]
        if mine.keys() & theirs.keys()
    ]
    return alone(" and ".join(name for name, _, _ in runs), panels)


def gap(view: RunView, width: int, height: int) -> Markup:
    """Return validation minus train probe by step, both in evaluation mode, with its band and zero."""
    ends = [end for _, _, low, high in view.gaps for end in (low, high)]
    frame = _frame(width, height, [step for step, *_ in view.gaps], [0.0, *ends], right=60)
    upper = [(frame.x(step), frame.y(high)) for step, _, _, high in view.gaps]
    lower = [(frame.x(step), frame.y(low)) for step, _, low, _ in reversed(view.gaps)]
    line = [(frame.x(step), frame.y(value)) for step, value, _, _ in view.gaps]
    last = view.gaps[-1]
    said = f"Validation minus train probe, from {number(view.gaps[0][1])} at step {view.gaps[0][0]} to {number(last[1])} at step {last[0]}."
    return element(
        "svg", *grid(frame), _zero(frame), element("polygon", points=points((*upper, *lower)), class_="band"),
        element("polyline", points=points(line), class_="training"),
        label(frame.width - frame.right + 6, frame.y(last[1]) + 4, "gap", "start", "floor-name"),
        viewBox=f"0 0 {width} {height}", class_="curves broad", role="img", aria_label=said,
    )  # fmt: skip


def exposures(view: RunView, width: int, height: int) -> Markup:
    """Return how many documents were trained on never, once and more often, as bars."""
    times = [passes for passes, _ in view.exposures]
    wide = min((after - before for before, after in itertools.pairwise(times)), default=1)
    frame = Frame(
        width, height, left=54, right=24, top=18, bottom=34,
        steps=(min(times) - wide / 2, max(times) + wide / 2), values=(0.0, max(documents for _, documents in view.exposures)),
    )  # fmt: skip
    drawn = []
    for passes, documents in view.exposures:
        left, right = frame.x(passes - 0.4 * wide), frame.x(passes + 0.4 * wide)
        top, foot = frame.y(documents), frame.y(0)
        told = element("title", f"{documents} documents, {times_over(passes)}")
        corners = points(((left, foot), (left, top), (right, top), (right, foot)))
        drawn.append(element("polygon", told, points=corners, class_="dot"))
        drawn.append(label((left + right) / 2, top - 4, number(documents), "middle"))
        drawn.append(label((left + right) / 2, foot + 16, number(passes), "middle"))
    said = "; ".join(f"{documents} documents {times_over(passes)}" for passes, documents in view.exposures)
    return element(
        "svg", *drawn, _zero(frame), label(width / 2, height - 3, "passes over a document's windows", "middle", "axis"),
        viewBox=f"0 0 {width} {height}", class_="curves broad", role="img", aria_label=f"Exposures: {said}.",
    )  # fmt: skip


def times_over(passes: int) -> str:
    """Return passes in words."""
    return "never trained on" if not passes else f"trained on about {passes} time{'s' * (passes != 1)}"


def several(curves: Sequence[tuple[str, Curve]], width: int, height: int) -> Markup:
    """Return the validation curves of several runs over each other, each with its name at its end."""
    drawn = [(place, name, curve) for place, (name, curve) in enumerate(curves) if curve]
    frame = _frame(
        width,
        height,
        [step for *_, curve in drawn for step, _ in curve],
        [loss for *_, curve in drawn for _, loss in curve],
        right=60,
    )
    lines: list[Markup] = []
    below = -1e9
    for place, name, curve in sorted(drawn, key=lambda one: frame.y(one[2][-1][1])):
        places = [(frame.x(step), frame.y(loss)) for step, loss in curve]
        lines.append(element("polyline", points=points(places), class_=f"run-{place % COLOURS}"))
        below = max(below + 13, places[-1][1] + 4)
        lines.append(label(places[-1][0] + 6, below, name, "start", "run-name"))
    said = "; ".join(f"{name} ends at {number(curve[-1][1])} at step {curve[-1][0]}" for _, name, curve in drawn)
    return element(
        "svg", *grid(frame), *lines, viewBox=f"0 0 {width} {height}", class_="curves broad", role="img",
        aria_label=f"Validation loss in nats per token: {said}.",
    )  # fmt: skip


def scatter(
    names: tuple[str, str], first: Mapping[str, float], second: Mapping[str, float], side: int = SIDE
) -> Markup:
    """Return a dot for each document of both: across its loss in the first run, upwards in the second, equality a line."""
    documents = sorted(first.keys() & second.keys())
    values = [one[key] for key in documents for one in (first, second)] or [0.0]
    frame = _frame(side, side, values, values, right=20)
    low, high = frame.values
    better = sum(second[key] < first[key] for key in documents)
    dots = [
        element(
            "circle", element("title", f"{key}: {first[key]:.4f} and {second[key]:.4f} nats per token"),
            cx=frame.x(first[key]), cy=frame.y(second[key]), r=2.5, class_="dot",
        )
        for key in documents
    ]  # fmt: skip
    equal = element("line", x1=frame.x(low), y1=frame.y(low), x2=frame.x(high), y2=frame.y(high), class_="floor")
    said = f"{better} of {len(documents)} documents have a lower loss in {names[1]} than in {names[0]}"
    return element(
        "svg", *grid(frame, f"nats per token in {names[0]}; upwards in {names[1]}"), equal, *dots,
        label(frame.left + 8, frame.top + 12, said, "start", "floor-name"),
        viewBox=f"0 0 {side} {side}", class_="curves broad", role="img", aria_label=f"{said}.",
    )  # fmt: skip


def _frame(width: int, height: int, across: Sequence[float], up: Sequence[float], right: int) -> Frame:
    low, high = min(up, default=0.0), max(up, default=1.0)
    pad = (high - low) * 0.06 or 0.5
    start, end = min(across, default=0.0), max(across, default=1.0)
    both = across is up
    return Frame(
        width, height, left=40, right=right, top=10, bottom=34,
        steps=(low - pad, high + pad) if both else (start, end if end > start else start + 1), values=(low - pad, high + pad),
    )  # fmt: skip


def _zero(frame: Frame) -> Markup:
    return element("line", x1=frame.left, x2=frame.width - frame.right, y1=frame.y(0.0), y2=frame.y(0.0), class_="zero")


def alone(title: str, panels: Sequence[tuple[Markup, int, int]], width: int = WIDTH) -> str:
    """Return drawings, each with its width and height, under each other as one SVG file."""
    parts: list[Content] = [
        element("title", title),
        element("style", _style()),
        element("rect", width="100%", height="100%", class_="paper"),
        element("text", title, x=16, y=19, class_="run-title"),
    ]
    top = 28
    for drawn, across, height in panels:
        # an svg within one is placed by these; the page's own rule would stretch it
        place = (
            f'<svg x="0" y="{top}" width="{across}" height="{height}" style="width: {across}px; height: {height}px" '
        )
        parts.append(Markup(drawn.replace("<svg ", place, 1)))
        top += height + 12
    whole = element(
        "svg", *parts, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {top}", width=width, height=top
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{whole}\n'


def _style() -> Markup:
    """Return the page's rules for drawings with their colours filled in: many viewers of SVG know no variables."""
    page = files("sovereign.report").joinpath("page.css").read_text("utf-8")
    rules = page[page.index(".grid {") : page.index("\npre {")]
    rules += ".paper { fill: var(--paper); } text { fill: var(--faint); font: 12px system-ui, sans-serif; } .floor-name { fill: var(--ink); }"
    rules += " .run-title { fill: var(--ink); font-weight: 600; } .run-name { fill: var(--ink); }"
    light, dark = (dict(VARIABLE.findall(block)) for block in ROOT.findall(page)[:2])
    return Markup(f"{_filled(rules, light)}\n@media (prefers-color-scheme: dark) {{\n{_filled(rules, dark)}\n}}")


def _filled(rules: str, colours: Mapping[str, str]) -> str:
    return USED.sub(lambda found: colours[found[1]], rules)
