"""What a parity check comes to: each question with its value, its bound, and where the bound comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from sovereign.evidence.folder import Observed
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import Row
from sovereign.evidence.statement import Measurement
from sovereign.metrics.measure import measure
from sovereign.metrics.parity import METRICS
from sovereign.parity.localise import TIMES_FLOOR

GOLDEN = 1e-6  # relative L2 that float32 may cost the reference: ten units of its last place
TIMES_GOLDEN = 25  # of what float32 costs the reference itself; two sound implementations stay below 3
TIMES_NOISE = 2.0  # of the distance that random errors of the predicted size make; sound exports are near 1
TIMES_EXPECTED = 1.25  # of a tensor's predicted error
SAME_LOSS = 0.02  # nats per token within which two losses count as equivalent


@dataclass(frozen=True)
class Held:
    """One question: whether the pessimistic end of a measurement is within its bound."""

    metric: str
    value: float
    low: float
    high: float
    bound: float
    because: str

    @property
    def holds(self) -> bool:
        return self.high <= self.bound


def measurements(rows: Mapping[str, Iterable[Row]]) -> tuple[Measurement, ...]:
    """Return every parity measurement that rows allow."""
    # no run has to stand behind them: these metrics read rows alone
    observed = Observed(cast("Intent", None), {kind: tuple(found) for kind, found in rows.items()})
    return measure(observed, METRICS)[0]


def verdict(measured: Iterable[Measurement], quantized: bool) -> tuple[Held, ...]:
    """Return the questions that were answered, the reference's own check first; a value not measured is not among them."""
    found = {one.metric: one for one in measured if one.slice == "all"}
    golden = found.get("parity/golden_l2")
    bounds: dict[str, tuple[float, str]] = {
        "parity/golden_l2": (GOLDEN, "the reference's own arithmetic"),
        "parity/accused": (0, f"operations further off than {TIMES_FLOOR:g} times float32's floor"),
        "parity/foreign_blocks": (0, "bytes that the reference in the same types would not have"),
        "parity/error_over_expected": (TIMES_EXPECTED, "what each tensor's own blocks predict"),
        "parity/weights_over_noise": (TIMES_NOISE, "random errors of the predicted size"),
        "parity/whole_loss_distance": (SAME_LOSS, "equivalence within a margin, two one-sided tests"),
    }
    if golden is not None and not quantized:
        floor = TIMES_GOLDEN * float(golden.value)
        bounds["parity/whole_l2"] = (floor, f"{TIMES_GOLDEN} times the reference's own float32 error")
    return tuple(
        Held(name, float(found[name].value), float(found[name].low), float(found[name].high), bound, because)
        for name, (bound, because) in bounds.items()
        if name in found
    )
