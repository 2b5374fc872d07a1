"""Rows: one line of what was observed. Every number a run reports is computed from these.

A run keeps one file a kind, `rows/<kind>.jsonl`; each row names its run, so that none can be moved
to another unnoticed. Losses are kept as sums of nats with their token counts, never as averages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sovereign.canonical import Malformed, Problem, Record, digest, parse_json, validate

DocumentId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="first 16 hex digits of the text's sha256")]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Split = Literal["train", "validation", "control"]
LeftOut = Literal[
    "too_short", "too_long", "not_utf8", "exact_duplicate", "licence", "near_duplicate", "over_share", "not_drawn"
]
Evaluated = Literal["validation", "train_probe", "control"]


class Row(Record):
    run: str


class CorpusRow(Row):
    """A document that the run uses, and its side. Runs of before also list those that were left out, and why."""

    kind: Literal["corpus"] = "corpus"
    document: DocumentId
    name: str
    split: Literal["train", "validation", "control", "left_out"]
    reason: LeftOut | Literal[""] = ""
    bytes: Count
    tokens: Count
    cluster: DocumentId | Literal[""] = Field(
        default="", description="first document of its near-duplicate cluster; empty where it is that itself"
    )
    origin: DocumentId | Literal[""] = Field(default="", description="the document that an example was cut from")
    round_trip: Literal["", "exact", "differs"] = Field(
        default="", description="whether its text comes back from its ids; empty where that was not tried"
    )

    def plain(self) -> dict[str, Any]:
        """Return the row as plain JSON values; what is empty is left out, since there are many of these."""
        return {key: value for key, value in super().plain().items() if value != ""}


class UnlistedRow(Row):
    """Documents that the source held and no corpus row lists: left out for one reason, or held out and never scored.

    Those held out are named, so that whoever begins from this run never trains on them; of the others there is a digest.
    """

    kind: Literal["unlisted"] = "unlisted"
    split: Literal["validation", "control", "left_out"]
    reason: LeftOut | Literal["not_scored"]
    origin: DocumentId | Literal[""] = Field(
        default="", description="the document that examples held out were cut from"
    )
    documents: int = Field(ge=1, description="how many; an exact duplicate counts each time")
    bytes: Count
    tokens: Count
    ids: str = Field(pattern=r"^sha256:[0-9a-f]{64}$", description="digest of the list of their ids, sorted")
    members: tuple[DocumentId, ...] = Field(
        default=(), description="the ids themselves, sorted, where they were held out"
    )

    @model_validator(mode="after")
    def _names_what_it_holds_out(self) -> UnlistedRow:
        if (self.split == "left_out") != (not self.members) or (self.split == "left_out") != (
            self.reason != "not_scored"
        ):
            raise ValueError(
                f"split {self.split}, reason {self.reason}, {len(self.members)} members: what is held out "
                "was not_scored and names its members, what is left out names a reason and none"
            )
        if self.members and (len(set(self.members)) != self.documents or digest(sorted(self.members)) != self.ids):
            raise ValueError(f"{len(self.members)} members, with another count or digest than it states")
        return self


class TokenizerRow(Row):
    """What the tokenizer makes of one of a fixed list of strings, the same for every tokenizer."""

    kind: Literal["tokenizer"] = "tokenizer"
    text: str
    ids: tuple[Count, ...]
    exact: bool = Field(description="whether the string comes back from its ids")


class PositionRow(Row):
    """The loss of a run of one document's tokens, by how far into the window they stand."""

    kind: Literal["position"] = "position"
    step: Count
    document: DocumentId
    start: Count = Field(
        description="tokens before the first target's own input: 0 is given one token, the end-of-text"
    )
    stop: int = Field(ge=1, description="first position that is not counted any more")
    nll: float = Field(ge=0, description="nats, summed over the targets from start to stop")
    tokens: int = Field(ge=1)


