"""CASE-42 Report describes another program.

Stage: review
Outcome: `report --check` exits 1 where a method word contradicts the applied settings
"""

from __future__ import annotations

from contending import contender, edited, promise, run, said

from sovereign.report.typed import Known, Statement, check

WARMED = "schedule: {kind: constant, peak: 1.0e-3, warmup: 3}"
PAPER = """\
## Pretraining

We pretrain with AdamW and cosine decay, for 3 epochs, with LoRA rank 16.

| Hyperparameter | Value |
|---|---|
| Optimizer | AdamW |
| LR schedule | cosine |
| Peak learning rate | 1e-3 |
"""


def faults(text: str, known: Known) -> list[Statement]:
    return list(check(text, "report.md", lambda name: None, known).faults)


def warmed() -> Known:
    one = run(edited(("schedule: {kind: constant, peak: 1.0e-3}", WARMED)))
    return Known.of(one.name, one.observed)


def test_cosine_in_the_report_of_a_constant_run_fails() -> None:
    """The trainer warms up and stays constant: the sentence and the table's row that say cosine fail, at their lines."""
    found = faults(PAPER, warmed())

    assert [(3, "cosine"), (3, "16"), (3, "3"), (8, "cosine")] == [(one.line, one.typed) for one in found]
    assert "what was applied is constant" in str(found[0])
    assert "no adapter" in str(found[1])


def test_what_was_applied_decides_and_not_what_was_launched() -> None:
    """A contract that asks for cosine, and an optimizer that kept one rate: saying cosine fails all the same."""
    promised = promise(edited(("kind: constant, peak: 1.0e-3", "kind: cosine, peak: 1.0e-3")))
    known = Known.of("toy", contender(promised, said(promised, rate=lambda step: 1e-3)).observed)

    assert ["cosine"] == [one.typed for one in faults("a cosine schedule", known)]


def test_a_report_of_what_was_done_passes() -> None:
    """The clean twin: constant, AdamW, and the rate that was applied."""
    text = PAPER.replace("cosine", "constant").replace(", for 3 epochs, with LoRA rank 16", "")

    assert [] == faults(text, warmed())
