"""Loss by position: every target once, under all that stands before it, within the trained length and beyond."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fabric import CONTRACT
from hypothesis import given
from hypothesis import strategies as st
from reported import judged
from test_metrics_measure import observed

from sovereign.contract.model import Decoder as Shape
from sovereign.metrics.measure import measure
from sovereign.model.decoder import build
from sovereign.report.html import html
from sovereign.report.runs import Stretch
from sovereign.training.positions import by_position, edges

CPU = torch.device("cpu")


@given(st.integers(1, 300), st.integers(1, 3000))
def test_runs_cover_every_position_once(context: int, tokens: int) -> None:
    """They start at 0, end with the document, and none lies across the trained length or its half."""
    found = edges(context, tokens)

    assert found[0] == 0
    assert found[-1] == tokens
    assert found == sorted(set(found))
    assert all(one in found for one in (context, context // 2, context * 2) if one < tokens)


def test_a_run_of_positions_is_what_the_logits_say() -> None:
    """Sums over runs equal plain cross-entropy of the whole document in one window, three times the trained length."""
    model = build(Shape(hidden=32, layers=2, heads=4, kv_heads=2, ffn=64, context=16), 97, seed=0)
    ids = np.random.default_rng(0).integers(0, 97, 50)
    found = by_position(model, [("a", ids)], context=16, precision="fp32", device=CPU)
    whole = torch.from_numpy(ids)[None]
    losses = F.cross_entropy(model(whole[:, :-1])[0], whole[0, 1:], reduction="none").detach()

    assert [(1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 49)] == [one[1:3] for one in found[1:]]
    assert [losses[start:stop].sum().item() for _, start, stop, _, _ in found] == pytest.approx(
        [one[3] for one in found]
    )
    assert 49 == sum(one[4] for one in found)


def test_a_document_of_more_context_is_not_cut() -> None:
    """The planted fault: scored in windows of the trained length, a later target would not see the first token."""
    model = build(Shape(hidden=32, layers=2, heads=4, kv_heads=2, ffn=64, context=16), 97, seed=0)
    ids = np.random.default_rng(0).integers(0, 97, 40)
    changed = ids.copy()
    changed[0] = (ids[0] + 1) % 97
    one, other = (by_position(model, [("a", each)], context=16, precision="fp32", device=CPU)[-1][3] for each in (ids, changed))  # fmt: skip

    assert one != other


def rows(beyond: float) -> list[tuple[str, dict[str, Any]]]:
    """Return four documents in a context of 16: 4 nats a token in the first half, 3 in the second, `beyond` after it."""
    return [
        ("position", {"step": 10, "document": f"{document:016x}", "start": start, "stop": stop, "nll": loss * (stop - start), "tokens": stop - start})
        for document in range(4)
        for start, stop, loss in [(0, 4, 4.0), (4, 8, 4.0), (8, 16, 3.0), (16, 20 + document, beyond)]
        if document < 3 or start < 16
    ]  # fmt: skip


@pytest.mark.parametrize("beyond", [2.5, 3.0, 7.25])
def test_what_context_is_worth_and_what_lies_beyond_it(beyond: float) -> None:
    """The gain of the second half over the first, and the rise beyond, over the documents that hold both."""
    assert "context: 16" in CONTRACT
    measured, missing = measure(observed(rows(beyond)), ["context/late_gain", "context/beyond_rise"])
    found = {one.metric: (one.value, one.n) for one in measured}

    assert not missing
    assert found["context/late_gain"] == (pytest.approx(1.0), 4)
    assert found["context/beyond_rise"] == (pytest.approx(beyond - 3.0), 3)


def test_documents_that_end_within_the_context_say_nothing_beyond() -> None:
    """Without two documents that reach beyond it the rise is missing, with the reason."""
    short = [row for row in rows(3.0) if row[1]["start"] < 16]
    measured, missing = measure(observed(short), ["context/beyond_rise"])

    assert measured == ()
    assert {"context/beyond_rise": "0 documents reach both runs of positions"} == missing


def test_the_report_draws_it() -> None:
    """A figure with the trained length marked, and the same numbers as a table; nothing where nothing was measured."""
    plain = judged()
    stretches = tuple(Stretch(start, stop, 5.0 - at / 4, 9 - at) for at, (start, stop) in enumerate([(0, 1), (1, 128), (128, 256), (256, 512)]))  # fmt: skip
    drawn = html(replace(plain, runs=tuple(replace(one, positions=stretches, context=256) for one in plain.runs)))

    assert "Loss by position" not in html(plain)
    for part in ("Loss by position in nats per token; 256 tokens were trained on", "trained length", "256 to 512", "4.2500", "up to position 512: 4.25"):  # fmt: skip
        assert part in drawn
