"""Laws of diagnosis: what must not change a verdict, and what may only make it more careful."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from simulated import Plan, Rows, observed, simulated

from sovereign.diagnosis.claims import memorization
from sovereign.diagnosis.findings import Finding
from sovereign.diagnosis.procedure import Diagnosis, diagnose
from sovereign.diagnosis.record import Point, RunRecord, Settings, from_run
from sovereign.evidence.rows import Row

OPEN = "INCONCLUSIVE"
NEAR = 1e-4  # a check this close to its threshold may go either way; a bootstrap end moves more than the data do
EXAMPLES = settings(max_examples=15)

plans = st.builds(
    Plan,
    documents=st.sampled_from([12, 60, 120]),
    steps=st.just(120),
    every=st.just(20),
    seed=st.integers(0, 5),
    overfit=st.sampled_from([0.0, 0.0, 0.1, 0.5]),
    leak=st.sampled_from([0.0, 0.0, 0.05]),
    copied=st.sampled_from([0.0, 0.05]),
    shift=st.sampled_from([0.0, 0.0, 0.4, -0.4]),
    lag=st.sampled_from([0.0, 0.3]),
    diverge=st.booleans(),
    spike=st.booleans(),
    exhausted=st.sampled_from([0, 0, 80]),
    path_error=st.sampled_from([0.0, 0.01]),
    memory=st.sampled_from([0.0, 0.1]),
    ancestor=st.sampled_from(["", "known", "unknown"]),
    speed=st.sampled_from([50.0, 1e5]),
)
tables = st.lists(
    st.tuples(st.floats(0.3, 11), st.floats(0.3, 11)), min_size=1, max_size=12
).map(
    lambda losses: RunRecord(
        tuple(Point(step=100 * at, train=train, val=val) for at, (train, val) in enumerate(losses)),
        Settings(vocab=50257, unigram_nats=6.95, trained_tokens=10**8, val_fixed=True, train_scope="training mode"),
    )
)  # fmt: skip


def diagnosed(rows: Rows, plan: Plan) -> Diagnosis:
    return diagnose(from_run(observed(rows, plan)))


def near(found: Diagnosis) -> set[str]:
    """Return the claims of which a check lies where rounding may decide it, or where two seeds already disagree."""
    close = set()
    for finding in found.findings:
        ends = [(check, end) for check in finding.checks for end in (check.low, check.high) if end is not None]
        # ends of a bootstrap are order statistics: moving documents by 1e-6 may exchange two neighbours
        if any(min(abs(end - limit), abs(end + limit)) < 0.004 for _, end in ends for limit in LIMITS):
            close.add(finding.claim)
        if "too close to call" in finding.because:
            close.add(finding.claim)
    return close | ({"HEALTHY", "PLATEAU", "SHIFT"} if close else set())


def ends(found: Diagnosis) -> list[float]:
    """Return both ends of every interval there is."""
    return [end for one in found.findings for check in one.checks for end in (check.low, check.high) if end is not None]


LIMITS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.25, 0.3)


def unchanged(one: Diagnosis, other: Diagnosis, but: set[str] = frozenset()) -> bool:  # type: ignore[assignment]
    return {key: value for key, value in one.verdicts.items() if key not in but} == {
        key: value for key, value in other.verdicts.items() if key not in but
    }


def shuffled(rows: Rows, seed: int) -> Rows:
    drawn = np.random.default_rng(seed)
    return {kind: tuple(found[at] for at in drawn.permutation(len(found))) for kind, found in rows.items()}


def edited(rows: Rows, **edit: Any) -> Rows:
    """Return rows with the named fields put through a function, in every kind that has them."""

    def one(row: Row) -> Row:
        given = {field: change(getattr(row, field)) for field, change in edit.items() if hasattr(row, field)}
        return row.model_copy(update=given) if given else row

    return {kind: tuple(map(one, found)) for kind, found in rows.items()}


@EXAMPLES
@given(plans, st.integers(0, 99))
@example(Plan(documents=120, steps=120, every=20), 0)
def test_the_order_of_rows_changes_nothing(plan: Plan, seed: int) -> None:
    """Rows may be written in any order. Planted: checkpoints in the order of their rows; the last one is then another."""
    rows = simulated(plan)
    one, other = diagnosed(rows, plan), diagnosed(shuffled(rows, seed), plan)

    assert one.verdicts == other.verdicts
    assert ends(one) == pytest.approx(ends(other), abs=1e-9)  # sums of floats in another order


@EXAMPLES
@given(plans)
@example(Plan(documents=120, steps=120, every=20))
def test_the_names_of_documents_change_nothing(plan: Plan) -> None:
    """A document is what it holds. Planted: halves, or resamples, in the order of ids; other names then move the ends."""
    rows = simulated(plan)
    renamed = edited(rows, document=lambda name: f"{(int(name, 16) * 0x9E3779B97F4A7C15) % 2**64:016x}")

    one, other = diagnosed(rows, plan), diagnosed(renamed, plan)

    assert one.verdicts == other.verdicts
    assert ends(one) == pytest.approx(ends(other), abs=1e-9)


@EXAMPLES
@given(plans, st.integers(0, 99))
def test_noise_far_below_any_threshold_changes_nothing(plan: Plan, seed: int) -> None:
    """1e-6 nats are no finding: what does not lie at a threshold stays as it is."""
    rows, drawn = simulated(plan), np.random.default_rng(seed)
    noisy = edited(
        rows,
        loss=lambda loss: loss and loss + float(drawn.uniform(-1e-6, 1e-6)),
        nll=lambda nll: max(0.0, nll + float(drawn.uniform(-1e-6, 1e-6))),
    )
    found = diagnosed(rows, plan)

    assert unchanged(found, diagnosed(noisy, plan), near(found))


@EXAMPLES
@given(st.lists(st.floats(-1e-6, 1e-6), min_size=4, max_size=4))
def test_noise_does_not_hide_a_placeholder(noise: list[float]) -> None:
    """Equal is within 1e-5 nats. Planted: losses compared for equality; one digit then undoes what CASE-15 shows."""
    losses = [5.1234, 4.5321, 4.2107, *(1.0 + one for one in noise)]
    record = RunRecord(tuple(Point(step=at, train=loss) for at, loss in enumerate(losses)))

    assert diagnose(record).verdicts["BROKEN_LOADER"] == "SUPPORTED"


@EXAMPLES
@given(plans)
def test_a_diagnosis_is_the_same_every_time(plan: Plan) -> None:
    """Seeds are fixed and recorded, so whoever diagnoses the same rows reads the same sentences."""
    rows = simulated(plan)
    found = diagnosed(rows, plan)

    assert found == diagnosed(rows, plan)
    assert found.seeds == (1, 2)
    assert all(
        "seed 1" in check.method for one in found.findings for check in one.checks if "bootstrap" in check.method
    )


# where the absence of a veto may let HEALTHY through: said beside it as `ceiling not checked`, `output not checked`
VETOES = ("sample", "reference")
KINDS = (
    "step", "floor", "exposure", "overlap", "corpus", "path", "permuted", "extraction", "canary",
    "evaluation validation", "evaluation control", "evaluation train_probe",
)  # fmt: skip


def withheld(rows: Rows, gone: set[str]) -> Rows:
    splits = {name.partition(" ")[2] for name in gone if " " in name}
    return {
        kind: tuple(row for row in found if getattr(row, "split", None) not in splits)
        if kind == "evaluation"
        else found
        for kind, found in rows.items()
        if kind not in gone
    }


def assert_more_careful(less: Diagnosis, more: Diagnosis) -> None:
    """With less evidence each verdict is the same, or open."""
    wrong = {
        claim: (verdict, more.verdicts[claim], less.of(claim).because)
        for claim, verdict in less.verdicts.items()
        if verdict not in (OPEN, more.verdicts[claim])
    }

    assert wrong == {}


@settings(max_examples=40)
@given(plans, st.sets(st.sampled_from(KINDS), min_size=1, max_size=4))
def test_withholding_rows_only_opens_verdicts(plan: Plan, gone: set[str]) -> None:
    """No verdict is gained by looking away. Planted: a coarse test that runs only where a finer one could not."""
    rows = simulated(plan)

    assert_more_careful(diagnosed(withheld(rows, gone), plan), diagnosed(rows, plan))


@settings(max_examples=40)
@given(
    plans,
    st.sets(
        st.sampled_from([
            "steps", "validation", "train_probe", "control", "unigram", "identity", "covered", "near", "paths", "permuted",
            "canaries", "extraction", "tokens_per_step",
        ]),
        min_size=1, max_size=3,
    ),
    st.sets(st.sampled_from(["vocab", "unigram_nats", "train_mode", "same_checkpoint", "same_reduction", "same_masking", "trained_tokens", "text"])),
)  # fmt: skip
def test_withholding_fields_of_a_record_only_opens_verdicts(plan: Plan, gone: set[str], unsaid: set[str]) -> None:
    """The same, field by field of a record, its settings included: the series stays when the documents are withheld."""
    record = from_run(observed(simulated(plan), plan))
    blank = RunRecord()
    less = replace(
        record,
        **{name: getattr(blank, name) for name in gone},
        settings=record.settings.model_copy(update=dict.fromkeys(unsaid)),
    )

    assert_more_careful(diagnose(less), diagnose(record))


@settings(max_examples=40)
@given(tables, st.sets(st.sampled_from(["vocab", "unigram_nats", "trained_tokens", "val_fixed"])), st.booleans())
def test_withholding_from_a_table_only_opens_verdicts(record: RunRecord, unsaid: set[str], without_train: bool) -> None:
    """A table without its floors, its budget or its training column says less, and nothing else."""
    points = tuple(replace(point, train=None) for point in record.points) if without_train else record.points
    less = replace(record, points=points, settings=record.settings.model_copy(update=dict.fromkeys(unsaid)))

    assert_more_careful(diagnose(less), diagnose(record))


@settings(max_examples=40)
@given(tables)
def test_a_table_never_shows_health_contamination_or_memorization(record: RunRecord) -> None:
    """Tier 0 supports very little, whatever its losses are."""
    found = diagnose(record)

    assert {"SUPPORTED"} & {found.verdicts[claim] for claim in ("HEALTHY", "CONTAMINATED", "MEMORIZED")} == set()


@settings(max_examples=40)
@given(tables)
def test_a_log_may_be_split_into_rows_of_train_and_rows_of_validation(record: RunRecord) -> None:
    """A log that gives both losses in one row says what one in two rows says. Planted: pairing only within a row."""
    parts = [
        part
        for point in record.points
        for part in (replace(point, val=None), replace(point, train=None))
    ]  # fmt: skip

    assert diagnose(record).findings == diagnose(replace(record, points=tuple(parts))).findings


@settings(max_examples=40)
@given(tables)
def test_bits_are_nats_by_another_name(record: RunRecord) -> None:
    """A log in declared bits has the verdicts of the same log in nats. Planted: thresholds held against printed numbers."""
    from sovereign.interop.diagnosable import record_of
    from sovereign.interop.logs import Point as Logged
    from sovereign.interop.logs import Series

    def series(scale: float, unit: str) -> Series:
        points = tuple(
            Logged(one.step, train_loss=(one.train or 0) * scale, val_loss=(one.val or 0) * scale)
            for one in record.points
        )
        return Series("series", unit, points, settings=record.settings.model_copy(update={"unit": unit}))

    def margins(found: Diagnosis) -> bool:
        return any(
            check.value is not None and abs(check.value) < NEAR for one in found.findings for check in one.checks
        )

    nats = diagnose(record_of(series(1.0, "nats")))
    assume(not margins(nats))

    assert nats.verdicts == diagnose(record_of(series(1 / math.log(2), "bits"))).verdicts


def test_a_verdict_that_a_seed_decides_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two bootstrap seeds disagree nothing is said. Planted: a claim whose verdict is its seed's parity."""
    honest = memorization.memorized

    def fickle(r: Any) -> Finding:
        return honest(r).model_copy(update={"verdict": "SUPPORTED" if r.seed % 2 else "REFUTED"})

    monkeypatch.setattr(memorization, "memorized", fickle)
    found = diagnosed(simulated(Plan(documents=60)), Plan(documents=60)).of("MEMORIZED")

    assert found.verdict == OPEN
    assert "seeds disagree" in found.because


def test_adding_evidence_never_takes_health_through_a_contradiction_and_back() -> None:
    """Evidence that arrives kind by kind opens, then settles: no verdict turns from one to its opposite on the way."""
    plan = Plan()
    rows = simulated(plan)
    seen: dict[str, set[str]] = {}
    for upto in range(len(KINDS) + 1):
        found = diagnosed(withheld(rows, set(KINDS[upto:])), plan)
        for claim, verdict in found.verdicts.items():
            seen.setdefault(claim, set()).add(verdict)

    assert [claim for claim, verdicts in seen.items() if {"SUPPORTED", "REFUTED"} <= verdicts] == []
    assert found.verdicts["HEALTHY"] == "SUPPORTED"
