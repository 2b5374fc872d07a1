"""What a suite of planted runs shows of the diagnosis: recall, accusations, abstentions, and what mistakes would cost.

Rows say what was planted, what had to be said of it, and what was said; a run whose plant did not take is void and
counts nowhere. Intervals of shares are exact (Clopper and Pearson), so that few runs show little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import ScenarioRow
from sovereign.metrics.intervals import Interval, Unmeasurable, clopper_pearson, exact, paired_ratio_difference

Truth = Literal["planted", "absent", "withheld"]
Found = Literal["SUPPORTED", "REFUTED", "INCONCLUSIVE"]
Verdicts = Callable[[ScenarioRow, str], Found]

ENOUGH = 1000  # validation documents on which a healthy run can be shown to be one
ACCUSATIONS = ("CONTAMINATED", "MEMORIZED")
# what a verdict costs; right ones cost nothing. A sick run passed on costs most, and silence is cheaper than a mistake
FALSE_HEALTH, MISTAKEN, SILENT = 10.0, 5.0, 1.0
RISE = 0.05  # Prechelt's GL5


# ── verdicts: the diagnosis's, and those of three baselines ──────────────────────────────────────


def said(row: ScenarioRow, claim: str) -> Found:
    """Return what the diagnosis said of a claim."""
    return "SUPPORTED" if claim in row.supported else "REFUTED" if claim in row.refuted else "INCONCLUSIVE"


def by_sign(row: ScenarioRow, claim: str) -> Found:
    """Return what the sign of the reported gap says: validation below training is a leak, above it is health."""
    if row.online_gap is None or claim not in ("CONTAMINATED", "HEALTHY"):
        return "INCONCLUSIVE"
    return "SUPPORTED" if (row.online_gap < 0) == (claim == "CONTAMINATED") else "REFUTED"


def by_rise(row: ScenarioRow, claim: str) -> Found:
    """Return what Prechelt's GL5 alone says: validation 5 % above its lowest is overfitting, anything else health."""
    if row.rise is None or claim not in ("OVERFIT", "HEALTHY"):
        return "INCONCLUSIVE"
    return "SUPPORTED" if (row.rise > RISE) == (claim == "OVERFIT") else "REFUTED"


def never(row: ScenarioRow, claim: str) -> Found:
    """Say nothing of anything."""
    return "INCONCLUSIVE"


BASELINES: Mapping[str, Verdicts] = {"sign of the gap": by_sign, "GL5 alone": by_rise, "always inconclusive": never}

# ── what had to be said ──────────────────────────────────────────────────────────────────────────


def counted(rows: Iterable[ScenarioRow]) -> list[ScenarioRow]:
    """Return the rows of runs in which the plant took; the others are void."""
    return [row for row in rows if row.held]


def whole(rows: Iterable[ScenarioRow]) -> list[ScenarioRow]:
    """Return one row a run: the one in which no evidence was withheld."""
    return [row for row in counted(rows) if not row.withheld]


def judged(row: ScenarioRow) -> dict[str, Truth]:
    """Return claim -> what is true of it, for every claim that the row settles."""
    found: dict[str, Truth] = dict.fromkeys(row.absent, "absent")
    found |= dict.fromkeys(row.planted, "planted")
    found |= dict.fromkeys(row.open, "withheld")
    if not row.withheld and row.health == "healthy":
        found["HEALTHY"] = "planted"
    if not row.withheld and row.health == "sick":
        found["HEALTHY"] = "absent"
    return found


def confusion(rows: Iterable[ScenarioRow], verdicts: Verdicts = said) -> dict[str, dict[Truth, Counter[Found]]]:
    """Return claim -> truth -> how often each verdict was given."""
    table: dict[str, dict[Truth, Counter[Found]]] = {}
    for row in counted(rows):
        for claim, truth in judged(row).items():
            table.setdefault(claim, {}).setdefault(truth, Counter())[verdicts(row, claim)] += 1
    return table