class OverlapRow(Row):
    """How much of a held-out document stands in the train side, in tokens covered by matches."""

    kind: Literal["overlap"] = "overlap"
    document: DocumentId
    split: Literal["validation", "control"]
    tokens: Count
    covered_13: Count = Field(description="tokens inside a 13-gram that the train side holds")
    covered_50: Count = Field(description="tokens inside a 50-gram that the train side holds")


class FloorRow(Row):
    """What counting alone would score on the tokens of a validation document."""

    kind: Literal["floor"] = "floor"
    document: DocumentId
    tokens: Count
    unigram_nll: float = Field(ge=0, description="nats, add-one unigram counted on the train side")
    bigram_nll: float = Field(ge=0, description="nats, bigram interpolated with that unigram")


class StepRow(Row):
    """One optimizer update, as it was applied."""

    kind: Literal["step"] = "step"
    step: int = Field(ge=1)
    loss: float = Field(description="nats per target token: summed loss over counted targets, all micro-batches")
    tokens: int = Field(ge=1, description="target tokens counted in the loss of this step")
    learning_rate: float = Field(ge=0, description="read from the optimizer as the update was applied")
    grad_norm: float = Field(ge=0, description="before clipping")
    seconds: Seconds
    clock: Seconds = Field(description="training time since step 0, over all segments of a resumed run")
    windows: str = Field(pattern=r"^[0-9a-f]{16}$", description="digest of the ids of the windows consumed, in order")
    passed: Count = Field(description="the pass over the train side that the first window belongs to")
    update_ratio: float | None = Field(
        default=None, ge=0, description="size of the update over the size of the weights, on a sample; not every step"
    )
    changed: Share | None = Field(default=None, description="share of the sampled elements that the update changed")
    loss_scale: float | None = Field(
        default=None, gt=0, description="what the loss was multiplied by before its gradient was taken, in fp16"
    )
    overflows: Count = Field(
        default=0, description="times the gradient was infinite, and taken again from the same batch at half the scale"
    )


class EvaluationRow(Row):
    """The loss of one document at one checkpoint, in evaluation mode."""

    kind: Literal["evaluation"] = "evaluation"
    step: Count
    split: Evaluated
    document: DocumentId
    nll: float = Field(ge=0, description="nats, summed over the target tokens")
    tokens: int = Field(ge=1)


class ExposureRow(Row):
    """How often the windows of one document were trained on, counted from the windows consumed."""

    kind: Literal["exposure"] = "exposure"
    document: DocumentId
    windows: Count = Field(description="windows that hold some of it")
    consumed: Count = Field(description="times such a window was consumed")
    most: Count = Field(description="times the most consumed of them was")


class SampleRow(Row):
    """A seeded continuation of a held-out prompt, by the model or by a control that cannot write."""

    kind: Literal["sample"] = "sample"
    step: Count
    sampler: Literal["model", "bigram", "newline"]
    prompt_id: int = Field(ge=0)
    document: DocumentId
    prompt: str
    text: str
    seed: Count


class ReplayRow(Row):
    """Steps repeated from a checkpoint: the state they led to, beside the state of the straight run."""

    kind: Literal["replay"] = "replay"
    checkpoint: Count = Field(description="step of the checkpoint resumed from")
    step: Count = Field(description="step compared")
    straight_loss: float
    replayed_loss: float
    straight: str = Field(description="digest of the weights after this step in the straight run")
    replayed: str


class ProbeRow(Row):
    """A question put to the model or its training apart from the run's own steps, and what came of it."""

    kind: Literal["probe"] = "probe"
    step: Count = Field(description="updates of the run when it was asked")
    probe: Literal["first_loss", "overfit_one_batch"]
    update: Count = Field(default=0, description="updates made within the probe, on a model of its own")
    loss: float = Field(ge=0, description="nats per target token")
    tokens: int = Field(ge=1, description="target tokens it is taken over")
    expected: float | None = Field(default=None, description="what it should be near")


class NoticeRow(Row):
    """Something that was not as asked, or that a guard saw: nothing is silent."""

    kind: Literal["notice"] = "notice"
    step: Count
    name: str
    asked: str = ""
    got: str = ""
    message: str


