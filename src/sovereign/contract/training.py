"""The training and evaluation sections: how long, how fast, and what is looked at on the way."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sovereign.canonical import Record


class Adamw(Record):
    """AdamW (Loshchilov & Hutter 2019); decay falls on matrices only."""

    kind: Literal["adamw"] = "adamw"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)


class Adamw8bit(Record):
    """AdamW whose moments are kept in 8 bits, in blocks (Dettmers et al. 2022): less memory, not less time."""

    kind: Literal["adamw8bit"]
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)


class Muon(Record):
    """Muon for the matrices between embedding and head (Jordan et al. 2024), AdamW for the rest.

    Updates are scaled to the size of AdamW's (Liu et al. 2025, section 2.2), so that one learning rate serves both.
    """

    kind: Literal["muon"]
    momentum: float = Field(default=0.95, ge=0, lt=1)
    nesterov: bool = True
    iterations: int = Field(default=5, ge=1, le=20, description="of Newton and Schulz")
    weight_decay: float = Field(default=0.1, ge=0)
    rest: Adamw = Adamw()


Optimizer = Annotated[Adamw | Adamw8bit | Muon, Field(discriminator="kind")]


class EarlyStopping(Record):
    """Stop once the validation loss has risen, for `patience` evaluations in a row.

    Risen means that the lower end of the paired rise over the best evaluation lies above `rise`, document by document.
    """

    patience: int = Field(default=2, ge=1, description="evaluations in a row")
    rise: float = Field(default=0.02, ge=0, description="nats per token; 0.02 is 2 % of perplexity")


class Schedule(Record):
    """The learning rate of each step: linear warmup, then constant, cosine, or warmup-stable-decay."""

    kind: Literal["constant", "cosine", "wsd"]
    peak: float = Field(gt=0, lt=1)
    floor: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=0, ge=0, description="steps")
    decay: float = Field(default=0.2, gt=0, le=1, description="share of the steps that wsd decays over")

    @model_validator(mode="after")
    def _descends(self) -> Schedule:
        if self.floor > self.peak:
            raise ValueError(f"floor {self.floor:g} is above peak {self.peak:g}")
        return self

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate applied in update `step` (counted from 1) of `steps`."""
        if step <= self.warmup:
            return self.peak * step / self.warmup
        if self.kind == "constant":
            return self.peak
        if self.kind == "cosine":
            done = (step - self.warmup) / max(1, steps - self.warmup)
            return self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * done))
        start = steps - max(1, round(self.decay * steps))
        if step <= start:
            return self.peak
        done = (step - start) / (steps - start)
        return self.peak * (1 - done) + self.floor * done


class Training(Record):
    """How the weights are moved. A step is one optimizer update on `sequences` windows."""

    steps: int = Field(ge=1)
    sequences: int = Field(ge=1, description="windows a step, over all ranks and micro-batches")
    micro_batch: int | None = Field(
        default=None, ge=1, description="windows in one forward; all of a rank's by default"
    )
    optimizer: Optimizer = Adamw()
    schedule: Schedule
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    device: Literal["any", "cpu", "cuda"] = Field(
        default="any", description="where it must run; elsewhere it is refused"
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        default="auto",
        description="of matrix products; fp16, for a GPU without bf16, scales the loss so that small gradients do not vanish",
    )
    weights: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32",
        description="what weights are kept in: bf16 and fp16 halve them and their gradients, and an update below 1/256 of a "
        "weight, in fp16 1/2048, is lost; adapters and new rows stay in fp32",
    )
    compile: bool = False
    wrap_around: bool = False
    most_passes: float | None = Field(
        default=None, gt=0, description="over the train side; needs wrap_around to exceed 1"
    )
    checkpoint_every: int = Field(default=100, ge=1, description="steps")
    activation_checkpointing: bool = Field(
        default=False, description="recompute each layer in the backward pass: less memory, a third more time"
    )
    distributed: Literal["ddp", "fsdp"] = Field(
        default="ddp", description="how several processes share the model: each a whole one, or each a part"
    )
    early_stopping: EarlyStopping | None = None
    overfit_one_batch: int = Field(
        default=0, ge=0, description="updates on one batch before step 0, on a copy: a model that can learn learns it"
    )
    measure_updates_every: int = Field(
        default=50, ge=0, description="steps between measurements of how far an update moved the weights; 0 is never"
    )
    stall_seconds: float = Field(
        default=1800.0, gt=0, description="without an update or an evaluation before the run counts as stalled"
    )

    @model_validator(mode="after")
    def _possible(self) -> Training:
        if self.micro_batch and self.sequences % self.micro_batch:
            raise ValueError(f"sequences {self.sequences} is not a multiple of micro_batch {self.micro_batch}")
        if self.schedule.warmup >= self.steps:
            raise ValueError(f"warmup of {self.schedule.warmup} steps leaves nothing of {self.steps} steps")
        if self.distributed == "fsdp" and self.optimizer.kind == "adamw8bit":
            raise ValueError("adamw8bit keeps blocks of whole tensors, which fsdp takes apart; use ddp, or adamw")
        if self.weights != "fp32" and self.precision not in (self.weights, "auto"):
            raise ValueError(
                f"weights are kept in {self.weights} and would be multiplied in {self.precision}; "
                f"ask for precision {self.weights} or auto, or keep them in {'fp16 or ' if self.precision == 'fp16' else ''}fp32"
            )
        if self.wrap_around and self.most_passes is None:
            raise ValueError("wrap_around needs most_passes: say how often a document may be seen")
        if not self.wrap_around and (self.most_passes or 1) > 1:
            raise ValueError(f"most_passes {self.most_passes:g} needs wrap_around: true")
        return self


