"""Comparison: antisymmetric, blind to order, and never made bolder by evidence that is not there."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from contending import contender, document, edited, elsewhere, promise, run, said
from fabric import CONTRACT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sovereign.comparison.compare import Contender, compare
from sovereign.comparison.losses import LEAST, paired, seed_noise, verdict
from sovereign.comparison.record import Pair
from sovereign.evidence.folder import Observed

RATE = (("peak: 1.0e-3", "peak: 2.0e-3"), ("contract: toy", "contract: other"))
TURNED = {"LOWER": "HIGHER", "HIGHER": "LOWER"}
BOLD = {"LOWER", "HIGHER", "SAME"}
SCORED = st.dictionaries(
    st.integers(0, 200).map(document), st.tuples(st.floats(0, 50), st.floats(0, 50), st.integers(1, 500)), min_size=LEAST, max_size=120
)  # fmt: skip


def pair(first: Contender, second: Contender) -> Pair:
    return compare([first, second]).pairs[0]


def codes(found: Pair) -> set[str]:
    return {one.code for one in found.reasons}


@given(SCORED)
@settings(max_examples=60)
def test_turning_a_comparison_round_turns_its_sign(scored: dict[str, tuple[float, float, int]]) -> None:
    """second - first is first - second with the other sign, ends swapped, and nothing else.

    Planted: percentiles of the differences as they stand, without the sign taken out, are not mirror images in floats.
    """
    one = {key: (first * tokens, tokens) for key, (first, _, tokens) in scored.items()}
    two = {key: (second * tokens, tokens) for key, (_, second, tokens) in scored.items()}
    there, back = paired(one, two), paired(two, one)

    assert (-back.value, there.n, there.method) == (there.value, back.n, back.method)
    assert there.low is not None
    assert there.high is not None
    assert (there.low, there.high) == (-back.high, -back.low)  # type: ignore[operator]
    assert there.detectable == pytest.approx(back.detectable)
    assert verdict(back) == TURNED.get(verdict(there), verdict(there))


@given(SCORED, st.randoms())
@settings(max_examples=40)
def test_the_order_of_documents_changes_nothing(scored: dict[str, tuple[float, float, int]], shuffle: object) -> None:
    """A set of documents is a set."""
    keys = list(scored)
    shuffle.shuffle(keys)  # type: ignore[attr-defined]
    one = {key: (first * tokens, tokens) for key, (first, _, tokens) in scored.items()}
    two = {key: (second * tokens, tokens) for key, (_, second, tokens) in scored.items()}

    assert paired(one, two) == paired({key: one[key] for key in keys}, {key: two[key] for key in reversed(keys)})


def test_the_paired_interval_is_student_s() -> None:
    """Of equally long documents the interval is scipy's one-sample t of the differences, and the detectable one 2.8 SE."""
    drawn = np.random.default_rng(3)
    first, second = drawn.normal(3, 1, 30), drawn.normal(3, 1, 30)
    found = paired(*({document(n): (value * 7, 7) for n, value in enumerate(values)} for values in (first, second)))
    low, high = stats.ttest_1samp(second - first, 0).confidence_interval(0.95)

    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.detectable == pytest.approx(2.8 * np.std(second - first, ddof=1) / 30**0.5)


def test_the_band_of_seeds_is_student_s() -> None:
    """Two arms of seeds are compared as scipy compares two samples of one variance; one seed each gives no band."""
    first, second = [2.44, 2.87, 2.71], [2.4, 2.6, 2.3]
    found = seed_noise(first, second)
    low, high = stats.ttest_ind(second, first).confidence_interval(0.95)

    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high))
    assert seed_noise([2.4], [2.5]) is None


def test_an_a_a_test_rejects_as_often_as_it_says() -> None:
    """Of 400 comparisons of runs that differ by noise alone, 2 to 9 % lie beyond their interval at a nominal 5 %."""
    drawn = np.random.default_rng(11)
    bold = 0
    for _ in range(400):
        sizes = drawn.integers(5, 500, 40)
        sides = [
            {document(n): (float((3 + drawn.normal()) * size), int(size)) for n, size in enumerate(sizes)} for _ in "ab"
        ]
        bold += verdict(paired(*sides)) != "INCONCLUSIVE"

    assert 0.02 <= bold / 400 <= 0.09


