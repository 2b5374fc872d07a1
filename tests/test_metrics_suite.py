"""The suite of planted runs, small: scoring by hand-made rows, and by simulated runs read by a diagnosis with a bug in it."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fabric import SPEC, intent, repository, write_run
from simulated import Plan, observed, simulated, without
from statsmodels.stats.proportion import proportion_confint

from sovereign.diagnosis import claims, procedure, record
from sovereign.diagnosis.claims import generalisation, health, validation
from sovereign.diagnosis.findings import CLAIMS, conclude, settle
from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import ScenarioRow
from sovereign.metrics import suite
from sovereign.metrics.intervals import Interval, Unmeasurable
from sovereign.verification import verify

RUN = "20260101T000000Z-aaaaaa"


def row(**changes: Any) -> ScenarioRow:
    """Return a row of a healthy run that is called so."""
    values: dict[str, Any] = {
        "run": RUN, "trained": "healthy-s1", "rows": "sha256:" + "0" * 64, "scenario": "healthy stream", "severity": "one epoch",
        "seed": 1, "health": "healthy", "absent": ("CONTAMINATED", "MEMORIZED"), "held": True, "manipulation": "it fell",
        "supported": ("HEALTHY",), "refuted": ("CONTAMINATED",), "headline": "HEALTHY", "documents": 1000,
    }  # fmt: skip
    return ScenarioRow(**{**values, **changes})


def leaked(number: int, share: float, *overlap: str, **changes: Any) -> ScenarioRow:
    found = ("CONTAMINATED",) if overlap else ()
    return row(
        **{"trained": f"leak-{share}-{number}", "scenario": "exact leak", "seed": number, "health": "sick", "planted": ("CONTAMINATED",),
           "absent": (), "leaked": share, "overlap": overlap, "supported": found, "refuted": (), "headline": (*found, "INCONCLUSIVE")[0],
           **changes}
    )  # fmt: skip


def measured(metric: str, *rows: ScenarioRow) -> Interval:
    return suite.METRICS[metric](Observed(intent(), {"scenario": rows}))


@pytest.mark.parametrize(("found", "n"), [(17, 17), (16, 17), (39, 40), (0, 5), (1, 1)])
def test_recall_is_a_share_with_an_exact_interval(found: int, n: int) -> None:
    """Clopper and Pearson's interval is statsmodels'; 17 of 17 is the first whose lower end reaches 0.80."""
    rows = [leaked(number, 0.1, *(("identities",) if number < found else ())) for number in range(n)]
    recall = suite.recalls(rows)["CONTAMINATED"]
    low, high = proportion_confint(found, n, method="beta")

    assert (recall.value, recall.n) == (found / n, n)
    assert (recall.low, recall.high) == pytest.approx((low if found else 0.0, high if found < n else 1.0), abs=1e-9)
    assert (low >= 0.80) == ((found, n) in {(17, 17), (39, 40)})


def test_the_least_recall_is_of_the_worst_claim_and_health_is_one() -> None:
    rows = [row(seed=n, trained=f"h{n}") for n in range(20)] + [leaked(n, 0.1, "identities") for n in range(20)]
    assert measured("suite/least_recall", *rows).value == 1.0
    rows[0] = rows[0].model_copy(update={"supported": ()})
    found = measured("suite/least_recall", *rows)

    assert (found.value, found.n) == (0.95, 20)
    assert "HEALTHY of 2 claims" in found.method


def test_a_run_whose_plant_did_not_take_counts_nowhere() -> None:
    """Void runs change no score, and are counted as void; were they counted, a dull plant would look like a miss."""
    rows = [leaked(1, 0.03, "identities", "matches"), row()]
    dull = leaked(2, 0.03, held=False)

    assert measured("suite/runs", *rows).value == measured("suite/runs", *rows, dull).value == 2
    assert measured("suite/leaks_missed", *rows, dull).value == 0
    assert measured("suite/least_recall", *rows, dull).value == 1.0
    assert measured("suite/void", *rows, dull).value == 1
    with pytest.raises(Unmeasurable):
        measured("suite/runs", dull)


SICK: dict[str, tuple[dict[str, Any], int]] = {
    "sick, called healthy": ({"health": "sick"}, 1),
    "sick, called nothing": ({"health": "sick", "supported": (), "headline": "INCONCLUSIVE"}, 0),
    "beside health, named first": ({"health": "beside", "supported": ("HEALTHY", "SHIFT"), "headline": "SHIFT"}, 0),
    "beside health, not named": ({"health": "beside"}, 1),
    "sick twin, called healthy": ({"health": "sick", "withheld": "no identities"}, 1),
    "sick, called healthy, void": ({"health": "sick", "held": False}, 0),
    "of open health": ({"health": "open"}, 0),
    "healthy": ({}, 0),
}


@pytest.mark.parametrize("what", SICK)
def test_false_health_is_counted_wherever_it_is_said(what: str) -> None:
    """Full or under-specified, supported or as the headline; a twin counts, and no run twice in n."""
    changes, expected = SICK[what]
    sick = leaked(9, 0.1, "identities")
    found = measured("suite/sick_called_healthy", sick, row(**changes))

    assert found.value == expected
    assert found.n == 1 + (changes.get("health") in ("sick", "beside") and changes.get("held", True))


def test_accusations_are_of_runs_that_cannot_have_it() -> None:
    assert measured("suite/clean_accused", row()).value == 0
    assert measured("suite/clean_accused", row(supported=("MEMORIZED",))).value == 1
    assert measured("suite/clean_accused", row(), leaked(1, 0.1, "identities")).value == 0


def test_a_decision_without_its_evidence_is_counted() -> None:
    """Refuted or supported, it is the same mistake."""
    twin = {"withheld": "no identities", "absent": (), "open": ("CONTAMINATED", "HEALTHY")}

    assert measured("suite/twins_decided", row(**twin, supported=(), refuted=())).value == 0
    assert measured("suite/twins_decided", row(**twin, supported=("HEALTHY",), refuted=("CONTAMINATED",))).value == 2


def test_a_leak_must_be_found_by_identities_and_by_matches() -> None:
    assert measured("suite/leaks_missed", leaked(1, 0.03, "identities", "matches")).value == 0
    assert measured("suite/leaks_missed", leaked(1, 0.03, "identities")).value == 1
    assert measured("suite/leaks_missed", leaked(1, 0.03, "matches")).value == 1
    with pytest.raises(Unmeasurable):
        measured("suite/leaks_missed", leaked(1, 0.02, "identities", "matches"))


def test_few_documents_show_no_health() -> None:
    """Recall of health counts runs with 1,000 validation documents; 999 are another question."""
    rows = [row(trained=f"h{n}", seed=n) for n in range(4)]
    small = row(documents=999, supported=())

    assert measured("suite/healthy_recall", *rows, small).n == 4
    with pytest.raises(Unmeasurable):
        measured("suite/healthy_recall", small)


def test_costs_by_hand() -> None:
    """Each verdict's cost, of ours and of the three baselines, as the module's page of costs says."""
    healthy = row(online_gap=0.02, rise=0.0)
    missed = leaked(1, 0.1, supported=(), online_gap=0.3, rise=0.0)
    called = leaked(2, 0.1, supported=("HEALTHY",), headline="HEALTHY", online_gap=-0.2, rise=0.2)
    twin = row(
        withheld="x", absent=(), open=("CONTAMINATED",), supported=("CONTAMINATED",), refuted=(), online_gap=-0.1
    )

    ours = [suite.cost(one) for one in (healthy, missed, called, twin)]
    assert ours == [0.0, suite.SILENT, suite.FALSE_HEALTH + suite.SILENT, suite.MISTAKEN]
    assert [suite.cost(one, suite.by_sign) for one in (healthy, missed, called, twin)] == [
        0.0, suite.FALSE_HEALTH + suite.MISTAKEN, 0.0, suite.MISTAKEN,
    ]  # fmt: skip
    assert [suite.cost(one, suite.by_rise) for one in (healthy, missed, called, twin)] == [
        0.0, suite.FALSE_HEALTH + suite.SILENT, suite.SILENT, 0.0,
    ]  # fmt: skip
    assert [suite.cost(one, suite.never) for one in (healthy, missed, called, twin)] == [1.0, 1.0, 1.0, 0.0]
    assert suite.costs([healthy, missed])["diagnosis"] == 0.5


def test_power_grows_with_the_leak_and_false_alarms_stand_at_nothing_leaked() -> None:
    rows = [row(online_gap=-0.1)] + [
        leaked(n, share, *(("identities", "matches") if share > 0.02 else ("identities",)), easier=share > 0.2)
        for share in (0.01, 0.03, 0.5)
        for n in range(5)
    ]
    curves = suite.power(rows)

    assert [size for size, _ in curves["identities"]] == [0.0, 0.01, 0.03, 0.5]
    assert [one.value for _, one in curves["identities"]] == [0, 1, 1, 1]
    assert [one.value for _, one in curves["50-token matches"]] == [0, 0, 1, 1]
    assert [one.value for _, one in curves["validation below control"]] == [0, 0, 0, 1]
    assert [one.value for _, one in curves["sign of the gap"]] == [1, 0, 0, 0]


# ── simulated runs: a bug in the diagnosis is seen by the metric that is there for it ────────────

SCENARIOS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "healthy stream": ({}, {"health": "healthy", "absent": ("CONTAMINATED", "MEMORIZED", "OVERFIT")}),
    "exact leak": ({"leak": 0.03, "copied": 0.03}, {"planted": ("CONTAMINATED",), "leaked": 0.03}),
    "overfit": ({"overfit": 0.5}, {"planted": ("OVERFIT",), "absent": ("CONTAMINATED",)}),
    "not learned": ({"speed": 1e5, "floor": 5.5}, {"planted": ("NOT_LEARNED",), "absent": ("CONTAMINATED",)}),
}
WITHHELD = ("exposure", "corpus", "overlap")


def scored() -> tuple[ScenarioRow, ...]:
    """Return the rows of a small suite of simulated runs, with an under-specified twin of each."""
    found = []
    for name, (changes, expected) in SCENARIOS.items():
        plan = Plan(documents=1000, **changes)
        for withheld in ((), WITHHELD):
            run = record.from_run(observed(without(simulated(plan), *withheld), plan))
            said = procedure.diagnose(run)
            fired = {check.probe for check in said.of("CONTAMINATED").checks if check.result == "fires"}
            told = {"withheld": "no identities", "health": expected.get("health", "sick"), "open": ("CONTAMINATED",)}
            found.append(row(**{
                "trained": name, "scenario": name, "health": "sick", "absent": (), **(told | {"absent": ()} if withheld else expected),
                "supported": tuple(one.claim for one in said.findings if one.supported),
                "refuted": tuple(one.claim for one in said.findings if one.refuted), "headline": said.headline,
                "overlap": tuple(one for one, probe in (("identities", "O1 identities"), ("matches", "O3 50-token matches")) if probe in fired),
            }))  # fmt: skip
    return tuple(found)


def everywhere(monkeypatch: pytest.MonkeyPatch, name: str, wrong: Any) -> None:
    """Put `wrong` in the place of what claims call `name`, in every module of theirs."""
    modules = [module for place, module in sys.modules.items() if place.startswith(f"{claims.__name__}.")]
    for module in modules:
        if hasattr(module, name):
            monkeypatch.setattr(module, name, wrong)


def silence_refutes(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(claim: Any, checks: Iterable[Any], **more: Any) -> Any:
        passed = [one.model_copy(update={"result": "passes"}) if one.result == "did not run" else one for one in checks]
        return settle(claim, passed, **more)

    everywhere(monkeypatch, "settle", wrong)


def by_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    def accuse(reading: Any) -> Any:
        return conclude("CONTAMINATED", "SUPPORTED", [], "validation is close to training", [], "HIGH")

    monkeypatch.setattr(validation, "contaminated", accuse)


BUGS: dict[str, tuple[Callable[[pytest.MonkeyPatch], Any], str, float]] = {
    "health looks at divergence only": (lambda m: m.setattr(health, "SICK", ("DIVERGED",)), "suite/sick_called_healthy", 0),
    "no gap is small": (lambda m: everywhere(m, "SMALL_GAP", -1.0), "suite/healthy_recall", 1),
    "whoever is close has seen it": (by_the_gap, "suite/clean_accused", 0),
    "nothing ever falls": (lambda m: m.setattr(generalisation, "_falling", lambda *told: False), "suite/least_recall", 1),
    "silence refutes": (silence_refutes, "suite/twins_decided", 0),
    "identities are never joined": (lambda m: m.setattr(record, "_identity", lambda *told: None), "suite/leaks_missed", 0),
}  # fmt: skip


def test_the_small_suite_passes() -> None:
    """Without a bug every metric is at its best: nobody falsely healthy, accused, missed, or decided on nothing."""
    rows = scored()

    assert {name: measured(name, *rows).value for _, name, _ in BUGS.values()} == {
        name: best for _, name, best in BUGS.values()
    }
    assert suite.costs(rows)["diagnosis"] == 0.0
    assert min(suite.costs(rows)[name] for name in suite.BASELINES) >= 0.5


@pytest.mark.parametrize("bug", BUGS)
def test_each_bug_of_the_diagnosis_is_seen_by_its_metric(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PLANT: a fault in the code that diagnoses; the metric that is there for it leaves its best value."""
    plant, metric, best = BUGS[bug]
    plant(monkeypatch)

    assert measured(metric, *scored()).value != best


