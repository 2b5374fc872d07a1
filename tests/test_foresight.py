"""Forecasts are scored by rows alone, hypotheses decided by runs alone, and the critical path holds every open criterion once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from contending import contender, edited, promise, said
from fabric import CONTRACT, repository, write_run
from hypothesis import given
from hypothesis import strategies as st
from reported import criterion, evaluation, judged, obligation
from test_compare_cli import resealed

from sovereign.canonical import Malformed, digest, parse_yaml, validate
from sovereign.contract.contract import Contract
from sovereign.evidence.folder import Observed
from sovereign.evidence.intent import Intent
from sovereign.foresight import Decided, Foreseen, Scored, foreseen, scored, until
from sovereign.gate.path import critical_path
from sovereign.report.html import html
from sovereign.report.markdown import markdown
from sovereign.repository import open_repository

EXPECTED = """\
forecasts:
  - {metric: validation/loss, high: 3.6, step: 5}
  - {metric: validation/loss, low: 1.0, high: 2.0, step: 10, because: "it always does"}
  - {metric: validation/loss, high: 3.0, step: 7}
"""
SUPPOSED = """\
hypotheses:
  - id: rate
    claim: the learning rate was too low
    otherwise: it was not the learning rate
    intervention: [training.schedule.peak]
    decides_by: {contract: other, metric: validation/loss, op: "<", bound: 3.3}
"""


def expecting(text: str = EXPECTED) -> Intent:
    return promise(CONTRACT + text)


def observed(at: tuple[int, ...] = (0, 5, 10)) -> Observed:
    promised = expecting()
    return contender(promised, said(promised, at=at)).observed


def test_forecasts_are_scored_when_their_step_arrives() -> None:
    """A forecast is HIT or MISSED by the evaluation at its very step; another step's evaluation scores nothing."""
    found = scored(observed(), ended=True)

    assert ["HIT", "MISSED", "UNMEASURED"] == [one.outcome for one in found]
    assert "no evaluation row stands at step 7" == found[2].why
    assert found[0].measured is not None


@given(st.integers(0, 10), st.booleans())
def test_later_rows_change_no_score(step: int, ended: bool) -> None:
    """What was scored at a step is scored the same at every later one; before its step comes, it is PENDING or not reached.

    Planted: measuring the last evaluation, whatever its step, scores the first forecast again at step 10.
    """
    whole = observed()
    early = scored(until(whole, step), ended)
    late = scored(whole, ended)

    for before, after in zip(early, late, strict=True):
        if before.forecast.step <= step:
            assert (before.outcome, before.why) == (after.outcome, after.why)
        else:
            assert ("NOT_REACHED" if ended else "PENDING") == before.outcome


@given(st.sampled_from(["evaluation", "step", "corpus"]))
def test_withheld_rows_never_score(kind: str) -> None:
    """Without the rows of a metric a forecast of it is neither hit nor missed."""
    whole = observed()
    less = Observed(whole.intent, {name: rows for name, rows in whole.rows.items() if name != kind})
    outcomes = [one.outcome for one in scored(less, ended=True)]

    assert outcomes == [one.outcome for one in scored(whole, ended=True)] or set(outcomes) <= {
        "UNMEASURED",
        "NOT_REACHED",
    }


@pytest.mark.parametrize(
    ("text", "said_"),
    [
        ("forecasts: [{metric: validation/loss, high: 3.0, step: 11}]", "is never due: training ends at step 10"),
        ("forecasts: [{metric: validation/loss, step: 5}]", "neither low nor high: nothing could contradict it"),
        ("forecasts: [{metric: validation/loss, low: 4, high: 3.0, step: 5}]", "low 4 is above high 3"),
        ("forecasts: [{metric: validation/loss, hihg: 3.0, step: 5}]", "did you mean high?"),
        ("hypotheses: [{id: a, claim: b, intervention: [], decides_by: {contract: c, metric: a/b, op: '<', bound: 1}}]", "at least 1 item"),
        ("hypotheses: [{id: a, claim: b, intervention: [c], decides_by: {contract: c, metric: a/b, op: 'or', bound: 1}}]", "decides_by.op"),
    ],
)  # fmt: skip
def test_what_nothing_could_contradict_is_refused(text: str, said_: str) -> None:
    """A forecast that is never due or bounds nothing, and a hypothesis without an intervention or a closed rule, are errors."""
    with pytest.raises(Malformed, match=said_.replace("?", r"\?")):
        promise(CONTRACT + text)


