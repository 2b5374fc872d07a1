"""Compare runs: pure, from what they intended and observed.

Every pair stands against the first run. VOID says that the losses cannot be compared, and why; INCONCLUSIVE that
they can, and say nothing. Withholding evidence leads to either, never away from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from sovereign.comparison import losses
from sovereign.comparison.losses import Scored
from sovereign.comparison.record import (
    Compared,
    Comparison,
    Difference,
    Estimate,
    Kind,
    Line,
    LossDifference,
    Offered,
    Pair,
    Told,
    Value,
    Verdict,
)
from sovereign.comparison.samples import side_by_side
from sovereign.comparison.settings import (
    ORDER,
    applied,
    causes,
    deviation,
    launched,
    passes_made,
    same_training,
    subjects,
    surroundings,
)
from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import CorpusRow, GenerationRow, ReportedRow, StepRow
from sovereign.evidence.statement import Outcome
from sovereign.metrics.intervals import ratio
from sovereign.metrics.loss import columns
from sovereign.metrics.measure import METRICS, measure
from sovereign.metrics.training import due
from sovereign.spec.criterion import Assurance

TRAINING_LOSS = "training loss, last tenth"
SPEEDS = (
    "time in updates",
    "training/tokens_per_second",
    "training/step_seconds",
    "training/mfu",
    "training/settled_mfu",
)
TENTH = 10  # of the updates that a training loss is averaged over
MOVES = 0.01  # share of the weights that an update must change before a run shows the effect of anything
SAME_START = 1e-3  # nats that the first losses of two starts with one seed may lie apart


@dataclass(frozen=True)
class Contender:
    """A run as a comparison takes it; `repeats` are the last losses of its recipe by seed, its own included."""

    observed: Observed
    outcome: Outcome | Literal["open"] = "completed"
    assurance: Assurance = "recomputed"
    repeats: Mapping[int, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.observed.intent.contract}/{self.observed.intent.run}"

    @property
    def documents(self) -> dict[str, float]:
        """Document -> nats per token at the last evaluation of the validation documents."""
        evaluations = losses.validations(self.observed)
        last = evaluations[max(evaluations)] if evaluations else {}
        return {key: nll / tokens for key, (nll, tokens) in last.items()}


def compare(contenders: Sequence[Contender]) -> Comparison:
    """Return what two or more runs say about each other, every one against the first."""
    if len(contenders) < 2:
        raise ValueError(f"{len(contenders)} run(s) have nothing to be compared with; give two or more")
    samples = side_by_side([one.observed for one in contenders])
    return Comparison(
        runs=tuple(_column(one) for one in contenders),
        differences=tuple(_differences(contenders)),
        table=tuple(_table(contenders)),
        pairs=tuple(_pair(contenders[0], other) for other in contenders[1:]),
        samples=samples,
        prompts=len(samples),
    )


def _column(one: Contender) -> Compared:
    intent = one.observed.intent
    told = tuple((row.step, row.val_loss) for row in one.observed.of(ReportedRow) if row.val_loss is not None)
    evaluated = losses.validations(one.observed)
    return Compared(
        run=one.name, contract=intent.contract, title=intent.promise.title, seed=intent.seed, outcome=one.outcome,
        assurance=one.assurance, repeats=max(1, len(one.repeats)), deviates=deviation(one.observed),
        validation=tuple((step, losses.loss(scored)) for step, scored in sorted(evaluated.items())) or told,
    )  # fmt: skip


def _differences(contenders: Sequence[Contender]) -> Iterator[Difference]:
    """Yield everything that is not the same in all runs, launched values before applied ones."""
    seen: list[tuple[Kind, list[dict[str, Value]]]] = [
        ("launched", [launched(one.observed.intent) for one in contenders]),
        ("applied", [applied(one.observed) for one in contenders]),
        ("seed", [{"seed": one.observed.intent.seed} for one in contenders]),
        ("environment", [surroundings(one.observed.intent) for one in contenders]),
    ]
    shown = [subjects(one.observed.intent) for one in contenders]
    names: tuple[Kind, ...] = ("data", "tokenizer", "code")
    seen[2:2] = [(name, [{key: value for key, value in one.items() if key == name} for one in shown]) for name in names]
    for kind, values in seen:
        for name in sorted(set().union(*values)):
            row = tuple(one.get(name) for one in values)
            if any(value != row[0] for value in row[1:]):
                yield Difference(kind=kind, name=name, values=row)


# ── the table ────────────────────────────────────────────────────────────────────────────────────


def _table(contenders: Sequence[Contender]) -> Iterator[Line]:
    """Yield the lines in which a person would want the runs beside each other; those that no run fills are left out."""
    columns = [_figures(one) for one in contenders]
    for name, unit in dict.fromkeys(key for column in columns for key in column):
        cells = tuple(column.get((name, unit)) for column in columns)
        void = _incomparable(name, contenders) if sum(cell is not None for cell in cells) > 1 else ""
        yield Line(name=name, unit=unit, cells=cells, void=void)


def _incomparable(name: str, contenders: Sequence[Contender]) -> str:
    """Return why one line's numbers are not of the same thing in all runs, or nothing."""
    runs = [one.observed for one in contenders]

    def differ(of: Callable[[Observed], object]) -> bool:
        return len({repr(of(run)) for run in runs}) > 1

    if name in (TRAINING_LOSS, "training loss as printed"):
        if differ(lambda run: applied(run).get(ORDER)):
            return "each run's own batches"
        if differ(lambda run: launched(run.intent).get("method.adapter.dropout")):
            return "in training mode, under another dropout"
    if name == "validation/gap" and differ(lambda run: sorted(_trained(run))):
        return "another train side stands beside the validation"
    if name.startswith("validation loss ") and differ(lambda run: run.intent.subjects.tokenizer):
        return "a nat per token of another tokenizer"
    if name.startswith(("validation loss ", "validation/", "tuning/improvement")):
        scored = [losses.validations(run) for run in runs]
        if len({repr(sorted(_documents(found).items())) for found in scored if found}) > 1:
            return "other documents, or other tokens of them"
    if name.startswith("generation/") and differ(
        lambda run: sorted({row.document for row in run.of(GenerationRow) if row.document})
    ):
        return "other prompts"
    if name in SPEEDS and differ(lambda run: surroundings(run.intent)):
        return "another machine, or other versions"
    return ""


