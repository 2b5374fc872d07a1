"""Each metric says what its rows say; the same rows planted with a fault give another number."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fabric import intent, rows

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import KINDS
from sovereign.measurable import METRICS, measure
from sovereign.metrics.text import body, writes_a_function

RUN = intent().run


def observed(said: list[tuple[str, dict[str, Any]]], **changes: Any) -> Observed:
    grouped: dict[str, list[Any]] = {}
    for kind, values in said:
        grouped.setdefault(kind, []).append(KINDS[kind](run=RUN, **values))
    return Observed(intent(**changes), {kind: tuple(found) for kind, found in grouped.items()})


def value(name: str, said: list[tuple[str, dict[str, Any]]]) -> float:
    measured, missing = measure(observed(said), [name])
    assert not missing, missing
    return float(measured[0].value)


def scored(split: str, losses: list[float], step: int = 10, first: int = 0) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("evaluation", {"step": step, "split": split, "document": f"{first + at:016x}", "nll": loss * 10, "tokens": 10})
        for at, loss in enumerate(losses)
    ]


def test_validation_loss_is_nats_over_tokens_at_the_last_evaluation() -> None:
    """Sum over sum, of the last step scored: never a mean of means, never the best."""
    said = [*scored("validation", [1.0, 1.0], step=5), *scored("validation", [2.0, 4.0])]
    said[-1][1]["tokens"] = 30

    assert value("validation/loss", said) == pytest.approx((20 + 40) / (10 + 30))


def test_floors_are_paired_by_document() -> None:
    """The margin is floor minus loss on the same tokens of the same documents; other tokens are refused."""
    floors = [
        ("floor", {"document": f"{at:016x}", "tokens": 10, "unigram_nll": 60.0, "bigram_nll": 45.0}) for at in range(3)
    ]
    said = [*scored("validation", [4.0, 4.0, 4.3]), *floors]

    assert value("validation/below_unigram", said) == pytest.approx(6.0 - 4.1)
    assert value("validation/below_bigram", said) == pytest.approx(4.5 - 4.1)
    floors[1][1]["tokens"] = 11
    assert (
        "count different tokens of 1 documents"
        in measure(observed(said), ["validation/below_unigram"])[1]["validation/below_unigram"]
    )


def test_gap_is_validation_minus_train_probe_at_the_same_checkpoint() -> None:
    """Both in evaluation mode, both at the last step."""
    said = [*scored("validation", [3.0, 3.2]), *scored("train_probe", [2.5, 2.7], first=9)]

    assert value("validation/gap", said) == pytest.approx(0.5)


def test_step0_distance_is_from_ln_v() -> None:
    """An untrained model scores ln V; 1.0 nats above it is a distance of 1.0."""
    said = scored("validation", [math.log(300) + 1.0] * 3, step=0)

    assert value("validation/step0_distance", said) == pytest.approx(1.0)


def corpus(leak: bool) -> list[tuple[str, dict[str, Any]]]:
    sides = ["train", "train", "validation", "control"]
    listed = [
        ("corpus", {"document": f"{at:016x}", "name": str(at), "split": side, "bytes": 5, "tokens": 5})
        for at, side in enumerate(sides)
    ]
    consumed = [0, 1, 2] if leak else [0, 1]
    exposed = [("exposure", {"document": f"{at:016x}", "windows": 1, "consumed": 3, "most": 2}) for at in consumed]
    return [*listed, *exposed, *scored("validation", [1.0], first=2)]


def test_shared_documents_are_read_from_what_was_consumed() -> None:
    """CASE-07: a loader that trains on a validation document is seen by the windows it consumed."""
    assert value("data/shared_documents", corpus(leak=False)) == 0
    assert value("data/shared_documents", corpus(leak=True)) == 1


def test_overlap_is_in_excess_of_the_control() -> None:
    """Licence headers stand in every file; only what validation has above the control counts."""
    said = [
        ("overlap", {"document": f"{at:016x}", "split": side, "tokens": 100, "covered_13": 50, "covered_50": covered})
        for at, (side, covered) in enumerate([("validation", 30), ("validation", 32), ("control", 20), ("control", 22)])
    ]

    assert value("data/overlap_excess", said) == pytest.approx(0.10)


def test_a_rate_that_was_not_applied_is_seen() -> None:
    """CASE-16: the schedule says one thing, the optimizer held another; the distance is a share of the peak."""
    said = rows()
    honest = value("training/rate_error", said)
    said[4][1]["learning_rate"] = 5e-4

    assert (honest, value("training/rate_error", said)) == (0.0, pytest.approx(0.5))


def test_uncounted_tokens_are_missing() -> None:
    """What was planned and not counted in a loss is missing, however the run names its steps."""
    assert value("training/tokens_missing", rows()) == 0
    assert value("training/tokens_missing", rows(tokens=31)) == 10
    assert value("training/tokens_missing", rows(tokens=33)) == 10  # tokens that no plan knows of are as wrong


def test_a_replay_that_differs_is_a_mismatch() -> None:
    """Another loss or other weights after the same step: resuming was not exact."""
    exact = {"checkpoint": 4, "step": 5, "straight_loss": 1.0, "replayed_loss": 1.0, "straight": "a", "replayed": "a"}
    said = [("replay", exact), ("replay", exact | {"replayed": "b"}), ("replay", exact | {"replayed_loss": 1.0000001})]

    assert value("training/replay_mismatches", said) == 2


def test_a_replay_is_as_far_off_as_its_worst_step() -> None:
    """On a device that adds in another order each time, bits differ and losses must not: the worst counts, not the mean."""
    one = {"checkpoint": 4, "step": 5, "straight_loss": 1.0, "replayed_loss": 1.0, "straight": "a", "replayed": "b"}
    said = [("replay", one), ("replay", one | {"replayed_loss": 0.75}), ("replay", one)]

    assert value("training/replay_error", said) == 0.25


def lying(*there: tuple[int, str, str, int]) -> list[tuple[str, dict[str, Any]]]:
    return [("device", dict(zip(("step", "what", "device", "bytes"), one, strict=True))) for one in there]


def on_a_gpu(said: list[tuple[str, dict[str, Any]]]) -> float:
    there = intent().environment.model_copy(update={"device": "cuda", "accelerator": "a GPU"})
    return float(measure(observed(said, environment=there), ["training/off_device"])[0][0].value)


def test_a_run_on_a_gpu_has_its_tensors_there() -> None:
    """CASE-09, planted: tensors left on the CPU, at one step only, or that the allocator never gave out, are shares."""
    sound = lying((1, "weights", "cuda", 40), (1, "moments", "cuda", 60), (1, "allocated", "cuda", 130))
    later = lying((9, "weights", "cuda", 40), (9, "moments", "cpu", 60), (9, "allocated", "cuda", 45))

    assert (0.0, 0.6) == (on_a_gpu(sound), pytest.approx(on_a_gpu(sound + later)))
    assert on_a_gpu(sound[:2]) == 1.0  # nobody but the tensors says so
    assert on_a_gpu(sound[:2] + lying((1, "allocated", "cuda", 50))) == 0.5
    assert on_a_gpu(lying((1, "weights", "cpu", 40))) == 1.0
    assert value("training/off_device", lying((1, "weights", "cpu", 40), (1, "moments", "cpu", 60))) == 0.0
    assert value("training/off_device", sound) == 1.0  # a CPU's run whose weights lie elsewhere is as wrong


def test_the_settled_pace_leaves_out_what_warms_up_and_is_a_median() -> None:
    """Steps 20 to 49 alone: an hour of compiling before and one slow step among them change nothing; all must be there."""
    said = []
    for step in range(1, 61):
        (row,) = [row for kind, row in rows(tokens=1024) if kind == "step" and row["step"] == 1]
        said.append(("step", {**row, "step": step, "seconds": 3600.0 if step < 20 or step == 30 else 0.25}))
    costs: list[tuple[str, dict[str, Any]]] = [
        ("cost", {"part": "training", "seconds": 1.0, "peak_bytes": 1, "tokens": 60 * 1024, "flops": 60 * 1024 * 1e6}),
        ("cost", {"part": "best matrix product", "seconds": 0.5, "peak_bytes": 1, "flops": 4.096e9}),
    ]

    assert value("training/step_seconds", said) == pytest.approx(0.5)
    assert value("training/settled_mfu", said + costs) == pytest.approx(1e6 * 4096 / 8.192e9)
    assert value("training/mfu", said + costs) < 0.001
    missing = measure(observed(said[:48]), ["training/step_seconds"])[1]
    assert missing == {"training/step_seconds": "29 of the 30 steps from 20 to 49 were made"}


PROMPT = "def area(width, height):"


@pytest.mark.parametrize(
    ("text", "writes"),
    [
        ("size = width * height\n    return size\n", True),
        ("size = width * height\n    return size\nx = 1\n", True),  # cut at the dedent
        ("size = width * height\n    return size\nx = (((", True),  # what follows the dedent is not judged
        ("if width:\n        return height\n    return 0\n", True),
        ("a = 1; b = 2\n", True),
        ("for x in width:\n        yield x\n", True),
        ("return width * height\n", False),  # one statement
        ("pass\n    pass\n    pass\n", False),
        ("...\n    ...\n", False),
        ('"""Return the area."""\n    return 1\n', False),
        ("width\n    height\n", False),  # bare names
        ("1\n    2\n", False),
        ("size = = width\n    return size\n", False),
        ("size = width *\n    return size\n", False),
        ("\n" * 96, False),
        ("", False),
        ("return\n    break\n", False),  # break outside a loop does not compile
        ("a = 1\n    return a + (b", False),  # only one whole statement before the cut
    ],
)
def test_a_function_is_written_when_it_does_something(text: str, writes: bool) -> None:
    """A body counts when it parses and holds two statements that are not trivial."""
    assert writes_a_function(PROMPT, "\n    " + text) is writes


def test_a_body_ends_where_it_dedents() -> None:
    """What a continuation says after the function is not the function's."""
    assert (
        body(PROMPT, "\n    return 1\n\n\ndef other():\n    pass\n") == "def area(width, height):\n    return 1\n\n\n"
    )


