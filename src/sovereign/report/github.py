"""Annotations of a GitHub workflow: commands on standard output that mark lines of the spec in a pull request."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from sovereign.gate.evaluation import WORST_FIRST, CriterionStatus, Evaluation
from sovereign.gate.scoreboard import headline
from sovereign.report.figures import interval, remarks, short
from sovereign.report.judged import Fault, Judged

SHOWN = 10  # annotations of one type that GitHub shows of a step; it drops the rest without a word
TYPES = ("error", "warning", "notice")
MOST = 2000  # characters of a message: more is not read in the margin of a diff


def github(judged: Judged) -> str:
    """Return the headline and the annotations, worst first and at most ten of a type, the last saying what is left out."""
    found = [*map(_fault, judged.faults), *_criteria(judged)]
    lines = [_plain(f"sovereign gates: {evaluation.spec}: {headline(evaluation)}") for evaluation in judged.evaluations]
    lines.append(judged.verdict)
    for kind in TYPES:
        mine = [command for type_, command in found if type_ == kind]
        if len(mine) > SHOWN:
            left = len(mine) - SHOWN + 1  # the line that says so is one of the ten
            mine = [*mine[: SHOWN - 1], _command(kind, {"title": "sovereign gates"}, f"+{left} {kind}s in the summary")]
        lines += mine
    return "\n".join(lines) + "\n"


def _criteria(judged: Judged) -> Iterable[tuple[str, str]]:
    order = (*WORST_FIRST, "WITHDRAWN")
    all_of = chain.from_iterable(
        ((evaluation, one) for one in evaluation.criteria) for evaluation in judged.evaluations
    )
    for evaluation, one in sorted(all_of, key=lambda pair: order.index(pair[1].status)):
        kind = _type(judged, evaluation, one)
        if kind:
            yield kind, _annotation(judged, evaluation, one, kind)


def _type(judged: Judged, evaluation: Evaluation, one: CriterionStatus) -> str:
    standing = judged.standing(evaluation, one)
    if standing == "passed" or one.status == "WITHDRAWN":
        return ""
    if standing in ("invalid", "failed"):
        return "error"
    if standing in ("waived", "aside"):
        return "notice"
    return "warning" if one.status == "STALE" else "notice"


def _annotation(judged: Judged, evaluation: Evaluation, one: CriterionStatus, kind: str) -> str:
    told = [f"{reason.code}: {reason.text}" for reason in one.reasons]
    told += [] if judged.standing(evaluation, one) != "aside" else ["draft: it does not gate"]
    measured = [f"measured {interval(one.measured)}"] if one.measured else []
    where = {"file": evaluation.spec_path, "line": str(judged.line(evaluation, one)), "title": f"{one.id} {one.shown}"}
    return _command(kind, where, "\n".join((one.title or one.id, *measured, *told, *remarks(one))))


def _fault(fault: Fault) -> tuple[str, str]:
    where = {"file": fault.path, "line": str(fault.line), "title": f"sovereign: {fault.kind}"}
    return "error", _command("error", where, fault.message)


def _command(kind: str, properties: dict[str, str], message: str) -> str:
    said = ",".join(f"{key}={_property(value)}" for key, value in properties.items() if value)
    return f"::{kind} {said}::{_message(short(message, MOST))}"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(short(text, 255)).replace(":", "%3A").replace(",", "%2C")


def _plain(text: str) -> str:
    """Return text as one line that a runner does not take for a command."""
    return " ".join(text.split()).replace("##[", "## [")  # which is a command wherever it stands