class ReportedRow(Row):
    """What somebody else's trainer printed, as it printed it; a row without a loss says only that a step was reached."""

    kind: Literal["reported"] = "reported"
    step: Count = Field(description="as the trainer counts them")
    epoch: float | None = Field(default=None, ge=0)
    train_loss: float | None = Field(default=None, ge=0, description="nats per token, by the trainer's word")
    scope: str = Field(default="", description="what train_loss was averaged over; empty where nobody says")
    val_loss: float | None = Field(default=None, ge=0, description="nats per token, by the trainer's word")
    learning_rate: float | None = Field(default=None, ge=0, description="a callback reads it from the optimizer")
    grad_norm: float | None = Field(default=None, ge=0)
    tokens: Count | None = Field(default=None, description="trained on so far")
    wall: Seconds | None = Field(default=None, description="since the start")
    entry: Count | None = Field(default=None, description="line of the log, or number of its entry, counted from 1")
    position: Share | None = Field(
        default=None, description="where in the data the row was trained: 1 where it is nearest to the validation part"
    )


Comparison = Literal["golden", "noise", "weights", "implementation", "whole", "decode"]
Distances = tuple[Annotated[float, Field(ge=0)], ...]


class ParityRow(Row):
    """Two forward passes over one prompt, held against each other position by position; lists have an entry a position.

    golden: the reference in float32 against itself in float64. noise: against itself with weights that err as much as
    quantization should. weights: against the candidate's weights, products exact. implementation: the candidate's weights
    in our forward, rounding as the engine does, against the engine. whole: the reference against the engine. decode: the
    candidate in one go against the candidate token by token.
    """

    kind: Literal["parity"] = "parity"
    comparison: Comparison
    reference: str
    candidate: str
    document: DocumentId = Field(description="first 16 hex digits of the sha256 of the prompt's token ids")
    tokens: int = Field(ge=1)
    relative_l2: Distances = Field(description="of the logits")
    cosine: tuple[float, ...]
    max_difference: Distances
    kl: Distances = Field(description="nats, KL(reference || candidate)")
    margin: Distances = Field(description="between the reference's two highest logits")
    agree: tuple[bool, ...] = Field(description="whether the most likely token is the same")
    reference_nll: float = Field(ge=0, description="nats, summed over the tokens that follow a position")
    candidate_nll: float = Field(ge=0)
    targets: Count
    reference_first: Share = Field(description="probability of the token most likely to the reference after the prompt")
    candidate_first: Share = Field(description="the candidate's probability of the same token")
    first_tie: Count | None = Field(
        default=None, description="first position with a quotient that may round either way"
    )
    engine: str = Field(default="", description="who carried the candidate out; empty is our own forward")


class ParityLayerRow(Row):
    """One layer fed with what the engine had before it, against what the engine had behind it; an entry a position."""

    kind: Literal["parity_layer"] = "parity_layer"
    document: DocumentId
    layer: Count
    relative_l2: Distances
    ties: tuple[str, ...] = Field(description="position:operation of each product that meets a quotient near a half")
    window: float | None = Field(
        default=None, gt=0, description="how near a quotient is to a half where float32 may round it either way"
    )
    near: tuple[str, ...] = Field(default=(), description="position:operation of each product within that window")
    products: Count = Field(default=0, description="products of a position whose input is rounded")
    engine: str = ""


class ParityGreedyRow(Row):
    """How both sides go on from a prompt, each from the tokens that it chose itself; lists have an entry a token."""

    kind: Literal["parity_greedy"] = "parity_greedy"
    document: DocumentId
    engine: str = ""
    reference: tuple[Count, ...]
    candidate: tuple[Count, ...]
    margin: Distances = Field(description="between the reference's two highest logits, along its own way")


