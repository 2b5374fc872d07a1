"""Metrics of tuning: attestations counted, the kept weights measured where nothing was chosen, answers compared."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fabric import intent
from hypothesis import given
from hypothesis import strategies as st

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import AttestationRow, EvaluationRow, GenerationRow, PredictionRow, StepRow
from sovereign.metrics import tuning
from sovereign.metrics.intervals import Unmeasurable

RUN = "20260101T000000Z-aaaaaa"


def observed(**rows: list[Any]) -> Observed:
    return Observed(intent(), {kind: tuple(some) for kind, some in rows.items()})


def sworn(expected: str, found: str, tolerance: float = 0.0) -> AttestationRow:
    return AttestationRow(run=RUN, step=0, subject="parent_loss", expected=expected, found=found, tolerance=tolerance)


def test_an_attestation_holds_or_counts() -> None:
    """Equal texts hold, a number holds within its share, and what is no number never does."""
    rows = [sworn("a", "a"), sworn("4.0", "4.03", 0.01), sworn("a", "b"), sworn("4.0", "4.05", 0.01), sworn("4", "nan", 0.01),
            sworn("4", "none", 0.01)]  # fmt: skip

    assert (4.0, 6) == (tuning.mismatches(observed(attestation=rows)).value, len(rows))
    with pytest.raises(Unmeasurable, match="nothing was sworn to"):
        tuning.mismatches(observed())


def step(number: int) -> StepRow:
    return StepRow(
        run=RUN, step=number, loss=1.0, tokens=1, learning_rate=1e-3, grad_norm=1.0, seconds=0.1, clock=0.1, windows="0" * 16,
        passed=0,
    )  # fmt: skip


def scored(at: int, split: Any, losses: list[float]) -> list[EvaluationRow]:
    return [
        EvaluationRow(run=RUN, step=at, split=split, document=f"{number:016x}", nll=10 * loss, tokens=10)
        for number, loss in enumerate(losses)
    ]


def test_improvement_is_measured_where_nothing_was_chosen() -> None:
    """The validation side chooses step 4 of those kept (every 4, and the last); the control side says what it is worth."""
    rows = [
        *scored(0, "validation", [3.0, 3.0]), *scored(0, "control", [3.0, 3.2]),
        *scored(3, "validation", [1.0, 1.0]), *scored(3, "control", [0.1, 0.1]),  # not kept
        *scored(4, "validation", [2.0, 2.0]), *scored(4, "control", [2.5, 2.7]),
        *scored(10, "validation", [2.4, 2.4]), *scored(10, "control", [1.0, 1.0]),
    ]  # fmt: skip
    seen = observed(evaluation=rows, step=[step(number) for number in range(1, 11)])

    assert 4 == tuning.kept_step(seen)
    assert tuning.improvement(seen).value == pytest.approx(0.5)


def predicted(by: Any, label: str, said: str, number: int, split: Any = "control") -> PredictionRow:
    return PredictionRow(run=RUN, step=1, split=split, by=by, document=f"{number:016x}", label=label, predicted=said)


def test_a_classifier_of_one_label_recalls_nothing_of_the_other() -> None:
    """Nine of ten right by always saying the same: the accuracy looks well, the least recall is 0, the majority as good."""
    rows = [
        predicted(by, "ab"[number == 9], "a", number)
        for number in range(10)
        for by in ("model", "majority", "bag_of_words")
    ]
    seen = observed(prediction=rows)

    assert (0.9, 0.0, 0.0) == (
        tuning.accuracy(seen).value, tuning.least_recall(seen).value, tuning.above_majority(seen).value
    )  # fmt: skip
    assert tuning.above_majority(seen).low < 0 < tuning.above_majority(seen).high


def test_a_classifier_stands_beside_its_base_asked_by_prompt() -> None:
    """Eight of ten right against five: the difference with Newcombe's interval; without a prompt it is not measured."""
    rows = [predicted("model", "a", "ab"[number > 7], number) for number in range(10)]
    asked = [predicted("prompt", "a", "ab"[number > 4], number) for number in range(10)]
    found = tuning.above_prompted(observed(prediction=[*rows, *asked]))

    assert pytest.approx(0.3) == found.value
    assert found.low < 0.3 < found.high
    with pytest.raises(Unmeasurable, match="by prompt"):
        tuning.above_prompted(observed(prediction=rows))


def answered(writer: Any, number: int, text: str, **more: Any) -> GenerationRow:
    return GenerationRow(
        run=RUN, step=1, writer=writer, prompt_id=number, attempt=0, prompt="p", reference="the number of them", text=text,
        seed=1, **more,
    )  # fmt: skip


def test_answers_are_compared_in_pairs() -> None:
    """The gain is of the same prompts; canaries have no reference and do not count; a missing side cannot be measured."""
    rows = [
        *(answered("base", number, "zzz") for number in range(2)),
        *(answered("tuned", number, "the number of them") for number in range(2)),
        answered("tuned", 0, "x", canary=True),
    ]

    assert tuning.chrf_gain(observed(generation=rows)).value == pytest.approx(1.0)
    with pytest.raises(Unmeasurable):
        tuning.chrf_gain(observed(generation=rows[1:]))


@given(st.text("ab c", max_size=20), st.text("ab c", max_size=20))
def test_chrf_is_sacrebleu_s(text: str, reference: str) -> None:
    """chrF2 of a pair of texts is sacrebleu's sentence score with effective order, divided by 100."""
    chrf = pytest.importorskip("sacrebleu.metrics.chrf").CHRF
    if not text.split() or not reference.split():
        assert tuning.chrf(text, reference) == 0.0
        return
    wanted = chrf(eps_smoothing=False).sentence_score(text, [reference]).score / 100

    assert tuning.chrf(text, reference) == pytest.approx(wanted, abs=1e-6)


@given(st.text(max_size=30))
def test_chrf_of_a_text_and_itself_is_one(text: str) -> None:
    """Or 0, where there is nothing in it."""
    assert tuning.chrf(text, text) == (1.0 if "".join(text.split()) else 0.0)
    assert math.isfinite(tuning.chrf(text, "some reference"))
