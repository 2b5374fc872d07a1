"""The record of a run: everything that a diagnosis may be computed from, and nothing else.

All of it may be absent but the series. A field that is absent is not zero and not false: the tests that
need it did not run, and no verdict is read from their silence.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from sovereign.canonical import Record
from sovereign.contract.model import Decoder
from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import (
    BatchRow,
    CanaryRow,
    CorpusRow,
    EvaluationRow,
    ExposureRow,
    ExtractionRow,
    FloorRow,
    InheritedRow,
    LineageRow,
    MembershipRow,
    NoticeRow,
    OverlapRow,
    PathRow,
    PermutedRow,
    ReferenceRow,
    ReportedRow,
    SampleRow,
    Share,
    StepRow,
    UnlistedRow,
)
from sovereign.metrics.intervals import Floats

NON_FINITE = frozenset({"non_finite_loss", "non_finite_gradient", "not_finite"})  # as guards and callbacks name them
PASSES = 3  # of a stream in order; in fewer a gap that grows with training grows with position too
COVERED = 0.5  # of a document's tokens inside 50-token matches, so that a licence header is no leak (Lee et al. 2021)
ITSELF = (
    "the reference scores every document to the last digit as this run does: it is this run's model, and was left out"
)
Whole = int | None


class Parent(Record):
    """The phase that a run's weights come from, and what it scored on text it had not seen."""

    phase: str = ""
    step: int | None = Field(default=None, ge=0)
    val_loss: float = Field(ge=0, description="nats per token, same text and same vocabulary")


class Settings(Record):
    """What the owner of a run knows about it beside its losses. Losses are nats per token."""

    unit: Literal["nats", "bits"] = Field(
        default="nats", description="of the losses, a token; floors are in nats always"
    )
    vocab: Whole = Field(default=None, ge=2, description="entries of the vocabulary")
    uniform_nats: float | None = Field(default=None, ge=0, description="ln of the vocabulary, if it was written down")
    unigram_nats: float | None = Field(default=None, ge=0, description="what a context-free model of the text scores")
    unigram_note: str = ""
    bigram_nats: float | None = Field(default=None, ge=0)
    reference_nats: float | None = Field(
        default=None, ge=0, description="best score on the validation text by a model without access to it"
    )
    reference_note: str = ""
    parent: Parent | None = None
    text: Literal["natural", "code", "synthetic"] | None = None

    train_scope: str = Field(default="", description="what one train_loss was averaged over, in words")
    train_mode: Literal["train", "eval"] | None = Field(default=None, description="mode that train_loss is computed in")
    train_window_steps: Whole = Field(default=None, ge=1, description="steps that one train_loss is a mean of")
    same_checkpoint: bool | None = Field(default=None, description="both losses are of the same weights")
    same_reduction: bool | None = Field(default=None, description="both are means over tokens, or over the same unit")
    same_masking: bool | None = Field(default=None, description="the same kinds of token carry both losses")
    val_fixed: bool | None = Field(default=None, description="every evaluation scores the same documents")
    dropout: float | None = Field(default=None, ge=0, lt=1)
    lora_dropout: float | None = Field(default=None, ge=0, lt=1)

    n_train_docs: Whole = Field(default=None, ge=0)
    n_val_docs: Whole = Field(default=None, ge=0)
    val_tokens: Whole = Field(default=None, ge=0)
    corpus_tokens: Whole = Field(default=None, ge=1)
    unique_tokens: Whole = Field(default=None, ge=1, description="of the train side, after near-deduplication")
    trained_tokens: Whole = Field(default=None, ge=0, description="consumed so far, repeats counted")
    corpus_passes: float | None = Field(default=None, gt=0)
    shuffled: bool | None = None
    val_in_train: Share | None = Field(
        default=None, description="share of the validation sequences that the lineage was trained on, by code or hashes"
    )
    val_in_train_from: str = Field(default="", description="what shows it")
    lineage_complete: bool | None = Field(default=None, description="every ancestor's data was looked at")
    val_trend: Literal["rising", "flat", "falling"] | None = Field(
        default=None, description="of the validation loss, where it is stated and not logged"
    )

    batch: Whole = Field(default=None, ge=1, description="sequences of one update, or of one micro-batch")
    effective_batch: Whole = Field(default=None, ge=1)
    seq_len: Whole = Field(default=None, ge=1)
    steps: Whole = Field(default=None, ge=0)
    steps_total: Whole = Field(default=None, ge=0)
    max_steps: Whole = Field(default=None, ge=0)
    iterations: Whole = Field(default=None, ge=0)
    steps_per_epoch: Whole = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, ge=0)
    epochs_actual: float | None = Field(default=None, ge=0)
    eval_every: Whole = Field(default=None, ge=1)
    val_every: Whole = Field(default=None, ge=1)
    evals_per_epoch: float | None = Field(default=None, gt=0)
    step0_val: float | None = Field(default=None, ge=0, description="validation loss before the first update")

    # what is told of a run, and read by people only
    best_epoch: float | None = None
    target_val_loss: float | None = None
    trainable_params: Whole = Field(default=None, ge=0)
    weight_decay: float | None = None
    declared_goal: str = ""
    points: str = ""
    values_are: str = ""
    document_text: str = ""

    @model_validator(mode="after")
    def _says_what_shows_it(self) -> Settings:
        if self.val_in_train is not None and not self.val_in_train_from:
            raise ValueError("val_in_train needs val_in_train_from: the code, or the hashes, that show it")
        return self