class ParityPlantedRow(Row):
    """A fault planted in a copy of the export, and what the check said of that copy."""

    kind: Literal["parity_planted"] = "parity_planted"
    fault: str
    planted: str = Field(description="the tensor, operation or precondition that it was planted in")
    seen: bool
    named: str = Field(default="", description="what was named first: an operation, a tensor or a precondition")
    right: bool = Field(description="whether that is where it was planted")
    said: str = Field(default="", description="the check's own sentence")
    engine: str = ""


class ExportRow(Row):
    """The file that a run ships, and whether another program takes it."""

    kind: Literal["export"] = "export"
    quantize: str
    bytes: Count
    weights: int = Field(ge=1, description="numbers in its tensors")
    engine: str = Field(default="", description="who was asked to load it; empty is our own reader")
    refused: str = Field(default="", description="the words with which it was refused; empty where it was loaded")
    texts: Count = Field(default=0, description="held-out texts given to both tokenizers")
    otherwise: Count = Field(
        default=0, description="texts that are other token ids to the engine, or to our own reader"
    )


class ParityPlaceRow(Row):
    """One operation of a layer, fed with what the candidate had before it: how far its outcome is from the reference's."""

    kind: Literal["parity_place"] = "parity_place"
    layer: int = Field(ge=-1)
    operation: str
    tensor: str
    worst: float = Field(ge=0, description="relative L2, at the worst position")
    mean: float = Field(ge=0)
    floor: float = Field(ge=0, description="what float32 costs the reference there, at the worst position")
    allowed: float = Field(ge=0)
    suspicions: tuple[str, ...] = Field(
        default=(), description="faults that explain it, given for the first that parts"
    )
    engine: str = ""


class ParityTensorRow(Row):
    """One tensor of the candidate as stored, against what the reference's would be in the same type."""

    kind: Literal["parity_tensor"] = "parity_tensor"
    tensor: str
    type: str
    relative_error: float = Field(
        ge=0, description="root mean square, of the dequantized tensor against the reference's"
    )
    expected_error: float = Field(ge=0, description="told from the reference's own blocks in that type")
    blocks: Count
    differing: Count = Field(description="blocks whose bytes are not those of the reference quantized here")
    suspicion: str = ""


class CostRow(Row):
    """What a part of the run cost: wall seconds and the largest resident memory so far."""

    kind: Literal["cost"] = "cost"
    part: str
    seconds: Seconds
    peak_bytes: Count
    tokens: Count = 0
    flops: float | None = Field(default=None, ge=0, description="floating-point operations, where they were counted")


class DeviceRow(Row):
    """Where something that training holds was found to lie; one row for each device it lies on."""

    kind: Literal["device"] = "device"
    step: Count = Field(description="after this update")
    what: Literal["weights", "moments", "allocated"] = Field(
        description="tensors of the model, what the optimizer keeps of them, or what a GPU's allocator has given out"
    )
    device: str = Field(description="kind of device, as torch names it", max_length=32)
    bytes: Count


class PathRow(Row):
    """One train batch, scored by the path that training optimises and by the path that evaluation takes.

    Same weights, same windows, dropout off in both: whatever differs is the evaluation's fault, or the training's.
    """

    kind: Literal["path"] = "path"
    step: Count
    windows: str = Field(pattern=r"^[0-9a-f]{16}$", description="digest of the ids of the windows scored, in order")
    tokens: int = Field(ge=1, description="target tokens, counted alike by both paths")
    train_nll: float = Field(ge=0, description="nats, summed, as the training step computes its loss")
    eval_nll: float = Field(ge=0, description="nats, summed, as an evaluation computes it")
    precision: Literal["bf16", "fp16", "fp32"]


class PermutedRow(Row):
    """A validation document whose target tokens were put out of order before it was scored.

    A model without sight of the future does no better on permuted text than counting words does, and no better on
    uniformly random ids than ln V: an evaluation that does leaks its targets, or scores something else.
    """

    kind: Literal["permuted"] = "permuted"
    step: Count
    document: DocumentId
    order: Literal["permuted", "random"] = Field(description="its own tokens shuffled, or ids drawn uniformly")
    nll: float = Field(ge=0, description="nats, summed over the target tokens")
    tokens: int = Field(ge=1)
    seed: Count


