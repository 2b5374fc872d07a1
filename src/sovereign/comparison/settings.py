"""What was launched and what was applied: the contract's fields beside what the rows show, and which of them differ.

An effect is ascribed to a setting only where it is the one thing that differs (CASE-38), and where it reached the
weights at all (CASE-16). What a contract says is believed only as far as the rows bear it out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sovereign.canonical import digest
from sovereign.comparison.record import Value
from sovereign.evidence.folder import Observed
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import EvaluationRow, ReportedRow, StepRow
from sovereign.metrics.intervals import Unmeasurable
from sovereign.metrics.training import due, rate_error

# what a contract says about itself; none of it moves a weight
ABOUT = frozenset({"schema", "contract", "title", "spec", "claims", "seeds", "ttl_hours", "forecasts", "hypotheses"})
# settings that look at a run, or store it, and do not train
LOOKING = ("evaluation.", "training.checkpoint_every", "training.most_passes", "training.wrap_around")
AS_PROMISED = 1e-6  # of the peak: rates are floats that two programs compute in another order

RATES, UPDATES, TOKENS, PER_STEP, ORDER = (
    "learning rates",
    "updates",
    "target tokens",
    "tokens a step",
    "order of windows",
)
PARAMETERS, VOCABULARY, PASSES, PRECISION = "trainable parameters", "vocabulary", "passes", "precision"
SCORED = "validation documents"

# setting -> the applied value that must move with it, and those that may
_AMOUNT = {UPDATES, TOKENS, PER_STEP, ORDER, PASSES}
MOVES: tuple[tuple[str, str, set[str]], ...] = (
    ("training.schedule.", RATES, {RATES}),
    ("training.steps", UPDATES, {RATES, *_AMOUNT}),
    ("training.sequences", PER_STEP, _AMOUNT),
    ("training.precision", PRECISION, {PRECISION}),
    ("model.context", PER_STEP, {*_AMOUNT, SCORED}),
    ("model.", "", {PARAMETERS}),
    ("method.", "", {PARAMETERS}),
    ("tokenizer.", "tokenizer", {"tokenizer", "data", VOCABULARY, PARAMETERS, SCORED, *_AMOUNT}),
    ("data.", "data", {"data", "tokenizer", VOCABULARY, PARAMETERS, SCORED, *_AMOUNT}),
    ("seed", "", {ORDER}),
)


def launched(intent: Intent) -> dict[str, Value]:
    """Return every setting of the contract that decides what a run does, by its dotted key."""
    found: dict[str, Value] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else str(key))
        else:
            found[name] = json.dumps(value) if isinstance(value, list) else value

    walk({key: value for key, value in intent.promise.plain().items() if key not in ABOUT}, "")
    return found


def applied(observed: Observed) -> dict[str, Value]:
    """Return what the rows and the machine show was done; a value that nobody recorded is left out."""
    planned = observed.intent.planned
    found: dict[str, Value] = {}
    rows = sorted(observed.of(StepRow), key=lambda row: row.step)
    told = observed.of(ReportedRow)
    if rows:
        tokens = sorted({row.tokens for row in rows})
        found |= {
            UPDATES: len(rows),
            RATES: said_rates([(row.step, row.learning_rate) for row in rows]),
            TOKENS: sum(row.tokens for row in rows),
            PER_STEP: tokens[0] if len(tokens) == 1 else f"{tokens[0]} to {tokens[-1]}",
            ORDER: digest([row.windows for row in rows])[7:19],
        }
    elif told:
        found[UPDATES] = max(row.step for row in told)
        rates = [(row.step, row.learning_rate) for row in told if row.learning_rate is not None]
        if rates:
            found[RATES] = said_rates(rates)
    known = {
        PARAMETERS: planned.trainable or planned.parameters,
        VOCABULARY: planned.vocabulary,
        PASSES: passes_made(observed),
    }
    found |= {name: value for name, value in known.items() if value is not None}
    if observed.intent.environment.precision != "unknown":
        found[PRECISION] = observed.intent.environment.precision
    scored = {(row.document, row.tokens) for row in observed.of(EvaluationRow) if row.split == "validation"}
    if scored:
        found[SCORED] = f"{len(scored)} ({digest(sorted(map(list, scored)))[7:15]})"
    return found


def passes_made(observed: Observed) -> float | None:
    """Return how often the train side was passed over: as planned, or as far as the run went."""
    planned, made = observed.intent.planned, len(observed.of(StepRow))
    return planned.passes and planned.passes * (made / planned.steps if made else 1)


def said_rates(rates: Sequence[tuple[int, float]]) -> str:
    """Return rates by step as people say them, with a digest in which every rate counts."""
    values = [rate for _, rate in rates]
    peak = max(values)
    at = next(step for step, rate in rates if rate == peak)
    shape = (
        f"{peak:.4g} constant"
        if len(set(values)) == 1
        else f"to {peak:.4g} at {at}, {values[-1]:.4g} at {rates[-1][0]}"
    )
    return f"{shape} ({digest(list(map(list, rates)))[7:13]})"


def subjects(intent: Intent) -> dict[str, Value]:
    """Return the digests of code, data and tokenizer, shortened as people compare them; absent ones left out."""
    found = {name: getattr(intent.subjects, name) for name in ("code", "data", "tokenizer")}
    return {name: value[7:19] for name, value in found.items() if value is not None}


def surroundings(intent: Intent) -> dict[str, Value]:
    """Return where the run took place, part by part."""
    plain = intent.environment.plain()
    packages = plain.pop("packages", {})
    return {**plain, **{f"package {name}": version for name, version in packages.items()}}


def differing(first: Mapping[str, Value], second: Mapping[str, Value]) -> list[str]:
    """Return the names under which the two do not say the same, in order."""
    return [name for name in sorted(first.keys() | second.keys()) if first.get(name) != second.get(name)]


# ── what may have made a difference ──────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Causes:
    """Everything that differs between two runs and may have moved their weights; and what did not arrive."""

    settings: tuple[str, ...]  # contract fields, then `code`, `environment`, `seed`, `data`, `tokenizer`
    inert: str = ""  # why what was changed cannot have had an effect
    unwitnessed: str = ""  # the one setting that no row bears out but by its losses
    strange: tuple[str, ...] = ()  # applied values that differ, though nothing that was launched moves them


def causes(first: Observed, second: Observed) -> Causes:
    """Return what differs between two runs and may have made their difference."""
    one, two = first.intent, second.intent
    ours = [name for name in differing(launched(one), launched(two)) if not name.startswith(LOOKING)]
    rates_promised = _promised_rates(one) != _promised_rates(two)
    if not rates_promised:
        ours = [name for name in ours if not name.startswith("training.schedule.")]
    moved = set(differing(applied(first), applied(second))) | set(differing(subjects(one), subjects(two)))
    may_move = {name for setting in ours for name in _moves(setting)[1]}
    if one.seed != two.seed:
        may_move |= _moves("seed")[1]
    more = ["code"] if "code" in moved else []
    away = differing(surroundings(one), surroundings(two))
    precise = "training.precision" in ours
    more += ["environment"] if [name for name in away if not (precise and name == "precision")] else []
    may_move |= {PRECISION} if more and "environment" in more else set()
    more += ["seed"] if one.seed != two.seed else []
    more += [name for name in ("data", "tokenizer") if name in moved and name not in may_move]
    strange = tuple(sorted(moved - may_move - {"code", "data", "tokenizer"}))
    settings = (*ours, *more)
    return Causes(
        settings=settings,
        inert=_inert(first, second, ours, rates_promised),
        unwitnessed=settings[0] if len(settings) == 1 and not _moves(settings[0])[0] and settings[0] != "seed" else "",
        strange=strange,
    )


def _moves(setting: str) -> tuple[str, set[str]]:
    return next(((must, may) for prefix, must, may in MOVES if setting.startswith(prefix)), ("", set()))


def _promised_rates(intent: Intent) -> list[float]:
    training = intent.promise.training
    return [training.schedule.rate(step, training.steps) for step in range(1, training.steps + 1)]


def _inert(first: Observed, second: Observed, settings: Sequence[str], rates_promised: bool) -> str:
    """Return why a change that was launched never reached the optimizer, or nothing."""
    steps = [{row.step: row for row in run.of(StepRow)} for run in (first, second)]
    if not all(steps) or not settings:
        return ""
    common = sorted(steps[0].keys() & steps[1].keys())
    schedules = [name for name in settings if name.startswith("training.schedule.")]
    if schedules and rates_promised and all(steps[0][at].learning_rate == steps[1][at].learning_rate for at in common):
        return (
            f"{', '.join(schedules)}: the contracts ask for other learning rates, and the optimizer applied the same "
            f"ones in all {len(common)} updates that both made; the change never reached it (CASE-16)"
        )
    trained = [(row.loss, row.learning_rate, row.grad_norm, row.tokens) for row in steps[0].values()]
    again = [(row.loss, row.learning_rate, row.grad_norm, row.tokens) for row in steps[1].values()]
    if len(common) > 1 and trained == again:
        return (
            f"{', '.join(settings)}: every loss, rate and gradient norm of all {len(common)} updates is the same; "
            "the change reached nothing that was trained (CASE-06)"
        )
    for setting in settings:
        must = _moves(setting)[0]
        if must in (UPDATES, PER_STEP, PRECISION) and applied(first).get(must) == applied(second).get(must):
            return f"{setting}: the contracts differ in it, and {must} was {applied(first).get(must)} in both (CASE-16)"
    return ""


def same_training(first: Observed, second: Observed) -> bool:
    """Say whether two runs made the same updates to the last digit."""
    one, two = (
        [(row.step, row.loss, row.learning_rate, row.grad_norm) for row in run.of(StepRow)] for run in (first, second)
    )
    return len(one) > 1 and one == two


def deviation(observed: Observed) -> str:
    """Return how a run did other than it promised, in words; nothing where it did as promised."""
    intent = observed.intent
    rows = {row.step: row for row in observed.of(StepRow)}
    if not rows:
        return ""
    said = []
    try:
        error = rate_error(observed).value
    except Unmeasurable:
        error = 0.0
    if error > AS_PROMISED:
        training = intent.promise.training
        worst = max(
            rows.values(), key=lambda row: abs(row.learning_rate - training.schedule.rate(row.step, training.steps))
        )
        promised = training.schedule.rate(worst.step, training.steps)
        said.append(
            f"applied a learning rate of {worst.learning_rate:.4g} in step {worst.step}, and promised {promised:.4g}"
        )
    if len(rows) != (end := due(observed)):
        said.append(f"made {len(rows)} updates, and promised {end}")
    return "; ".join(said)
