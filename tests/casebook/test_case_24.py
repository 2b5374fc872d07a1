"""CASE-24 File and run disagree.

Stage: during the run
Outcome: the intent holds the launched contract whole; a file edited later is STALE(MODEL), and a comparison names what was applied
"""

from __future__ import annotations

from pathlib import Path

from contending import edited, run
from fabric import CONTRACT, NOW, intent, repository, rows, write_run

from sovereign.comparison.compare import compare
from sovereign.repository import evaluate, open_repository


def test_a_contract_edited_after_the_launch_is_reported_as_changed(tmp_path: Path) -> None:
    """The file says 20 windows a step, the run made 2: its passing evidence is STALE, by MODEL, and keeps the launched value."""
    root = repository(tmp_path)
    folder = write_run(root, intent())
    before = {one.id: one.status for one in evaluate(open_repository(root), NOW)[0].criteria}
    (root / "contracts/toy.yaml").write_text(CONTRACT.replace("sequences: 2", "sequences: 20"))
    after = evaluate(open_repository(root), NOW)[0].criteria[1]

    assert {"DISCHARGED", "PARTIAL"} >= set(before.values())
    assert ("STALE", True) == (
        after.status,
        any("MODEL" in reason.code or "MODEL" in reason.text for reason in after.reasons),
    )
    assert '"sequences": 2,' in (folder / "intent.json").read_text()


def test_a_run_that_did_other_than_its_contract_is_named_in_a_comparison() -> None:
    """The launched file asks for 2e-3; 1e-3 was applied in every step: the run's column says so, and nothing is concluded."""
    other = edited(("peak: 1.0e-3", "peak: 2.0e-3"), ("contract: toy", "contract: other"))
    found = compare([run(), run(other, 2, shift=-0.4, rate=lambda step: 1e-3)])

    assert "applied a learning rate of 0.001 in step 1, and promised 0.002" == found.runs[1].deviates
    assert "VOID" == found.pairs[0].checkpoints


def test_fewer_updates_than_promised_are_named() -> None:
    """A run whose rows hold five of ten updates is not compared as if it had made all of them."""
    one, two = run(), run(edited(("peak: 1.0e-3", "peak: 2.0e-3")), 2, shift=-0.4)
    rows_ = {**two.observed.rows, "step": two.observed.rows["step"][:5]}
    half = type(two)(type(two.observed)(two.observed.intent, rows_))
    found = compare([one, half])

    assert "made 5 updates, and promised 10" in found.runs[1].deviates
    assert "INCONCLUSIVE" == found.pairs[0].checkpoints


def test_rows_stand_for_the_run_they_name(tmp_path: Path) -> None:
    """Tokens are counted from the rows: a run that counted fewer than its contract promised is FALSIFIED."""
    root = repository(tmp_path)
    write_run(root, intent(), rows(tokens=16))

    assert "FALSIFIED" == evaluate(open_repository(root), NOW)[0].criteria[1].status