class BatchRow(Row):
    """What one step was really fed: the content of its batch by digest, not the ids that the loader meant to give.

    Two steps with one digest saw the same tokens, whatever their window ids say.
    """

    kind: Literal["batch"] = "batch"
    step: int = Field(ge=1)
    content: str = Field(pattern=r"^[0-9a-f]{16}$", description="first 16 hex digits of the sha256 of its token ids")
    sequences: int = Field(ge=1)
    distinct: int = Field(ge=1, description="sequences that differ from every other of the batch")
    padding: Count = Field(default=0, description="padding tokens counted in the loss; there should be none")


class CanaryRow(Row):
    """A secret planted in the train side `copies` times, and its rank among secrets of the same format never planted.

    Exposure is log2(candidates + 1) - log2(rank) (Carlini et al. 2019, Secret Sharer). Its loss must be finite: a
    model of NaNs ranks every secret first.
    """

    kind: Literal["canary"] = "canary"
    step: Count
    canary: str = Field(max_length=64, description="a name; the secret itself stands nowhere")
    copies: int = Field(ge=1, description="times it was planted")
    nll: float = Field(ge=0, description="nats of the secret after its prefix")
    rank: int = Field(ge=1, description="1 is the lowest loss")
    candidates: int = Field(ge=1, description="secrets that were never planted, ranked with it")


class ExtractionRow(Row):
    """A passage whose beginning was shown to the model, and how far it went on word for word, decoding greedily.

    Passages of the control were never trained on: what is continued there is boilerplate, not memory.
    """

    kind: Literal["extraction"] = "extraction"
    step: Count
    side: Literal["train", "control"]
    document: DocumentId
    start: Count = Field(description="token of the document at which the prompt begins")
    prompt: int = Field(ge=1, description="tokens shown; 50 in Carlini et al. 2022")
    continued: int = Field(ge=1, description="tokens asked for; 50 there")
    matched: Count = Field(description="tokens right before the first wrong one; a passage counts when all are")
    copies: Count = Field(default=1, description="times the passage stands in the train side; 0 in the control")


class MembershipRow(Row):
    """How familiar the model finds a document: higher is more so. Attacks compare train with control by it."""

    kind: Literal["membership"] = "membership"
    step: Count
    side: Literal["train", "validation", "control"]
    document: DocumentId
    score: float
    method: str = Field(max_length=32, description="loss, or min-k++ with its k (Zhang et al. 2024)")


class NoveltyRow(Row):
    """How much of a text stands in the train side: of a generation, or of held-out text, which is its control."""

    kind: Literal["novelty"] = "novelty"
    step: Count
    source: Literal["model", "held_out"]
    text: Count = Field(description="prompt or document, by number")
    tokens: int = Field(ge=1)
    seen_4: Share = Field(description="share of its 4-grams that the train side holds")
    seen_10: Share = Field(description="share of its 10-grams")
    longest: Count = Field(description="tokens of the longest run that stands in the train side")


class ReferenceRow(Row):
    """What another model, which never had access to it, scores on a document: the ceiling, and a yardstick."""

    kind: Literal["reference"] = "reference"
    document: DocumentId
    split: Literal["validation", "control"]
    nll: float = Field(ge=0, description="nats over the same bytes, whatever its own tokens are")
    tokens: int = Field(ge=1, description="target tokens of the model that is judged, so that both have one unit")
    model: str = Field(max_length=200, description="its name and revision, or the run")


class LineageRow(Row):
    """An ancestor of the weights that this run began from; one without a manifest leaves the data claims open."""

    kind: Literal["lineage"] = "lineage"
    ancestor: str = Field(max_length=200, description="run, or model and revision")
    manifest: str = Field(default="", description="digest of what it was trained on; empty where nobody knows")
    loss: float | None = Field(default=None, ge=0, description="its own score on its own held-out part, nats per token")