def test_a_run_beside_itself_differs_in_nothing() -> None:
    """Self-comparison is null: no difference, no setting, an interval of zero."""
    found = compare([run(), run()])

    assert () == found.differences
    assert ("SAME", "SAME", ()) == (found.pairs[0].checkpoints, found.pairs[0].recipes, found.pairs[0].settings)
    assert {(0.0, 0.0, 0.0)} == {
        (one.difference.value, one.difference.low, one.difference.high) for one in found.pairs[0].losses
    }


def test_turning_runs_round_turns_the_verdict() -> None:
    """B lower than A is A higher than B, at every point of comparison."""
    one, two = run(), run(edited(*RATE), 2, shift=-0.4)
    there, back = pair(one, two), pair(two, one)

    assert ("LOWER", "HIGHER") == (there.checkpoints, back.checkpoints)
    assert [-one.difference.value for one in back.losses] == [one.difference.value for one in there.losses]
    assert there.settings == back.settings == ("training.schedule.peak",)


def test_repeats_decide_about_recipes() -> None:
    """Checkpoints that differ say nothing of recipes without repeats; with them, an effect beyond their noise is ascribed."""
    other = edited(*RATE)
    alone = pair(run(), run(other, 2, shift=-0.4))
    close = {1: 3.5, 2: 3.51, 3: 3.49}
    known = pair(
        run(given={"repeats": close}),
        run(other, 2, shift=-0.4, given={"repeats": {key: value - 0.4 for key, value in close.items()}}),
    )
    wide = {1: 3.5, 2: 4.1, 3: 2.9}
    noisy = pair(
        run(given={"repeats": wide}),
        run(other, 2, shift=-0.4, given={"repeats": {key: value - 0.4 for key, value in wide.items()}}),
    )

    assert ("LOWER", "INCONCLUSIVE", "") == (alone.checkpoints, alone.recipes, alone.attributed)
    assert "NO_REPEATS" in codes(alone)
    assert ("LOWER", "LOWER", "training.schedule.peak") == (known.checkpoints, known.recipes, known.attributed)
    assert ("INCONCLUSIVE", "") == (noisy.recipes, noisy.attributed)
    assert "INSIDE_NOISE" in codes(noisy)


def test_another_machine_is_a_difference() -> None:
    """A rate and an environment that change together are two things: nothing is ascribed to either."""
    moved = promise(edited(*RATE), 2).model_copy(update={"environment": elsewhere()})
    close = {"repeats": {1: 3.5, 2: 3.51, 3: 3.49}}
    far = {"repeats": {1: 3.1, 2: 3.11, 3: 3.09}}
    found = pair(run(given=close), contender(moved, said(moved, shift=-0.4, noise=2), **far))

    assert ("LOWER", "") == (found.recipes, found.attributed)
    assert {"training.schedule.peak", "environment"} == set(found.settings)
    assert "CONFOUNDED" in codes(found)


def withheld(one: Contender, kind: str, keep: int) -> Contender:
    """Return the run with only the first `keep` rows of a kind."""
    rows = {**one.observed.rows, kind: one.observed.rows.get(kind, ())[:keep]}
    return replace(one, observed=Observed(one.observed.intent, {key: value for key, value in rows.items() if value}))


CASES = {
    "a better rate": (run(), run(edited(*RATE), 2, shift=-0.4)),
    "a rate that never arrived": (run(), run(edited(*RATE), 2, shift=-0.4, rate=lambda step: 1e-3)),
    "other data": (run(), run(number=2, shift=-0.4, subjects={"data": "more"}, trained=range(1000, 1080))),
    "a split drawn again": (run(), run(number=2, shift=-0.4, subjects={"data": "again"}, documents=range(1000, 1040), trained=range(40))),
    "judged by what it trained on": (
        run(), run(number=2, shift=-0.4, subjects={"data": "more"}, trained=[*range(1000, 1020), 3, 4]),
    ),
    "another tokenizer": (run(), run(number=2, shift=-0.4, subjects={"tokenizer": "other", "data": "other"}, tokens=11)),
}  # fmt: skip


