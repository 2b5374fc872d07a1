"""`report --check`: what was typed is held to the rows, digit by digit, and nothing is judged that is not said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from contending import contender, edited, promise, run, said
from fabric import repository, write_run
from hypothesis import given
from hypothesis import strategies as st
from test_compare_cli import resealed, two

from sovereign.comparison.compare import compare
from sovereign.contract.training import Schedule
from sovereign.report.comparing import markdown
from sovereign.report.typed import Checked, Known, check, near, same, shape

ONE = contender(promise(), said(promise()))
KNOWN = Known.of(ONE.name, ONE.observed)
RUN = KNOWN.observed.intent.run


def checked(text: str, first: Known | None = KNOWN) -> Checked:
    return check(text, "notes.md", lambda name: KNOWN if name in ("toy", RUN) else None, first)


def states(text: str) -> list[str]:
    return [one.state for one in checked(text).statements]


@given(st.floats(-1e6, 1e6), st.integers(0, 8))
def test_what_is_rounded_agrees_and_another_digit_does_not(value: float, decimals: int) -> None:
    """Any rounding of a number is the number; the same with its last digit changed by two is another."""
    typed = f"{value:.{decimals}f}"
    other = f"{float(typed) + 2 * 10.0**-decimals:.{decimals}f}"

    assert same(typed, value)
    assert same(f"**{typed}**", value)
    assert not same(other, value)


@given(st.integers(1, 10**9))
def test_thousands_may_be_set_apart(value: int) -> None:
    """1,638,400 is 1638400."""
    assert same(f"{value:,}", value)
    assert near(f"{value:,}", value)


@pytest.mark.parametrize("kind", ["constant", "cosine", "wsd"])
@given(st.integers(0, 40), st.floats(1e-6, 0.5), st.floats(0, 0.5), st.integers(100, 400))
def test_applied_rates_are_named_by_their_shape(kind: str, warmup: int, peak: float, floor: float, steps: int) -> None:
    """Whatever schedule was promised is recognised in the rates that it applies, whatever its warm-up, peak and floor."""
    schedule = Schedule(kind=kind, peak=peak, floor=floor * peak, warmup=warmup)  # type: ignore[arg-type]

    assert kind == shape([schedule.rate(step, steps) for step in range(1, steps + 1)])


def test_other_shapes_are_not_called_by_these_names() -> None:
    """A linear fall is linear, and a saw is none of them."""
    assert "linear" == shape([1 - at / 100 for at in range(100)])
    assert shape([1.0, 0.2, 0.9, 0.1, 0.8]).startswith("neither")


def losses(step: int) -> tuple[float, float]:
    columns = KNOWN.columns
    return columns["train loss"][step][0][0], columns["val loss"][step][0][0]


def test_a_table_of_losses_is_held_to_its_steps() -> None:
    """Every cell of a row is looked up at its step; the rule, words and columns of other names are no statements."""
    train, val = losses(5)
    rows = f"| Step | Train loss | note | Val loss |\n|---|---|---|---|\n| 5 | {train:.4f} | good | **{val:.3f}** |\n| all | – | | |\n"
    wrong = rows.replace(f"{val:.3f}", f"{val + 0.1:.3f}")

    assert ["AGREES", "AGREES"] == states(rows)
    assert ["AGREES", "CONTRADICTED"] == states(wrong)
    assert f"{val:.6g} in evaluation mode" in checked(wrong).faults[0].evidence


def test_a_step_that_was_never_evaluated_has_no_evidence() -> None:
    """A validation loss at a step without one is a fault, and the nearest evaluations are named."""
    found = checked("| step | val loss |\n|-|-|\n| 7 | 3.5 |").faults[0]

    assert ("NO_EVIDENCE", True) == (found.state, "the nearest stand at 5 and 10" in found.evidence)


def test_marked_numbers_are_held_to_their_metric() -> None:
    """A number with a marker behind it is that metric, at the end or at a step; an unknown metric has no evidence."""
    val = losses(5)[1]
    last = losses(10)[1]

    assert ["AGREES"] == states(f"It ends at {last:.3f} <!-- sovereign validation/loss --> nats.")
    assert ["AGREES"] == states(f"At five it was **{val:.2f}**<!-- sovereign validation/loss@5 -->.")
    assert ["CONTRADICTED"] == states(f"{last + 0.01:.3f} <!-- sovereign validation/loss -->")
    assert ["NO_EVIDENCE"] == states("3.5 <!-- sovereign validation/lost -->")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trained with a constant learning rate", "AGREES"), ("with cosine decay to zero", "CONTRADICTED"),
        ("not a cosine schedule", ""), ("instead of cosine decay", ""), ("a cosine similarity of 0.9", ""),
        ("| schedule | cosine |", "CONTRADICTED"), ("| optimizer | AdamW |", "AGREES"), ("| seed | 2 |", "CONTRADICTED"),
        ("optimised by AdamW", "AGREES"), ("optimised by SGD", "CONTRADICTED"), ("a learning rate of 1e-3", "AGREES"),
        ("a learning rate of 1.5e-3", "CONTRADICTED"), ("LoRA rank 16", "CONTRADICTED"), ("3 epochs", "CONTRADICTED"), ("0.2 epochs", "AGREES"), ("0 epochs", "CONTRADICTED"),
        ("| parameters | 1,000 |", "AGREES"), ("| colour | blue |", ""), ("batch size 16", "CONTRADICTED"), ("trained in fp32", "AGREES"),
    ],
)  # fmt: skip
def test_method_words_are_held_to_what_was_applied(text: str, expected: str) -> None:
    """A word of the grammar agrees or contradicts; denied words and words of other subjects say nothing."""
    assert [expected] * bool(expected) == states(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("doubling from 0.35 to 0.70", "AGREES"),
        ("the gap, tripling from 0.35 to 2.76", "CONTRADICTED"),
        ("halving from 8 to 4.1", "AGREES"),
    ],
)
def test_factors_are_arithmetic(text: str, expected: str) -> None:
    """A factor in words is what the two numbers say, with or without a run."""
    assert [expected] == [one.state for one in checked(text, None).statements]


def test_a_text_speaks_of_the_run_it_named_last() -> None:
    """A marker or an id names the run from there on; an unknown one, and a line of several, none at all."""
    rows = "| step | val loss |\n|-|-|\n| 5 | 9.9 |\n"

    assert 1 == len(checked(f"<!-- sovereign run: toy -->\n{rows}", None).faults)
    assert 1 == len(checked(f"Run `{RUN}`:\n\n{rows}", None).faults)
    assert ((), 1) == (checked(rows, None).statements, checked(rows, None).without_run)
    assert () == checked(f"Run 20250101T000000Z-abcdef:\n\n{rows}").statements
    assert () == checked(f"{RUN} and 20250101T000000Z-abcdef\n\n{rows}").statements


@given(st.text(max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    """Whatever stands in a file, it is read, and every statement stands at a place of it."""
    lines = text.splitlines()
    for one in checked(text).statements:
        assert 1 <= one.line <= len(lines)
        assert 1 <= one.column <= len(lines[one.line - 1]) + 1


def test_a_comparison_in_markdown_is_not_contradicted() -> None:
    """The table of two runs, which gives each setting twice, is judged by neither of them."""
    other = run(edited(("hidden: 16", "hidden: 32"), ("peak: 1.0e-3", "peak: 2.0e-3"), ("steps: 10", "steps: 20")), 2)
    text = markdown(compare([ONE, other]), 2)

    assert () == checked(text).faults


def test_the_command_exits_as_it_should(tmp_path: Path) -> None:
    """1 where a text is contradicted, with file and line; 0 where all agrees; 5 where nothing was said; 2, 3 and 4 as ever."""
    two(tmp_path)

    def report(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from sovereign.cli.main import main; main()", "report", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ), check=False)

    (tmp_path / "right.md").write_text("| schedule | constant |\n")
    (tmp_path / "wrong.md").write_text("# Notes\n\nWe used cosine decay.\n")
    (tmp_path / "silent.md").write_text("It went well.\n")
    (tmp_path / "bytes.md").write_bytes(b"\xff")
    right, wrong = report("--check", "right.md", "--run", "toy"), report("--check", "wrong.md", "--run", "toy")
    printed = json.loads(report("--check", "wrong.md", "--run", "toy", "--format", "json").stdout)
    codes = [
        report("--check", name, "--run", run).returncode
        for name, run in (("silent.md", "toy"), ("right.md", "nobody"), ("bytes.md", "toy"))
    ]
    file = next((tmp_path / "evidence/toy").glob("*/rows/step.jsonl"))
    file.write_bytes(file.read_bytes().replace(b'"learning_rate":0.001', b'"learning_rate":0.002', 1))

    assert (0, 1, [5, 2, 3]) == (right.returncode, wrong.returncode, codes)
    assert "wrong.md:3:9: schedule of toy/" in wrong.stdout
    assert "what was applied is constant" in wrong.stdout
    assert ["CONTRADICTED"] == [one["state"] for one in printed]
    assert 4 == report("--check", "right.md", "--run", "toy").returncode


def test_another_trainer_s_run_is_checked_too(tmp_path: Path) -> None:
    """Reported rows are evidence of what was printed: a text that says otherwise is contradicted by them."""
    root = repository(tmp_path)
    promised = resealed(promise().model_copy(update={"origin": "import"}))
    told = [("reported", {"step": 10, "train_loss": 1.7153, "val_loss": 6.9641})]
    write_run(root, promised, told)
    observed = contender(promised, told).observed
    found = check("step 10: 1.7153/6.97", "a", lambda name: None, Known.of("toy", observed))

    assert ["AGREES", "CONTRADICTED"] == [one.state for one in found.statements]
