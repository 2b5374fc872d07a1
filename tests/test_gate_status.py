"""The status algebra: total, indifferent to order, repeatable, and never talked into being."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from fabric import FINISHED, NOW, SPEC, intent
from hypothesis import given, settings
from hypothesis import strategies as st

from sovereign.canonical import digest, parse_yaml, validate
from sovereign.evidence.statement import Measurement, Statement
from sovereign.gate.admission import Current, Finding, VerifiedRun
from sovereign.gate.evaluation import WORST_FIRST, CriterionStatus
from sovereign.gate.profile import Exit, exit_code
from sovereign.gate.status import judge
from sovereign.spec.amendment import Amendment, Waiver
from sovereign.spec.criterion import Criterion, Obligations, Spec, Withdrawal

CRITERION = validate(Spec, parse_yaml(SPEC.encode(), "spec")).by_id["TOY-001"]
INTENT = intent()
SUBJECT = {"code": INTENT.subjects.code, "model": INTENT.subjects.model}
CURRENT = Current(code=SUBJECT["code"], model=SUBJECT["model"], evaluator=INTENT.subjects.evaluator)
LATER = "2026-01-01T01:30:00Z"
RANK = {status: index for index, status in enumerate(WORST_FIRST)}


def spec_of(criterion: Criterion) -> Spec:
    base = validate(Spec, parse_yaml(SPEC.encode(), "spec"))
    return base.model_copy(update={"criteria": (criterion,)})


def ran(
    name: str, loss: float | None = 2.5, *, n: int = 20, seed: int = 1, criterion: Criterion = CRITERION, code: str = "",
    outcome: str | None = "completed", steps: int = 10, answers: Sequence[str] = (), findings: Sequence[Finding] = (), **changes: Any,
) -> VerifiedRun:  # fmt: skip
    """Return a verified run of the toy contract whose validation loss is `loss` ± 0.1, or absent."""
    subjects = INTENT.subjects.model_copy(update={"code": code or SUBJECT["code"]})
    promised = INTENT.model_copy(
        update={"run": f"20260101T000000Z-{name}", "criteria": {"TOY-001": criterion}, "seed": seed, "subjects": subjects,
                "answers": tuple(answers), **changes}
    )  # fmt: skip
    measured = () if loss is None else (
        Measurement(metric="validation/loss", value=loss, low=loss - 0.1, high=loss + 0.1, n=n, method="test"),
    )  # fmt: skip
    statement = None
    if outcome is not None:
        statement = Statement(
            contract="toy", run=promised.run, intent=digest(name), outcome=outcome, reason="" if outcome == "completed" else "why",  # type: ignore[arg-type]
            finished=FINISHED.strftime("%Y-%m-%dT%H:%M:%SZ"), steps=steps, rows=(), measurements=measured, seal=digest(name),
        )  # fmt: skip
    return VerifiedRun("toy", promised.run, promised, statement, digest(name), measured, findings=tuple(findings))


def stands(
    runs: Sequence[VerifiedRun], criterion: Criterion = CRITERION, current: Current = CURRENT, **more: Any
) -> CriterionStatus:
    return judge(spec_of(criterion), runs, {"toy": current}, NOW, **more).criteria[0]


def codes(one: CriterionStatus) -> set[str]:
    return {reason.code for reason in one.reasons}


# ── single transitions ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("runs", "status", "code"),
    [
        ([], "OPEN", "NO_EVIDENCE"),
        ([ran("pass")], "DISCHARGED", "HOLDS"),
        ([ran("fail", 3.5)], "FALSIFIED", "FAILS"),
        ([ran("near", 2.95)], "FALSIFIED", "FAILS"),  # the value holds; the pessimistic end does not
        ([ran("few", n=9)], "PARTIAL", "TOO_FEW"),
        ([ran("fewbad", 3.5, n=2)], "FALSIFIED", "FAILS"),  # too few never excuses a failure
        ([ran("silent", None)], "OPEN", "NO_MEASUREMENT"),
        ([ran("diverged", None, outcome="diverged")], "FALSIFIED", "DIVERGED"),
        ([ran("given-up", 3.5, outcome="abandoned", steps=4)], "OPEN", "NO_EVIDENCE"),
        ([ran("given-up", 3.5, outcome="abandoned")], "FALSIFIED", "FAILS"),  # its training was done: no power cut
        ([ran("given-up", 2.5, outcome="abandoned")], "OPEN", "NO_EVIDENCE"),  # and giving up never passes
        ([ran("set", overrides=("training.steps=1",))], "OPEN", "NO_EVIDENCE"),
        ([ran("setbad", 3.5, overrides=("training.steps=1",))], "OPEN", "NO_EVIDENCE"),
        ([ran("moved", code=digest("old"))], "STALE", "CODE"),
        ([ran("badmoved", 3.5, code=digest("old"))], "FALSIFIED", "NOT_RETESTED"),
        ([ran("pass"), ran("fail", 3.5)], "FALSIFIED", "CONTRADICTORY"),  # T14
        ([ran("other", seed=2)], "OPEN", "NO_EVIDENCE"),
        ([ran("torn", findings=[Finding("integrity", "f", "edited")])], "INVALID", "INTEGRITY"),
        ([replace(ran("reported"), assurance="reported")], "OPEN", "ASSURANCE"),
        ([replace(ran("again"), moved=frozenset({"validation/loss"}))], "STALE", "EVALUATOR"),
    ],
)
def test_each_state_has_its_cause(runs: list[VerifiedRun], status: str, code: str) -> None:
    """Each state is reached exactly by what it means, and says so by a reason code."""
    found = stands(runs)

    assert (status, True) == (found.status, code in codes(found)), found.reasons


PINNED = "cpu python-3.11 torch-2.13"


@pytest.mark.parametrize(
    ("places", "exact", "loss", "expected"),
    [
        ((PINNED,), "exact", 2.5, ("DISCHARGED", "HOLDS")),
        ((PINNED,), "recorded", 2.5, ("DISCHARGED", "HOLDS")),
        (("cpu python-3.12 torch-2.13",), "exact", 2.5, ("STALE", "ENV")),
        (("cpu python-3.12 torch-2.13",), "recorded", 2.5, ("STALE", "ENV")),
        (("cpu python-3.12 torch-2.13",), "exact", 3.5, ("FALSIFIED", "FAILS")),  # another class excuses no failure
        (("cuda NVIDIA H100 python-3.11 torch-2.13",), "exact", 2.5, ("OPEN", "NO_EVIDENCE")),
        ((PINNED, "cpu python-3.12 torch-2.13"), "exact", 2.5, ("PARTIAL", "COVERAGE")),
        (("cpu",), "exact", 2.5, ("STALE", "ENV")),  # names no class, so no class is the one: lint says so
        (("cpu",), "recorded", 2.5, ("DISCHARGED", "HOLDS")),
    ],
)
def test_an_environment_class_is_met_on_that_class(
    places: tuple[str, ...], exact: Any, loss: float, expected: tuple[str, str]
) -> None:
    """An obligation that names a class is discharged by a run recorded on it, and STALE by one on another.

    Caught: the class compared with one that nobody supplied, by which `exact` was always STALE.
    """
    obligations = CRITERION.obligations.model_copy(update={"environments": places})
    criterion = CRITERION.model_copy(update={"environment": exact, "obligations": obligations})
    found = stands([ran("run", loss, criterion=criterion)], criterion)

    assert (expected[0], True) == (found.status, expected[1] in codes(found)), found.reasons


@pytest.mark.parametrize("place", [PINNED, "cuda NVIDIA H100 80GB python-3.12 torch-2.14"])
def test_an_environment_put_on_a_class_is_of_it(place: str) -> None:
    """What a control is shown as meets the obligation that it stands for."""
    assert place == INTENT.environment.on(place).class_
    assert INTENT.environment == INTENT.environment.on("any")
    assert INTENT.environment.on("cuda").device == "cuda"


def test_a_new_subject_answers_a_falsification_and_a_revert_brings_it_back() -> None:
    """FALSIFIED ends only when a later pass on another subject names it; going back to the old subject undoes that."""
    failed = ran("fail", 3.5, code=digest("old"))
    answer = ran("pass", answers=[failed.digest], written=LATER)
    earlier = ran("pass", answers=[failed.digest])
    unnamed = ran("pass")
    same_subject = ran("again", answers=[digest("fail")], written=LATER)

    assert stands([failed, answer]).status == "DISCHARGED"
    assert stands([failed, unnamed]).status == "FALSIFIED"
    assert "UNANSWERED" in codes(stands([failed, unnamed]))  # and what keeps it red is said
    assert stands([failed, earlier]).status == "FALSIFIED"  # an answer comes after what it answers
    assert stands([ran("fail", 3.5), same_subject]).status == "FALSIFIED"
    assert stands([failed, answer], current=replace(CURRENT, code=digest("old"))).status == "FALSIFIED"


def test_what_would_discharge_it_is_what_ran() -> None:
    """A suite's and another trainer's evidence say which command makes it; a command that would move a cursor is shown."""
    suite = ran("suite", 3.5, origin="suite", command="python suite.py --record\x1b[2J")

    assert stands([ran("fail", 3.5)]).discharge == "sovereign run --contract contracts/toy.yaml"
    assert stands([ran("fail", 3.5), suite]).discharge == r"python suite.py --record\x1b[2J"


def test_an_unconcluded_run_holds_back_discharged_after_its_time() -> None:
    """An open intent is waited for; past its time it is a run that vanished, and nothing is discharged over it."""
    waiting = ran("open", outcome=None)
    late = ran("late", outcome=None, written="2025-12-30T00:00:00Z")
    tried = ran("tried", outcome=None, written="2025-12-30T00:00:00Z", overrides=("seed=3",))

    assert stands([ran("pass"), waiting]).status == "DISCHARGED"
    assert (stands([ran("pass"), late]).status, stands([ran("pass"), late]).reasons[0].code) == (
        "PARTIAL",
        "UNCONCLUDED",
    )
    assert stands([ran("pass"), tried]).status == "DISCHARGED"


def test_partial_names_what_is_missing() -> None:
    """PARTIAL is incomplete coverage of what was declared before, with the remainder named."""
    three = CRITERION.model_copy(update={"obligations": Obligations(seeds=(1, 2, 3), least_n=10)})
    found = stands([ran("one", criterion=three)], three)

    assert ("PARTIAL", "1/3 obligations, missing seed 2; seed 3") == (found.status, found.reasons[0].text)


def amended(old: Criterion, new: Criterion, seen: Sequence[str] = ()) -> Amendment:
    return Amendment(
        schema="sovereign/amendment/v1", id="a", criterion=old.id, change="loosen", to=new.digest, from_sentence=old.sentence,
        to_sentence=new.sentence, reason="why", results_seen=tuple(seen), author="a", approver="b", written=date(2026, 1, 1),
        **{"from": old.digest},
    )  # fmt: skip


def test_a_moved_target_does_not_turn_red_to_green() -> None:
    """CASE-33: loosening after a failure leaves it FALSIFIED; owned up to by amendment it is OPEN, and marked for ever."""
    failed = ran("fail", 4.6)
    looser = CRITERION.model_copy(update={"bound": 4.7})
    quiet = stands([failed], looser)
    honest = stands([failed], looser, amendments=[amended(CRITERION, looser, [failed.digest])])
    hiding = stands([failed], looser, amendments=[amended(CRITERION, looser)])

    assert quiet.status == "FALSIFIED"
    assert (honest.status, honest.amended_after_results, honest.was_falsified) == ("OPEN", 1, (CRITERION.digest,))
    assert hiding.status == "INVALID"


def test_evidence_for_another_bound_is_stale_and_for_a_harder_one_is_judged_again() -> None:
    """Loosening makes a pass STALE(SPEC); tightening judges the same rows by the new bound, and says so."""
    looser = CRITERION.model_copy(update={"bound": 4.0})
    harder = CRITERION.model_copy(update={"bound": 2.7})
    hardest = CRITERION.model_copy(update={"bound": 2.0})

    assert ("STALE", {"SPEC"}) == (stands([ran("pass")], looser).status, codes(stands([ran("pass")], looser)))
    assert ("DISCHARGED", True) == (
        stands([ran("pass")], harder).status,
        "RE_EVALUATED" in codes(stands([ran("pass")], harder)),
    )
    assert stands([ran("pass")], hardest).status == "FALSIFIED"


def test_a_title_changes_nothing() -> None:
    """T13: prose is commentary; the digest, and the status, stay."""
    retitled = CRITERION.model_copy(update={"title": "Another title", "rationale": "Another reason"})

    assert CRITERION.digest == retitled.digest
    assert stands([ran("pass")], retitled).status == "DISCHARGED"


def test_a_dropped_criterion_is_invalid() -> None:
    """T11: a criterion that evidence was held to cannot disappear from the spec."""
    other = CRITERION.model_copy(update={"id": "TOY-009"})
    found = judge(spec_of(other), [ran("pass")], {"toy": CURRENT}, NOW)

    assert {"TOY-009": "OPEN", "TOY-001": "INVALID"} == {one.id: one.status for one in found.criteria}
    assert exit_code([found]) == Exit.INTEGRITY


def waiver(state: str, **changes: Any) -> Waiver:
    values: dict[str, Any] = {
        "schema": "sovereign/waiver/v1", "id": "w", "criterion": "TOY-001", "digest": CRITERION.digest, "state": state,
        "reason": "r", "owner": "a", "approver": "b", "granted": NOW.date(), "expires": NOW.date() + timedelta(days=30),
    }  # fmt: skip
    return Waiver(**{**values, **changes})


def test_a_waiver_covers_one_state_for_a_while() -> None:
    """A waiver lies over the state it names, which stays visible; another state, digest or day voids it."""
    red = [ran("fail", 3.5)]

    assert stands(red, waivers=[waiver("FALSIFIED")]).shown == "WAIVED(FALSIFIED)"
    assert stands(red, waivers=[waiver("OPEN")]).shown == "FALSIFIED"
    assert stands(red, waivers=[waiver("FALSIFIED", digest=digest("else"))]).shown == "FALSIFIED"
    past = waiver("FALSIFIED", granted=date(2025, 1, 1), expires=date(2025, 2, 1))
    assert stands(red, waivers=[past]).shown == "FALSIFIED"
    coming = waiver("FALSIFIED", granted=date(2999, 1, 1), expires=date(2999, 2, 1))
    assert stands(red, waivers=[coming]).shown == "FALSIFIED"


def test_an_expired_waiver_matters_while_what_it_covered_stands() -> None:
    """`main` asks that no waiver ran out over something that is still so; what was mended since is forgiven."""
    past = waiver("FALSIFIED", granted=date(2025, 1, 1), expires=date(2025, 2, 1))
    red, green = (
        judge(spec_of(CRITERION), [run], {"toy": CURRENT}, NOW, waivers=[past])
        for run in (ran("fail", 3.5), ran("pass"))
    )

    assert (red.expired_waivers, green.expired_waivers) == (("w",), ())
    assert exit_code([green], "main") == Exit.SATISFIED


@pytest.mark.parametrize("approver", ["A", " a", "a ", "a\u200b", "\uff41"])
def test_one_person_is_not_two(approver: str) -> None:
    """Case, spaces and characters that nobody sees do not make another approver."""
    with pytest.raises(ValueError, match="someone else must approve"):
        waiver("FALSIFIED", approver=approver)


def test_an_unproven_evaluator_discharges_nothing() -> None:
    """A pass judged by an evaluator whose controls did not come out counts for nothing, and the reason is told."""
    found = stands([ran("pass")], unproven={"TOY-001": "its bad control passes"})

    assert ("OPEN", True) == (found.status, "UNPROVEN" in codes(found))


def test_losing_a_control_makes_no_failure_go_away() -> None:
    """What was falsified stays so without controls, and an answer nobody can believe answers nothing.

    The planted bug is the first form of this rule, which set all evidence of an unproven criterion aside: deleting
    a control then turned FALSIFIED into OPEN, which does not block a pull request.
    """
    failed = ran("fail", 9.0, code=digest("old code"))
    answer = ran("pass", answers=[failed.digest], written=LATER)
    unproven = {"TOY-001": "no bad control"}

    assert "DISCHARGED" == stands([failed, answer]).status
    assert "FALSIFIED" == stands([failed], unproven=unproven).status
    assert "FALSIFIED" == stands([failed, answer], unproven=unproven).status


@pytest.mark.parametrize(
    "obligations",
    [
        Obligations(seeds=(2,), least_n=10),
        Obligations(environments=("cuda",), least_n=10),
        Obligations(slices=("hard",), least_n=10),
    ],
)
def test_a_failure_does_not_vanish_when_obligations_move(obligations: Obligations) -> None:
    """Asking for other seeds, environments or slices leaves what failed FALSIFIED, until an amendment owns up to it."""
    moved = CRITERION.model_copy(update={"obligations": obligations})
    failed = ran("fail", 3.5)

    assert stands([failed], moved).status == "FALSIFIED"
    assert stands([failed], moved, amendments=[amended(CRITERION, moved, [failed.digest])]).status == "OPEN"


def test_a_red_criterion_is_not_silenced_by_making_it_a_draft() -> None:
    """The return to draft takes an amendment; without one the criterion still gates."""
    draft = CRITERION.model_copy(update={"stage": "draft"})
    failed = ran("fail", 3.5)
    quiet = judge(spec_of(draft), [failed], {"toy": CURRENT}, NOW)
    honest = judge(
        spec_of(draft), [failed], {"toy": CURRENT}, NOW, amendments=[amended(CRITERION, draft, [failed.digest])]
    )

    assert (quiet.criteria[0].stage, exit_code([quiet])) == ("active", Exit.FALSIFIED)
    assert honest.criteria[0].stage == "draft"


def test_an_answer_must_differ_from_every_falsifier() -> None:
    """Two subjects failed; a pass on one of them answers neither, though it names both."""
    one, other = ran("one", 3.5, code=digest("one")), ran("other", 3.5, code=digest("other"))
    names = [one.digest, other.digest]
    repeated = ran("pass", code=digest("other"), answers=names, written=LATER)

    assert stands([one, other, repeated]).status == "FALSIFIED"
    assert stands([one, other, ran("pass", answers=names, written=LATER)]).status == "DISCHARGED"


@pytest.mark.parametrize(("then", "now"), [(digest("a"), digest("b")), (digest("a"), None), (None, digest("a"))])
def test_data_that_moved_is_stale(then: str | None, now: str | None) -> None:
    """Data inside the repository that changed, went, or came: what was shown is STALE(DATA)."""
    subjects = INTENT.subjects.model_copy(update={"source": then})
    found = stands([ran("pass", subjects=subjects)], current=replace(CURRENT, source=now))

    assert (found.status, "DATA" in codes(found)) == ("STALE", True)


def test_a_withdrawal_must_name_what_was_seen() -> None:
    """A tombstone stands only on an amendment that withdraws the form runs were held to, and lists their results."""
    failed = ran("fail", 3.5)
    values = {
        "schema": "sovereign/amendment/v1", "id": "w", "criterion": "TOY-001", "change": "withdraw", "from_sentence": "s",
        "reason": "r", "author": "a", "approver": "b", "written": date(2026, 1, 1),
    }  # fmt: skip
    spec = spec_of(CRITERION).model_copy(
        update={"criteria": (), "withdrawn": (Withdrawal(id="TOY-001", category="TOY", amendment="w"),)}
    )

    def status(form: str, seen: tuple[str, ...]) -> str:
        amendment = Amendment(**{**values, "from": form, "results_seen": seen})
        return judge(spec, [failed], {"toy": CURRENT}, NOW, amendments=[amendment]).criteria[0].status

    assert status(CRITERION.digest, (failed.digest,)) == "WITHDRAWN"
    assert status(CRITERION.digest, ()) == "INVALID"
    assert status(digest("another"), (failed.digest,)) == "INVALID"


# ── properties ───────────────────────────────────────────────────────────────────────────────────

SEEDED = CRITERION.model_copy(update={"obligations": Obligations(seeds=(1, 2), least_n=10)})


@st.composite
def histories(draw: st.DrawFn) -> list[VerifiedRun]:
    """Draw a repository's worth of runs: passing, failing, silent, torn, moved, answering one another."""
    runs: list[VerifiedRun] = []
    for number in range(draw(st.integers(0, 5))):
        earlier = [run.digest for run in runs]
        runs.append(
            ran(
                f"run{number}",
                draw(st.sampled_from([2.0, 2.5, 2.95, 3.5, None])),
                n=draw(st.sampled_from([2, 10, 50])),
                seed=draw(st.sampled_from([1, 2, 3])),
                criterion=SEEDED,
                code=draw(st.sampled_from(["", digest("old")])),
                outcome=draw(st.sampled_from(["completed", "completed", "completed", "diverged", "abandoned", None])),
                answers=draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else [],
                overrides=draw(st.sampled_from([(), (), ("seed=1",)])),
                written=draw(st.sampled_from(["2026-01-01T00:00:00Z", "2025-12-01T00:00:00Z", LATER])),
                findings=draw(st.sampled_from([[], [], [], [Finding("integrity", "f", "edited")]])),
            )
        )
    return runs