# ── the full suite: what it plants is what the criteria ask for ──────────────────────────────────


@pytest.fixture(scope="module")
def planted() -> Iterator[Any]:
    """The module benchmarks/planted.py, which stands in no package."""
    folder = Path(__file__).parent.parent / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        spec = importlib.util.spec_from_file_location("planted", folder / "planted.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "planted", module)  # a dataclass looks its module up
        spec.loader.exec_module(module)
        yield module


def test_the_full_suite_can_meet_its_criteria(planted: Any) -> None:
    """At least 200 runs; 17 of every claim, the fewest whose recall can be shown to reach 0.80; ten leaks of 3 %; 59 of the rest."""
    found = planted.scenarios()
    runs, twins, accusable = sum(one.seeds for one in found), 0, 0
    planned: Counter[str] = Counter()
    for one in found:
        planned.update(dict.fromkeys(one.planted, one.seeds))
        planned["HEALTHY"] += one.seeds * (one.health == "healthy")
        twins += one.seeds * sum(bool(twin.open) for twin in one.twins)
        accusable += one.seeds * bool({"CONTAMINATED", "MEMORIZED"} & set(one.absent))

    assert runs >= 200
    assert min(planned.values()) >= 17, planned
    assert set(planned) == {*CLAIMS}, "what is never planted is never shown to be found"
    assert min(twins, accusable) >= 59
    assert sum(one.seeds for one in found if one.name == "exact leak" and one.leaked == 0.03) >= 10
    assert len({one.slug for one in found}) == len(found), "two scenarios under one name"
    assert not [one.slug for one in found if set(one.planted) & set(one.absent)]


# ── a suite's run folder ─────────────────────────────────────────────────────────────────────────

SUITE_SPEC = SPEC.replace("validation/loss: {title: Validation loss, unit: nats/token, better: lower, rows: [evaluation]", "suite/runs: {title: Runs, unit: runs, better: higher, rows: [scenario]").replace("validation/loss, op: \"<=\", bound: 3.0, obligations: {least_n: 10}", "suite/runs, op: \">=\", bound: 2")  # fmt: skip


def values(one: ScenarioRow) -> tuple[str, dict[str, Any]]:
    return "scenario", {key: value for key, value in dict(one).items() if key not in ("run", "kind")}


FOLDERS: dict[str, tuple[list[ScenarioRow], str]] = {
    "whole": ([row(), row(trained="b", seed=2, rows="sha256:" + "1" * 64)], ""),
    "counted twice": ([row(), row()], "is counted 2 times"),
    "one run under two names": ([row(), row(trained="b", seed=2)], "two runs have the same rows to the byte"),
    "two runs under one name": ([row(), row(seed=2)], "is two runs"),
    "both verdicts": ([row(supported=("OVERFIT",), refuted=("OVERFIT",))], "OVERFIT is supported and refuted"),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_a_suites_folder_is_verified(tmp_path: Path, what: str) -> None:
    """A suite's rows are recomputed like a run's own; what counts a run twice, or contradicts itself, is named."""
    rows, fault = FOLDERS[what]
    root = repository(tmp_path, SUITE_SPEC)
    folder = write_run(root, intent(spec=SUITE_SPEC, origin="suite"), [values(one) for one in rows])
    found = verify(folder, "evidence/toy/x")

    assert (found.assurance, [str(one) for one in found.findings if fault not in one.message or not fault]) == (
        "recomputed",
        [],
    )
    assert bool(found.findings) == bool(fault)


def test_a_run_of_ours_holds_no_verdicts(tmp_path: Path) -> None:
    """Scenario rows in a run's own folder are nobody's: they would count as a suite."""
    folder = write_run(repository(tmp_path), intent(), [values(row())])

    assert any(
        "scenario rows, which only a suite observes" in one.message for one in verify(folder, "evidence/toy/x").findings
    )