@pytest.mark.parametrize("both", [False, True], ids=["of one", "of both"])
@pytest.mark.parametrize("kind", ["step", "evaluation", "corpus"])
@pytest.mark.parametrize("case", CASES)
def test_withholding_evidence_never_creates_a_conclusion(case: str, kind: str, both: bool) -> None:
    """Rows left out of one run or of both lead to VOID or INCONCLUSIVE, or to the same verdict, never to another one.

    Planted: without the check that every planned update is recorded, cutting the updates of one run hides that its
    rate never arrived; without the check of manifests, leaving the corpus rows out hides that one run trained on
    what both are judged by; without the check of the last evaluation, a better checkpoint is made by leaving the
    worse one out.
    """
    one, two = CASES[case]
    whole = pair(one, two)
    for keep in (0,) if kind == "corpus" else (0, 1, 5, 9, 40, 60, 80, 119):
        less = pair(withheld(one, kind, keep) if both else one, withheld(two, kind, keep))

        assert less.checkpoints not in BOLD or less.checkpoints == whole.checkpoints, keep
        assert less.attributed in ("", whole.attributed), keep


def test_reported_runs_are_only_described() -> None:
    """A run whose numbers nobody can compute again stands in the table, and in no conclusion."""
    found = compare([run(), run(edited(*RATE), 2, shift=-0.4, given={"assurance": "reported"})])

    assert ("DESCRIPTIVE", "DESCRIPTIVE", ()) == (
        found.pairs[0].checkpoints,
        found.pairs[0].recipes,
        found.pairs[0].losses,
    )
    assert {"REPORTED"} == codes(found.pairs[0])
    assert found.compared


def test_another_tokenizer_is_offered_in_bits_per_byte() -> None:
    """Nats per token are VOID; bits per byte are computed over the documents that both scored to their end."""
    one, two = CASES["another tokenizer"]
    found = pair(one, two)
    offered = found.offered[0]
    last = [[row for row in each.observed.rows["evaluation"] if row.step == 10] for each in (one, two)]

    assert "VOID" == found.checkpoints
    assert "OTHER_TOKENIZER" in codes(found)
    assert offered.values == pytest.approx([sum(row.nll for row in rows) / np.log(2) / (60 * 40) for rows in last])
    assert offered.difference.value == pytest.approx(offered.values[1] - offered.values[0])


def test_cut_documents_have_no_bits_per_byte() -> None:
    """A document that was cut after so many tokens was cut at another byte: it is not offered."""
    one, two = CASES["another tokenizer"]
    cut = [(kind, {**values, "tokens": 400} if kind == "corpus" else values)
           for kind, values in said(two.observed.intent, tokens=11)]  # fmt: skip

    assert () == pair(one, contender(two.observed.intent, cut)).offered


def test_best_checkpoints_are_judged_on_other_documents_than_chosen() -> None:
    """The best evaluation is chosen on half of the documents and measured on the other half."""
    found = {one.at: one for one in pair(run(), run(edited(*RATE), 2)).losses}

    assert 40 == found["last"].difference.n
    assert 0 < found["best"].difference.n < 40
    assert 0 not in found["best"].steps


EARLY = (("checkpoint_every: 4", "checkpoint_every: 5\n  early_stopping: {patience: 1, rise: 0.02}"),)


def risen(number: int, stops: int = 5, contract: str = edited(*EARLY), **rows: object) -> Contender:
    """Return a run that promised ten updates and early stopping, and ended with step `stops`, where its loss had risen."""
    whole = run(contract, number, at=(0, 5), spread=0.001, shift=1.5, **rows)  # type: ignore[arg-type]
    kept = {
        kind: tuple(row for row in found if getattr(row, "step", 0) <= stops)
        for kind, found in whole.observed.rows.items()
    }
    return replace(whole, observed=Observed(whole.observed.intent, kept))