def supports(run: VerifiedRun) -> bool:
    """Say whether a run can only ever help: it concluded, nothing is wrong with it, and it does not fail."""
    found = run.measurements
    return not run.findings and run.statement is not None and run.statement.outcome == "completed" and all(
        SEEDED.holds(one.low, one.high) for one in found
    )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(histories())
def test_every_input_has_one_status(runs: list[VerifiedRun]) -> None:
    """Total. Planted: an obligation without results returning None raised here at once."""
    assert stands(runs, SEEDED).status in WORST_FIRST


@settings(max_examples=300, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_order_does_not_matter(runs: list[VerifiedRun], random: Any) -> None:
    """Permutation-invariant. Planted: dropping the sort in `judge` let the last run decide what was shown."""
    shuffled = list(runs)
    random.shuffle(shuffled)

    assert stands(runs, SEEDED) == stands(shuffled, SEEDED)


@settings(max_examples=200, deadline=None)
@given(histories())
def test_a_run_counted_twice_counts_once(runs: list[VerifiedRun]) -> None:
    """Idempotent. Planted: summing n over results instead of asking each made PARTIAL into DISCHARGED here."""
    twice = stands([*runs, *runs], SEEDED)

    assert stands(runs, SEEDED).status == twice.status


@settings(max_examples=300, deadline=None)
@given(histories(), st.data())
def test_removing_support_never_improves(runs: list[VerifiedRun], data: st.DataObject) -> None:
    """Monotone in support. Planted: reading STALE as better than PARTIAL was caught here."""
    helping = [run for run in runs if supports(run)]
    if not helping:
        return
    gone = data.draw(st.sampled_from(helping))
    before, after = stands(runs, SEEDED).status, stands([run for run in runs if run is not gone], SEEDED).status

    assert RANK[after] <= RANK[before]


@settings(max_examples=300, deadline=None)
@given(histories(), st.sampled_from(["", digest("old")]), st.sampled_from([1, 2]))
def test_adding_a_falsifier_never_improves(runs: list[VerifiedRun], code: str, seed: int) -> None:
    """Monotone in falsifiers. Planted: letting any later pass answer every failure was caught here."""
    worse = [*runs, ran("worse", 9.0, seed=seed, code=code, criterion=SEEDED)]

    assert RANK[stands(worse, SEEDED).status] <= min(RANK[stands(runs, SEEDED).status], RANK["FALSIFIED"])


@settings(max_examples=200, deadline=None)
@given(histories())
def test_adding_an_unconcluded_intent_never_improves(runs: list[VerifiedRun]) -> None:
    """Monotone in silence about a run. Planted: counting open intents as abandoned was caught here."""
    more = [*runs, ran("vanished", outcome=None, criterion=SEEDED, written="2025-01-01T00:00:00Z")]

    assert RANK[stands(more, SEEDED).status] <= min(RANK[stands(runs, SEEDED).status], RANK["PARTIAL"])


@settings(max_examples=200, deadline=None)
@given(histories())
def test_silence_never_passes(runs: list[VerifiedRun]) -> None:
    """Without one sound, confirmatory, passing measurement nothing is DISCHARGED. Planted: `all([])` was caught here."""
    silent = [run for run in runs if not (supports(run) and run.measurements and not run.intent.overrides)]  # type: ignore[union-attr]

    assert stands(silent, SEEDED).status not in ("DISCHARGED", "PARTIAL", "STALE")


@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(["<=", "<", ">=", ">", "=="]))
def test_no_predicate_holds_for_a_number_that_is_not_finite(value: float, op: str) -> None:
    """A predicate is positive and finite: NaN and infinities satisfy none."""
    criterion = CRITERION.model_copy(update={"op": op, "bound": 0.0})
    held = criterion.holds(value, value)

    assert held is (value == value and abs(value) != float("inf") and {
        "<=": value <= 0, "<": value < 0, ">=": value >= 0, ">": value > 0, "==": value == 0
    }[op])  # fmt: skip


