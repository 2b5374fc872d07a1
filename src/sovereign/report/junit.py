"""JUnit XML: a suite for each spec, a case for each criterion, as CI servers list tests.

The elements and attributes are those of the schema that Jenkins publishes for its xUnit plugin (junit-10.xsd).
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from sovereign.gate.evaluation import CriterionStatus, Evaluation
from sovereign.report.figures import bound, interval, remarks, way_on
from sovereign.report.judged import Judged, Standing

OUTCOME: dict[Standing, str] = {
    "invalid": "error", "failed": "failure", "blocking": "failure", "pending": "skipped", "waived": "skipped", "aside": "skipped",
}  # fmt: skip
# what XML 1.0 cannot hold, not even escaped
UNSAYABLE = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(judged: Judged) -> str:
    """Return one `testsuite` a spec; what is broken beside the criteria is a suite of errors."""
    root = Xml.Element("testsuites", name="sovereign gates")
    for evaluation in judged.evaluations:
        cases = [_case(judged, evaluation, one) for one in evaluation.criteria]
        _suite(root, evaluation.spec, cases, evaluation)
    if judged.faults:
        _suite(root, "files", [_fault(fault.kind, fault.path, fault.message) for fault in judged.faults])
    for outcome, name in (("testcase", "tests"), ("failure", "failures"), ("error", "errors")):
        root.set(name, str(sum(1 for _ in root.iter(outcome))))
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _suite(root: Xml.Element, name: str, cases: list[Xml.Element], evaluation: Evaluation | None = None) -> None:
    suite = Xml.SubElement(root, "testsuite", name=_sayable(name), tests=str(len(cases)), time="0")
    for outcome, count in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(count, str(sum(1 for case in cases if case.find(outcome) is not None)))
    if evaluation is not None:
        suite.set("timestamp", evaluation.now.removesuffix("Z"))
        properties = Xml.SubElement(suite, "properties")
        for key, value in (("version", evaluation.version), ("file", evaluation.spec_path)):
            Xml.SubElement(properties, "property", name=key, value=_sayable(value))
    suite.extend(cases)


def _case(judged: Judged, evaluation: Evaluation, one: CriterionStatus) -> Xml.Element:
    # by id alone: a title may be edited, and the history that a server keeps of a test hangs on its name
    case = Xml.Element(
        "testcase", name=_sayable(one.id), classname=_sayable(f"{evaluation.spec}.{one.category}"), time="0"
    )
    outcome = OUTCOME.get(judged.standing(evaluation, one))
    told = [f"{reason.code}: {reason.text}" for reason in one.reasons]
    if outcome is not None:
        said = f"{'draft ' if one.stage == 'draft' else ''}{one.shown}: {'; '.join((*told, *remarks(one)))}"
        found = Xml.SubElement(case, outcome, message=_sayable(said))
        if outcome != "skipped":
            found.set("type", one.status)
            found.text = _sayable("\n".join((*told, *remarks(one), f"the way on: {way_on(one)}")))
    lines = [one.title, f"{one.metric} {bound(one)}", f"measured {interval(one.measured)}"]
    lines += [f"{each.name}: {each.status} {interval(each.measured)}" for each in one.obligations]
    lines += [f"criterion {one.digest}" if one.digest else "", *(f"evidence {digest}" for digest in one.evidence)]
    Xml.SubElement(case, "system-out").text = _sayable("\n".join(line for line in lines if line.strip()))
    return case


def _fault(kind: str, path: str, message: str) -> Xml.Element:
    case = Xml.Element("testcase", name=_sayable(path), classname=f"files.{kind}", time="0")
    Xml.SubElement(case, "error", message=_sayable(message), type=kind)
    return case


def _sayable(text: str) -> str:
    return UNSAYABLE.sub("\N{REPLACEMENT CHARACTER}", text)
