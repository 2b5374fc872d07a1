"""Contracts: every file in contracts/ loads; what cannot be meant is refused; schedules are what they say."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from fabric import CONTRACT
from hypothesis import given
from hypothesis import strategies as st

from sovereign.canonical import Malformed, parse_yaml, validate
from sovereign.contract.contract import Contract, overridden
from sovereign.contract.training import Schedule
from sovereign.repository import open_repository

ROOT = Path(__file__).parent.parent


def load(text: str) -> Contract:
    return validate(Contract, parse_yaml(text.encode(), "c.yaml"))


def refusal(text: str) -> str:
    with pytest.raises(Malformed) as caught:
        load(text)
    return str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "contracts").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_contract_loads_and_claims_what_exists(path: Path) -> None:
    """The contracts that are shipped are sound, and so is the spec that they name."""
    assert Contract.load(path).contract == path.stem
    assert open_repository(ROOT).problems == ()


def keys(value: object, prefix: str = "") -> list[str]:
    if not isinstance(value, dict):
        return []
    return [found for key, inner in value.items() for found in (key, *keys(inner))]


@pytest.mark.parametrize("key", sorted(set(keys(parse_yaml(CONTRACT.encode(), "c").value))))
def test_each_misspelt_key_is_refused_by_name(key: str) -> None:
    """CASE-01: one letter swapped in any key of a valid contract is refused, with what was meant."""
    wrong = key[:-1] + ("y" if key[-1] != "y" else "x")
    said = refusal(CONTRACT.replace(f"{key}:", f"{wrong}:", 1))

    assert f"{wrong}: unknown key" in said or "union" in said or "discriminator" in said, said


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps: 10", "steps: 0", "c.yaml:14:3: training.steps: input should be greater than or equal to 1, not 0"),
        ("steps: 10", "steps: 10.5", "training.steps: input should be a valid integer, not 10.5"),
        ("peak: 1.0e-3", "peak: .nan", "c.yaml:16:36: training.schedule.peak: .nan is not a finite number"),
        ("peak: 1.0e-3", "peak: 1.0e-3, floor: 1.0e-2", "floor 0.01 is above peak 0.001"),
        ("kv_heads: 1", "kv_heads: 3", "heads 2 is not a multiple of kv_heads 3"),
        ("precision: fp32", "precision: fp32\n  wrap_around: true", "wrap_around needs most_passes"),
        ("precision: fp32", "precision: fp32\n  most_passes: 2.0", "most_passes 2 needs wrap_around: true"),
        ("precision: fp32", "precision: fp32\n  micro_batch: 3", "sequences 2 is not a multiple of micro_batch 3"),
        ("precision: fp32", "precision: bf16\n  weights: fp16", "weights are kept in fp16 and would be multiplied in bf16; ask for precision fp16 or auto, or keep them in fp32"),
        ("precision: fp32", "precision: fp16\n  weights: bf16", "ask for precision bf16 or auto, or keep them in fp16 or fp32"),
        ("precision: fp32", "precision: fp16\n  weights: fp16\n  optimizer: {kind: adamw8bit}\n  clip: 50.0", "training.clip: 50 may be too much for fp16 weights; 32 is the most there"),
        ("precision: fp32", "precision: auto\n  weights: fp16", "training.weights: adamw would keep its moments in fp16, where the squares of small gradients are 0"),
        ("validation: 0.2", "validation: 0.8", "leaves too little to train on"),
        ("[TOY-001, TOY-002]", "[TOY-001, TOY-001]", "claims lists a criterion twice"),
        ("kind: constant", "kind: constant, warmup: 10", "leaves nothing of 10 steps"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(old: str, new: str, message: str) -> None:
    """A value that is impossible, or contradicts another, is refused where it stands."""
    assert message in refusal(CONTRACT.replace(old, new))


def test_overrides_are_as_if_they_stood_in_the_file() -> None:
    """`--set` gives the contract that the edited file would give."""
    document = parse_yaml(CONTRACT.encode(), "c.yaml")
    by_set = validate(Contract, overridden(document, ["training.steps=20", "model.hidden=32", "claims=[TOY-002]"]))
    by_hand = load(
        CONTRACT.replace("steps: 10", "steps: 20").replace("hidden: 16", "hidden: 32").replace("TOY-001, ", "")
    )

    assert by_set == by_hand


def test_the_subject_is_what_trains() -> None:
    """Another claim or title is the same subject; another rate, split or seed list is, or is not, as it decides the result."""
    subject = load(CONTRACT).subject

    assert subject == load(CONTRACT.replace("title: A toy", "title: Another")).subject
    assert subject == load(CONTRACT.replace("[1, 2, 3]", "[1, 2]")).subject
    assert (
        subject == load(CONTRACT.replace("precision: fp32", "precision: fp32\n  clip: 1.0")).subject
    )  # the default, written out
    assert subject != load(CONTRACT.replace("1.0e-3", "2.0e-3")).subject
    assert subject != load(CONTRACT.replace("validation: 0.2", "validation: 0.21")).subject


def test_schedules_pass_through_their_corners() -> None:
    """Warmup ends at the peak, cosine and wsd at the floor, constant stays."""
    corners = {
        kind: [round(Schedule(kind=kind, peak=0.1, floor=0.01, warmup=10, decay=0.2).rate(step, 100), 12) for step in (1, 10, 80, 100)]
        for kind in ("constant", "cosine", "wsd")
    }  # fmt: skip

    assert corners == {
        "constant": [0.01, 0.1, 0.1, 0.1],
        "cosine": [0.01, 0.1, round(0.01 + 0.09 * 0.5 * (1 + math.cos(math.pi * 70 / 90)), 12), 0.01],
        "wsd": [0.01, 0.1, 0.1, 0.01],
    }


@given(
    st.sampled_from(["constant", "cosine", "wsd"]), st.integers(0, 50), st.integers(60, 500), st.floats(1e-6, 0.5), st.floats(0, 1),
)  # fmt: skip
def test_a_rate_lies_between_floor_and_peak_after_warmup(
    kind: str, warmup: int, steps: int, peak: float, share: float
) -> None:
    """No schedule ever leaves its band, and none rises once warm."""
    schedule = Schedule(kind=kind, peak=peak, floor=peak * share, warmup=warmup)  # type: ignore[arg-type]
    rates = [schedule.rate(step, steps) for step in range(warmup + 1, steps + 1)]

    assert all(schedule.floor * (1 - 1e-12) <= rate <= peak * (1 + 1e-12) for rate in rates)
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(rates))