class InheritedRow(Row):
    """A document that an ancestor was trained on, so that a held-out document is held out of the whole lineage."""

    kind: Literal["inherited"] = "inherited"
    ancestor: str = Field(max_length=200)
    document: DocumentId
    consumed: int = Field(ge=1, description="times one of its windows was consumed")


class AttestationRow(Row):
    """What was to be true of a tuned model, and what was found in the live one."""

    kind: Literal["attestation"] = "attestation"
    step: Count
    subject: Literal[
        "loaded_tensors", "parent_loss", "trainable_parameters", "adapters", "frozen_weights", "quantized_weights",
        "vocabulary", "embedding_rows",
    ]  # fmt: skip
    expected: str
    found: str
    tolerance: float = Field(
        default=0.0, ge=0, description="share of the expected number; 0 where the two must be equal"
    )


class Piece(Record):
    """A stretch of an example's text, and whether its tokens carry loss."""

    text: str
    learned: bool


class MaskRow(Row):
    """One example as it is trained on: what is given, and what is learned."""

    kind: Literal["mask"] = "mask"
    document: DocumentId
    pieces: tuple[Piece, ...]
    tokens: int = Field(ge=1, description="inputs")
    targets: int = Field(ge=1, description="tokens that carry loss")
    cut: Count = Field(description="tokens beyond the context, over all examples")


class PredictionRow(Row):
    """The label that was given to a held-out text: by the model, or by a floor that needs none."""

    kind: Literal["prediction"] = "prediction"
    step: Count
    split: Literal["validation", "control"]
    by: Literal["model", "majority", "bag_of_words", "prompt"] = Field(
        description="prompt: the base, which was asked and never trained on a label"
    )
    document: DocumentId
    label: str
    predicted: str


class GenerationRow(Row):
    """An answer to a prompt: by the base, and by the tuned model on the same draws."""

    kind: Literal["generation"] = "generation"
    step: Count
    writer: Literal["base", "tuned"]
    prompt_id: Count
    attempt: Count
    canary: bool = Field(default=False, description="a prompt of the contract's own, without a reference")
    document: DocumentId | Literal[""] = ""
    prompt: str
    reference: str = ""
    text: str
    copied: bool = Field(default=False, description="whether it stands word for word among the answers trained on")
    seed: Count


ClaimName = Annotated[str, Field(pattern=r"^[A-Z]+(_[A-Z]+)*$", max_length=32)]


class ScenarioRow(Row):
    """What the diagnosis said of a run with something planted in it, what it had to say, and the proof that the plant took.

    A trained run stands in several rows: one with all its evidence, others with some of it withheld. Claims that are
    neither planted, nor absent, nor to be left open may follow from the plant, or not: nothing is asked of them.
    """

    kind: Literal["scenario"] = "scenario"
    trained: str = Field(max_length=96, description="the run that was trained; its folder is kept apart")
    rows: str = Field(pattern=r"^sha256:[0-9a-f]{64}$", description="digest of the files of rows it was read from")
    scenario: str = Field(max_length=64)
    severity: str = Field(max_length=64)
    seed: Count
    withheld: str = Field(
        default="", max_length=64, description="the evidence that was taken away; empty where none was"
    )
    health: Literal["healthy", "sick", "beside", "open"] = Field(
        description="beside: a fault that the definition of health lets stand beside it, so that the headline must name it; "
        "open: nothing is asked"
    )
    planted: tuple[ClaimName, ...] = Field(default=(), description="must be SUPPORTED")
    absent: tuple[ClaimName, ...] = Field(default=(), description="must not be SUPPORTED")
    open: tuple[ClaimName, ...] = Field(default=(), description="must be INCONCLUSIVE: the evidence was withheld")
    held: bool = Field(description="whether the plant took, by the run's own rows; otherwise the run is void")
    manipulation: str = Field(max_length=200, description="what shows it")
    supported: tuple[ClaimName, ...]
    refuted: tuple[ClaimName, ...]
    headline: ClaimName
    documents: Count = Field(description="validation documents scored at the last evaluation")
    leaked: Share | None = Field(default=None, description="share of the validation documents that were trained on")
    overlap: tuple[Literal["identities", "matches"], ...] = Field(
        default=(), description="probes of overlap that fired"
    )
    easier: bool | None = Field(
        default=None, description="whether validation lies below the control beyond its interval"
    )
    online_gap: float | None = Field(
        default=None, description="last validation loss minus the training loss logged with it"
    )
    rise: float | None = Field(default=None, description="last validation loss over the lowest, minus 1")


