"""Claims as metrics: a spec may demand `diagnosis/CONTAMINATED == REFUTED`, and a gate will hold a run to it."""

from __future__ import annotations

from functools import lru_cache, partial

from sovereign.diagnosis.findings import CLAIMS, Claim
from sovereign.diagnosis.procedure import SEEDS, Diagnosis, diagnose
from sovereign.diagnosis.record import RunRecord, from_run
from sovereign.evidence.folder import Observed
from sovereign.metrics.intervals import RESAMPLES, Interval, Unmeasurable, Word, exact
from sovereign.metrics.measure import Measured


@lru_cache(maxsize=2)  # each claim is a metric of its own, and all are read off one diagnosis
def diagnosed(observed: Observed) -> tuple[RunRecord, Diagnosis]:
    """Return a run's record and what it shows."""
    record = from_run(observed)
    return record, diagnose(record)


def verdict(claim: Claim, observed: Observed) -> Word:
    """Return a claim's verdict; n is the number of validation documents that it could rest on."""
    record, found = diagnosed(observed)
    if not record.points and not record.broke:
        raise Unmeasurable("no loss was observed or reported")
    documents = len(record.validation.documents) if record.validation else 0
    method = f"diagnosis at tier {found.tier}, B={RESAMPLES}, seeds {', '.join(map(str, SEEDS))}"
    return Word(found.of(claim).verdict, documents, method)


def undecided(observed: Observed) -> Interval:
    """Return 1 where nobody can say whether the run overfit, 0 where the rows decide it, either way."""
    word = verdict("OVERFIT", observed)
    return exact(float(word.value == "INCONCLUSIVE"), word.n, word.method)


METRICS: dict[str, Measured] = {
    **{f"diagnosis/{claim}": partial(verdict, claim) for claim in CLAIMS},
    "diagnosis/overfit_undecided": undecided,
}
