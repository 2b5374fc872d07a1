"""JUnit, SARIF, annotations and badge: valid by the formats' own rules, and as red as the gate."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
import xmlschema
from jsonschema import Draft202012Validator, FormatChecker
from reported import criterion, evaluation, judged

from sovereign.gate.evaluation import Evaluation
from sovereign.gate.profile import PROFILES, Exit
from sovereign.report.badge import badge
from sovereign.report.github import SHOWN, github
from sovereign.report.judged import Judged
from sovereign.report.junit import junit
from sovereign.report.sarif import code_scanning, sarif

SCHEMAS = Path(__file__).parent / "schemas"
COMMAND = re.compile(r"::(error|warning|notice) ((?:\w+=[^,:]*,?)*)::(.*)")


def of(*criteria: Any, **changes: Any) -> Judged:
    """Return criteria as the only ones of a spec, judged; nothing else is broken."""
    one = evaluation().model_copy(update={"criteria": criteria, "findings": ()})
    return judged(evaluations=(one,), exit=Exit.SATISFIED, **changes)


@cache
def junit_schema() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(SCHEMAS / "junit.xsd")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "made", [judged, lambda **changes: Judged(evaluations=(), **changes)], ids=["every status", "nothing"]
)
def test_junit_is_valid(made: Any, profile: str) -> None:
    """The report is valid by the schema that CI servers publish, in every profile, even where there is no spec."""
    junit_schema().validate(junit(made(profile=profile)))


def test_the_junit_schema_bites() -> None:
    """A case without a name, and a suite that does not count, are refused: the validation above can fail."""
    sound = junit(judged())

    assert not junit_schema().is_valid(sound.replace('<testcase name="TOY-001"', "<testcase"))
    assert not junit_schema().is_valid(sound.replace('errors="1"', ""))


@pytest.mark.parametrize(
    ("status", "profile", "expected"),
    [
        ("DISCHARGED", "pr", None), ("FALSIFIED", "pr", "failure"), ("INVALID", "draft", "error"), ("STALE", "pr", "skipped"),
        ("STALE", "release", "failure"), ("OPEN", "pr", "skipped"), ("OPEN", "release", "failure"), ("PARTIAL", "main", "skipped"),
        ("PARTIAL", "release", "failure"), ("WITHDRAWN", "release", "skipped"),
    ],
)  # fmt: skip
def test_junit_says_what_a_status_means(status: str, profile: str, expected: str | None) -> None:
    """Passing is nothing said; what does not hold is a failure where it blocks, and skipped where it does not."""
    case = Xml.fromstring(junit(of(criterion(1, status), profile=profile)).encode()).find("testsuite/testcase")
    assert case is not None
    outcomes = [child.tag for child in case if child.tag != "system-out"]

    assert ([expected] if expected else []) == outcomes


def test_junit_counts_what_it_holds() -> None:
    """The counts in the attributes are those of the elements, of each suite and of all."""
    root = Xml.fromstring(junit(judged()).encode())
    for suite in (root, *root):
        counted = {name: sum(1 for _ in suite.iter(tag)) for name, tag in
                   (("tests", "testcase"), ("failures", "failure"), ("errors", "error"))}  # fmt: skip

        assert counted == {name: int(suite.attrib[name]) for name in counted}


def test_a_broken_file_is_red_though_every_criterion_is_green() -> None:
    """A finding of no criterion is an error in JUnit and GitHub, a failed execution in SARIF, and an error of the badge."""
    one = evaluation().model_copy(update={"criteria": (criterion(1, "DISCHARGED"),)})
    shown = judged(evaluations=(one,), exit=Exit.SCHEMA)

    assert Xml.fromstring(junit(shown).encode()).attrib["errors"] == "1"
    assert "::error file=spec/waivers/w-2.yaml,line=3" in github(shown)
    assert [False] == [run["invocations"][0]["executionSuccessful"] for run in json.loads(sarif(shown))["runs"]]
    assert json.loads(badge(shown))["isError"] is True


def test_a_gate_that_evaluated_nothing_is_red() -> None:
    """Drafts alone are no success in any format: silence is never a pass."""
    shown = judged(evaluations=(evaluation().model_copy(update={"criteria": (), "findings": ()}),), exit=Exit.NOTHING)

    assert Xml.fromstring(junit(shown).encode()).attrib["errors"] == "1"
    assert "::error" in github(shown)
    assert json.loads(sarif(shown))["runs"][0]["invocations"][0]["executionSuccessful"] is False
    assert json.loads(badge(shown))["color"] != "brightgreen"


# ── SARIF ────────────────────────────────────────────────────────────────────────────────────────


@cache
def sarif_schema() -> Draft202012Validator:
    """Return the whole schema of SARIF 2.1.0; tests/schemas/README.md says where it comes from."""
    schema = json.loads((SCHEMAS / "sarif-2.1.0.schema.json").read_text())
    return Draft202012Validator(schema, format_checker=FormatChecker())


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("rendered", [sarif, code_scanning])
@pytest.mark.parametrize(
    "made", [judged, lambda **changes: Judged(evaluations=(), **changes)], ids=["every status", "nothing"]
)
def test_sarif_is_valid(made: Any, rendered: Any, profile: str) -> None:
    """Both logs are valid by the published 2.1.0 schema, in every profile."""
    sarif_schema().validate(json.loads(rendered(made(profile=profile))))


def test_the_sarif_schema_bites() -> None:
    """A result of a kind that SARIF does not know is refused: the validation above can fail."""
    log = json.loads(sarif(judged()))
    log["runs"][0]["results"][0]["kind"] = "passed"
    unknown = json.loads(sarif(judged()))
    unknown["runs"][0]["results"][0]["status"] = "DISCHARGED"

    assert not sarif_schema().is_valid(log)
    assert not sarif_schema().is_valid(unknown)


@pytest.mark.parametrize("profile", PROFILES)
def test_code_scanning_is_sent_only_what_should_be_an_alert(profile: str) -> None:
    """GitHub makes an alert of every result: what passes, waits or is waived is left out, and every rule is declared.

    Caught: the full log handed on, by which discharged and waived criteria are open alerts.
    """
    whole, sent = (
        json.loads(sarif(judged(profile=profile)))["runs"][0],
        json.loads(code_scanning(judged(profile=profile)))["runs"][0],
    )
    failing = [one["ruleId"] for one in whole["results"] if one["kind"] == "fail" and "suppressions" not in one]

    assert {"TOY-002", "TOY-003"} <= set(failing)
    assert failing == [one["ruleId"] for one in sent["results"]]
    assert not {"TOY-001", "TOY-007", "TOY-008"} & set(failing)
    assert whole["tool"] == sent["tool"]
    assert whole["invocations"] == sent["invocations"]


def test_an_alert_is_the_same_wherever_its_line_moves() -> None:
    """GitHub tells alerts apart by `primaryLocationLineHash` alone; it is the criterion's, not the line's."""

    def prints(lines: dict[tuple[str, str], int]) -> list[str]:
        results = json.loads(code_scanning(judged(lines=lines)))["runs"][0]["results"]
        return [one["partialFingerprints"]["primaryLocationLineHash"] for one in results]

    found = prints({})

    assert len(set(found)) == len(found) > 1
    assert found == prints({("spec/toy.yaml", "TOY-002"): 900})


@pytest.mark.parametrize(
    ("status", "profile", "expected"),
    [
        ("DISCHARGED", "pr", ("pass", "none")), ("FALSIFIED", "pr", ("fail", "error")), ("INVALID", "pr", ("fail", "error")),
        ("STALE", "pr", ("review", "none")), ("STALE", "release", ("fail", "warning")), ("OPEN", "pr", ("open", "none")),
        ("PARTIAL", "pr", ("open", "none")), ("OPEN", "release", ("fail", "warning")), ("PARTIAL", "release", ("fail", "warning")),
    ],
)  # fmt: skip
def test_sarif_says_what_a_status_means(status: str, profile: str, expected: tuple[str, str]) -> None:
    """Kind and level are those of the reference; a level other than none needs the kind fail."""
    (result,) = json.loads(sarif(of(criterion(1, status), profile=profile)))["runs"][0]["results"]

    assert expected == (result["kind"], result["level"])


def test_sarif_declares_every_criterion_and_points_to_its_line() -> None:
    """Each criterion is a rule, its result names it, carries its digest, and stands at its line of the spec."""
    run = json.loads(sarif(judged()))["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]

    assert (
        [one.id for one in evaluation().criteria] == rules == [rules[result["ruleIndex"]] for result in run["results"]]
    )
    for one, result in zip(evaluation().criteria, run["results"], strict=True):
        place = result["locations"][0]["physicalLocation"]
        assert result.get("partialFingerprints") == ({"criterion/v1": one.digest} if one.digest else None)
        assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == (
            "spec/toy.yaml",
            10 + int(one.id[-3:]),
        )


def test_a_waiver_is_an_accepted_suppression() -> None:
    """What a waiver covers is told as a failure that somebody accepted, with the reason, and nothing else is suppressed."""
    results = json.loads(sarif(judged()))["runs"][0]["results"]
    suppressed = {result["ruleId"]: result["suppressions"] for result in results if "suppressions" in result}

    assert {"TOY-007": [{
        "kind": "external", "status": "accepted",
        "justification": "because as it should be (approver as it should be, until 2026-03-01)",
    }]} == suppressed  # fmt: skip


# ── annotations ──────────────────────────────────────────────────────────────────────────────────


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Return the commands as a runner reads them: split at the first separators, and unescaped."""
    found = []
    for line in text.split("\n"):
        match = COMMAND.fullmatch(line)
        if match:
            pairs = dict(pair.split("=", 1) for pair in match[2].split(","))
            found.append((match[1], {key: unescaped(value) for key, value in pairs.items()}, unescaped(match[3])))
    return found


