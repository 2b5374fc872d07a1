"""What was expected, scored: forecasts by a run's own rows, hypotheses by runs that carry their intervention out.

Pure but for the reading of runs. Nobody concludes here by telling a story: a forecast is HIT or MISSED when its step
has come, and a hypothesis is decided by a measurement, or stays one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sovereign.contract.contract import Contract
from sovereign.contract.foresight import Decision, Forecast, Hypothesis
from sovereign.evidence.folder import Observed, read_folder, run_folders
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import EvaluationRow, ExposureRow, ReportedRow, Row, SampleRow, StepRow
from sovereign.evidence.statement import Measurement
from sovereign.spec.criterion import COMPARE

if TYPE_CHECKING:
    from sovereign.comparison.compare import Contender

# metrics of a row kind are known at a step only where such rows stand at that very step
AT_THE_STEP: dict[str, type[Row]] = {
    "validation/": EvaluationRow,
    "samples/": SampleRow,
    "reported/": ReportedRow,
    "training/": StepRow,
}


@dataclass(frozen=True)
class Scored:
    """A forecast, and what became of it in one run."""

    run: str
    forecast: Forecast
    outcome: Literal["PENDING", "HIT", "MISSED", "NOT_REACHED", "UNMEASURED"]
    why: str
    measured: Measurement | None = None

    @property
    def sentence(self) -> str:
        one = self.forecast
        return f"{one.metric} {one.range} at step {one.step}: {self.why}"


@dataclass(frozen=True)
class Decided:
    """A hypothesis, and whether runs have decided it."""

    contract: str
    hypothesis: Hypothesis
    state: Literal["HYPOTHESIS", "SUPPORTED", "REFUTED"]
    why: str

    @property
    def sentence(self) -> str:
        one = self.hypothesis
        holds = {"SUPPORTED": one.claim, "REFUTED": one.otherwise or f"not: {one.claim}"}.get(self.state, one.claim)
        return f"{one.id}: {holds} ({self.why})"


@dataclass(frozen=True)
class Foreseen:
    """Everything that contracts expected, with what became of it."""

    forecasts: tuple[Scored, ...] = ()
    hypotheses: tuple[Decided, ...] = ()


def foreseen(root: Path, contracts: Mapping[str, Contract]) -> Foreseen:
    """Return the forecasts that each run froze, and the hypotheses that contracts hold, scored by the runs under evidence/."""
    from sovereign.contenders import all_of  # here and below: most reports foresee nothing, and then need no numpy
    from sovereign.remembered import memory

    forecasts: list[Scored] = []
    with memory() as known:
        for folder in _promising(root, "forecasts"):
            name = f"evidence/{folder.parent.name}/{folder.name}"
            if not known.verified(folder, name).findings:  # of what is not as it says, nothing is scored
                found = read_folder(folder, name)
                assert found.intent is not None  # or there would be a finding
                forecasts += scored(Observed(found.intent, found.rows), found.statement is not None)
    holding = [one for one in contracts.values() if one.hypotheses]
    intents = [read_folder(folder, folder.name).intent for folder in _promising(root, "hypotheses")] if holding else []
    hypotheses = [
        decided(
            contract.contract,
            one,
            all_of(root, one.decides_by.beside or contract.contract),
            all_of(root, one.decides_by.contract),
            [intent for intent in intents if intent is not None],
        )
        for contract in holding
        for one in contract.hypotheses
    ]
    return Foreseen(tuple(forecasts), tuple(hypotheses))


def _promising(root: Path, section: str) -> list[Path]:
    """Return the runs' folders whose contract, as frozen, holds something in a section: most hold nothing."""
    found = []
    for folder in run_folders(root / "evidence"):
        try:
            promise = json.loads((folder / "intent.json").read_bytes())["promise"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # `sovereign verify` says what is wrong with it
        if isinstance(promise, dict) and promise.get(section):
            found.append(folder)
    return found


# ── forecasts ────────────────────────────────────────────────────────────────────────────────────


def scored(observed: Observed, ended: bool) -> tuple[Scored, ...]:
    """Return every forecast that a run's intent froze, scored by its rows up to the step of each; `ended` closes it."""
    return tuple(_scored(observed, one, ended) for one in observed.intent.promise.forecasts)


def _scored(observed: Observed, one: Forecast, ended: bool) -> Scored:
    run = f"{observed.intent.contract}/{observed.intent.run}"
    reached = max((getattr(row, "step", 0) for rows in observed.rows.values() for row in rows), default=-1)
    if reached < one.step:
        if ended:
            return Scored(run, one, "NOT_REACHED", f"the run ended at step {max(0, reached)}")
        return Scored(run, one, "PENDING", f"the run is at step {max(0, reached)}")
    kind = next((kind for prefix, kind in AT_THE_STEP.items() if one.metric.startswith(prefix)), None)
    if kind is not None and not any(getattr(row, "step", None) == one.step for row in observed.of(kind)):
        name = kind.model_fields["kind"].default
        return Scored(run, one, "UNMEASURED", f"no {name} row stands at step {one.step}")
    from sovereign.metrics.measure import measure

    found, missing = measure(until(observed, one.step), [one.metric])
    if not found:
        return Scored(run, one, "UNMEASURED", missing.get(one.metric, "no measurement"))
    value = found[0].value
    if isinstance(value, str):
        return Scored(run, one, "UNMEASURED", f"it is the word {value}, and a forecast is of a number")
    hit = (one.low is None or one.low <= value) and (one.high is None or value <= one.high)
    return Scored(run, one, "HIT" if hit else "MISSED", f"it was {value:.6g}", found[0])


def until(observed: Observed, step: int) -> Observed:
    """Return what had been observed when a step was done; rows of no step stood before the first, but for exposures."""
    last = step >= observed.intent.planned.steps
    kept = {
        kind: tuple(
            row for row in rows if getattr(row, "step", 0) <= step and (last or not isinstance(row, ExposureRow))
        )
        for kind, rows in observed.rows.items()
    }
    return Observed(observed.intent, {kind: rows for kind, rows in kept.items() if rows})


# ── hypotheses ───────────────────────────────────────────────────────────────────────────────────


def decided(
    contract: str, one: Hypothesis, references: Sequence[Contender], runs: Sequence[Contender], intents: Sequence[Intent] = ()
) -> Decided:  # fmt: skip
    """Return whether runs decide a hypothesis: all that carried its intervention out, and nothing else, must agree.

    `intents` are those in which the hypothesis may stand frozen: a run that was promised before any of them cannot
    decide it, since its outcome may have been known when the story was written.
    """
    rule = one.decides_by
    frozen = sorted(intent.written for intent in intents if one in intent.promise.hypotheses)

    def still(why: str) -> Decided:
        return Decided(contract, one, "HYPOTHESIS", why)

    if not frozen:
        return still("no run has frozen it yet, so no outcome can be after it")
    if not runs:
        return still(f"no completed run of {rule.contract} has carried the intervention out")
    if not references:
        return still(f"no completed run of {rule.beside or contract} stands beside it as a reference")
    late = [run for run in runs if run.observed.intent.written >= frozen[0]]
    if not late:
        return still(f"{runs[-1].name} was promised before the hypothesis was frozen, and cannot decide it")
    words: set[str] = set()
    for run in late:
        word, why = _word(rule, one, references[-1], run)
        if word is None:
            return still(why)
        words.add(word)
    if len(words) > 1:
        return still(f"the runs of {rule.contract} contradict each other")
    state: Literal["SUPPORTED", "REFUTED"] = "SUPPORTED" if words == {"SUPPORTED"} else "REFUTED"
    named = f"{len(late)} run(s) of {rule.contract} beside {references[-1].name}"
    return Decided(
        contract,
        one,
        state,
        f"{rule.metric} {rule.op} {rule.bound:g} {'holds' if state == 'SUPPORTED' else 'fails'} in {named}",
    )


def _word(rule: Decision, one: Hypothesis, reference: Contender, run: Contender) -> tuple[str | None, str]:
    """Return SUPPORTED or REFUTED by one run beside one reference; None where it decides nothing, with the reason."""
    from sovereign.comparison.compare import compare

    pair = compare([reference, run]).pairs[0]
    void = [
        reason
        for reason in pair.reasons
        if reason.code in ("NEVER_APPLIED", "NOT_RECORDED", "NOT_COMPLETED", "REPORTED")
    ]
    if void:
        return None, void[0].text
    others = [name for name in pair.settings if name != "seed" and not _covered(name, one.intervention)]
    absent = [name for name in one.intervention if not any(_covered(setting, (name,)) for setting in pair.settings)]
    if absent:
        return (
            None,
            f"{run.name} does not differ from {reference.name} in {', '.join(absent)}: nothing was intervened in",
        )
    if others:
        return (
            None,
            f"{run.name} differs in {', '.join(others)} too: what happened is not the intervention's alone (CASE-38)",
        )
    holds = _holds(rule, run)
    if holds is None:
        return None, f"the interval of {rule.metric} in {run.name} holds {rule.bound:g}, or is missing"
    before = _holds(rule, reference)
    if holds and before is not False:
        return (
            None,
            f"{reference.name} does not fail {rule.metric} {rule.op} {rule.bound:g} either: the outcome did not change",
        )
    return ("SUPPORTED" if holds else "REFUTED"), ""


def _covered(setting: str, keys: Sequence[str]) -> bool:
    return any(setting == key or setting.startswith(f"{key}.") for key in keys)


def _holds(rule: Decision, run: Contender) -> bool | None:
    """Return whether the whole interval satisfies the rule, or none of it does; None in between, or unmeasured."""
    from sovereign.metrics.measure import measure

    found, _ = measure(run.observed, [rule.metric])
    if not found or isinstance(found[0].low, str) or isinstance(found[0].high, str):
        return None
    ends = {COMPARE[rule.op](end, rule.bound) for end in (found[0].low, found[0].high)}
    return ends.pop() if len(ends) == 1 else None