@dataclass(frozen=True)
class Point:
    """One logged row; None where it says nothing. Losses in nats per token."""

    step: int | None = None
    epoch: float | None = None
    train: float | None = None
    val: float | None = None
    tokens: int | None = None
    wall: float | None = None  # seconds since the start
    scope: str = ""  # what `train` was averaged over
    position: float | None = None  # of the data trained on: 1 nearest to the validation part, or at the end of a pass

    def scaled(self, factor: float) -> Point:
        """Return the point with its losses in another unit."""
        return replace(
            self,
            train=None if self.train is None else self.train * factor,
            val=None if self.val is None else self.val * factor,
        )


@dataclass(frozen=True, eq=False)
class Steps:
    """Every update as it was applied, in order; arrays of shape [steps]."""

    step: Floats
    loss: Floats
    tokens: Floats
    seconds: Floats
    windows: tuple[str, ...]  # digest of what was consumed, of the window ids
    passes: int  # passes over the train side, begun ones counted
    changed: float | None = None  # share of the weights that a measured update changed, the median of those measured


@dataclass(frozen=True, eq=False)
class Scores:
    """Losses of documents at checkpoints, in evaluation mode: nats and target tokens, shape [steps, documents].

    A document that was not scored at a step is NaN there.
    """

    documents: tuple[str, ...]
    steps: tuple[int, ...]
    nll: Floats
    tokens: Floats

    @property
    def fixed(self) -> bool:
        """Whether every step scored the same documents."""
        return not np.isnan(self.nll).any()

    @property
    def retokenized(self) -> bool:
        """Whether a document has other token counts at another step."""
        most, least = np.nanmax(self.tokens, axis=0), np.nanmin(self.tokens, axis=0)
        return bool((most != least).any())

    @property
    def losses(self) -> Floats:
        """Nats per token at each step, shape [steps]."""
        found: Floats = np.nansum(self.nll, axis=1) / np.nansum(self.tokens, axis=1)
        return found


@dataclass(frozen=True)
class Identity:
    """The join of held-out documents with everything the lineage consumed."""

    validation: frozenset[str]
    shared: frozenset[str]  # of these, the ones that were trained on
    complete: bool  # whether all ancestors' data was looked at
    incomplete_because: str = ""


@dataclass(frozen=True)
class Coverage:
    """How many held-out documents stand in the train side for the most part, of how many, on both held-out sides."""

    validation: tuple[int, int]
    control: tuple[int, int]


