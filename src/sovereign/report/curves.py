"""Drawings as inline SVG: the losses of a run against what counting scores, and an interval against its bound."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sovereign.gate.evaluation import CriterionStatus
from sovereign.report.figures import number
from sovereign.report.markup import Content, Markup, element
from sovereign.report.runs import Curve, RunView
from sovereign.report.sparkline import shares

APART = 4  # pixels between the points of a line: what is closer cannot be told apart


@dataclass(frozen=True)
class Frame:
    """The part of a drawing that data stand in: steps to the right, nats per token upwards."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    steps: tuple[float, float]
    values: tuple[float, float]

    def x(self, step: float) -> float:
        low, high = self.steps
        return round(self.left + (step - low) / (high - low) * (self.width - self.left - self.right), 1)

    def y(self, value: float) -> float:
        low, high = self.values
        value = min(max(value, low), high)
        return round(self.top + (high - value) / (high - low) * (self.height - self.top - self.bottom), 1)


def losses(view: RunView, width: int, height: int, class_: str) -> Markup:
    """Return training and validation loss by step with the floors as lines, to be read at `width` pixels."""
    told = [value for curve in (view.training, view.validation) for _, value in curve[:1]]
    told += [value for _, value in view.floors]
    # a run that diverges runs off the top, and does not press everything else flat
    most = min(3 * max(map(abs, told)), 1e12) or 1.0
    drawn = [value for _, value in (*view.training, *view.validation, *view.floors)]
    drawn += [end for _, low, high in view.intervals for end in (low, high)]
    values = [value for value in drawn if -most <= value <= most]
    low, high = min(values, default=-most), max(values, default=most)
    pad = (high - low) * 0.06 or 0.5
    steps = [step for step, _ in (*view.training, *view.validation)]
    frame = Frame(
        width, height, left=40, right=104 if width > 500 else 60, top=10, bottom=34,
        steps=(min(0, *steps), max(1, *steps)), values=(low - pad, high + pad),
    )  # fmt: skip
    return element(
        "svg", *grid(frame), *_floors(frame, view.floors), *_training(frame, view.training), *_intervals(frame, view.intervals), *_validation(frame, view.validation, view.tied),
        viewBox=f"0 0 {width} {height}", class_=f"curves {class_}", role="img", aria_label=said(view),
    )  # fmt: skip


def by_position(view: RunView, width: int, height: int, class_: str) -> Markup:
    """Return the loss by position, doubling to the right, and where the trained length ends."""
    values = [one.loss for one in view.positions]
    low, high = min(values), max(values)
    pad = (high - low) * 0.08 or 0.5
    frame = Frame(
        width, height, left=40, right=24, top=18, bottom=34,
        steps=(0.0, max(1.0, math.log2(view.positions[-1].stop))), values=(low - pad, high + pad),
    )  # fmt: skip
    drawn = []
    for value in ticks(*frame.values, 5):
        y = frame.y(value)
        drawn.append(element("line", x1=frame.left, x2=frame.width - frame.right, y1=y, y2=y, class_="grid"))
        drawn.append(label(frame.left - 6, y + 4, number(value), "end"))
    places = [(frame.x(math.log2(one.stop)), frame.y(one.loss)) for one in view.positions]
    shown = view.positions if width > 500 else view.positions[::2]
    drawn += [
        label(frame.x(math.log2(one.stop)), frame.height - frame.bottom + 16, number(one.stop), "middle")
        for one in shown
    ]
    if view.context:
        x = frame.x(math.log2(view.context))
        drawn.append(element("line", x1=x, x2=x, y1=frame.top, y2=frame.height - frame.bottom, class_="floor"))
        drawn.append(label(x, frame.top - 5, "trained length", "middle", "floor-name"))
    dots = [
        element(
            "circle",
            element("title", f"positions {one.start} to {one.stop}: {one.loss:.4f} nats per token, {one.documents} documents"),
            cx=x, cy=y, r=3.5, class_="validation",
        )
        for one, (x, y) in zip(view.positions, places, strict=True)
    ]  # fmt: skip
    middle = (frame.left + frame.width - frame.right) / 2
    told = "; ".join(f"up to position {one.stop}: {number(one.loss)}" for one in view.positions)
    return element(
        "svg", *drawn, element("polyline", points=points(places), class_="validation"), *dots,
        label(middle, frame.height - 3, "position in the window, up to", "middle", "axis"),
        viewBox=f"0 0 {width} {height}", class_=f"curves {class_}", role="img",
        aria_label=f"Loss by position in nats per token; {told}.",
    )  # fmt: skip


def said(view: RunView) -> str:
    """Return a drawing of losses in words, for those who do not see it."""
    parts = [
        f"{name} loss from {number(curve[0][1])} at step {curve[0][0]} to {number(curve[-1][1])} at step {curve[-1][0]}"
        for name, curve in (("Training", view.training), ("validation", view.validation))
        if curve
    ]
    parts += [f"{name} {number(value)}" for name, value in view.floors]
    if view.tied:
        parts.append(f"the best evaluation and those tied with it: step {', '.join(map(str, view.tied))}")
    return "; ".join(parts) + ", all in nats per token."