AnyRow = (
    CorpusRow
    | UnlistedRow
    | TokenizerRow
    | PositionRow
    | OverlapRow
    | FloorRow
    | StepRow
    | EvaluationRow
    | ExposureRow
    | SampleRow
    | ReplayRow
    | ProbeRow
    | NoticeRow
    | ReportedRow
    | ParityRow
    | ParityLayerRow
    | ParityPlaceRow
    | ParityTensorRow
    | ParityGreedyRow
    | ParityPlantedRow
    | ExportRow
    | CostRow
    | DeviceRow
    | PathRow
    | PermutedRow
    | BatchRow
    | CanaryRow
    | ExtractionRow
    | MembershipRow
    | NoveltyRow
    | ReferenceRow
    | LineageRow
    | AttestationRow
    | MaskRow
    | PredictionRow
    | GenerationRow
    | InheritedRow
    | ScenarioRow
)
KINDS: dict[str, type[Row]] = {
    kind.model_fields["kind"].default: kind
    for kind in (
        CorpusRow,
        UnlistedRow,
        TokenizerRow,
        PositionRow,
        OverlapRow,
        FloorRow,
        StepRow,
        EvaluationRow,
        ExposureRow,
        SampleRow,
        ReplayRow,
        ProbeRow,
        NoticeRow,
        ReportedRow,
        ParityRow,
        ParityLayerRow,
        ParityPlaceRow,
        ParityTensorRow,
        ParityGreedyRow,
        ParityPlantedRow,
        ExportRow,
        CostRow,
        DeviceRow,
        PathRow,
        PermutedRow,
        BatchRow,
        CanaryRow,
        ExtractionRow,
        MembershipRow,
        NoveltyRow,
        ReferenceRow,
        LineageRow,
        AttestationRow,
        MaskRow,
        PredictionRow,
        GenerationRow,
        InheritedRow,
        ScenarioRow,
    )
}


class Misplaced(Malformed):
    """Rows that are well-formed, and of another run."""


def line(row: Row) -> bytes:
    """Return the row as the one line that its file holds."""
    return json.dumps(row.plain(), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def read_rows(path: Path, name: str, run: str) -> tuple[Row, ...]:
    """Return the rows of one file, each validated and of this run.

    Raises Malformed naming each bad line (a torn last line, a row of another kind), and Misplaced where all are
    well-formed and some belong to another run.
    """
    kind = KINDS.get(path.stem)
    if kind is None:
        raise Malformed(
            [Problem(name, f"rows/{path.name} is not a kind of row; expected one of {', '.join(sorted(KINDS))}")]
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Malformed([Problem(name, f"cannot be read: {error.strerror}")]) from None
    problems: list[Problem] = []
    foreign: list[Problem] = []
    rows: list[Row] = []
    lines = data.split(b"\n")
    if lines[-1]:
        problems.append(Problem(name, "the last line is cut off: it has no line end", len(lines)))
    for number, text in enumerate(lines[:-1], 1):
        try:
            row = validate(kind, parse_json(text, name, number))
        except Malformed as error:
            problems += error.problems
            continue
        if row.run != run:
            foreign.append(Problem(name, f"this row belongs to run {row.run}, not to {run}", number))
        rows.append(row)
    if problems:
        raise Malformed([*problems, *foreign])
    if foreign:
        raise Misplaced(foreign)
    return tuple(rows)