@dataclass(frozen=True)
class RunRecord:
    """One run as diagnosis takes it. `name` and `source` are shown and decide nothing."""

    points: tuple[Point, ...] = ()
    settings: Settings = field(default_factory=Settings)
    name: str = ""
    source: str = ""
    broke: str = ""  # the first number that was not finite, and where
    invalid: tuple[str, ...] = ()  # where the record contradicts itself, found as it was read
    steps: Steps | None = None
    tokens_per_step: float | None = None  # as planned
    validation: Scores | None = None
    train_probe: Scores | None = None
    control: Scores | None = None
    unigram: Mapping[str, float] | None = None  # document -> nats, on the tokens that the evaluation scores
    reference: Mapping[str, float] | None = None  # document -> nats by a model without access
    identity: Identity | None = None
    covered: Coverage | None = None  # by 50-token matches
    near: Coverage | None = None  # near-duplicates of a train document
    dirty: frozenset[str] = frozenset()  # validation documents covered by matches, for the effect of overlap
    batches: tuple[BatchRow, ...] = ()
    paths: tuple[PathRow, ...] = ()
    permuted: tuple[PermutedRow, ...] = ()
    canaries: tuple[CanaryRow, ...] = ()
    extraction: tuple[ExtractionRow, ...] = ()
    membership: tuple[MembershipRow, ...] = ()
    samples: tuple[SampleRow, ...] = ()
    remarks: tuple[str, ...] = field(default=(), compare=False)  # what a reader of the log had to say

    @property
    def tier(self) -> int:
        """The kind of evidence there is: 0 a table, 1 documents, 2 identities, 3 a control with extraction or canaries."""
        joined = self.identity is not None or self.settings.val_in_train is not None
        if joined and self.control is not None and (self.extraction or self.canaries):
            return 3
        if joined:
            return 2
        return 1 if self.validation is not None else 0


# ── from a run's folder ──────────────────────────────────────────────────────────────────────────


def from_run(observed: Observed, name: str = "") -> RunRecord:
    """Return the record of a run folder: of our own, or of another trainer whose numbers were reported."""
    intent = observed.intent
    reported = observed.of(ReportedRow)
    broke = next((f"{row.name} at step {row.step}" for row in observed.of(NoticeRow) if row.name in NON_FINITE), "")
    remarks = tuple(row.message for row in observed.of(NoticeRow) if row.name == "remark")
    if reported:
        points = [
            Point(row.step, row.epoch, row.train_loss, row.val_loss, row.tokens, row.wall, row.scope, row.position)
            for row in reported
        ]
        found = Settings(vocab=intent.planned.vocabulary, **redrawn(remarks))
        return RunRecord(tuple(points), found, name, "reported", broke, remarks=remarks)
    steps = steps_of(observed.of(StepRow))
    passed = passed_of(steps, observed)
    scores = scores_of(observed.of(EvaluationRow))
    validation = scores.get("validation")
    overlaps = observed.of(OverlapRow)
    scored_by = {row.document: row.nll for row in observed.of(ReferenceRow) if row.split == "validation"}
    reference = _another(scored_by, validation)
    return RunRecord(
        points=_points(steps, passed, validation, intent.promise.evaluation.every),
        settings=_settings(observed, steps, None if steps is None else passed is None, probed="train_probe" in scores),
        name=name,
        source="rows",
        broke=broke,
        steps=steps,
        # examples are of different lengths: their steps are planned as a whole
        tokens_per_step=None if intent.promise.data.examples else intent.planned.tokens / intent.planned.steps,
        validation=validation,
        train_probe=scores.get("train_probe"),
        control=scores.get("control"),
        unigram={row.document: row.unigram_nll for row in observed.of(FloorRow)} or None,
        reference=reference,
        identity=_identity(observed, validation),
        covered=coverage((row.split, row.covered_50 >= COVERED * row.tokens) for row in overlaps if row.tokens),
        near=_near(observed.of(CorpusRow)),
        dirty=frozenset(row.document for row in overlaps if row.tokens and row.covered_50 >= COVERED * row.tokens),
        batches=observed.of(BatchRow),
        paths=observed.of(PathRow),
        permuted=observed.of(PermutedRow),
        canaries=observed.of(CanaryRow),
        extraction=observed.of(ExtractionRow),
        membership=observed.of(MembershipRow),
        samples=observed.of(SampleRow),
        remarks=(ITSELF,) if scored_by and reference is None else (),
    )


