"""CASE-11 Wrong tokens carry the loss.

Stage: before step 0
Outcome: refused (exit 7) with a count where an example has no target; a step without one stops; one decoded mask is kept
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tuned import BASE, PAIRS, carried_out, observed, planned, repository, rows, tuned

from sovereign.contract.data import Template
from sovereign.contract.model import Decoder as Shape
from sovereign.contract.training import Schedule, Training
from sovereign.corpus import examples
from sovereign.corpus.examples import IGNORED, Encoded, Example, ExampleStream, Turn, encoded, pieces
from sovereign.metrics.measure import METRICS, measure
from sovereign.model.decoder import build
from sovereign.training.guards import Stopped
from sovereign.training.loop import train
from sovereign.training.optimizer import optimizer_for


def letters(text: str) -> list[int]:
    return [ord(one) for one in text]


def test_only_the_assistant_s_tokens_carry_loss() -> None:
    """Of a conversation each answer and its closing end-of-text are learned; what others say is given."""
    turns = (
        Turn("system", "S"),
        Turn("user", "ab"),
        Turn("assistant", "xy"),
        Turn("user", "c"),
        Turn("assistant", "z"),
    )
    one = encoded(Example("e", turns), letters, 0, 64, Template(user="{content}>", system="{content}|"))
    shown = pieces(one, lambda ids: "".join(chr(token) if token else "." for token in ids))

    assert [("S|ab>", False), ("xy.", True), ("c>", False), ("z.", True)] == shown
    assert one.counted == 5


@pytest.mark.parametrize("context", range(1, 12))
def test_truncation_is_counted(context: int) -> None:
    """Tokens kept and tokens cut are all tokens; a context that the prompt fills leaves no target."""
    one = encoded(
        Example("e", (Turn("user", "abcd"), Turn("assistant", "xyz"))), letters, 0, context, Template(user="{content}")
    )

    assert len(one.inputs) + one.cut == 8
    assert one.counted == max(0, min(context, 8) - 4)


def test_examples_without_a_target_are_refused_with_a_count(tmp_path: Path) -> None:
    """Plant: a maximum length shorter than nearly every prompt."""
    root = repository(tmp_path / "r")
    assert carried_out(root, BASE).outcome == "completed"
    found = planned(root, tuned("x", PAIRS, "full").replace("context: 48", "context: 8")).refusals

    assert "examples have no token that carries loss" in found[0]
    assert int(found[0].split()[0]) > 50


def test_a_step_without_a_target_stops() -> None:
    """Were such an example trained on alone, the step would stop before its update."""
    bare = Encoded("0" * 16, np.arange(8), np.full(8, IGNORED))
    model = build(Shape(hidden=16, layers=1, heads=2, kv_heads=1, ffn=16, context=8), 31, seed=0)
    settings = Training(
        steps=2, sequences=2, schedule=Schedule(kind="constant", peak=1e-3), wrap_around=True, most_passes=9
    )

    with pytest.raises(Stopped) as stopped:
        train(
            model, optimizer_for(model, settings.optimizer), ExampleStream([bare, bare], 2, 0, True, 9), settings,
            device=torch.device("cpu"), precision="fp32", seed=0, evaluate_every=9, log=lambda *_, **__: None,
        )  # fmt: skip
    assert ("no_targets", 1) == (stopped.value.name, stopped.value.step)


def test_a_mask_that_was_erased_is_seen_in_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: targets are copied from inputs, as a collator once did; the share of tokens that carry loss is then all."""
    real = encoded

    def copied(*given: object, **more: object) -> Encoded:
        one = real(*given, **more)  # type: ignore[arg-type]
        return Encoded(one.document, one.inputs, np.append(one.inputs[1:], 0), one.cut)

    root = repository(tmp_path / "r")
    carried_out(root, BASE)
    clean = carried_out(root, tuned("clean", PAIRS, "full")).folder
    monkeypatch.setattr(examples, "encoded", copied)
    planted = carried_out(root, tuned("planted", PAIRS, "full")).folder
    share = {
        folder: {one.metric: one.value for one in measure(observed(folder), METRICS)[0]}["tuning/learned_share"]
        for folder in (clean, planted)
    }

    assert share[clean] < 0.75
    assert share[planted] == 1.0
    assert all(piece["learned"] for piece in rows(planted, "mask")[0]["pieces"])