def recalls(rows: Iterable[ScenarioRow]) -> dict[str, Interval]:
    """Return claim -> share of the fully specified runs with it that it was found in, with an exact interval."""
    found = {}
    for claim, truths in confusion(whole(rows)).items():
        planted = truths.get("planted", Counter())
        if planted:
            found[claim] = clopper_pearson(planted["SUPPORTED"], planted.total())
    return found


def abstention(rows: Iterable[ScenarioRow]) -> Interval:
    """Return the share of planted claims, in fully specified runs, of which nothing was said."""
    verdicts = Counter[Found]()
    for truths in confusion(whole(rows)).values():
        verdicts += truths.get("planted", Counter())
    return clopper_pearson(verdicts["INCONCLUSIVE"], verdicts.total())


def falsely_healthy(row: ScenarioRow, verdicts: Verdicts = said) -> bool:
    """Say whether a run that is not well was called healthy.

    Where the definition of health lets a fault stand beside it (text recited, an unlike validation set), the headline
    must name the fault.
    """
    if verdicts is said and row.health == "beside":
        return row.headline == "HEALTHY"
    return row.health == "sick" and verdicts(row, "HEALTHY") == "SUPPORTED"


def cost(row: ScenarioRow, verdicts: Verdicts = said) -> float:
    """Return what a row's verdicts would cost whoever acts on them."""
    total = FALSE_HEALTH * falsely_healthy(row, verdicts)
    for claim, truth in judged(row).items():
        verdict = verdicts(row, claim)
        if truth == "planted":
            total += {"SUPPORTED": 0.0, "INCONCLUSIVE": SILENT, "REFUTED": MISTAKEN}[verdict]
        elif truth == "withheld":
            total += 0.0 if verdict == "INCONCLUSIVE" else MISTAKEN
        elif verdict == "SUPPORTED" and claim != "HEALTHY":
            total += MISTAKEN
    return total


def costs(rows: Iterable[ScenarioRow]) -> dict[str, float]:
    """Return mean cost a diagnosis: of ours, and of each baseline."""
    some = counted(rows)
    if not some:
        raise Unmeasurable("no scenario rows whose plant took")
    each = {"diagnosis": said, **BASELINES}
    return {name: sum(cost(row, verdicts) for row in some) / len(some) for name, verdicts in each.items()}


# ── power ────────────────────────────────────────────────────────────────────────────────────────

DETECTORS: Mapping[str, Callable[[ScenarioRow], bool]] = {
    "identities": lambda row: "identities" in row.overlap,
    "50-token matches": lambda row: "matches" in row.overlap,
    "validation below control": lambda row: bool(row.easier),
    "sign of the gap": lambda row: row.online_gap is not None and row.online_gap < 0,
}  # what finds a leak: the diagnosis reads the first two


def power(rows: Iterable[ScenarioRow]) -> dict[str, list[tuple[float, Interval]]]:
    """Return detector -> (share leaked, share of the runs in which it fires), from no leak to the largest.

    Runs are those of exact leaks, and the healthy ones, whose share is that of false alarms.
    """
    by_size: dict[float, list[ScenarioRow]] = {}
    for row in whole(rows):
        if row.scenario == "exact leak" or row.health == "healthy":
            by_size.setdefault(row.leaked or 0.0, []).append(row)
    return {
        name: [(size, clopper_pearson(sum(map(fires, some)), len(some))) for size, some in sorted(by_size.items())]
        for name, fires in DETECTORS.items()
    }


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────


def _rows(observed: Observed) -> tuple[ScenarioRow, ...]:
    rows = observed.of(ScenarioRow)
    if not counted(rows):
        raise Unmeasurable("no scenario rows whose plant took")
    return rows


def runs(observed: Observed) -> Interval:
    """Return how many runs were trained and proved to hold what was planted."""
    count = len({row.trained for row in counted(_rows(observed))})
    return exact(count, count)


def sick_called_healthy(observed: Observed) -> Interval:
    """Return how many diagnoses, full or under-specified, call a run healthy that is not; n counts such runs."""
    rows = [row for row in counted(_rows(observed)) if row.health in ("sick", "beside")]
    return exact(sum(map(falsely_healthy, rows)), len({row.trained for row in rows}))


