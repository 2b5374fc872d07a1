"""Tuning: whether the model was what was asked, and what it learned beyond its base."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import AttestationRow, EvaluationRow, GenerationRow, MaskRow, PredictionRow, StepRow
from sovereign.metrics.intervals import Interval, Unmeasurable, exact, newcombe, ratio, wilson
from sovereign.metrics.loss import columns, evaluated

ORDER, BETA = 6, 2.0  # of chrF: character n-grams up to six, recall weighed twice (Popović 2015)


def holds(row: AttestationRow) -> bool:
    """Say whether what was found is what was expected: equal, or a number within a share of the expected one."""
    if not row.tolerance:
        return row.found == row.expected
    try:
        expected, found = _numbers(row)
    except Unmeasurable:
        return False
    return abs(found - expected) <= row.tolerance * abs(expected)


def mismatches(observed: Observed) -> Interval:
    """Return how many attestations do not hold; a run that swore to nothing has none to count."""
    rows = observed.of(AttestationRow)
    if not rows:
        raise Unmeasurable("no attestation rows: nothing was sworn to of the model")
    return exact(float(sum(not holds(row) for row in rows)), len(rows))


def _sworn(observed: Observed, *subjects: str) -> list[AttestationRow]:
    rows = [row for row in observed.of(AttestationRow) if row.subject in subjects]
    if not rows:
        raise Unmeasurable(f"nothing was sworn to of {' or '.join(subjects)}")
    return rows


def _numbers(row: AttestationRow) -> tuple[float, float]:
    """Return what was expected and what was found, as finite numbers."""
    try:
        expected, found = float(row.expected), float(row.found)
    except ValueError:
        raise Unmeasurable(f"{row.subject}: {row.expected!r} and {row.found!r} are not two numbers") from None
    if not (math.isfinite(expected) and math.isfinite(found)):
        raise Unmeasurable(f"{row.subject}: {row.expected!r} and {row.found!r} are not finite")
    return expected, found


def not_loaded(observed: Observed) -> Interval:
    """Return how often the tensors of the live base were not those of its file: a name, a shape or a bit (CASE-12)."""
    rows = _sworn(observed, "loaded_tensors")
    return exact(float(sum(not holds(row) for row in rows)), len(rows))


def base_distance(observed: Observed) -> Interval:
    """Return how far the base's loss before step 0 lies from its own run's on the same documents, as a share of that."""
    rows = _sworn(observed, "parent_loss")
    pairs = [_numbers(row) for row in rows]
    if any(expected <= 0 for expected, _ in pairs):
        raise Unmeasurable("the base's own run measured a loss of nothing")
    return exact(max(abs(found - expected) / expected for expected, found in pairs), len(rows), "as a share")


def trainable_difference(observed: Observed) -> Interval:
    """Return by how many the parameters that move differ from those that the contract and the base's shapes give (CASE-06)."""
    rows = _sworn(observed, "trainable_parameters")
    return exact(max(abs(found - expected) for expected, found in map(_numbers, rows)), len(rows))


def frozen_changed(observed: Observed) -> Interval:
    """Return how often what must not change had another digest than before: frozen weights, and packed ones."""
    rows = _sworn(observed, "frozen_weights", "quantized_weights")
    return exact(float(sum(not holds(row) for row in rows)), len(rows))


def rows_changed(observed: Observed) -> Interval:
    """Return how many of the base's rows of the embedding changed by a bit, where none may."""
    rows = _sworn(observed, "embedding_rows")
    return exact(max(found for _, found in map(_numbers, rows)), len(rows))


def kept_step(observed: Observed) -> int:
    """Return the step of the weights that were kept: of those evaluated, the lowest validation loss after step 0."""
    rows = [row for row in observed.of(EvaluationRow) if row.split == "validation" and row.step]
    if not rows:
        raise Unmeasurable("no evaluation after step 0")
    every = observed.intent.promise.training.checkpoint_every
    last = max((row.step for row in observed.of(StepRow)), default=0)
    found: dict[int, tuple[float, int]] = {}
    for row in rows:
        if row.step % every == 0 or row.step == last:
            nll, tokens = found.get(row.step, (0.0, 0))
            found[row.step] = (nll + row.nll, tokens + row.tokens)
    if not found:
        raise Unmeasurable("no step was both evaluated and kept")
    return min(found, key=lambda step: (found[step][0] / found[step][1], step))


def improvement(observed: Observed) -> Interval:
    """Return how far the kept weights lie below the base on the control side, paired, in nats per target.

    The validation side chose the weights; the control side did not.
    """
    before, after = evaluated(observed, "control", 0), evaluated(observed, "control", kept_step(observed))
    shared = sorted(before.keys() & after.keys())
    if not shared or len(shared) != len(after):
        raise Unmeasurable("the control side was not scored whole at step 0 and with the kept weights")
    gained = np.array([before[key][0] - after[key][0] for key in shared])
    return ratio(gained, columns({key: after[key] for key in shared})[1])


