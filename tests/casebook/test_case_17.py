"""CASE-17 Worse than counting words.

Stage: during the run
Outcome: diagnose says NOT_LEARNED, with what counting scores beside it
"""

from __future__ import annotations

from simulated import UNIGRAM, Plan, diagnosed


def test_a_rate_too_low_is_not_learned() -> None:
    """Plant: a loss that goes to 5.5, where counting single tokens scores 4.6."""
    found = diagnosed(Plan(speed=1e5, floor=5.5))

    assert ("NOT_LEARNED", "REFUTED") == (found.headline, found.verdicts["HEALTHY"])
    assert f"counting single tokens scores {UNIGRAM:.2f}"[:-3] in " ".join(found.of("NOT_LEARNED").notes)


def test_before_there_were_enough_tokens_nothing_is_said() -> None:
    """The same losses after a tenth of the tokens that frequencies need: INCONCLUSIVE, as it may only be early."""
    found = diagnosed(Plan(speed=1e5, floor=5.5, steps=40, every=20, batch=100)).of("NOT_LEARNED")

    assert found.verdict == "INCONCLUSIVE"
    assert "too few tokens were trained on to tell" in found.because


def test_a_model_that_learned_is_not_accused() -> None:
    """Control: validation 2 nats below the unigram."""
    assert diagnosed(Plan()).verdicts["NOT_LEARNED"] == "REFUTED"
