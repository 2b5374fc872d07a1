"""What can be wrong in a training run that its losses do not tell."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers.normalizers import Replace

from sovereign import plan as planning
from sovereign import promising
from sovereign import run as execution
from sovereign.corpus import tokens
from sovereign.corpus.build import Corpus, build
from sovereign.corpus.shards import open_shards, write_shards
from sovereign.corpus.stream import Stream
from sovereign.evidence.journal import Journal
from sovereign.planted.swapping import swapped
from sovereign.training import checkpoint, evaluation, loop, scrutiny
from sovereign.training.optimizer import optimizer_for


@contextmanager
def rate_ignored() -> Iterator[None]:
    """Train with an optimizer that keeps a rate a thousand times too low, whatever it is set to (CASE-16, CASE-17)."""

    class Deaf(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            super().__setitem__(key, 1e-6 if key == "lr" else value)

    def deaf(*arguments: Any) -> torch.optim.Optimizer:
        optimizer = optimizer_for(*arguments)
        optimizer.param_groups = [Deaf(group) for group in optimizer.param_groups]
        return optimizer

    with (
        swapped(execution, "optimizer_for", deaf),
        swapped(loop, "rate_as_planned", lambda step, planned, rates: rates[0]),
    ):
        yield


@contextmanager
def validation_trained_on() -> Iterator[None]:
    """Put every validation document into the train side, and let the stream open all the same (CASE-07)."""

    def leaked(*arguments: Any) -> Corpus:
        corpus = build(*arguments)
        folder = Path(tempfile.mkdtemp(prefix="leaked-", dir=corpus.folder.parent))
        write_shards(
            folder, [*corpus.ids("train"), *corpus.ids("validation")],
            vocabulary=corpus.vocabulary, end_of_text=corpus.end_of_text, tokenizer=corpus.tokenizer_digest,
        )  # fmt: skip
        return replace(corpus, shards={**corpus.shards, "train": open_shards(folder)})

    def blind(
        shards: Any, context: int, sequences: int, seed: int, wrap: bool, most: float | None, held_out: Any
    ) -> Stream:
        return Stream(shards, context, sequences, seed, wrap, most)

    with swapped(planning, "build", leaked), swapped(planning, "Stream", blind):
        yield


@contextmanager
def targets_uncounted() -> Iterator[None]:
    """Mask the most common target in every batch, as a collator does that takes it for padding (CASE-11)."""

    def masking(model: Any, optimizer: Any, stream: Any, *arguments: Any, **settings: Any) -> None:
        common = int(np.bincount(stream.batch(1).ids.ravel()).argmax())
        loop.train(model, optimizer, stream, *arguments, **settings, ignore=common)

    with swapped(execution, "train", masking):
        yield


@contextmanager
def resume_forgets() -> Iterator[None]:
    """Resume with fresh optimizer moments (CASE-23)."""
    load = checkpoint.load

    def forgetful(path: Path, model: Any, optimizer: Any) -> Any:
        state = load(path, model, optimizer)
        optimizer.state.clear()
        return state

    with swapped(checkpoint, "load", forgetful):
        yield


@contextmanager
def weights_not_fresh() -> Iterator[None]:
    """Start from weights ten times too large, as when another model's were loaded by mistake (CASE-12)."""

    fresh = planning.Plan.fresh

    def loud(*arguments: Any) -> Any:
        model = fresh(*arguments)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(10)
        return model

    with swapped(planning.Plan, "fresh", loud):
        yield


@contextmanager
def empty_sampler_writes() -> Iterator[None]:
    """Give the sampler of newlines a body to write: a metric that counts empty text would look like this (CASE-31)."""
    log = Journal.log

    def writing(journal: Any, kind: str, **row: Any) -> None:
        if kind == "sample" and row["sampler"] == "newline":
            row["text"] = "\n    found = 1\n    return found\n\n"
        log(journal, kind, **row)

    with swapped(Journal, "log", writing):
        yield


@contextmanager
def evaluation_shortsighted() -> Iterator[None]:
    """Evaluate in windows half as long as those trained on: another loss under the same name (CASE-37)."""

    def short(*arguments: Any, context: int, **settings: Any) -> Any:
        return evaluation.evaluate(*arguments, context=context // 2, **settings)

    with swapped(scrutiny, "evaluate", short), swapped(execution, "evaluate", short):
        yield


@contextmanager
def tokenizer_forgets() -> Iterator[None]:
    """Train a tokenizer that reads every underscore as a space: the text cannot be had back (CASE-13)."""
    train = tokens.train_bpe

    def lossy(*arguments: Any) -> Any:
        tokenizer = train(*arguments)
        tokenizer.normalizer = Replace("_", " ")
        return tokenizer

    with swapped(tokens, "train_bpe", lossy):
        yield


@contextmanager
def device_claimed() -> Iterator[None]:
    """Write down a GPU, and train on the CPU (CASE-09)."""
    there = promising.environment

    def boasting(plan: Any) -> Any:
        return there(plan).model_copy(update={"device": "cuda", "accelerator": "a GPU"})

    with swapped(promising, "environment", boasting):
        yield


@contextmanager
def loader_dawdles() -> Iterator[None]:
    """Let every batch from step 15 to 60 wait for a second: a device that is starved, not slow."""
    batch = Stream.batch

    def late(stream: Any, step: int, *arguments: Any) -> Any:
        time.sleep(1.0 if 15 <= step <= 60 else 0)
        return batch(stream, step, *arguments)

    with swapped(Stream, "batch", late):
        yield


@contextmanager
def memory_unplanned() -> Iterator[None]:
    """Predict memory as if weights were all there is: no gradients, moments or activations, and no process."""
    weights = property(lambda plan: 4 * plan.parameters)
    with swapped(planning.Plan, "peak_bytes", weights):
        yield