# ── exit codes ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("runs", "profile", "code"),
    [
        ([ran("pass")], "pr", Exit.SATISFIED),
        ([ran("pass")], "release", Exit.SATISFIED),
        ([ran("fail", 3.5)], "pr", Exit.FALSIFIED),
        ([ran("fail", 3.5)], "draft", Exit.SATISFIED),
        ([ran("fail", 3.5)], "release", Exit.FALSIFIED),
        ([], "pr", Exit.NOTHING),
        ([], "draft", Exit.NOTHING),
        ([], "release", Exit.NOTHING),
        ([ran("few", n=2)], "pr", Exit.SATISFIED),
        ([ran("few", n=2)], "release", Exit.INCOMPLETE),
        ([ran("moved", code=digest("old"))], "main", Exit.SATISFIED),
        ([ran("torn", findings=[Finding("integrity", "f", "edited")])], "draft", Exit.INTEGRITY),
        ([ran("bad", findings=[Finding("schema", "f", "malformed")])], "pr", Exit.SCHEMA),
        ([ran("both", findings=[Finding("schema", "f", "m"), Finding("integrity", "f", "m")])], "pr", Exit.INTEGRITY),
    ],
)
def test_each_profile_asks_for_what_it_says(runs: list[VerifiedRun], profile: Any, code: Exit) -> None:
    """The exit code follows from the evaluation and the profile alone."""
    evaluation = judge(spec_of(CRITERION), runs, {"toy": CURRENT}, NOW)

    assert code == exit_code([evaluation], profile)


def test_an_old_falsification_does_not_block_a_pull_request() -> None:
    """Under `pr`, FALSIFIED blocks when it is new against the base; without a base it always is."""
    red = judge(spec_of(CRITERION), [ran("fail", 3.5)], {"toy": CURRENT}, NOW)
    green = judge(spec_of(CRITERION), [ran("pass")], {"toy": CURRENT}, NOW)

    assert exit_code([red], "pr", [red]) == Exit.SATISFIED
    assert exit_code([red], "pr", [green]) == Exit.FALSIFIED


def test_drafts_are_shown_and_do_not_gate() -> None:
    """A draft criterion has a status, and no say."""
    draft = CRITERION.model_copy(update={"stage": "draft"})
    evaluation = judge(spec_of(draft), [ran("fail", 3.5, criterion=draft)], {"toy": CURRENT}, NOW)

    assert ("FALSIFIED", Exit.NOTHING) == (evaluation.criteria[0].status, exit_code([evaluation], "pr"))