def unescaped(text: str) -> str:
    for code, character in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        text = text.replace(code, character)
    return text


def test_annotations_are_the_worst_first() -> None:
    """INVALID and FALSIFIED are errors and stand first, STALE warns, what is open or waived is a notice, green is silent."""
    shown = of(*evaluation().criteria)

    assert [
        ("error", "TOY-003 INVALID"), ("error", "TOY-002 FALSIFIED"), ("warning", "TOY-004 STALE"),
        ("notice", "TOY-007 WAIVED(FALSIFIED)"), ("notice", "TOY-008 FALSIFIED"), ("notice", "TOY-005 OPEN"),
        ("notice", "TOY-006 PARTIAL"),
    ] == [(kind, properties["title"]) for kind, properties, _ in commands(github(shown))]  # fmt: skip


@pytest.mark.parametrize("count", [SHOWN, SHOWN + 1, 3 * SHOWN])
def test_annotations_are_ten_of_a_type_and_say_what_is_left_out(count: int) -> None:
    """GitHub drops what is beyond ten of a type without a word; so the tenth says how many are in the summary only."""
    shown = of(*(criterion(number, "FALSIFIED") for number in range(1, count + 1)))
    messages = [message for _, _, message in commands(github(shown))]

    assert len(messages) == SHOWN
    assert (count == SHOWN) == (messages[-1] != f"+{count - SHOWN + 1} errors in the summary")


