"""What follows from a record: curves, bounds and contrasts, each computed once, for one bootstrap seed.

A quantity whose rows are missing or too few is None; the claim that wanted it says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from sovereign.diagnosis.bounds import (
    Z_TAIL,
    Columns,
    Share,
    detectable,
    difference_bounds,
    rank_sum,
    ratio_bounds,
    share_difference,
)
from sovereign.diagnosis.record import Point, RunRecord, Scores, mode_of
from sovereign.metrics.intervals import Floats, Interval, Unmeasurable

Axis = Literal["step", "epoch", "entry"]
SAME_START = 0.5  # nats between the two losses of an untrained model before they are of different things


def attempt(compute: Callable[[], Interval]) -> Interval | None:
    """Return an interval, or None where there are too few documents for one."""
    try:
        return compute()
    except Unmeasurable:
        return None


@dataclass(frozen=True, eq=False)
class Curve:
    """A logged series: where on the axis, and the loss there; shape [points] each."""

    at: Floats
    loss: Floats

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True)
class Rise:
    """The validation loss at the last checkpoint above its lowest, on documents that did not choose the lowest."""

    interval: Interval
    best: int  # step
    detectable: float


@dataclass(frozen=True, eq=False)
class Reading:
    """A record read with one seed."""

    record: RunRecord
    seed: int = 1

    # ── the series ───────────────────────────────────────────────────────────────────────────────

    @cached_property
    def rows(self) -> tuple[Point, ...]:
        """The logged rows, those of one place merged: a log may give train and validation in rows of their own."""
        merged: dict[object, Point] = {}
        for number, point in enumerate(self.record.points):
            key: object = ("entry", number)
            if point.step is not None:
                key = ("step", point.step)
            elif point.epoch is not None:
                key = ("epoch", point.epoch)
            before = merged.get(key)
            merged[key] = point if before is None else _both(before, point)
        return tuple(merged.values())

    @cached_property
    def axis(self) -> Axis:
        """What the rows are counted by."""
        if all(point.step is not None for point in self.rows):
            return "step"
        return "epoch" if all(point.epoch is not None for point in self.rows) else "entry"

    def _at(self, number: int, point: Point) -> float:
        at = {"step": point.step, "epoch": point.epoch, "entry": number}[self.axis]
        assert at is not None
        return float(at)

    @cached_property
    def val(self) -> Curve:
        return self._curve([(self._at(at, one), one.val) for at, one in enumerate(self.rows)])

    @cached_property
    def logged_train(self) -> Curve:
        return self._curve([(self._at(at, one), one.train) for at, one in enumerate(self.rows)])

    @cached_property
    def train(self) -> Curve:
        """Training losses, of every update where each was recorded."""
        steps = self.record.steps
        return self.logged_train if steps is None else Curve(steps.step, steps.loss)

    @cached_property
    def trains(self) -> tuple[Curve, ...]:
        """Every series of training losses: the coarser one beside the finer."""
        curves = (self.train, self.logged_train) if self.record.steps is not None else (self.train,)
        return tuple(curve for curve in curves if len(curve) > 2)

    @staticmethod
    def _curve(points: list[tuple[float, float | None]]) -> Curve:
        said = [(at, loss) for at, loss in points if loss is not None]
        return Curve(np.array([at for at, _ in said]), np.array([loss for _, loss in said]))

    @cached_property
    def pairs(self) -> list[tuple[float, float, float, Point]]:
        """Evaluations with the training loss last logged by then: at, train, val, row."""
        found = []
        train = None
        for number, point in enumerate(self.rows):
            train = point.train if point.train is not None else train
            if point.val is not None and train is not None:
                found.append((self._at(number, point), train, point.val, point))
        return found

    @cached_property
    def online_gap(self) -> float | None:
        """The last validation loss minus the training loss logged with it."""
        return self.pairs[-1][2] - self.pairs[-1][1] if self.pairs else None

    @cached_property
    def reductions(self) -> str:
        """How the two losses of the untrained model show that they are not reduced alike; nothing where they agree (CASE-19).

        Before the first update both are of the same weights, and of a model that knows nothing: they are one number.
        """
        if self.axis != "step" or not self.pairs or self.pairs[0][0] > 0:
            return ""
        _, train, val, _ = self.pairs[0]
        if abs(train - val) <= SAME_START or min(train, val) <= 0:
            return ""
        times = max(train, val) / min(train, val)
        said = f"before the first update training is {train:.4g} and validation {val:.4g}"
        if abs(times - round(times)) > 0.02 * times:
            return said
        less = "less" if train < val else "more"
        return f"{said}, {round(times)} times {less}: a sum over micro-batches, or a share of one, is printed as a mean"

    @cached_property
    def same_reduction(self) -> bool | None:
        """Whether both losses are means over the same unit: as stated, or not where step 0 shows otherwise."""
        stated = self.record.settings.same_reduction
        return False if stated is None and self.reductions else stated

    @cached_property
    def scope(self) -> str:
        """What a train loss was averaged over: as the settings say, or else as the rows do."""
        said = Counter(point.scope for point in self.record.points if point.scope)
        return self.record.settings.train_scope or (said.most_common(1)[0][0] if said else "")

    @cached_property
    def mode(self) -> Literal["train", "eval"] | None:
        """The mode of the training losses: training mode where anything says so."""
        said = (self.record.settings.train_mode, mode_of(self.scope))
        return "train" if "train" in said else "eval" if "eval" in said else None

    # ── levels ───────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def uniform(self) -> float | None:
        """ln V, the loss of knowing nothing."""
        vocab = self.record.settings.vocab
        return math.log(vocab) if vocab else self.record.settings.uniform_nats

    @cached_property
    def unigram(self) -> float | None:
        return self.record.settings.unigram_nats

    @cached_property
    def ceiling(self) -> float | None:
        """The best score on the same text by a model without access to it, scalar, in nats per token."""
        parent = self.record.settings.parent
        known = [self.record.settings.reference_nats, parent.val_loss if parent else None]
        scores, reference = self.record.validation, self.record.reference
        if scores is not None and reference is not None:
            at = [number for number, document in enumerate(scores.documents) if document in reference]
            if at:
                known.append(
                    sum(reference[scores.documents[number]] for number in at) / float(np.nansum(scores.tokens[-1][at]))
                )
        return min((one for one in known if one is not None), default=None)

    @cached_property
    def consumed(self) -> float | None:
        """Tokens trained on so far, repeats counted: the most that anything in the record says."""
        settings = self.record.settings
        found = [float(point.tokens) for point in self.record.points if point.tokens is not None]
        if settings.trained_tokens is not None:
            found.append(float(settings.trained_tokens))
        steps = [point.step for point in self.record.points if point.step is not None]
        steps += [one for one in (settings.steps, settings.steps_total, settings.iterations) if one is not None]
        batch = settings.effective_batch or settings.batch
        if steps and batch and settings.seq_len:
            found.append(float(max(steps) * batch * settings.seq_len))
        if settings.corpus_tokens and settings.corpus_passes:
            found.append(settings.corpus_tokens * settings.corpus_passes)
        return max(found, default=None)

    @cached_property
    def enough_tokens(self) -> float | None:
        """10 V ln V tokens: enough to estimate how often each token occurs (heuristic)."""
        vocab = self.record.settings.vocab
        return 10 * vocab * math.log(vocab) if vocab else None

    @cached_property
    def effective_epochs(self) -> float | None:
        """Consumed over unique tokens: a prior of memorization and never evidence (Muennighoff et al. 2023)."""
        settings = self.record.settings
        unique = settings.unique_tokens or settings.corpus_tokens
        if unique and self.consumed:
            return self.consumed / unique
        return settings.corpus_passes or settings.epochs_actual or settings.epochs

    # ── documents ────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def clean(self) -> np.ndarray | None:
        """Which validation documents were neither trained on nor covered by matches, shape [documents]."""
        scores, identity = self.record.validation, self.record.identity
        if scores is None or identity is None:
            return None
        dirty = identity.shared | self.record.dirty
        return np.array([document not in dirty for document in scores.documents])

    @staticmethod
    def columns(scores: Scores, at: int = -1, keep: np.ndarray | None = None) -> Columns:
        """Return nats and tokens of the documents scored at a checkpoint, of those kept."""
        scored = ~np.isnan(scores.nll[at])
        chosen = scored if keep is None else scored & keep
        return scores.nll[at][chosen], scores.tokens[at][chosen]

    def level(self, keep: np.ndarray | None = None) -> Interval | None:
        """Return the validation loss at the last checkpoint."""
        scores = self.record.validation
        if scores is None:
            return None
        return attempt(lambda: ratio_bounds(self.columns(scores, -1, keep), self.seed))

    def above_unigram(self, keep: np.ndarray | None = None) -> Interval | None:
        """Return validation minus unigram at the last checkpoint, paired by document."""
        scores, floors = self.record.validation, self.record.unigram
        if scores is None or floors is None:
            return None
        nll, tokens = scores.nll[-1], scores.tokens[-1]
        floor = np.array([floors.get(document, math.nan) for document in scores.documents])
        chosen = ~np.isnan(nll - floor) if keep is None else ~np.isnan(nll - floor) & keep
        return attempt(lambda: ratio_bounds(((nll - floor)[chosen], tokens[chosen]), self.seed))

    @cached_property
    def gap(self) -> Interval | None:
        """The comparable gap: validation minus train probe, both in evaluation mode at the last common checkpoint."""
        val, probe = self.record.validation, self.record.train_probe
        if val is None or probe is None or not set(val.steps) & set(probe.steps):
            return None
        last = max(set(val.steps) & set(probe.steps))
        one, two = self.columns(val, val.steps.index(last)), self.columns(probe, probe.steps.index(last))
        return attempt(lambda: difference_bounds(one, two, self.seed))

    @cached_property
    def artifact(self) -> Interval | None:
        """The online gap minus the comparable one, in which validation cancels: train probe minus online train loss."""
        probe = self.record.train_probe
        if probe is None or not self.pairs:
            return None
        online = self.pairs[-1][1]
        found = attempt(lambda: ratio_bounds(self.columns(probe), self.seed))
        if found is None:
            return None
        return Interval(found.value - online, found.low - online, found.high - online, found.n, found.method)

    def against_control(self, keep: np.ndarray | None = None) -> Interval | None:
        """Return validation minus control at the last checkpoint."""
        val, control = self.record.validation, self.record.control
        if val is None or control is None:
            return None
        return attempt(lambda: difference_bounds(self.columns(val, -1, keep), self.columns(control), self.seed))

    def improvement(self, keep: np.ndarray | None = None) -> Interval | None:
        """Return the last validation loss minus the first, paired by document."""
        scores = self.record.validation
        if scores is None or len(scores.steps) < 2:
            return None
        return attempt(lambda: ratio_bounds(self._contrast(scores, len(scores.steps) - 1, 0, keep), self.seed))

    @staticmethod
    def _contrast(scores: Scores, later: int, earlier: int, keep: np.ndarray | None) -> Columns:
        change = scores.nll[later] - scores.nll[earlier]
        chosen = ~np.isnan(change) if keep is None else ~np.isnan(change) & keep
        return change[chosen], scores.tokens[later][chosen]

    def rise(self, keep: np.ndarray | None = None) -> Rise | None:
        """Return how far the last validation loss lies above the lowest, chosen on one half and tested on the other."""
        scores = self.record.validation
        if scores is None or len(scores.steps) < 3:
            return None
        whole = ~np.isnan(scores.nll).any(axis=0)
        chosen = np.flatnonzero(whole if keep is None else whole & keep)
        nll, tokens = scores.nll[:, chosen], scores.tokens[:, chosen]
        # halves by what the documents are, not by their order or names; alternating, so that both have easy and hard ones
        order = np.lexsort((nll[-1], nll[0], tokens[-1]))
        choosing, testing = order[0::2], order[1::2]
        if not len(testing):
            return None
        best = int(np.argmin(nll[:-1, choosing].sum(axis=1) / tokens[:-1, choosing].sum(axis=1)))
        contrast = (nll[-1, testing] - nll[best, testing], tokens[-1, testing])
        found = attempt(lambda: ratio_bounds(contrast, self.seed))
        return None if found is None else Rise(found, scores.steps[best], detectable(contrast))

    @cached_property
    def tied(self) -> tuple[int, ...]:
        """Checkpoints that the documents cannot tell from the best one: the early-stop set, and not a point."""
        scores = self.record.validation
        if scores is None or len(scores.steps) < 2 or not scores.fixed:
            return ()
        best = int(np.argmin(scores.losses))
        change, tokens = scores.nll - scores.nll[best], scores.tokens[best]
        ratio = change.sum(axis=1) / tokens.sum()
        influence = (change - ratio[:, None] * tokens) / tokens.mean()
        reach = Z_TAIL * influence.std(axis=1, ddof=1) / math.sqrt(len(tokens))
        return tuple(step for step, low in zip(scores.steps, ratio - reach, strict=True) if low <= 0)

    def drift(self, scores: Scores | None, keep: np.ndarray | None = None) -> Interval | None:
        """Return the slope of a split's loss over the last fifth, in nats per tenth of the tokens of the run.

        A tenth of the steps stands for a tenth of the tokens: steps of a run are of one size.
        """
        if scores is None or len(scores.steps) < 3:
            return None
        steps = np.array(scores.steps, float)
        late = np.flatnonzero(steps >= 0.8 * steps[-1])
        if len(late) < 2:
            return None
        x = steps[late] / (0.1 * steps[-1])
        weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        slope, tokens = weight @ scores.nll[late], scores.tokens[-1]
        chosen = ~np.isnan(slope) if keep is None else ~np.isnan(slope) & keep
        return attempt(lambda: ratio_bounds((slope[chosen], tokens[chosen]), self.seed))

    @cached_property
    def overlap_effect(self) -> Interval | None:
        """O6: how much easier overlapping documents are than clean ones, beyond what another model finds."""
        scores, reference, clean = self.record.validation, self.record.reference, self.clean
        if scores is None or reference is None or clean is None:
            return None
        known = np.array([document in reference for document in scores.documents]) & ~np.isnan(scores.nll[-1])
        margin = scores.nll[-1] - np.array([reference.get(document, 0.0) for document in scores.documents])
        tokens = scores.tokens[-1]
        dirty, rest = known & ~clean, known & clean
        return attempt(
            lambda: difference_bounds((margin[dirty], tokens[dirty]), (margin[rest], tokens[rest]), self.seed)
        )

    # ── probes ───────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def overlap_excess(self) -> Interval | None:
        covered = self.record.covered
        return None if covered is None else attempt(lambda: share_difference(covered.validation, covered.control))

    @cached_property
    def near_excess(self) -> Interval | None:
        near = self.record.near
        return None if near is None else attempt(lambda: share_difference(near.validation, near.control))

    @cached_property
    def extraction_excess(self) -> Interval | None:
        """Share of train passages continued word for word above the control's share."""
        return attempt(lambda: share_difference(*self.extracted))

    @cached_property
    def extracted(self) -> tuple[Share, Share]:
        """How many passages were continued word for word, of how many, of the train side and of the control."""
        sides = []
        for side in ("train", "control"):
            rows = [row for row in self.record.extraction if row.side == side]
            sides.append((sum(row.matched >= row.continued for row in rows), len(rows)))
        return sides[0], sides[1]

    @cached_property
    def canary_p(self) -> tuple[float, int] | None:
        """p that canaries planted once rank as low by luck, and how many there are."""
        once = [row for row in self.record.canaries if row.copies == 1]
        last = max((row.step for row in once), default=0)
        once = [row for row in once if row.step == last]
        if not once:
            return None
        ranks = np.array([row.rank for row in once], float)
        return rank_sum(ranks, np.array([row.candidates for row in once], float)), len(once)

    @cached_property
    def permuted_margin(self) -> Interval | None:
        """Loss on permuted validation documents minus the unigram level."""
        rows = [row for row in self.record.permuted if row.order == "permuted"]
        if not rows or self.unigram is None:
            return None
        last = max(row.step for row in rows)
        nll = np.array([row.nll for row in rows if row.step == last])
        tokens = np.array([row.tokens for row in rows if row.step == last], float)
        unigram = self.unigram
        return attempt(lambda: ratio_bounds((nll - unigram * tokens, tokens), self.seed))


def _both(one: Point, other: Point) -> Point:
    """Return two rows of one place as one."""
    fields = vars(one)
    return Point(
        **{name: fields[name] if fields[name] not in (None, "") else value for name, value in vars(other).items()}
    )