def _figures(one: Contender) -> dict[tuple[str, str], Estimate]:
    observed = one.observed
    found: dict[tuple[str, str], Estimate] = {}

    def put(name: str, unit: str, value: float, n: int = 0, method: str = "count") -> None:
        found[name, unit] = Estimate(value=value, n=n, method=method)

    planned = observed.intent.planned
    corpus = observed.of(CorpusRow)
    if corpus:
        put("train documents", "", sum(row.split == "train" for row in corpus))
    rows = sorted(observed.of(StepRow), key=lambda row: row.step)
    if planned.parameters:
        put("trainable parameters", "", planned.trainable or planned.parameters)
    if rows:
        put("updates", "", len(rows))
        put("target tokens", "", sum(row.tokens for row in rows))
        put("highest learning rate applied", "", max(row.learning_rate for row in rows))
        put(TRAINING_LOSS, "nats/token", *_last_tenth(rows))
        put("time in updates", "s", sum(row.seconds for row in rows))
    if passes := passes_made(observed):
        put("passes over the train side", "", passes)
    evaluations = losses.validations(observed)
    for step, scored in sorted(evaluations.items()):
        if step in (0, max(evaluations)) or step == losses.best_step(evaluations, list(scored)):
            at = "at step 0" if step == 0 else "last" if step == max(evaluations) else "least"
            found[f"validation loss {at}", "nats/token"] = _loss(scored, step)
    told = [row for row in observed.of(ReportedRow) if row.val_loss is not None]
    if told:
        least = min(told, key=lambda row: row.val_loss or 0.0)
        for at, row in (("least", least), ("last", told[-1])):
            put(f"validation loss {at}", "nats/token", row.val_loss or 0.0, 1, f"as reported, step {row.step}")
    trained = [row for row in observed.of(ReportedRow) if row.train_loss is not None]
    if trained:
        scope = trained[-1].scope or "nobody says of what"
        put("training loss as printed", "nats/token", trained[-1].train_loss or 0.0, 1, scope)
    for measured in measure(observed, METRICS)[0]:
        numbers = [
            float(value) for value in (measured.value, measured.low, measured.high) if not isinstance(value, str)
        ]
        if len(numbers) == 3 and measured.metric not in ("validation/loss", "reported/validation_loss"):
            found[measured.metric, ""] = Estimate(
                value=numbers[0], low=numbers[1], high=numbers[2], n=measured.n, method=measured.method
            )
    return found