# ── badge ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("statuses", "message", "colour", "error"),
    [
        (["DISCHARGED", "DISCHARGED"], "2/2", "brightgreen", False), (["DISCHARGED", "PARTIAL"], "1/2", "yellow", False),
        (["STALE"], "0/1", "yellow", False), (["DISCHARGED", "OPEN"], "1/2", "lightgrey", False),
        (["DISCHARGED", "FALSIFIED", "PARTIAL"], "1/3", "red", False), (["FALSIFIED", "INVALID"], "0/2", "critical", True),
    ],
)  # fmt: skip
def test_the_badge_is_coloured_by_the_worst(statuses: list[str], message: str, colour: str, error: bool) -> None:
    """The badge shows a count with its denominator and the colour of the worst status; INVALID is an error."""
    shown = json.loads(badge(of(*(criterion(number, status) for number, status in enumerate(statuses, 1)))))

    assert {
        "schemaVersion": 1, "label": "gates", "message": message, "color": colour, "isError": error, "cacheSeconds": 300,
    } == shown  # fmt: skip


def test_a_waiver_is_not_green() -> None:
    """A spec all of whose failures are waived is not discharged, and its badge does not look so."""
    waived = next(one for one in evaluation().criteria if one.waiver)

    assert ("1/2", "yellow") == tuple(
        json.loads(badge(of(criterion(1, "DISCHARGED"), waived)))[key] for key in ("message", "color")
    )


def test_two_specs_are_two_suites_and_two_runs() -> None:
    """A criterion's id is one spec's: specs stand apart in JUnit and SARIF, and findings are told once."""
    other: Evaluation = evaluation().model_copy(update={"spec": "other"})
    shown = judged(evaluations=(evaluation(), other))
    runs = json.loads(sarif(shown))["runs"]

    assert ["toy", "other", "files"] == [suite.attrib["name"] for suite in Xml.fromstring(junit(shown).encode())]
    assert ["sovereign/toy/", "sovereign/other/"] == [run["automationDetails"]["id"] for run in runs]
    assert [1, 0] == [len(run["invocations"][0]["toolExecutionNotifications"]) for run in runs]
