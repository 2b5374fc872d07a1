"""An embedding that grew: the old rows frozen or not, the new ones a parameter of their own.

Rows that must not change stand in no optimizer, so that neither decay nor momentum can reach them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sovereign.model.decoder import Decoder
from sovereign.model.pretrained import Pretrained


class Grown(nn.Module):
    """An embedding [v + k, h] of `old` [v, h] and `rows` [k, h]."""

    def __init__(self, old: Tensor, rows: Tensor):
        super().__init__()
        self.old = nn.Parameter(old.detach())
        self.rows = nn.Parameter(rows)

    @property
    def weight(self) -> Tensor:
        return torch.cat([self.old, self.rows])

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)


class GrownHead(Grown):
    """An output head of its own that grew with the embedding."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class TiedHead(nn.Module):
    """An output head that is the embedding's matrix."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.shown = (embedding,)  # in a tuple: a module of its own it is not

    @property
    def weight(self) -> Tensor:
        return self.shown[0].weight  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


def embedding(model: Decoder | Pretrained) -> nn.Module:
    """Return the module that holds the rows of the vocabulary."""
    return model.net.get_input_embeddings() if isinstance(model, Pretrained) else model.model.embed_tokens


def tied(model: Decoder | Pretrained) -> bool:
    """Say whether the output head is the embedding's matrix."""
    return model.lm_head.weight is embedding(model).weight


def grow(model: Decoder, pieces: Sequence[Sequence[int]]) -> None:
    """Add a row for each new token, the mean of the rows of the ids it was written with so far; in place."""
    was_tied = tied(model)
    old = model.model.embed_tokens.weight
    model.model.embed_tokens = Grown(old, _means(old, pieces))  # type: ignore[assignment]
    if was_tied:
        model.lm_head = TiedHead(model.model.embed_tokens)  # type: ignore[assignment]
    else:
        model.lm_head = GrownHead(model.lm_head.weight, _means(model.lm_head.weight, pieces))  # type: ignore[assignment]
    model.vocabulary += len(pieces)


def _means(matrix: Tensor, pieces: Sequence[Sequence[int]]) -> Tensor:
    with torch.no_grad():
        return torch.stack([matrix[list(ids)].mean(0) for ids in pieces])
