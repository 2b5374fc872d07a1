"""What can be wrong in a run that begins from a base: its weights, what moves, its split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sovereign import attesting
from sovereign import run as execution
from sovereign.corpus import build as building
from sovereign.corpus import examples
from sovereign.corpus.split import sides
from sovereign.model.embeddings import embedding
from sovereign.planted.swapping import swapped
from sovereign.training.optimizer import optimizer_for
from sovereign.tuning import Tuning


@contextmanager
def unattested() -> Iterator[None]:
    """Let a run go on whatever is sworn of its model: the guard that would stop it is held by tests of its own."""

    def believed(rows: Any) -> Any:
        return rows

    with swapped(attesting, "require", believed), swapped(attesting, "starts_as", lambda *_: None):
        yield


@contextmanager
def more_moves() -> Iterator[None]:
    """Leave the embedding of the base movable beside what the contract lets move (CASE-06)."""
    made = Tuning.model

    def loose(*arguments: Any) -> Any:
        model = made(*arguments)
        language: Any = getattr(model, "language", model)
        for weight in embedding(language).parameters(recurse=False):
            weight.requires_grad_(True)
        return model

    with unattested(), swapped(Tuning, "model", loose):
        yield


@contextmanager
def frozen_moves() -> Iterator[None]:
    """Nudge a frozen weight of the model that is trained, as a fused or repacked matrix has been seen to move."""
    made = Tuning.model
    nudged: list[Any] = []

    def moved(*arguments: Any) -> Any:
        model = made(*arguments)
        if not nudged:
            nudged.append(model)
            frozen = next(one for one in model.parameters() if not one.requires_grad and one.is_floating_point())
            with torch.no_grad():
                frozen.add_(1e-3)
        return model

    with unattested(), swapped(Tuning, "model", moved):
        yield


@contextmanager
def weights_not_loaded() -> Iterator[None]:
    """Begin from the base with the matrices of its layers drawn anew, as when their names did not match (CASE-12, CASE-31)."""
    loaded = Tuning.base

    def fresh(*arguments: Any) -> Any:
        base = loaded(*arguments)
        drawn = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, weight in base.named_parameters():
                if ".layers." in name and weight.dim() == 2:
                    weight.normal_(0.0, 0.02, generator=drawn)
        return base

    with unattested(), swapped(Tuning, "base", fresh):
        yield


@contextmanager
def split_redrawn() -> Iterator[None]:
    """Draw the split by another salt, whatever an ancestor was trained on (CASE-08)."""

    def anew(drawn: Any, known: Any, inherit: bool) -> Any:
        return dict(drawn)

    def salted(clusters: Any, split: Any) -> Any:
        return sides(clusters, split.model_copy(update={"salt": "another"}))

    with (
        swapped(building, "inherited", anew),
        swapped(examples, "inherited", anew),
        swapped(building, "sides", salted),
        swapped(examples, "sides", salted),
    ):
        yield


@contextmanager
def climbs() -> Iterator[None]:
    """Go up the gradient: a sign that was lost on the way to the optimizer."""

    def up(*arguments: Any) -> torch.optim.Optimizer:
        optimizer = optimizer_for(*arguments)
        for group in optimizer.param_groups:
            group["maximize"] = True
        return optimizer

    with swapped(execution, "optimizer_for", up):
        yield
