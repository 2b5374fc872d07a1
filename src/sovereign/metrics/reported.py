"""Reported: what somebody else's trainer said, which can be repeated and never measured again."""

from __future__ import annotations

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import ReportedRow
from sovereign.metrics.intervals import Interval, Unmeasurable, exact


def validation_loss(observed: Observed) -> Interval:
    """Return the last validation loss that was printed, in nats per token: one number, of unknown spread."""
    printed = [row.val_loss for row in observed.of(ReportedRow) if row.val_loss is not None]
    if not printed:
        raise Unmeasurable("no reported row gives a validation loss")
    return exact(printed[-1], 1, "as reported")