def _another(scored_by: Mapping[str, float], validation: Scores | None) -> Mapping[str, float] | None:
    """Return what a reference scored, unless it is this run's own model: that is no yardstick (CASE-10)."""
    if validation is None or not scored_by:
        return scored_by or None
    asked = [number for number, document in enumerate(validation.documents) if document in scored_by]
    told = np.array([scored_by[validation.documents[number]] for number in asked])
    own = any(len(asked) > 1 and np.array_equal(told, nll[asked]) for nll in validation.nll)
    return None if own else scored_by


def redrawn(remarks: Iterable[str]) -> dict[str, Any]:
    """Return what a reader's remarks settle about the validation subset."""
    return {"val_fixed": False} if any("anew" in remark and "CASE-21" in remark for remark in remarks) else {}


def _settings(observed: Observed, steps: Steps | None, shuffled: bool | None, probed: bool) -> Settings:
    """Return what a run of ours knows of itself: evaluations are token means, in evaluation mode, of kept weights."""
    floors = observed.of(FloorRow)
    tokens = sum(row.tokens for row in floors)
    losses = [row.loss for row in observed.of(LineageRow) if row.loss is not None]
    source = observed.intent.promise.data.source.kind
    return Settings(
        vocab=observed.intent.planned.vocabulary,
        unigram_nats=sum(row.unigram_nll for row in floors) / tokens if tokens else None,
        bigram_nats=sum(row.bigram_nll for row in floors) / tokens if tokens else None,
        parent=Parent(phase="ancestor", val_loss=min(losses)) if losses else None,
        text="code" if source == "stdlib" else None,
        train_mode="eval" if probed else None,
        same_checkpoint=True if probed else None,
        same_reduction=True,
        same_masking=True,
        trained_tokens=int(steps.tokens.sum()) if steps is not None else None,
        steps=observed.intent.planned.steps,
        corpus_passes=observed.intent.planned.passes,
        shuffled=shuffled,
    )


def steps_of(rows: Sequence[StepRow]) -> Steps | None:
    """Return step rows as columns, in order of step."""
    if not rows:
        return None
    rows = sorted(rows, key=lambda row: row.step)
    changed = [row.changed for row in rows if row.changed is not None]
    return Steps(
        step=np.array([row.step for row in rows], float),
        loss=np.array([row.loss for row in rows], float),
        tokens=np.array([row.tokens for row in rows], float),
        seconds=np.array([row.seconds for row in rows], float),
        windows=tuple(row.windows for row in rows),
        passes=max(row.passed for row in rows) + 1,
        changed=float(np.median(changed)) if changed else None,
    )


def passed_of(steps: Steps | None, observed: Observed) -> Floats | None:
    """Return how many passes over the train side lay behind each step, shape [steps], where it was read in order.

    None where it was not: windows of a pass come in an order drawn by seed, and the digests of what was consumed show it.
    """
    around, sequences = observed.intent.planned.windows, observed.intent.promise.training.sequences
    if steps is None or around is None:
        return None
    passed = np.empty(len(steps.step))
    for number, (step, consumed) in enumerate(zip(steps.step, steps.windows, strict=True)):
        windows = (int(step) - 1) * sequences + np.arange(sequences)
        if hashlib.sha256((windows % around).astype("<i8").tobytes()).hexdigest()[:16] != consumed:
            return None
        passed[number] = windows.mean() / around
    return passed


def scores_of(rows: Iterable[EvaluationRow]) -> dict[str, Scores]:
    """Return the losses of each split's documents as a table; a split of which nothing was scored is not there."""
    splits: dict[str, list[EvaluationRow]] = {}
    for row in rows:
        splits.setdefault(row.split, []).append(row)
    return {split: _table(scored) for split, scored in splits.items()}


def _table(rows: Sequence[EvaluationRow]) -> Scores:
    at, document = [row.step for row in rows], [row.document for row in rows]
    documents, steps = tuple(sorted(set(document))), tuple(sorted(set(at)))
    across = dict(zip(documents, range(len(documents)), strict=True))
    down = dict(zip(steps, range(0, len(steps) * len(documents), len(documents)), strict=True))
    places = np.fromiter(map(down.__getitem__, at), np.int64) + np.fromiter(map(across.__getitem__, document), np.int64)
    tables = []
    for values in ([row.nll for row in rows], [row.tokens for row in rows]):
        table = np.full((len(steps), len(documents)), np.nan)
        table.flat[places] = values
        tables.append(table)
    return Scores(documents, steps, *tables)