def test_a_metric_that_the_spec_does_not_declare_is_refused(tmp_path: Path) -> None:
    """A forecast of a misspelled metric is named by place, with the nearest one."""
    repository(tmp_path, contract=CONTRACT + "forecasts: [{metric: validation/lost, high: 3.0, step: 5}]\n")
    problem = open_repository(tmp_path).problems[0]

    assert "declares no metric validation/lost; did you mean validation/loss?" in problem.message
    assert ("contracts/toy.yaml", CONTRACT.count("\n") + 1) == (problem.path, problem.line)


def test_a_contract_without_them_means_what_it_meant() -> None:
    """The new sections change no digest of a contract that does not use them, nor what a run makes."""
    plain = validate(Contract, parse_yaml(CONTRACT.encode(), "contract"))
    with_them = validate(Contract, parse_yaml((CONTRACT + EXPECTED + SUPPOSED).encode(), "contract"))

    assert not {"forecasts", "hypotheses"} & plain.meaning().keys()
    assert plain.subject == with_them.subject
    assert digest(plain.meaning()) != digest(with_them.meaning())


def write(root: Path, promised: Intent, **rows: object) -> None:
    write_run(root, resealed(promised), said(promised, **rows))  # type: ignore[arg-type]


def state(root: Path) -> Decided:
    found = open_repository(root)
    assert not found.problems
    return foreseen(root, found.contracts).hypotheses[0]


@pytest.mark.parametrize(
    ("shift", "bound", "edits", "expected", "why"),
    [
        (-0.6, "3.3", (), "SUPPORTED", "holds in 1 run"),
        (-0.01, "3.3", (), "REFUTED", "fails in 1 run"),
        (-0.6, "2.88", (), "HYPOTHESIS", "the interval of validation/loss"),
        (-0.6, "3.9", (), "HYPOTHESIS", "the outcome did not change"),
        (-0.6, "3.3", (("hidden: 16", "hidden: 32"),), "HYPOTHESIS", "differs in model.hidden too"),
    ],
    ids=["it falls", "it does not", "too near", "so does the reference", "two changes"],
)  # fmt: skip
def test_runs_decide_a_hypothesis(
    tmp_path: Path, shift: float, bound: str, edits: tuple[tuple[str, str], ...], expected: str, why: str
) -> None:
    """`if validation falls below X the rate it was, else not` is decided by a run of that rate beside one without it."""
    text = CONTRACT + SUPPOSED.replace("bound: 3.3", f"bound: {bound}")
    other = edited(("contract: toy", "contract: other"), ("peak: 1.0e-3", "peak: 2.0e-3"), *edits)
    repository(tmp_path, contract=text)
    before = state(tmp_path)
    write(tmp_path, promise(text))
    reference = state(tmp_path)
    write(tmp_path, promise(other, 2), noise=2, shift=shift)
    found = state(tmp_path)

    assert ("HYPOTHESIS", "HYPOTHESIS") == (before.state, reference.state)
    assert "no completed run of other" in reference.why
    assert (expected, True) == (found.state, why in found.why), found.why


def test_a_hypothesis_written_after_its_outcome_is_not_decided_by_it(tmp_path: Path) -> None:
    """A story told once the better run was known stays one, though the numbers fit: nothing had frozen it."""
    repository(tmp_path)
    write(tmp_path, promise())
    write(
        tmp_path,
        promise(edited(("contract: toy", "contract: other"), ("peak: 1.0e-3", "peak: 2.0e-3")), 2),
        noise=2,
        shift=-0.6,
    )
    (tmp_path / "contracts/toy.yaml").write_text(CONTRACT + SUPPOSED)

    assert ("HYPOTHESIS", "no run has frozen it yet") == (state(tmp_path).state, state(tmp_path).why[:24])


