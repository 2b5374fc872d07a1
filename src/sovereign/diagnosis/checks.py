"""Checks as the claims make them: a test that did not run, a test of an interval, and how an interval is told."""

from __future__ import annotations

from collections.abc import Sequence

from sovereign.diagnosis.bounds import units_to_decide
from sovereign.diagnosis.findings import Check, Confidence, Result
from sovereign.metrics.intervals import Interval


def absent(probe: str, says: str, *needs: str) -> Check:
    """Return a check that did not run, and what would let it."""
    return Check(probe=probe, result="did not run", says=says, needs=needs)


def bounded(
    probe: str, found: Interval, says: str, *, threshold: str, fires: bool, passes: bool, weight: Confidence = "MEDIUM",
    needs: tuple[str, ...] = (), edges: Sequence[float] = (), enough: int | None = None,
) -> Check:  # fmt: skip
    """Return a check of an interval; one that neither fires nor passes is undecided, and says what would help.

    `edges` are the values between which the interval must come to lie, `enough` how many units that takes where the
    interval itself does not tell.
    """
    result: Result = "fires" if fires else "passes" if passes else "undecided"
    open_ = result == "undecided"
    return Check(
        probe=probe, result=result, says=says, value=found.value, low=found.low, high=found.high, n=found.n,
        threshold=threshold, method=found.method, weight=weight, needs=needs if open_ else (),
        enough=(enough or units_to_decide(found, edges)) if open_ else None,
    )  # fmt: skip


def ranged(found: Interval) -> str:
    """Return an interval as people read it."""
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