def _points(steps: Steps | None, passed: Floats | None, validation: Scores | None, every: int) -> tuple[Point, ...]:
    """Return one point an evaluation: its loss, and the mean training loss of the steps since the one before.

    Where the stream was read in order, also how far into a pass those steps lay: once a first pass is over, and if two
    whole ones follow. Before, what lies further on is also read later, and learning cannot be told from position.
    """
    if validation is None:
        return ()
    placed = passed if passed is not None and passed[-1] > PASSES else None
    points = []
    for at, loss in zip(validation.steps, validation.losses.tolist(), strict=True):
        train = position = None
        if steps is not None:
            window = (steps.step > at - every) & (steps.step <= at)
            train = float(steps.loss[window].mean()) if window.any() else None
            if placed is not None and window.any() and placed[window].min() >= 1:
                position = float((placed[window] % 1).mean())
        points.append(Point(at, train=train, val=loss, position=position))
    return tuple(points)


def _identity(observed: Observed, scored: Scores | None) -> Identity | None:
    exposures = observed.of(ExposureRow)
    validation = set(scored.documents) if scored is not None else set()
    validation |= {row.document for row in observed.of(CorpusRow) if row.split == "validation"}
    validation |= {one for row in observed.of(UnlistedRow) if row.split == "validation" for one in row.members}
    if not exposures or not validation:
        return None
    trained = {row.document for row in exposures if row.consumed}
    trained |= {row.document for row in observed.of(CorpusRow) if row.split == "train"}
    inherited = observed.of(InheritedRow)
    trained |= {row.document for row in inherited}
    ancestors = observed.of(LineageRow)
    known = {row.ancestor for row in inherited}
    unknown = [row.ancestor for row in ancestors if not row.manifest or row.ancestor not in known]
    from_scratch = isinstance(observed.intent.promise.model, Decoder)
    because = f"{unknown[0]} has no manifest" if unknown else "" if ancestors or from_scratch else "no lineage rows"
    return Identity(frozenset(validation), frozenset(validation & trained), not because, because)


def coverage(documents: Iterable[tuple[str, bool]]) -> Coverage | None:
    """Return how many of (split, hit) are hits on each held-out side, or None where a side is missing."""
    counted = {"validation": [0, 0], "control": [0, 0]}
    for split, hit in documents:
        counted[split][0] += hit
        counted[split][1] += 1
    if not (counted["validation"][1] and counted["control"][1]):
        return None
    return Coverage(
        (counted["validation"][0], counted["validation"][1]), (counted["control"][0], counted["control"][1])
    )


def _near(corpus: Sequence[CorpusRow]) -> Coverage | None:
    """Return the held-out documents that share a near-duplicate cluster with a train document."""
    trained = {row.cluster or row.document for row in corpus if row.split == "train"}
    if not trained:
        return None
    return coverage(
        (row.split, (row.cluster or row.document) in trained)
        for row in corpus
        if row.split in ("validation", "control")
    )


# ── what the words of a scope say ────────────────────────────────────────────────────────────────


def mode_of(scope: str) -> Literal["train", "eval"] | None:
    """Return the mode that a train loss was computed in, as its scope says, or None where it does not."""
    if re.search(r"eval(uation)?[ -]mode|train(ing)? probe", scope, re.IGNORECASE):
        return "eval"
    if re.search(r"train(ing)?[ -]mode|online|running mean|since the last|micro-batch", scope, re.IGNORECASE):
        return "train"
    return None


def of_one_batch(scope: str, batch: int | None = None) -> bool:
    """Say whether a train loss is of a single batch: such values support no trend and no gap (CASE-22)."""
    return bool(re.search(r"(last|single|one) (logged )?(micro-?batch|step|batch|example)", scope, re.IGNORECASE))