STATUSES = st.lists(st.sampled_from(["DISCHARGED", "OPEN", "STALE", "PARTIAL", "FALSIFIED", "INVALID"]), max_size=12)


@given(STATUSES, st.randoms())
def test_every_open_criterion_waits_for_one_fix(statuses: list[str], shuffle: object) -> None:
    """Each active criterion that is not discharged stands under exactly one fix; order changes nothing; the most come first."""
    criteria = [
        criterion(at, status, contract=f"c{at % 3}", discharge=f"run c{at % 3}") for at, status in enumerate(statuses)
    ]
    turned = list(criteria)
    shuffle.shuffle(turned)  # type: ignore[attr-defined]
    fixes = critical_path([evaluation().model_copy(update={"criteria": tuple(criteria)})])
    counts = [len(fix.criteria) for fix in fixes]

    assert fixes == critical_path([evaluation().model_copy(update={"criteria": tuple(turned)})])
    assert sorted(one.id for one in criteria if one.status != "DISCHARGED") == sorted(
        id_ for fix in fixes for id_ in fix.criteria
    )
    assert counts == sorted(counts, reverse=True)


def test_a_run_shows_what_is_missing_of_all_that_it_claims() -> None:
    """Two criteria of one contract that miss seeds 1 and 2 are one fix of two runs; waived and discharged ones cost nothing."""
    both = {"obligations": (obligation(1, "OPEN"), obligation(2, "OPEN"))}
    found = critical_path(
        [evaluation().model_copy(update={"criteria": (criterion(1, "OPEN", **both), criterion(2, "PARTIAL", **both))})]
    )

    assert [("run", 2, ("TOY-001", "TOY-002"))] == [(fix.kind, fix.runs, fix.criteria) for fix in found]


def test_reports_show_what_was_foreseen() -> None:
    """Both renderings with runs name each forecast with its outcome, and each hypothesis with its state."""
    one = scored(observed(), ended=True)[1]
    contract = validate(Contract, parse_yaml((CONTRACT + SUPPOSED).encode(), "contract"))
    shown = judged(foreseen=Foreseen((one,), (Decided("toy", contract.hypotheses[0], "REFUTED", "by runs"),)))

    for page in (html(shown), markdown(shown)):
        assert "MISSED" in page
        assert "REFUTED" in page
        assert "it was not the learning rate" in page
    assert isinstance(one, Scored)


def test_explain_says_what_was_foreseen(tmp_path: Path) -> None:
    """`explain` without an id ranks what is open, then scores forecasts; with one, it shows those of its metric beside it."""
    repository(tmp_path, contract=CONTRACT + EXPECTED)
    write(tmp_path, expecting())

    def explain(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from sovereign.cli.main import main; main()", "explain", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ), check=False)

    path, one, other = explain(), explain("TOY-001"), explain("TOY-002")
    printed = json.loads(explain("--path", "--json").stdout)

    assert [0, 0, 0, 2] == [path.returncode, one.returncode, other.returncode, explain("TOY-001", "--path").returncode]
    assert "what one fix would discharge" in path.stdout
    assert ("MISSED" in path.stdout, "MISSED" in one.stdout, "MISSED" in other.stdout) == (True, True, False)
    assert ["HIT", "MISSED", "UNMEASURED"] == [found["outcome"] for found in printed["forecasts"]]


def test_a_run_that_is_not_what_it_says_scores_nothing(tmp_path: Path) -> None:
    """Forecasts are scored by sound runs: rows edited after the run was closed score none."""
    repository(tmp_path, contract=CONTRACT + EXPECTED)
    write(tmp_path, expecting())
    whole = foreseen(tmp_path, {}).forecasts
    file = next((tmp_path / "evidence/toy").glob("*/rows/evaluation.jsonl"))
    file.write_bytes(file.read_bytes().replace(b'"nll":', b'"nll":1', 1))

    assert (3, 0) == (len(whole), len(foreseen(tmp_path, {}).forecasts))
