"""Loss: of the validation documents, against what counting scores, and against a probe of the train side."""

from __future__ import annotations

import math

import numpy as np

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import EvaluationRow, FloorRow, PathRow
from sovereign.metrics.intervals import Floats, Interval, Unmeasurable, exact, linear_ratio, ratio, ratio_difference


def evaluated(observed: Observed, split: str, step: int | None = None) -> dict[str, tuple[float, int]]:
    """Return document -> (nll in nats, target tokens) of one split at a step, the last evaluated one by default."""
    rows = [row for row in observed.of(EvaluationRow) if row.split == split]
    if not rows:
        raise Unmeasurable(f"no evaluation rows of the {split} split")
    at = max(row.step for row in rows) if step is None else step
    return {row.document: (row.nll, row.tokens) for row in rows if row.step == at}


def columns(documents: dict[str, tuple[float, int]]) -> tuple[Floats, Floats]:
    """Return nll and token counts in document order, shape [documents] each."""
    ordered = [documents[key] for key in sorted(documents)]
    return np.array([nll for nll, _ in ordered]), np.array([tokens for _, tokens in ordered], dtype=np.float64)


def validation_loss(observed: Observed) -> Interval:
    """Return the validation loss at the last evaluation, in nats per token."""
    return ratio(*columns(evaluated(observed, "validation")))


def by_step(observed: Observed, split: str) -> dict[int, dict[str, tuple[float, int]]]:
    """Return step -> document -> (nll in nats, target tokens) of one split, in order of step."""
    found: dict[int, dict[str, tuple[float, int]]] = {}
    for row in observed.of(EvaluationRow):
        if row.split == split:
            found.setdefault(row.step, {})[row.document] = (row.nll, row.tokens)
    return dict(sorted(found.items()))


def tied_best(evaluations: dict[int, dict[str, tuple[float, int]]]) -> tuple[int, ...]:
    """Return the step with the least loss, and every step whose paired interval against it covers zero.

    The best of many noisy evaluations is a set. Steps that scored other documents are not in it.
    """
    if not evaluations:
        return ()
    losses = {step: _loss_of(documents) for step, documents in evaluations.items()}
    best = min(sorted(losses), key=lambda step: losses[step])
    nll, tokens = columns(evaluations[best])
    tied = []
    for step, documents in evaluations.items():
        if step == best:
            tied.append(step)
        elif len(documents) > 1 and {key: one[1] for key, one in documents.items()} == {
            key: one[1] for key, one in evaluations[best].items()
        }:
            found = linear_ratio(columns(documents)[0] - nll, tokens)
            tied += [step] if found.low <= 0 <= found.high else []
    return tuple(sorted(tied))


def _loss_of(documents: dict[str, tuple[float, int]]) -> float:
    return sum(nll for nll, _ in documents.values()) / sum(tokens for _, tokens in documents.values())


def _below_floor(observed: Observed, floor: str) -> Interval:
    scored = evaluated(observed, "validation")
    floors = {row.document: row for row in observed.of(FloorRow)}
    unequal = [key for key, (_, tokens) in scored.items() if key not in floors or floors[key].tokens != tokens]
    if unequal:
        raise Unmeasurable(
            f"floor and evaluation count different tokens of {len(unequal)} documents, {unequal[0]} first"
        )
    keys = sorted(scored)
    margins = np.array([getattr(floors[key], floor) - scored[key][0] for key in keys])
    return ratio(margins, np.array([scored[key][1] for key in keys], dtype=np.float64))


def below_unigram(observed: Observed) -> Interval:
    """Return how far the validation loss lies below the unigram floor, paired by document, in nats per token."""
    return _below_floor(observed, "unigram_nll")


def below_bigram(observed: Observed) -> Interval:
    """Return how far the validation loss lies below the bigram floor, paired by document, in nats per token."""
    return _below_floor(observed, "bigram_nll")


def gap(observed: Observed) -> Interval:
    """Return validation loss minus train-probe loss, both in evaluation mode at the last checkpoint."""
    return ratio_difference(columns(evaluated(observed, "validation")), columns(evaluated(observed, "train_probe")))


def step0_distance(observed: Observed) -> Interval:
    """Return |step-0 validation loss - ln V|: an untrained model should know nothing, and claim nothing."""
    if observed.intent.promise.tuned is not None:
        raise Unmeasurable("a tuned model begins with what its base knows; tuning/mismatches compares the two")
    sums, tokens = columns(evaluated(observed, "validation", step=0))
    if not len(sums):
        raise Unmeasurable("no evaluation at step 0")
    vocabulary = observed.intent.planned.vocabulary
    if vocabulary is None:
        raise Unmeasurable("the size of the vocabulary is not known")
    distance = abs(float(sums.sum() / tokens.sum()) - math.log(vocabulary))
    return exact(distance, len(sums), "computed")


def path_error(observed: Observed) -> Interval:
    """Return how far the training path and the evaluation path lie apart on one batch, in nats per token, at worst."""
    rows = observed.of(PathRow)
    if not rows:
        raise Unmeasurable("no path rows: no batch was put through both paths")
    return exact(max(abs(row.train_nll - row.eval_nll) / row.tokens for row in rows), len(rows), "maximum over batches")