def test_samples_are_compared_with_a_sampler_that_cannot_write() -> None:
    """The excess is the model's share minus the bigram's; newlines write nothing."""
    good, bad = "\n    a = width\n    return a\nx\n", "= = =\n"
    said = [
        (
            "sample",
            {
                "step": 10,
                "sampler": sampler,
                "prompt_id": at,
                "document": f"{at:016x}",
                "prompt": PROMPT,
                "text": text,
                "seed": at,
            },
        )
        for sampler, texts in {
            "model": [good, good, bad, bad],
            "bigram": [good, bad, bad, bad],
            "newline": ["\n" * 9] * 4,
        }.items()
        for at, text in enumerate(texts)
    ]

    assert value("samples/function_rate", said) == 0.5
    assert value("samples/function_excess", said) == 0.25
    assert value("samples/newline_rate", said) == 0.0


def test_a_metric_without_its_rows_is_missing_with_a_reason() -> None:
    """Silence is never a number: each metric says which rows it lacks."""
    measured, missing = measure(observed([]), METRICS)

    assert measured == ()
    assert sorted(missing) == sorted(METRICS)
    assert all(missing.values())


def test_the_spec_names_only_metrics_that_exist() -> None:
    """Every metric of our own spec is computed by a function, and every function stands in the spec."""
    from pathlib import Path

    from sovereign.measurable import METRICS
    from sovereign.spec.criterion import Spec

    spec = Spec.load(Path(__file__).parent.parent / "spec/sovereign.yaml")

    assert sorted(spec.metrics) == sorted(METRICS)