def grid(frame: Frame, across: str = "step") -> list[Markup]:
    """Return the lines and numbers of both axes, and the name of the one that runs across."""
    drawn = []
    for value in ticks(*frame.values, 5):
        y = frame.y(value)
        drawn.append(element("line", x1=frame.left, x2=frame.width - frame.right, y1=y, y2=y, class_="grid"))
        drawn.append(label(frame.left - 6, y + 4, number(value), "end"))
    for step in ticks(*frame.steps, 6 if frame.width > 500 else 4):
        drawn.append(label(frame.x(step), frame.height - frame.bottom + 16, number(step), "middle"))
    middle = (frame.left + frame.width - frame.right) / 2
    return [*drawn, label(middle, frame.height - 3, across, "middle", "axis")]


def _floors(frame: Frame, floors: Sequence[tuple[str, float]]) -> list[Markup]:
    drawn = []
    below = -math.inf
    for name, value in sorted(floors, key=lambda floor: -floor[1]):
        y = frame.y(value)
        below = max(y + 4, below + 13)  # names of floors that are close stand under each other
        said = f"{name} {number(value)}" if frame.width > 500 else name
        drawn.append(element("line", x1=frame.left, x2=frame.width - frame.right, y1=y, y2=y, class_="floor"))
        drawn.append(label(frame.width - frame.right + 6, below, said, "start", "floor-name"))
    return drawn


def _training(frame: Frame, curve: Curve) -> list[Markup]:
    """Return the line of the losses; of many, the means of neighbours, within the band from lowest to highest."""
    parts = shares(curve, frame.width // APART)
    middle = [(part[len(part) // 2][0], [loss for _, loss in part]) for part in parts]
    line = element(
        "polyline",
        points=points((frame.x(step), frame.y(sum(all_) / len(all_))) for step, all_ in middle),
        class_="training",
    )
    if len(curve) == len(parts):
        return [line] if curve else []
    upper = [(frame.x(step), frame.y(max(all_))) for step, all_ in middle]
    lower = [(frame.x(step), frame.y(min(all_))) for step, all_ in reversed(middle)]
    return [element("polygon", points=points((*upper, *lower)), class_="band"), line]


def _intervals(frame: Frame, intervals: Sequence[tuple[int, float, float]]) -> list[Markup]:
    return [
        element("line", x1=frame.x(step), x2=frame.x(step), y1=frame.y(low), y2=frame.y(high), class_="whisker")
        for step, low, high in intervals
    ]


def _validation(frame: Frame, curve: Curve, tied: Iterable[int]) -> list[Markup]:
    """Return the line of the losses with a dot an evaluation; those that no test tells from the best are ringed."""
    if not curve:
        return []
    places = [(frame.x(step), frame.y(loss)) for step, loss in curve]
    best = frozenset(tied)
    rings = [
        element("circle", cx=x, cy=y, r=7, class_="tied")
        for (step, _), (x, y) in zip(curve, places, strict=True)
        if step in best
    ]
    dots = [
        element(
            "circle",
            element("title", f"step {step}: {loss:.4f} nats per token{', tied with the best' if step in best else ''}"),
            cx=x,
            cy=y,
            r=3.5,
            class_="validation",
        )
        for (step, loss), (x, y) in zip(curve, places, strict=True)
    ]
    return [element("polyline", points=points(places), class_="validation"), *rings, *dots]


def points(places: Iterable[tuple[float, float]]) -> str:
    """Return places as SVG writes them."""
    return " ".join(f"{x:g},{y:g}" for x, y in places)


def label(x: float, y: float, text: Content, anchor: str, class_: str = "tick") -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=class_)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers from low to high, at most so many and one more, a step of 1, 2 or 5 apart."""
    rough = (high - low) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * (1 - 1e-9))
    return [round(step * at, 12) for at in range(math.ceil(low / step), math.floor(high / step) + 1)]


def against_bound(one: CriterionStatus) -> Markup | None:
    """Return a criterion's interval beside its bound, the side that satisfies it shaded; None where there are no numbers."""
    found = one.measured
    if found is None or isinstance(one.bound, bool | str):
        return None
    low, value, high, asked = (float(each) for each in (found.low, found.value, found.high, one.bound))
    width, height = 150, 22
    span = max(high, asked) - min(low, asked)
    # so close, there is nothing to see between them, and what floats can tell apart ends near there
    if span <= max(abs(low), abs(high), abs(asked), 1e-90) * 1e-9:
        span = max(abs(asked), 1.0)
    start = min(low, asked) - span * 0.2
    scale = (width - 4) / (max(high, asked) + span * 0.2 - start)

    def x(place: float) -> float:
        return round(2 + (place - start) * scale, 1)

    begin, end = {"<": (2.0, x(asked)), ">": (x(asked), width - 2.0), "=": (x(asked) - 2, x(asked) + 2)}[one.op[0]]
    middle = height / 2
    return element(
        "svg",
        element("rect", x=2, y=middle - 7, width=width - 4, height=14, rx=3, class_="scale"),
        element("rect", x=round(begin, 1), y=middle - 7, width=round(end - begin, 1), height=14, rx=3, class_="holds"),
        element("line", x1=x(asked), x2=x(asked), y1=1, y2=height - 1, class_="bound"),
        element("line", x1=x(low), x2=x(high), y1=middle, y2=middle, class_="interval"),
        element("circle", cx=x(value), cy=middle, r=3.5, class_="value"),
        viewBox=f"0 0 {width} {height}", class_="against-bound", aria_hidden="true",
    )  # fmt: skip
