"""Markdown for a job summary or a comment on a pull request, within the size that GitHub takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sovereign.gate.evaluation import WORST_FIRST, CriterionStatus, Evaluation
from sovereign.gate.scoreboard import headline
from sovereign.report.figures import MARK, bound, interval, number, remarks, short, way_on
from sovereign.report.judged import Judged
from sovereign.report.sparkline import sparkline

SUMMARY = 1 << 20  # bytes of a step's summary
COMMENT = 64_000  # bytes of a comment; GitHub counts 65,536 characters
MOST = 400  # characters of one string from outside
# Every character by which text could become structure stands as an entity. CommonMark: an entity never does.
# A mention, a reference and a link are made after that, from the text: a zero-width space keeps them from it.
ENTITIES = str.maketrans({character: f"&#{ord(character)};" for character in "\\`*_{}[]|~&<>!$"})
LINKED = re.compile(r"@|#(?=\d)|:(?=//)|www(?=\.)", re.IGNORECASE)
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]+")


def markdown(judged: Judged, limit: int = SUMMARY) -> str:
    """Return headline, table, reasons, runs and digests, in at most `limit` bytes; what did not fit is said."""
    blocks = [_faults(judged), _changes(judged)]
    for evaluation in judged.evaluations:
        blocks += [_criteria(evaluation), _reasons(evaluation)]
    blocks += [_foreseen(judged), _runs(judged), *(_digests(evaluation) for evaluation in judged.evaluations)]
    return fitted(_opening(judged), blocks, limit)


@dataclass(frozen=True)
class Block:
    """A part of the page: items of which some may have to be left out, and the lines around them."""

    head: str
    items: Sequence[str]
    foot: str = ""


def _opening(judged: Judged) -> str:
    specs = "+".join(evaluation.spec for evaluation in judged.evaluations)
    # the first line finds the comment again, so that it is brought up to date and not repeated
    lines = [f"<!-- sovereign-gates:{re.sub('[^a-z0-9+-]', '', specs)}:{judged.profile} -->"]
    for evaluation in judged.evaluations:
        worst = MARK[evaluation.worst] if evaluation.worst else MARK["OPEN"]
        lines += [f"## {worst} {escaped(evaluation.spec)} {escaped(evaluation.version)}: {headline(evaluation)}", ""]
    head = f" at {code(judged.head)}" if judged.head else ""
    return "\n".join([*lines, f"**{judged.verdict}**{head}"])


def _faults(judged: Judged) -> Block:
    items = [
        f"- {fault.kind}: {code(f'{fault.path}:{fault.line}')} {escaped(fault.message)}" for fault in judged.faults
    ]
    return Block("### What is broken\n", items)


def _changes(judged: Judged) -> Block:
    changes = [f"- {code(one.id)} {one.before} → {one.after}" for one in judged.changes]
    return Block("### Against the base\n", changes or (["- no status changed"] if judged.base is not None else []))


def _worst_first(evaluation: Evaluation) -> list[CriterionStatus]:
    order = (*WORST_FIRST, "WITHDRAWN")
    return sorted(evaluation.criteria, key=lambda one: order.index(one.status))


def _criteria(evaluation: Evaluation) -> Block:
    head = "| status | criterion | measured | bound | n | what it says |\n| --- | --- | --- | --- | ---: | --- |"
    return Block(head, [_row(one) for one in _worst_first(evaluation)])


def _row(one: CriterionStatus) -> str:
    draft = " (draft)" if one.stage == "draft" else ""
    n = str(one.measured.n) if one.measured else ""
    cells = (
        f"{MARK[one.status]} {one.shown}{draft}", code(one.id), escaped(interval(one.measured)), escaped(bound(one)), n,
        escaped(one.title),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _reasons(evaluation: Evaluation) -> Block:
    items = []
    for one in _worst_first(evaluation):
        told = [f"{reason.code}: {reason.text}" for reason in one.reasons] if one.status != "DISCHARGED" else []
        said = [*told, *remarks(one)]
        if said:
            way = f"; the way on: {code(way_on(one))}" if way_on(one) else ""
            items.append(f"- {code(one.id)} {'; '.join(escaped(part) for part in said)}{way}")
    return Block("### Why\n", items)


def _runs(judged: Judged) -> Block:
    views = {view.run: view for view in judged.runs}
    items = []
    for run in dict.fromkeys(run for evaluation in judged.evaluations for run in reversed(evaluation.runs)):
        view = views.get(run.run)
        training = [loss for _, loss in view.training] if view else []
        validation = [loss for _, loss in view.validation] if view else []
        cells = (
            code(run.run), run.state, str(run.seed if run.seed is not None else ""), str(run.steps or ""), _curve(training),
            _curve(validation), escaped(run.exploratory or run.reason),
        )  # fmt: skip
        items.append(f"| {' | '.join(cells)} |")
    head = "### Runs\n\n| run | state | seed | steps | training loss | validation loss | remark |\n"
    return Block(head + "| --- | --- | ---: | ---: | --- | --- | --- |", items)


def _foreseen(judged: Judged) -> Block:
    items = [
        f"- **{one.outcome}** {escaped(one.sentence)}, frozen by {code(one.run)}" for one in judged.foreseen.forecasts
    ]
    items += [f"- **{one.state}** {escaped(one.sentence)}" for one in judged.foreseen.hypotheses]
    return Block("### Forecasts and hypotheses\n", items)


def _curve(values: Sequence[float]) -> str:
    return f"{sparkline(values, 16)} {number(values[-1])}" if values else ""


def _digests(evaluation: Evaluation) -> Block:
    head = f"<details><summary>Digests of {escaped(evaluation.spec)}</summary>\n\n| criterion | digest | evidence |\n| --- | --- | --- |"
    items = [
        f"| {code(one.id)} | {code(one.digest)} | {' '.join(map(code, one.evidence))} |"
        for one in evaluation.criteria
        if one.digest
    ]
    return Block(head, items, "\n</details>")


def fitted(opening: str, blocks: Sequence[Block], limit: int) -> str:
    """Return the opening and the blocks that hold something; where items do not fit, they are left out from the end."""
    notice = f"*{{}} lines did not fit into {limit:,} bytes; `sovereign gates` prints them all.*"
    room = limit - _size(opening) - _size(notice) - 20  # for the number in it, and the line ends around it
    parts = [opening]
    left = 0
    for block in blocks:
        frame = _size(block.head) + _size(block.foot) + 3
        if not block.items or frame > room:
            left += len(block.items)
            continue
        taken: list[str] = []
        room -= frame
        for item in block.items:
            if _size(item) + 1 > room:
                break
            room -= _size(item) + 1
            taken.append(item)
        left += len(block.items) - len(taken)
        parts.append("\n".join(filter(None, (block.head, *taken, block.foot))))
    return "\n\n".join([*parts, *([notice.format(left)] if left else [])]) + "\n"


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def escaped(text: str) -> str:
    """Return text from outside as one line of Markdown that says it and does nothing else."""
    plain = short(UNSEEN.sub(" ", text).strip(), MOST)
    return LINKED.sub(lambda found: found[0] + "\N{ZERO WIDTH SPACE}", plain).translate(ENTITIES)


def code(text: str) -> str:
    """Return text from outside as code, in which nobody is called either."""
    # not in backticks: within those, an entity would be shown as it is spelt
    return f"<code>{escaped(text)}</code>"
