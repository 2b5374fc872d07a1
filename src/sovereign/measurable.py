"""Everything that can be measured of a run: the numbers that rows give, and the claims that rest on them."""

from __future__ import annotations

from collections.abc import Iterable

from sovereign.diagnosis.metrics import METRICS as CLAIMS
from sovereign.evidence.folder import Observed
from sovereign.evidence.statement import Measurement
from sovereign.metrics.measure import METRICS as NUMBERS
from sovereign.metrics.measure import Measured
from sovereign.metrics.measure import measure as measured

METRICS: dict[str, Measured] = {**NUMBERS, **CLAIMS}


def measure(observed: Observed, metrics: Iterable[str]) -> tuple[tuple[Measurement, ...], dict[str, str]]:
    """Return the measurements that the rows allow, and for every other metric why it could not be computed."""
    return measured(observed, metrics, METRICS)