def healthy_recall(observed: Observed) -> Interval:
    """Return the share of clean runs with enough validation documents that are called healthy."""
    clean = [row for row in whole(_rows(observed)) if row.health == "healthy" and row.documents >= ENOUGH]
    return clopper_pearson(sum(said(row, "HEALTHY") == "SUPPORTED" for row in clean), len(clean))


def clean_accused(observed: Observed) -> Interval:
    """Return how many diagnoses accuse a run without a leak of one, or one that recites nothing of memory."""
    rows = counted(_rows(observed))
    free = [(row, claim) for row in rows for claim in ACCUSATIONS if claim in row.absent]
    return exact(sum(said(row, claim) == "SUPPORTED" for row, claim in free), len({row.trained for row, _ in free}))


def least_recall(observed: Observed) -> Interval:
    """Return the recall of the claim with the lowest lower end, among fully specified runs."""
    found = recalls(_rows(observed))
    if not found:
        raise Unmeasurable("nothing was planted")
    claim = min(found, key=lambda name: (found[name].low, name))
    worst = found[claim]
    return Interval(worst.value, worst.low, worst.high, worst.n, f"{worst.method}, {claim} of {len(found)} claims")


def twins_decided(observed: Observed) -> Interval:
    """Return how many claims were decided on evidence that was withheld; n counts under-specified twins."""
    twins = [row for row in counted(_rows(observed)) if row.open]
    decided = sum(said(row, claim) != "INCONCLUSIVE" for row in twins for claim in row.open)
    if not twins:
        raise Unmeasurable("no evidence was withheld")
    return exact(decided, len(twins))


def leaks_missed(observed: Observed) -> Interval:
    """Return how many runs with 3 % of validation leaked were not found by identities, or not by matches alone."""
    rows = [row for row in whole(_rows(observed)) if row.scenario == "exact leak" and row.leaked == 0.03]
    if not rows:
        raise Unmeasurable("no run leaks 3 %")
    missed = sum(
        not {"identities", "matches"} <= set(row.overlap) or said(row, "CONTAMINATED") != "SUPPORTED" for row in rows
    )
    return exact(missed, len(rows))


def void(observed: Observed) -> Interval:
    """Return how many runs were trained in which the plant did not take."""
    rows = observed.of(ScenarioRow)
    if not rows:
        raise Unmeasurable("no scenario rows")
    return exact(len({row.trained for row in rows if not row.held}), len({row.trained for row in rows}))


def silence(observed: Observed) -> Interval:
    """Return the abstention rate."""
    return abstention(_rows(observed))


def saved(observed: Observed) -> Interval:
    """Return the cheapest baseline's cost a diagnosis minus ours; configurations are the units, as seeds of one are alike."""
    rows = counted(_rows(observed))
    best = min(BASELINES, key=lambda name: costs(rows)[name])
    units: dict[tuple[str, str], list[ScenarioRow]] = {}
    for row in rows:
        units.setdefault((row.scenario, row.severity), []).append(row)
    n = np.array([len(some) for some in units.values()], float)
    ours, theirs = (
        np.array([sum(cost(row, verdicts) for row in some) for some in units.values()])
        for verdicts in (said, BASELINES[best])
    )
    found = paired_ratio_difference((theirs, n), (ours, n))
    return Interval(
        found.value,
        found.low,
        found.high,
        found.n,
        f"{found.method.replace('documents', 'configurations')}, against {best}",
    )


METRICS: dict[str, Callable[[Observed], Interval]] = {
    "suite/runs": runs,
    "suite/void": void,
    "suite/sick_called_healthy": sick_called_healthy,
    "suite/healthy_recall": healthy_recall,
    "suite/clean_accused": clean_accused,
    "suite/least_recall": least_recall,
    "suite/twins_decided": twins_decided,
    "suite/leaks_missed": leaks_missed,
    "suite/abstention": silence,
    "suite/cost_saved": saved,
}
