"""CASE-05 Unreachable goal.

Stage: plan
Outcome: refused (exit 7) with the base's log-probabilities of both answers and the ratio of their lengths, outside the contract's ranges
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tuned import BASE, PAIRS, WORDS, carried_out, contract, planned, repository, tuned

from sovereign.canonical import Malformed
from sovereign.contract.data import Template
from sovereign.corpus import tokens
from sovereign.corpus.examples import IGNORED, Example, Turn, encoded
from sovereign.lineage import parent
from sovereign.tuning import find

ASKED = "{path: preferences.jsonl, gap: [-40, 40], length_ratio: [0.5, 2]}"
RARE = "Zyx#~|^ Qj%W@K "  # bytes that the corpus hardly holds


def preferring(ranges: str = ASKED) -> str:
    """Return a contract that tunes the toy on pairs, and holds preferences against it."""
    text = tuned("preferring", PAIRS, "full").replace("context: 48", "context: 64")
    return text.replace("method:", f"  preferences: {ranges}\nmethod:", 1)


def write(root: Path, chosen: Callable[[int], str], rejected: Callable[[int], str]) -> None:
    rows = [{"prompt": f"say {WORDS[at % 8]}", "chosen": chosen(at), "rejected": rejected(at)} for at in range(40)]
    (root / "preferences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def words(at: int, step: int) -> str:
    return f"{WORDS[(at + step) % 8]} {WORDS[(at + 2 * step) % 8]}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = repository(tmp_path_factory.mktemp("case-05") / "r")
    assert carried_out(place, BASE).outcome == "completed"
    return place


def test_a_goal_out_of_reach_is_refused(root: Path) -> None:
    """Plant: chosen answers twenty times longer, made of rare tokens: both ranges are missed, and both figures told."""
    write(root, lambda at: RARE * 2, lambda at: WORDS[at % 8][:5])
    found = planned(root, preferring())
    held = found.preferred

    assert held is not None
    assert held.gap < -40
    assert held.length_ratio > 5
    assert any("where data.preferences.gap allows -40 to 40" in one for one in found.refusals)
    assert any("times the tokens of rejected ones" in one for one in found.refusals)


def test_answers_of_one_kind_are_within_reach(root: Path) -> None:
    """Control: both answers are of the corpus' own words; nothing is refused, and the plan shows the figures."""
    write(root, lambda at: words(at, 1), lambda at: words(at, 3))
    found = planned(root, preferring())
    shown = found.figures()

    assert () == found.refusals
    assert (40, True) == (shown["preference pairs scored"], abs(float(shown["gap, nats an answer"])) < 40)


def test_the_figures_are_the_base_s_own(root: Path) -> None:
    """The log-probability of each answer, its closing end-of-text included, is that of a plain forward pass in float64."""
    write(root, lambda at: words(at, 1), lambda at: words(at, 3))
    text = preferring()
    found = planned(root, text)
    tuning = find(found.contract, root, lambda *told: None)
    base, bpe = tuning.base().double(), tokens.load(parent("toy", root).tokenizer)
    total = 0.0
    for at in range(40):
        example = Example("a", (Turn("user", f"say {WORDS[at % 8]}"), Turn("assistant", words(at, 1))))
        one = encoded(example, lambda text: tokens.encode(bpe, [text])[0].tolist(), tuning.end_of_text, 64, Template())
        with torch.no_grad():
            log = base(torch.from_numpy(one.inputs)[None])[0].log_softmax(-1)
        total += sum(float(log[place, target]) for place, target in enumerate(one.targets) if target != IGNORED)

    assert found.preferred is not None
    assert math.isclose(total / 40, found.preferred.chosen, rel_tol=1e-4)


def test_answers_beyond_the_context_are_refused(root: Path) -> None:
    """An answer that was scored in part is not compared: the plan says how many there are."""
    write(root, lambda at: " ".join([words(at, 1)] * 20), lambda at: words(at, 3))
    found = planned(root, preferring("{path: preferences.jsonl, gap: [-9999, 9999], length_ratio: [0.01, 100]}"))

    assert ["40 of 80 answers reach beyond the context, and were scored in part; raise method.context"] == list(
        found.refusals
    )


@pytest.mark.parametrize("line", ['{"prompt": "a", "chosen": "b"}', '{"prompt": "a", "chosen": "b", "rejected": "b"}'])
def test_a_line_that_prefers_nothing_is_malformed(root: Path, line: str) -> None:
    """An answer that is missing, or the same twice, is named with its line."""
    (root / "preferences.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' + line + "\n")

    with pytest.raises(Malformed, match=r"preferences\.jsonl:2:1"):
        planned(root, preferring())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (preferring(ASKED.replace("gap: [-40, 40], ", "")), r"data\.preferences\.gap: required"),
        (preferring(ASKED.replace("[-40, 40]", "[40, -40]")), "is no range"),
        (BASE.replace("data:\n", f"data:\n  preferences: {ASKED}\n"), "a model from scratch has none"),
    ],
)
def test_preferences_without_a_range_or_a_base_are_refused(text: str, said: str) -> None:
    """No range is assumed: whoever plans says what is in reach; and a model from scratch has nothing to prefer with."""
    with pytest.raises(Malformed, match=said):
        contract(text)
