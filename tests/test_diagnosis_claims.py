"""Each claim is shown where its cause was planted, ruled out where it was not, and open where evidence is lacking."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from simulated import Plan, Rows, diagnosed, observed, simulated, without

from sovereign.diagnosis import claims, record
from sovereign.diagnosis.experiments import Experiment, done
from sovereign.diagnosis.findings import CLAIMS, LADDER, cap
from sovereign.diagnosis.procedure import PRECEDENCE, Diagnosis, diagnose
from sovereign.diagnosis.record import from_run
from sovereign.evidence.rows import EvaluationRow, FloorRow, ReferenceRow

SUPPORTED, REFUTED, OPEN = "SUPPORTED", "REFUTED", "INCONCLUSIVE"

# what is planted -> the claims that must come out so
PLANTED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "nothing": ({}, {
        "HEALTHY": SUPPORTED, "INVALID_DATA": REFUTED, "BROKEN_LOADER": REFUTED, "EVAL_PATH": REFUTED, "DIVERGED": REFUTED,
        "COMPARABILITY_VIOLATED": REFUTED, "CONTAMINATED": REFUTED, "NOT_LEARNED": REFUTED, "MEMORIZED": REFUTED,
        "OVERFIT": REFUTED, "SHIFT": REFUTED, "IMPLAUSIBLE": OPEN,
    }),
    "3 % of validation in train": ({"leak": 0.03}, {"CONTAMINATED": SUPPORTED, "HEALTHY": REFUTED}),
    "validation copied into train": ({"copied": 0.05}, {"CONTAMINATED": SUPPORTED, "HEALTHY": REFUTED}),
    "an ancestor without a manifest": ({"ancestor": "unknown"}, {
        "CONTAMINATED": OPEN, "NOT_LEARNED": OPEN, "OVERFIT": OPEN, "SHIFT": OPEN, "PLATEAU": OPEN, "HEALTHY": OPEN,
    }),
    "an ancestor with one": ({"ancestor": "known"}, {"CONTAMINATED": REFUTED, "HEALTHY": SUPPORTED}),
    "overfitting": ({"overfit": 0.5}, {"OVERFIT": SUPPORTED, "MEMORIZED": REFUTED, "HEALTHY": REFUTED}),
    "harder validation": ({"shift": 0.5}, {"SHIFT": SUPPORTED, "CONTAMINATED": REFUTED}),
    "easier validation": ({"shift": -0.5}, {"SHIFT": SUPPORTED, "CONTAMINATED": REFUTED}),
    "dropout in training only": ({"lag": 0.3}, {"METRIC_ARTIFACT": SUPPORTED, "HEALTHY": SUPPORTED}),
    "a rate too high": ({"diverge": True}, {"DIVERGED": SUPPORTED, "HEALTHY": REFUTED}),
    "a spike that recovers": ({"spike": True}, {"DIVERGED": REFUTED, "HEALTHY": SUPPORTED}),
    "data that ended": ({"exhausted": 150}, {"BROKEN_LOADER": SUPPORTED, "HEALTHY": REFUTED}),
    "one batch again and again": ({"constant": True}, {"BROKEN_LOADER": SUPPORTED, "HEALTHY": REFUTED}),
    "tokens not counted": ({"padded": 200}, {"BROKEN_LOADER": SUPPORTED, "HEALTHY": REFUTED}),
    "two paths": ({"path_error": 0.01}, {"EVAL_PATH": SUPPORTED, "HEALTHY": REFUTED}),
    "sight of the future": ({"peeks": True}, {"EVAL_PATH": SUPPORTED, "HEALTHY": REFUTED}),
    "passages recalled": ({"memory": 0.1}, {"MEMORIZED": SUPPORTED}),
    "canaries recalled": ({"outliers": True}, {"MEMORIZED": OPEN}),
    "samples that repeat themselves": ({"collapsed": True}, {"HEALTHY": OPEN}),
    "validation drawn anew": ({"redrawn": True}, {"COMPARABILITY_VIOLATED": SUPPORTED, "OVERFIT": OPEN, "HEALTHY": OPEN}),
    "a rate too low": ({"speed": 1e5, "floor": 5.5}, {"NOT_LEARNED": SUPPORTED, "HEALTHY": REFUTED}),
    "nothing, on 12 documents": ({"documents": 12}, {"HEALTHY": OPEN, "OVERFIT": OPEN, "CONTAMINATED": OPEN}),
    "nothing, on 9 documents": ({"documents": 9}, {"HEALTHY": OPEN, "OVERFIT": OPEN, "NOT_LEARNED": OPEN}),
    "a flat end": ({"speed": 10.0}, {"PLATEAU": SUPPORTED, "HEALTHY": SUPPORTED}),
    "a stream in order that goes uphill": ({"around": 100, "uphill": 0.5, "every": 10}, {"POSITION_ARTIFACT": SUPPORTED}),
    "a stream in order, level": ({"around": 100, "every": 10}, {"POSITION_ARTIFACT": REFUTED, "HEALTHY": SUPPORTED}),
    "a stream in order, seven late evaluations": ({"around": 100, "uphill": 0.5, "every": 24}, {"POSITION_ARTIFACT": OPEN}),
    "a shuffled stream": ({"every": 10}, {"POSITION_ARTIFACT": OPEN, "HEALTHY": SUPPORTED}),
    "a steep end": ({"speed": 150.0}, {"PLATEAU": REFUTED}),
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED)
def test_what_was_planted_is_found(plant: str) -> None:
    """Every plant gives the verdicts it must; a healthy run is called healthy, and a sick one never."""
    changes, expected = PLANTED[plant]
    found = diagnosed(Plan(), **changes)

    assert expected == {claim: found.verdicts[claim] for claim in expected}, found.of(next(iter(expected)))


@pytest.mark.parametrize("seed", range(4))
def test_a_leak_of_three_percent_is_found_in_every_seed(seed: int) -> None:
    """An exact leak is joined by identity, whatever the losses look like."""
    found = diagnosed(Plan(documents=300, seed=seed, leak=0.03))

    assert (SUPPORTED, "HIGH") == (found.of("CONTAMINATED").verdict, found.of("CONTAMINATED").confidence)
    assert "9 of 300 validation documents were trained on" in found.of("CONTAMINATED").because


# what is withheld from a healthy run -> claims that must then be open
WITHHELD: dict[str, tuple[str, ...]] = {
    "exposure": ("CONTAMINATED", "NOT_LEARNED", "OVERFIT", "SHIFT", "HEALTHY"),
    "overlap": ("CONTAMINATED", "OVERFIT", "HEALTHY"),
    "corpus": ("CONTAMINATED", "OVERFIT", "HEALTHY"),
    "floor": ("NOT_LEARNED", "EVAL_PATH", "DIVERGED", "HEALTHY"),
    "step": ("BROKEN_LOADER", "DIVERGED", "HEALTHY"),
    "path": ("EVAL_PATH", "HEALTHY"),
    "permuted": ("EVAL_PATH", "HEALTHY"),
    "extraction": ("MEMORIZED",),
    "canary": ("MEMORIZED",),
}  # fmt: skip


@pytest.mark.parametrize("kind", WITHHELD)
def test_an_under_specified_twin_is_inconclusive(kind: str) -> None:
    """The same run with a kind of row withheld: what rested on it is open, and never ruled out by silence."""
    plan = Plan()
    found = diagnose(from_run(observed(without(simulated(plan), kind), plan)))

    assert {OPEN} == {found.verdicts[claim] for claim in WITHHELD[kind]}, found.verdicts
    settling = {claim for one in found.missing for claim in one.settles}
    assert set(WITHHELD[kind]) - {"HEALTHY"} <= settling


@pytest.mark.parametrize("split", ["train_probe", "control"])
def test_a_split_withheld_opens_what_it_showed(split: str) -> None:
    """Without a probe there is no comparable gap; without a control no shift."""
    plan = Plan()
    found = diagnose(from_run(observed(without(simulated(plan), splits=[split]), plan)))

    assert {OPEN} == {
        found.verdicts[claim] for claim in (("OVERFIT", "HEALTHY") if split == "train_probe" else ("SHIFT",))
    }


def referred(rows: Rows, level: float) -> Rows:
    """Return rows with a reference that scores every validation document alike, in nats per token."""
    scored = tuple(
        ReferenceRow(run=row.run, document=row.document, split="validation", nll=level * row.tokens, tokens=row.tokens, model="m")
        for row in rows["floor"]
        if isinstance(row, FloorRow)
    )  # fmt: skip
    return {**rows, "reference": scored}


def test_the_better_looking_curve_of_a_leak_is_read_as_a_leak() -> None:
    """A leak that makes validation easier is CONTAMINATED and MATERIAL, and never read as an easier validation set."""
    plan = Plan(leak=0.2, leak_effect=2.0)
    found = diagnose(from_run(observed(referred(simulated(plan), 2.5), plan)))

    assert found.headline == "CONTAMINATED"
    assert found.of("SHIFT").verdict != SUPPORTED
    assert any(note.startswith("MATERIAL") for note in found.of("CONTAMINATED").notes)


@pytest.mark.parametrize(("level", "verdicts"), [(4.0, (SUPPORTED, OPEN)), (2.0, (REFUTED, SUPPORTED))])
def test_a_run_that_knows_its_reference_is_held_to_it(level: float, verdicts: tuple[str, str]) -> None:
    """Validation far below what a stronger model scores is IMPLAUSIBLE, and bars health without refuting it."""
    plan = Plan()
    found = diagnose(from_run(observed(referred(simulated(plan), level), plan)))

    assert verdicts == (found.verdicts["IMPLAUSIBLE"], found.verdicts["HEALTHY"])
    assert "ceiling not checked" not in found.of("HEALTHY").notes


def test_a_record_that_contradicts_itself_is_read_no_further() -> None:
    """A document with other tokens at another step is another text, or another tokenizer: nothing else is read (CASE-36)."""
    plan = Plan(documents=50)
    rows = simulated(plan)
    first, *rest = (row for row in rows["evaluation"] if isinstance(row, EvaluationRow))
    rows["evaluation"] = (first.model_copy(update={"tokens": first.tokens + 1}), *rest)
    found = diagnose(from_run(observed(rows, plan)))

    assert found.headline == "INVALID_DATA"
    assert {OPEN} == {verdict for claim, verdict in found.verdicts.items() if claim != "INVALID_DATA"}


def test_one_evaluation_shows_neither_the_same_draw_nor_the_same_tokens() -> None:
    """What is withheld opens verdicts: of a subset drawn anew, or a text counted anew, one evaluation alone shows nothing."""
    plan = Plan(documents=300, redrawn=True)
    rows = simulated(plan)
    last = tuple(row for row in rows["evaluation"] if isinstance(row, EvaluationRow) and row.step == plan.steps)
    found = diagnose(from_run(observed({**rows, "evaluation": last}, plan)))

    assert diagnosed(plan).verdicts["COMPARABILITY_VIOLATED"] == SUPPORTED
    assert (OPEN, OPEN) == (found.verdicts["COMPARABILITY_VIOLATED"], found.verdicts["INVALID_DATA"])


def test_confidence_is_capped_by_the_tier() -> None:
    """Only data claims reach HIGH with identities, and memorization only with a control; nothing does from a table."""
    found = diagnosed(Plan(leak=0.05, memory=0.2))

    assert ("HIGH", "HIGH") == (found.of("CONTAMINATED").confidence, found.of("MEMORIZED").confidence)
    assert all(
        LADDER.index(one.confidence) <= LADDER.index(cap(one.claim, found.tier))
        for one in found.findings
        if one.confidence
    )
    assert {cap(claim, 0) for claim in CLAIMS} == {"MEDIUM"}


def test_the_headline_is_the_first_supported_claim() -> None:
    """A leak comes before the overfitting beside it; instrument findings never come first."""
    assert diagnosed(Plan(leak=0.05, overfit=0.5)).headline == "CONTAMINATED"
    assert diagnosed(Plan(overfit=0.5)).headline == "OVERFIT"
    assert diagnosed(Plan(lag=0.3)).headline == "HEALTHY"
    assert not {"EVAL_PATH", "COMPARABILITY_VIOLATED", "METRIC_ARTIFACT", "POSITION_ARTIFACT", "IMPLAUSIBLE"} & set(
        PRECEDENCE
    )


def test_every_finding_says_what_would_overturn_it() -> None:
    """Supported, refuted or open: each names the evidence that would change it, and each check its threshold or lack."""
    found: Diagnosis = diagnosed(Plan(documents=60))

    for one in found.findings:
        assert one.because
        assert one.overturned_by
        assert all(check.says for check in one.checks)
        assert all(check.method for check in one.checks if check.low is not None)


# ── what to do next ──────────────────────────────────────────────────────────────────────────────


def advised(found: Diagnosis) -> dict[str, Experiment]:
    return {one.name: one for one in found.missing}


def test_an_experiment_whose_rows_are_there_is_not_advised_again() -> None:
    """Of a run of sixty documents every probe was made: what it lacks is more of them, and how many is said.

    Planted: advice by what a check needs alone tells its owner to score the train probe that he has scored.
    """
    found = diagnosed(Plan(documents=60))
    there = done(from_run(observed(simulated(Plan(documents=60)), Plan(documents=60))))

    assert {"train_probe", "documents", "control", "overlap", "near", "hashes", "same_batch"} <= there
    assert {OPEN} == {found.verdicts[claim] for claim in ("METRIC_ARTIFACT", "CONTAMINATED", "OVERFIT")}
    assert set() == there & advised(found).keys()
    more = advised(found)["more_documents"]
    assert {"METRIC_ARTIFACT", "CONTAMINATED", "OVERFIT"} <= set(more.settles)
    assert all(60 < n for n in more.enough.values())
    assert "METRIC_ARTIFACT" in more.enough


def test_as_many_documents_as_are_advised_decide() -> None:
    """A run with the number told for the online gap, half as many again for luck, decides it; one of sixty does not."""
    few = advised(diagnosed(Plan(documents=60)))["more_documents"].enough["METRIC_ARTIFACT"]

    assert OPEN == diagnosed(Plan(documents=60)).verdicts["METRIC_ARTIFACT"]
    assert OPEN != diagnosed(Plan(documents=3 * few // 2)).verdicts["METRIC_ARTIFACT"]


def test_an_experiment_that_was_not_made_is_advised() -> None:
    """Control: without the probe's rows the probe is advised, and not more documents for it."""
    plan = Plan(documents=60)
    found = advised(diagnose(from_run(observed(without(simulated(plan), splits=["train_probe"]), plan))))

    assert "METRIC_ARTIFACT" in found["train_probe"].settles
    assert "METRIC_ARTIFACT" not in found["more_documents"].settles