def _last_tenth(rows: Sequence[StepRow]) -> tuple[float, int, str]:
    """Return the mean over the last tenth of the updates: one batch's loss says little (CASE-22)."""
    last = rows[-max(1, len(rows) // TENTH) :]
    value = sum(row.loss * row.tokens for row in last) / sum(row.tokens for row in last)
    return value, len(last), f"mean over the last {len(last)} updates, in training mode"


def _loss(scored: Scored, step: int) -> Estimate:
    if len(scored) < losses.LEAST:
        return Estimate(value=losses.loss(scored), n=len(scored), method=f"step {step}; too few for an interval")
    found = ratio(*columns(scored))
    return losses.interval(found).model_copy(update={"method": f"step {step}, {found.method}"})


# ── a pair ───────────────────────────────────────────────────────────────────────────────────────


def _pair(first: Contender, second: Contender) -> Pair:
    one, two = first.observed, second.observed
    found = causes(one, two)
    settings = found.settings
    if "reported" in (first.assurance, second.assurance):
        told = Told(
            code="REPORTED",
            text="a run whose numbers were only reported can be described, and concluded nothing from: no row can be recomputed",
        )
        return _unjudged(first, second, "DESCRIPTIVE", [told], settings)
    evaluated = [losses.validations(run) for run in (one, two)]
    void = list(_void(one, two, evaluated[0], evaluated[1]))
    if found.inert:
        void.append(Told(code="NEVER_APPLIED", text=found.inert))
    if void:
        return _unjudged(first, second, "VOID", void, settings, _offers(one, two, evaluated[0], evaluated[1]))
    measured = losses.differences(evaluated[0], evaluated[1])
    doubts = list(_doubts(first, second, evaluated[0], evaluated[1]))
    checkpoints, why = _checkpoints(measured[0], one, two)
    if doubts:
        checkpoints = "INCONCLUSIVE"
    noise = losses.seed_noise(_known(first), _known(second))
    recipes, because = _recipes(checkpoints, noise, settings)
    attributed, why_not = _attributed(found.settings, found.strange, found.unwitnessed, recipes, first, second)
    return Pair(
        first=first.name, second=second.name, checkpoints=checkpoints, recipes=recipes,
        reasons=(*doubts, *why, because, *why_not), settings=settings, attributed=attributed, losses=measured, noise=noise,
    )  # fmt: skip


def _unjudged(
    first: Contender, second: Contender, verdict: Verdict, reasons: Sequence[Told], settings: tuple[str, ...],
    offered: tuple[Offered, ...] = (),
) -> Pair:  # fmt: skip
    return Pair(
        first=first.name, second=second.name, checkpoints=verdict, recipes=verdict, reasons=tuple(reasons),
        settings=settings, offered=offered,
    )  # fmt: skip


def _void(one: Observed, two: Observed, first: Mapping[int, Scored], second: Mapping[int, Scored]) -> Iterator[Told]:
    """Yield why the validation losses of two runs are not of the same thing."""
    for run, evaluations in ((one, first), (two, second)):
        if not evaluations:
            yield Told(code="NO_VALIDATION", text=f"{run.intent.run} holds no evaluation of validation documents")
    if not first or not second:
        return
    scored = [_documents(evaluations) for evaluations in (first, second)]
    for run, evaluations in ((one, first), (two, second)):
        if any(set(at) != set(_documents(evaluations)) for at in evaluations.values()):
            yield Told(
                code="REDRAWN_WITHIN",
                text=f"{run.intent.run} scores other documents from one evaluation to the next (CASE-21)",
            )
    redrawn = [
        (held.intent.run, trainer.intent.run, mine & _trained(trainer))
        for held, trainer, mine in ((one, two, set(scored[0])), (two, one, set(scored[1])))
    ]
    for held, trainer, found in redrawn:
        if found and one.intent.subjects.data != two.intent.subjects.data:
            yield Told(
                code="SPLIT_REDRAWN",
                text=f"{len(found)} of the documents that {held} held out are on the train side of {trainer}: the split was drawn again",
            )
    if set(scored[0]) != set(scored[1]):
        shared = len(scored[0].keys() & scored[1].keys())
        yield Told(
            code="OTHER_VALIDATION",
            text=f"the validation sets differ: {len(scored[0])} and {len(scored[1])} documents, {shared} of them in both (CASE-36)",
        )
        return
    tokenizers = [run.intent.subjects.tokenizer for run in (one, two)]
    unequal = sum(scored[0][key] != scored[1][key] for key in scored[0])
    if tokenizers[0] != tokenizers[1]:
        yield Told(
            code="OTHER_TOKENIZER",
            text="the tokenizers differ, and a nat per token of one is not a nat per token of the other (CASE-36)",
        )
    elif unequal:
        yield Told(
            code="OTHER_TARGETS",
            text=f"other tokens were scored in {unequal} of {len(scored[0])} documents: one run cut them elsewhere",
        )


def _documents(evaluations: Mapping[int, Scored]) -> dict[str, int]:
    """Return document -> target tokens at the last evaluation."""
    return {key: tokens for key, (_, tokens) in evaluations[max(evaluations)].items()}


def _trained(run: Observed) -> set[str]:
    return {row.document for row in run.of(CorpusRow) if row.split == "train"}


def _offers(
    one: Observed, two: Observed, first: Mapping[int, Scored], second: Mapping[int, Scored]
) -> tuple[Offered, ...]:
    """Return the comparisons that remain possible, over documents that neither run trained on."""
    if not first or not second or one.intent.subjects.data is None or two.intent.subjects.data is None:
        return ()
    last = [
        {key: found for key, found in evaluations[max(evaluations)].items() if key not in _trained(other)}
        for evaluations, other in ((first, two), (second, one))
    ]
    if one.intent.subjects.data != two.intent.subjects.data and not (_trained(one) and _trained(two)):
        return ()  # who trained on what is not known
    if one.intent.subjects.tokenizer != two.intent.subjects.tokenizer:
        found = losses.bits_per_byte((one, last[0]), (two, last[1]))
    elif last[0].keys() != last[1].keys() or any(last[0][key][1] != last[1][key][1] for key in last[0]):
        found = losses.shared_documents(last[0], last[1])
    else:
        found = None
    return (found,) if found else ()


def _doubts(
    first: Contender, second: Contender, one: Mapping[int, Scored], two: Mapping[int, Scored]
) -> Iterator[Told]:
    """Yield why nothing may be concluded from losses that could be compared: evidence that is not there."""
    for run, evaluations in ((first, one), (second, two)):
        steps = sorted(row.step for row in run.observed.of(StepRow))
        if run.outcome != "completed":
            yield Told(code="NOT_COMPLETED", text=f"{run.name} is {run.outcome}")
        end = due(run.observed)
        if steps != list(range(1, end + 1)):
            text = f"{run.name} records {len(steps)} of {end} updates: what was applied is not known"
            yield Told(code="NOT_RECORDED", text=text)
        if max(evaluations) != end:
            text = f"{run.name} was last evaluated at step {max(evaluations)} of {end}"
            yield Told(code="NOT_AT_THE_END", text=text)
        if (moved := _moved(run.observed)) is not None and moved < MOVES:
            text = f"an update of {run.name} changed {moved:.2%} of the weights: no effect of what could not move is no effect (CASE-26)"
            yield Told(code="NOT_MOVED", text=text)
    if apart := _unseeded(first.observed, second.observed):
        yield Told(code="SEED_IGNORED", text=apart)
    data = [run.observed.intent.subjects.data for run in (first, second)]
    if data[0] is None or data[1] is None:
        yield Told(code="NO_MANIFEST", text="a run without a data manifest may have trained on what it is judged by")
    elif data[0] != data[1]:
        for run in (first, second):
            if not _trained(run.observed):
                yield Told(code="NO_MANIFEST", text=f"{run.name} does not record which documents it trained on")


def _moved(run: Observed) -> float | None:
    """Return the share of the weights that an update changed, the median of those measured."""
    measured = [row.changed for row in run.of(StepRow) if row.changed is not None]
    return median(measured) if measured else None


def _unseeded(one: Observed, two: Observed) -> str:
    """Return how two runs of one contract, seed, data, code and place differ before any update, if they do (CASE-14)."""
    alike = (
        (one.intent.promise.subject, one.intent.seed, one.intent.environment, one.intent.subjects)
        == (two.intent.promise.subject, two.intent.seed, two.intent.environment, two.intent.subjects)
    )  # fmt: skip
    losses_ = [next((row.loss for row in run.of(StepRow) if row.step == 1), None) for run in (one, two)]
    if not alike or losses_[0] is None or losses_[1] is None or abs(losses_[0] - losses_[1]) <= SAME_START:
        return ""
    return (
        f"one contract, one seed ({one.intent.seed}), one environment, and first losses of {losses_[0]:.4f} and {losses_[1]:.4f}: "
        "the seed that is recorded is not what decides the run (CASE-14)"
    )


def _checkpoints(last: LossDifference, one: Observed, two: Observed) -> tuple[Verdict, list[Told]]:
    found = last.difference
    if same_training(one, two) and found.value == 0 and found.low == found.high == 0:
        return "SAME", [
            Told(code="SAME_TRAINING", text="every update and every document's loss is the same to the last digit")
        ]
    word = losses.verdict(found)
    reach = f"; a difference below {found.detectable:.3g} nats would mostly go unseen" if found.detectable else ""
    if word == "INCONCLUSIVE":
        why = found.method if found.low is None else f"the interval covers zero{reach}"
        return word, [Told(code="NOT_RESOLVED", text=f"checkpoints: {why}")]
    return word, [
        Told(code="RESOLVED", text=f"checkpoints: the interval over {found.n} documents lies beyond zero{reach}")
    ]


def _known(one: Contender) -> list[float]:
    """Return the last losses of the recipe by seed; a run that nobody repeated has its own."""
    known = dict(one.repeats)
    evaluations = losses.validations(one.observed)
    known.setdefault(one.observed.intent.seed, losses.loss(evaluations[max(evaluations)]))
    return [known[seed] for seed in sorted(known)]


def _recipes(checkpoints: Verdict, noise: Estimate | None, settings: Sequence[str]) -> tuple[Verdict, Told]:
    """Return what the difference says of two recipes: nothing, unless it leaves the band in which seeds scatter."""
    if checkpoints == "SAME":
        return "SAME", Told(code="SAME_RECIPE", text="nothing that was trained differs")
    if not [name for name in settings if name != "seed"]:
        return "INCONCLUSIVE", Told(
            code="ONLY_NOISE",
            text="recipes: nothing differs but the seed, if that; the difference is what noise looks like (CASE-39)",
        )
    if noise is None:
        return "INCONCLUSIVE", Told(
            code="NO_REPEATS",
            text="recipes: no contract was run with more than one seed, so how far seeds scatter is not known (CASE-39)",
        )
    word = losses.verdict(noise)
    if word == "INCONCLUSIVE" or word != checkpoints:
        return "INCONCLUSIVE", Told(
            code="INSIDE_NOISE",
            text=f"recipes: inside the noise of seeds; a difference below {noise.detectable:.3g} nats would mostly go unseen (CASE-39)",
        )
    return word, Told(code="BEYOND_NOISE", text=f"recipes: beyond the noise of seeds, {noise.method}")


def _attributed(
    settings: Sequence[str], strange: Sequence[str], unwitnessed: str, recipes: Verdict, first: Contender, second: Contender
) -> tuple[str, list[Told]]:  # fmt: skip
    """Return the one setting that a shown effect is ascribed to, or why there is none."""
    if recipes not in ("LOWER", "HIGHER"):
        return "", []
    mine = [name for name in settings if name != "seed" or len(settings) == 1]
    if len(mine) != 1:
        text = f"{len(mine)} things differ ({', '.join(mine)}): the effect is ascribed to none of them (CASE-38)"
        return "", [Told(code="CONFOUNDED", text=text)]
    for one in (first, second):
        if said := deviation(one.observed):
            return "", [
                Told(code="NOT_AS_PROMISED", text=f"{one.name} {said}: the effect is not the contract's (CASE-06)")
            ]
    if strange:
        text = f"{', '.join(strange)} differ too, and nothing that was launched moves them: the effect is ascribed to nothing"
        return "", [Told(code="CONFOUNDED", text=text)]
    text = f"{mine[0]} is the only setting that differs"
    if unwitnessed:
        text += "; no row shows that it was applied, except that the losses of the updates differ"
    return mine[0], [Told(code="ATTRIBUTED", text=text)]