def test_an_early_stop_is_no_missing_record() -> None:
    """Where the contract asks for it and the evaluations show the rise, the run is whole at the step it stopped at.

    Planted, three times: the same rows of a contract without early stopping; a run cut off a step short; one whose
    evaluations show no rise, whatever it says of itself. Each is an incomplete record.
    """
    two = run(edited(*EARLY, *RATE), 2, shift=-0.4, spread=0.001)
    honest = pair(risen(1), two)
    unasked = pair(risen(1, contract=CONTRACT), two)
    short = pair(risen(1, stops=4), two)
    rows = {**risen(1).observed.rows, "evaluation": run(edited(*EARLY), 1, at=(0, 5)).observed.rows["evaluation"]}
    unrisen = pair(replace(risen(1), observed=Observed(risen(1).observed.intent, rows)), two)

    assert "LOWER" == honest.checkpoints
    assert not codes(honest) & {"NOT_RECORDED", "NOT_AT_THE_END"}
    for cut in (unasked, short, unrisen):
        assert "INCONCLUSIVE" == cut.checkpoints
        assert "NOT_RECORDED" in codes(cut)


def test_lines_that_cannot_be_compared_are_void() -> None:
    """Losses of each run's own batches, and of other documents, stand in the table and are marked; the rest is not."""
    same = {line.name: line.void for line in compare([run(), run(number=2, shift=-0.4)]).table}
    batches = {line.name: line.void for line in compare([run(), run(number=2, seed=2, shift=-0.4)]).table}
    drawn = {line.name: line.void for line in compare([run(), run(number=2, documents=range(60, 100))]).table}

    assert {""} == set(same.values())
    assert ["training loss, last tenth"] == [name for name, void in batches.items() if void]
    assert {"validation loss last", "validation loss at step 0"} <= {name for name, void in drawn.items() if void}


def test_the_table_holds_what_both_rows_hold() -> None:
    """Numbers of the table are those of the rows; every run has its column, a line without any value is left out."""
    found = compare([run(), run(edited(*RATE), 2, shift=-0.4)])
    lines = {line.name: line for line in found.table}

    assert [1e-3, 2e-3] == [cell.value for cell in lines["highest learning rate applied"].cells if cell]
    assert [320.0, 320.0] == [cell.value for cell in lines["target tokens"].cells if cell]
    assert all(any(line.cells) for line in found.table)
    assert json.loads(json.dumps(found.plain())) == found.plain()


def test_samples_stand_side_by_side_by_prompt_and_document() -> None:
    """The same prompts of two runs stand together; the same number over another document is another prompt."""
    found = compare([run(text="a"), run(number=2, text="class class class class class class")])
    apart = compare([run(), run(number=2, documents=range(100, 140), subjects={"data": "other"})])

    assert ["def f0():", "def f1():", "def f2():"] == [one.prompt for one in found.samples]
    assert [(0, False), (1, True)] == [(one.run, one.degenerate) for one in found.samples[0].written]
    assert (3, 0) == (found.prompts, apart.prompts)


def answer(writer: str, text: str, attempt: int = 0, **given: object) -> tuple[str, dict[str, object]]:
    return "generation", {
        "step": 10, "writer": writer, "prompt_id": 0, "attempt": attempt, "prompt": "def open_door(key):", "text": text,
        "seed": attempt, **given,
    }  # fmt: skip


def test_answers_of_tuned_models_stand_side_by_side() -> None:
    """A contract's own prompts come first, with every attempt of each run; the base they share answers once."""
    asked = {"prompt": "def held(out):", "document": document(1), "reference": "It is held."}
    both = [
        contender(
            promise(number=number),
            [*said(promise(number=number), noise=number), answer("base", "as ever", canary=True),
             *(answer("tuned", f"{number} {attempt}", attempt, canary=True) for attempt in range(3)),
             answer("base", "held", **asked), answer("tuned", f"held by {number}", **asked)],
        )
        for number in (1, 2)
    ]  # fmt: skip
    found = compare(both).samples
    first, held = found[0], next(one for one in found if one.prompt == "def held(out):")
    written = [(one.run, one.by, one.text) for one in first.written]

    assert "def open_door(key):" == first.prompt
    assert ["held", "held by 1", "held by 2"] == [one.text for one in held.written]
    assert [(0, "base", "as ever"), (0, "run", "1 0"), (0, "run", "1 1"), (0, "run", "1 2")] == written[:4]
    assert [(1, "run", "2 0"), (1, "run", "2 1"), (1, "run", "2 2")] == written[4:]