def test_a_gap_that_grows_with_training_is_not_laid_on_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """In two passes over a stream in order what lies further on is also read later, so nothing is said of position.

    PLANT: told from one pass on, the gap of overfitting is taken for one of position.
    """
    plan = Plan(around=240, overfit=0.5, every=10)
    sound = diagnosed(plan).verdicts
    monkeypatch.setattr(record, "PASSES", 1)

    assert (sound["POSITION_ARTIFACT"], sound["OVERFIT"]) == (OPEN, SUPPORTED)
    assert diagnosed(plan).verdicts["POSITION_ARTIFACT"] == SUPPORTED


@pytest.mark.parametrize("step", [1, 77, 240])
def test_one_batch_out_of_order_leaves_the_position_unknown(step: int) -> None:
    """The order is read from the digests of what every step consumed; a single other one, and the stream is not in order."""
    plan = Plan(around=100, uphill=0.5, every=10)
    rows = simulated(plan)
    other = tuple(row.model_copy(update={"windows": "0" * 16}) if row.step == step else row for row in rows["step"])  # type: ignore[attr-defined]
    found = from_run(observed({**rows, "step": other}, plan))

    assert from_run(observed(rows, plan)).settings.shuffled is False
    assert found.settings.shuffled is True
    assert not [point for point in found.points if point.position is not None]
    assert diagnose(found).verdicts["POSITION_ARTIFACT"] == OPEN


def test_a_claim_is_found_by_its_name() -> None:
    """Each claim stands once in the table of diagnosis/claims, and a function of its name in the module named there alone."""
    rows = [line.split(maxsplit=1) for line in (claims.__doc__ or "").splitlines() if line.startswith("    ")]
    table = [(claim, module) for module, named in rows for claim in named.split(", ")]
    modules = sorted(file.stem for file in Path(claims.__file__).parent.glob("[!_]*.py"))
    decided = [
        (claim, module)
        for module in modules
        for claim in CLAIMS
        if hasattr(import_module(f"{claims.__name__}.{module}"), claim.lower())
    ]

    assert sorted(table) == sorted(decided)
    assert sorted(CLAIMS) == sorted(claim for claim, _ in table)
