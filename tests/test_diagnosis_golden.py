"""The golden cases: runs of public projects, whose verdicts were worked out by hand before this was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sovereign.diagnosis.findings import LADDER
from sovereign.diagnosis.procedure import Diagnosis, diagnose
from sovereign.interop.diagnosable import read_record

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "diagnosis_cases.json").read_text())
TRENDS = {"OVERFIT", "PLATEAU", "DIVERGED", "POSITION_ARTIFACT"}
NEVER_FROM_A_TABLE = {"HEALTHY", "CONTAMINATED", "MEMORIZED"}


def diagnosed(tmp_path: Path, case: dict[str, Any], **more: Any) -> Diagnosis:
    """Return the diagnosis of a case as its owner would ask for it: from a file."""
    file = tmp_path / f"{case['id']}.json"
    file.write_text(json.dumps({"id": case["id"], "meta": {**case["meta"], **more}, "series": case["series"]}))
    return diagnose(read_record(file))


def told(found: Diagnosis) -> str:
    """Return what is asserted about, with its tier and reasons, for whoever reads a failure or runs with -s."""
    lines = [f"tier {found.tier}, headline {found.headline}"]
    lines += [
        f"{one.claim:24}{one.verdict:14}{one.confidence or '':8}{one.leaning or '':12}{one.because}"
        for one in found.findings
    ]
    return "\n".join(lines)


def assert_as(found: Diagnosis, expected: dict[str, Any]) -> None:
    """Every verdict is the expected one, or one also acceptable; confidence words and leanings are the expected ones."""
    print(told(found))
    for claim, verdict in expected["expected"].items():
        assert found.of(claim).verdict in (verdict, expected.get("also_acceptable", {}).get(claim)), told(found)
    for claim, word in expected.get("confidence", {}).items():
        assert found.of(claim).confidence == word, told(found)
    for claim, verdict in expected.get("leaning", {}).items():
        assert verdict in (found.of(claim).leaning, found.of(claim).verdict), told(found)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_table_alone(tmp_path: Path, case: dict[str, Any]) -> None:
    """At tier 0 each case comes out as stated, with its reasons; nothing is said above MEDIUM."""
    found = diagnosed(tmp_path, case)

    assert found.tier == 0
    assert_as(found, case)
    assert all(one.confidence in (None, "LOW", "MEDIUM") for one in found.findings)
    assert not any(found.of(claim).supported for claim in NEVER_FROM_A_TABLE)
    assert all(one.because and one.overturned_by for one in found.findings)


@pytest.mark.parametrize(
    "case", [one for one in CASES if "with_sources" in one], ids=[one["id"] for one in CASES if "with_sources" in one]
)
def test_with_what_the_sources_say(tmp_path: Path, case: dict[str, Any]) -> None:
    """Where the project's own code settles more, the verdict follows, and says so with HIGH confidence."""
    more = case["with_sources"]
    found = diagnosed(tmp_path, case, **more["meta"])

    assert_as(found, more)
    assert found.of("MEMORIZED").open
    if found.of("CONTAMINATED").supported:
        assert (found.tier, found.headline) == (2, "CONTAMINATED")


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_one_point_has_no_trend(tmp_path: Path, case: dict[str, Any]) -> None:
    """With fewer than three points every claim about a trend is open, whatever the levels are."""
    found = diagnosed(tmp_path, {**case, "series": case["series"][-1:]})

    assert {claim for claim in TRENDS if not found.of(claim).open} == set(), told(found)


def test_no_point_at_all() -> None:
    """A record without a loss leaves every claim open."""
    from sovereign.diagnosis.record import RunRecord

    found = diagnose(RunRecord())

    assert set(found.verdicts.values()) == {"INCONCLUSIVE"}
    assert found.headline == "INCONCLUSIVE"


def test_the_lag_of_a_running_mean_is_what_the_diary_works_out(tmp_path: Path) -> None:
    """Half a window's descent: 0.037, 0.037, 0.011, 0.005 and 0.008 nats for the five evaluations of the second phase."""
    from sovereign.diagnosis.claims.instrument import lag_bound
    from sovereign.diagnosis.reading import Reading

    case = next(one for one in CASES if one["id"] == "wake2vec-p2")
    file = tmp_path / "log.json"
    file.write_text(json.dumps({"meta": case["meta"], "series": case["series"]}))
    r = Reading(read_record(file))

    assert [round(lag_bound(r, at, 50), 3) for at in range(5)] == [0.037, 0.037, 0.011, 0.005, 0.008]


def test_what_is_missing_comes_cheapest_first(tmp_path: Path) -> None:
    """The owner of run 3 is told of per-document losses and step 0 before extraction, and of a new run last."""
    found = diagnosed(tmp_path, next(one for one in CASES if one["id"] == "gpt2xl-run3"))
    names = [one.name for one in found.missing]

    assert {"documents", "step0", "extraction"} <= set(names)
    assert names.index("documents") < names.index("extraction") < names.index("canaries")
    assert all(one.settles for one in found.missing)
    assert set(LADDER) >= {one.confidence for one in found.findings if one.confidence}
