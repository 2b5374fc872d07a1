"""The procedure: claims in the order in which one may be read from another, and what is held back.

First whether the record may be read at all, then the instrument, the optimisation, the validity of validation,
memorization, generalisation, and last health. It is carried out with two bootstrap seeds; what only a seed decides
is not decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from sovereign.canonical import Record
from sovereign.diagnosis.claims import (
    consistency,
    generalisation,
    health,
    instrument,
    loader,
    memorization,
    optimisation,
    position,
    validation,
)
from sovereign.diagnosis.experiments import Experiment, done, missing
from sovereign.diagnosis.findings import CLAIMS, LADDER, Check, Claim, Finding, cap, settle
from sovereign.diagnosis.reading import Reading
from sovereign.diagnosis.record import RunRecord
from sovereign.metrics.intervals import RESAMPLES

SEEDS = (1, 2)
PRECEDENCE: tuple[Claim, ...] = (
    "INVALID_DATA", "BROKEN_LOADER", "DIVERGED", "CONTAMINATED", "NOT_LEARNED", "MEMORIZED", "OVERFIT", "SHIFT",
    "PLATEAU", "HEALTHY",
)  # fmt: skip
# computed from validation, so that a leak could have made them
FROM_VALIDATION: frozenset[Claim] = frozenset({
    "POSITION_ARTIFACT", "NOT_LEARNED", "SHIFT", "IMPLAUSIBLE", "OVERFIT", "PLATEAU",
})  # fmt: skip


class Diagnosis(Record):
    """What a run shows, claim by claim, and what it does not."""

    schema_: Literal["sovereign/diagnosis/v1"] = Field(default="sovereign/diagnosis/v1", alias="schema")
    run: str = ""
    source: str = Field(default="", description="rows, reported, or the format of a log")
    tier: int = Field(ge=0, le=4, description="the kind of evidence that there was")
    headline: str = Field(description="the supported claim that comes first, or INCONCLUSIVE")
    findings: tuple[Finding, ...]
    missing: tuple[Experiment, ...] = Field(description="what would settle the open claims, cheapest first")
    remarks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = SEEDS
    resamples: int = RESAMPLES

    def of(self, claim: str) -> Finding:
        return next(finding for finding in self.findings if finding.claim == claim)

    @property
    def verdicts(self) -> dict[str, str]:
        return {finding.claim: finding.verdict for finding in self.findings}


def diagnose(record: RunRecord) -> Diagnosis:
    """Return what a record shows: every claim with its verdict, its evidence, and what would overturn it."""
    findings = _agreed(*(examined(record, seed) for seed in SEEDS))
    findings = {claim: _capped(finding, record.tier) for claim, finding in findings.items()}
    supported = (claim for claim in PRECEDENCE if findings[claim].supported)
    return Diagnosis(
        run=record.name, source=record.source, tier=record.tier, headline=next(supported, "INCONCLUSIVE"),
        findings=tuple(findings[claim] for claim in CLAIMS), missing=missing(tuple(findings.values()), done(record)),
        remarks=record.remarks,
    )  # fmt: skip


def examined(record: RunRecord, seed: int) -> dict[Claim, Finding]:
    """Return every claim's finding with one seed, top to bottom."""
    if not any(point.train is not None or point.val is not None for point in record.points) and not record.broke:
        return _all_open("the record holds no loss")
    r = Reading(record, seed)
    found = [consistency.invalid_data(r)]
    if found[0].supported:
        return _all_open("the record contradicts itself, and nothing else is read from it") | {"INVALID_DATA": found[0]}

    found += [loader.broken_loader(r), instrument.eval_path(r), instrument.comparability_violated(r)]
    found += [instrument.metric_artifact(r), position.position_artifact(r), optimisation.diverged(r)]

    contaminated = validation.contaminated(r)
    clean = _clean(r, contaminated)
    found += [contaminated, optimisation.not_learned(r, clean), memorization.memorized(r)]
    found += [generalisation.overfit(r, clean), validation.shift(r, contaminated, clean), validation.implausible(r)]
    found += [generalisation.plateau(r, contaminated)]

    guarded = [_guarded(finding, contaminated) for finding in found]
    return {finding.claim: finding for finding in (*guarded, health.healthy(r, guarded, clean))}


def _clean(r: Reading, contaminated: Finding) -> np.ndarray | None:
    """Return which validation documents are clean, where some are known not to be."""
    return r.clean if contaminated.supported and r.clean is not None and r.clean.any() else None


def _guarded(finding: Finding, contaminated: Finding) -> Finding:
    """Hold back what validation seems to refute while it is open whether validation was trained on."""
    if finding.refuted and finding.claim in FROM_VALIDATION and contaminated.open:
        because = "it is read from validation, and whether validation was trained on is open"
        needed = Check(
            probe="clean validation", result="did not run", says=because,
            needs=tuple(need for check in contaminated.checks for need in check.needs),
        )  # fmt: skip
        held = finding.held_open(f"{because} ({finding.because})")
        return held.model_copy(update={"checks": (*finding.checks, needed)})
    return finding


def _agreed(one: Mapping[Claim, Finding], other: Mapping[Claim, Finding]) -> dict[Claim, Finding]:
    """Return findings on whose verdict two seeds agree; the rest are open."""
    return {
        claim: finding
        if finding.verdict == other[claim].verdict
        else finding.held_open("too close to call: two bootstrap seeds disagree")
        for claim, finding in one.items()
    }


def _capped(finding: Finding, tier: int) -> Finding:
    most = cap(finding.claim, tier)
    if finding.confidence is None or LADDER.index(finding.confidence) <= LADDER.index(most):
        return finding
    return finding.model_copy(update={"confidence": most})


def _all_open(because: str) -> dict[Claim, Finding]:
    check = Check(probe="record", result="did not run", says=because)
    return {claim: settle(claim, [check]) for claim in CLAIMS}
