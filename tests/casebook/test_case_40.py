"""CASE-40 Tables typed by hand.

Stage: review
Outcome: `report --check` exits 1 with file:line, the typed value, the evidence's, and where the typed one really stands
"""

from __future__ import annotations

from contending import contender, promise

from sovereign.report.typed import Known, Statement, check

# the run as its trainer logged it (mahb97/Wake2vec, notes/12feb26.md): step, train loss, validation loss
LOGGED = (
    (700, 2.0950, 6.8180),
    (800, 1.7153, 6.9641),
    (900, 1.4410, 7.1020),
    (1100, 0.8712, 7.4012),
    (1300, 0.5490, 7.6022),
)
RUN = contender(
    promise(), [("reported", {"step": step, "train_loss": train, "val_loss": val}) for step, train, val in LOGGED]
)
KNOWN = Known.of("wake-p1", RUN.observed)
TABLE = "| Step | Train loss | Val loss |\n|---:|---:|---:|\n" + "".join(
    f"| {step} | {train:.4f} | {val:.4f} |\n" for step, train, val in LOGGED
)


def faults(text: str) -> list[Statement]:
    return list(check(text, "notes.md", lambda name: None, KNOWN).faults)


def test_the_pair_of_two_other_steps_is_found_out() -> None:
    """`Step 800: 0.55/7.40` mixes steps 1300 and 1100: both numbers fail, and where they belong is said."""
    found = faults("\nStep 800: 0.55/7.40\n")

    assert ["0.55", "7.40"] == [one.typed for one in found]
    assert {"notes.md:2:11", "notes.md:2:16"} == {f"{one.path}:{one.line}:{one.column}" for one in found}
    assert "the evidence says 1.7153 as reported; 0.55 is the train loss of step 1300" in str(found[0])
    assert "the evidence says 6.9641 as reported; 7.40 is the val loss of step 1100" in str(found[1])


def test_one_altered_digit_is_found_in_every_cell() -> None:
    """Each digit after the point of each number of the table, altered by one, fails at its own line, and nothing else does."""
    assert [] == faults(TABLE)
    for at, character in enumerate(TABLE):
        if character.isdigit() and TABLE[:at].rpartition("|")[2].strip().count(".") == 1:
            altered = TABLE[:at] + str((int(character) + 1) % 10) + TABLE[at + 1 :]
            found = faults(altered)

            assert [altered[:at].count("\n") + 1] == [one.line for one in found], altered[at - 5 : at + 5]


def test_arithmetic_in_words_is_checked() -> None:
    """A gap "tripling" from 0.35 to 2.76 is eightfold."""
    assert ["2.76 is 7.89 times 0.35"] == [one.evidence for one in faults("the gap went on tripling from 0.35 to 2.76")]


def test_what_is_typed_right_passes() -> None:
    """The clean twin: fewer decimals of the same numbers agree."""
    assert [] == faults("Step 800: 1.72/6.96, and step 1300: 0.55/7.6")
