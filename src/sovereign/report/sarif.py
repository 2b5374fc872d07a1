"""SARIF 2.1.0: criteria as rules, statuses as results, for code scanning and for editors.

Every criterion is declared as a rule, so that an alert closes when its criterion holds again. `sarif` says of each how it
stands, as the format can: passed, open, suppressed. GitHub knows neither `kind` nor `suppressions` and makes an alert of every
result that it is sent; `code_scanning` is the same log with only what should be one.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

from sovereign import __version__
from sovereign.gate.evaluation import CriterionStatus, Evaluation
from sovereign.report.figures import bound, interval, remarks
from sovereign.report.judged import Fault, Judged, Standing

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
# kind and level of a result; what does not block is a question where it was once answered (STALE), else open
KIND: dict[Standing, tuple[str, str]] = {
    "passed": ("pass", "none"),
    "invalid": ("fail", "error"),
    "failed": ("fail", "error"),
    "blocking": ("fail", "warning"),
    "pending": ("open", "none"),
    "waived": ("fail", "warning"),  # told as if there were no waiver, and suppressed
    "aside": ("informational", "none"),
}


def sarif(judged: Judged) -> str:
    """Return a SARIF log with one run a spec, and one result a criterion, whatever its status."""
    return _log([_run(judged, evaluation) for evaluation in judged.evaluations], judged)


def code_scanning(judged: Judged) -> str:
    """Return the log for GitHub's code scanning: the results that fail and that no waiver covers, and every rule."""
    runs = [_run(judged, evaluation) for evaluation in judged.evaluations]
    for run in runs:
        run["results"] = [
            _tracked(one) for one in run["results"] if one["kind"] == "fail" and "suppressions" not in one
        ]
    return _log(runs, judged)


def _tracked(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result with the one fingerprint that GitHub reads: the alert is the criterion's, wherever its line moves."""
    known: dict[str, str] = result.get("partialFingerprints", {})
    named = hashlib.sha256((known.get("criterion/v1") or result["ruleId"]).encode()).hexdigest()[:16]
    return {**result, "partialFingerprints": {**known, "primaryLocationLineHash": f"{named}:1"}}


def _log(runs: list[dict[str, Any]], judged: Judged) -> str:
    if not runs:
        runs = [_described("", [], [], judged.faults)]
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": runs}, indent=2, ensure_ascii=False) + "\n"


def _run(judged: Judged, evaluation: Evaluation) -> dict[str, Any]:
    rules = [_rule(one) for one in evaluation.criteria]
    results = [_result(judged, evaluation, one, index) for index, one in enumerate(evaluation.criteria)]
    # findings are of the repository: told once, in the first run
    return _described(evaluation.spec, rules, results, judged.faults if evaluation is judged.evaluations[0] else ())


def _described(
    spec: str, rules: list[dict[str, Any]], results: list[dict[str, Any]], faults: tuple[Fault, ...]
) -> dict[str, Any]:
    return {
        "tool": {"driver": {"name": "sovereign", "version": __version__, "rules": rules}},
        # by this name a later upload replaces an earlier one, and the specs do not replace each other
        "automationDetails": {"id": f"sovereign/{spec}/" if spec else "sovereign/"},
        "invocations": [{
            "executionSuccessful": not faults,
            "toolExecutionNotifications": [
                {"level": "error", "message": _message(f"{one.kind}: {one.message}"), "locations": [_location(one.path, one.line)]}
                for one in faults
            ],
        }],
        "results": results,
    }  # fmt: skip


def _rule(one: CriterionStatus) -> dict[str, Any]:
    return {
        "id": one.id,
        "shortDescription": _message(one.title or one.id),
        "fullDescription": _message(f"{one.metric} {bound(one)}".strip() or one.id),
        "help": _message(f"Shown by: {one.discharge}" if one.discharge else "It does not stand in the spec."),
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": [one.category], "stage": one.stage},
    }


def _result(judged: Judged, evaluation: Evaluation, one: CriterionStatus, index: int) -> dict[str, Any]:
    standing = judged.standing(evaluation, one)
    kind, level = KIND[standing]
    if standing == "pending" and one.status == "STALE":
        kind = "review"
    told = "; ".join((*(f"{reason.code}: {reason.text}" for reason in one.reasons), *remarks(one)))
    result: dict[str, Any] = {
        "ruleId": one.id,
        "ruleIndex": index,
        "kind": kind,
        "level": level,
        "message": _message(f"{one.shown}: {one.title or one.id}. Measured {interval(one.measured)}. {told}"),
        "locations": [_location(evaluation.spec_path or evaluation.spec, judged.line(evaluation, one))],
        "properties": {"status": one.status, "evidence": list(one.evidence)},
    }
    if one.digest:
        result["partialFingerprints"] = {"criterion/v1": one.digest}
    if one.waiver:
        because = f"{one.waiver.reason} ({one.waiver.approver}, until {one.waiver.expires})"
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": because}]
    return result


def _location(path: str, line: int) -> dict[str, Any]:
    # quoted as bytes, since a name on disk may be no UTF-8
    artifact = {"uri": quote(path.encode("utf-8", "surrogateescape")), "uriBaseId": "%SRCROOT%"}
    return {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": line}}}


def _message(text: str) -> dict[str, str]:
    """Return a message in which no text of evidence becomes a link: `[a](b)` is one in plain SARIF messages too."""
    return {"text": text.replace("](", "] (")}