class Samples(Record):
    """Seeded continuations of held-out function heads."""

    prompts: int = Field(default=100, ge=0)
    tokens: int = Field(default=96, ge=1)
    temperature: float = Field(default=0.7, ge=0, description="0 is greedy")
    top_k: int = Field(default=50, ge=0, description="0 keeps every token")
    at_evaluations: int = Field(
        default=0, ge=0, description="prompts continued at step 0 and at every evaluation too, all of them kept"
    )


class Extraction(Record):
    """Passages begun for the model, from the train side and from the control (Carlini et al. 2022)."""

    passages: int = Field(default=300, ge=1, description="of each side; 300 without a hit bound the rate at 1 %")
    prompt: int = Field(default=32, ge=1, description="tokens shown")
    continued: int = Field(default=32, ge=1, description="tokens that must follow, each right")


class Probes(Record):
    """Questions asked of the last weights, whose answers the diagnosis reads. Each costs what `plan` says."""

    path: int = Field(default=0, ge=0, description="windows scored by training's and by evaluation's path")
    permuted: int = Field(default=0, ge=0, description="validation documents scored with their tokens out of order")
    membership: int = Field(default=0, ge=0, description="documents of each side scored by loss and Min-K%++")
    extraction: Extraction | None = None
    novelty: bool = Field(default=False, description="how much of the samples stands in the train side")


class LongContext(Record):
    """Loss by position, once the training is done: does more context help, and what happens beyond the trained length?"""

    tokens: int = Field(ge=2, description="most target tokens of a document; more than the context to see beyond it")
    documents: int = Field(
        default=50, ge=2, description="most validation documents; only those longer than the context"
    )


class Generation(Record):
    """Held-out prompts answered by the base and by the tuned model, on the same draws."""

    prompts: int = Field(default=12, ge=0, description="held-out prompts with their reference answers")
    tokens: int = Field(default=48, ge=1)
    temperature: float = Field(default=0.7, ge=0, description="0 is greedy")
    top_k: int = Field(default=50, ge=0, description="0 keeps every token")
    canaries: tuple[str, ...] = Field(default=(), description="prompts whose answers are kept before and after, whole")
    attempts: int = Field(default=5, ge=1, description="answers to each canary; all of them are kept")


class Prompted(Record):
    """Labels by prompt: held-out texts written into it for the base, which never saw a label; the likeliest answer counts."""

    prompt: str = Field(description="{content} stands once in it, where the text is to stand")
    answers: dict[str, str] = Field(
        default={}, description="label -> what it is called; a label that is absent is its own"
    )

    @model_validator(mode="after")
    def _has_content(self) -> Prompted:
        if self.prompt.count("{content}") != 1:
            raise ValueError(f"prompt: {self.prompt!r} must hold {{content}} once")
        if len(set(self.answers.values())) != len(self.answers):
            raise ValueError("answers: two labels are called the same")
        return self


class Evaluation(Record):
    """What is measured on the way, in evaluation mode: the same documents every time."""

    every: int = Field(ge=1, description="steps")
    documents: int = Field(default=200, ge=1, description="most documents of each split")
    tokens: int = Field(default=512, ge=8, description="most target tokens of one document")
    batch: int = Field(default=8, ge=1, description="windows in one forward; does not change the result")
    samples: Samples = Samples()
    probes: Probes = Probes()
    generation: Generation | None = Field(default=None, description="of a tuned model")
    prompted: Prompted | None = Field(default=None, description="beside a classifier, on the same texts")
    replay: int = Field(default=3, ge=0, description="steps repeated from a checkpoint to show that resuming is exact")
    long_context: LongContext | None = None