def learned_share(observed: Observed) -> Interval:
    """Return the share of an example's tokens that carry loss, in the one that was kept: all of it is no mask."""
    rows = observed.of(MaskRow)
    if not rows:
        raise Unmeasurable("no mask row")
    return exact(rows[0].targets / rows[0].tokens, 1)


# ── classification ───────────────────────────────────────────────────────────────────────────────


def _right(observed: Observed, by: str) -> tuple[int, int]:
    rows = [row for row in observed.of(PredictionRow) if row.by == by and row.split == "control"]
    if not rows:
        raise Unmeasurable(f"no predictions of the control side by {by}")
    last = max(row.step for row in rows)
    rows = [row for row in rows if row.step == last]
    return sum(row.predicted == row.label for row in rows), len(rows)


def accuracy(observed: Observed) -> Interval:
    """Return the share of control texts that get their label; Wilson's interval."""
    return wilson(*_right(observed, "model"))


def above_majority(observed: Observed) -> Interval:
    """Return the accuracy above that of one label for all: the train side's most frequent one, or the control's if that is more.

    Where the two differ, a classifier that answers with one label alone would else seem to have learned something.
    """
    rows = [row for row in observed.of(PredictionRow) if row.by == "model" and row.split == "control"]
    right, texts = _right(observed, "majority")
    last = max((row.step for row in rows), default=0)
    common = max(Counter(row.label for row in rows if row.step == last).values(), default=0)
    return newcombe(_right(observed, "model"), (max(right, common), texts))


def above_bag_of_words(observed: Observed) -> Interval:
    """Return the accuracy above that of the words alone."""
    return newcombe(_right(observed, "model"), _right(observed, "bag_of_words"))


def above_prompted(observed: Observed) -> Interval:
    """Return the accuracy above that of the base, which is asked by prompt about the same texts."""
    return newcombe(_right(observed, "model"), _right(observed, "prompt"))


def least_recall(observed: Observed) -> Interval:
    """Return the lowest share of a label's control texts that get it: a classifier of one label has 0."""
    rows = [row for row in observed.of(PredictionRow) if row.by == "model" and row.split == "control"]
    if not rows:
        raise Unmeasurable("no predictions of the control side by model")
    last = max(row.step for row in rows)
    counts = Counter(row.label for row in rows if row.step == last)
    right = Counter(row.label for row in rows if row.step == last and row.predicted == row.label)
    return min((wilson(right[label], count) for label, count in counts.items()), key=lambda one: one.value)


# ── generation ───────────────────────────────────────────────────────────────────────────────────


def chrf(text: str, reference: str) -> float:
    """Return chrF2 of a text in [0, 1]: F over character n-grams of orders 1 to 6, spaces left out, no smoothing."""
    text, reference = "".join(text.split()), "".join(reference.split())
    precisions, recalls = [], []
    for n in range(1, ORDER + 1):
        mine = Counter(text[at : at + n] for at in range(len(text) - n + 1))
        wanted = Counter(reference[at : at + n] for at in range(len(reference) - n + 1))
        if not mine or not wanted:
            continue
        shared = (mine & wanted).total()
        precisions.append(shared / mine.total())
        recalls.append(shared / wanted.total())
    if not precisions:
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    weighed = BETA**2 * precision + recall
    return (1 + BETA**2) * precision * recall / weighed if weighed else 0.0


def chrf_gain(observed: Observed) -> Interval:
    """Return by how much the tuned model's answers resemble the references more than the base's, paired, as chrF."""
    answers = {
        (row.writer, row.prompt_id): chrf(row.text, row.reference)
        for row in observed.of(GenerationRow)
        if not row.canary
    }
    prompts = sorted({number for _, number in answers})
    if not prompts or any((writer, number) not in answers for writer in ("base", "tuned") for number in prompts):
        raise Unmeasurable("no answers of base and tuned model to the same held-out prompts")
    gained = np.array([answers["tuned", number] - answers["base", number] for number in prompts])
    return ratio(gained, np.ones(len(prompts)))


def copied_rate(observed: Observed) -> Interval:
    """Return the share of the tuned model's answers that stand word for word among the answers it was trained on."""
    rows = [row for row in observed.of(GenerationRow) if row.writer == "tuned" and not row.canary]
    if not rows:
        raise Unmeasurable("no answers by the tuned model")
    return wilson(sum(row.copied for row in rows), len(rows))
