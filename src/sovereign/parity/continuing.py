"""One token at a time: our decoder through its cache, and how two sides go on from a prompt by their most likely tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sovereign.model.decoder import Cache, Decoder
from sovereign.parity.llamacpp import LlamaCpp
from sovereign.shipping.weights import Weights

TOKENS = 16  # with which both sides go on


@dataclass(frozen=True)
class Continued:
    """How both sides go on from a prompt, and how clear each choice of the reference was, in nats above the next."""

    prompt: Sequence[int]
    reference: tuple[int, ...]
    candidate: tuple[int, ...]
    margin: tuple[float, ...]


def continued(reference: Weights, candidate: Decoder | LlamaCpp, prompts: Sequence[Sequence[int]]) -> Iterator[Continued]:  # fmt: skip
    """Yield how both go on from each prompt, of which as much is kept as leaves room in the context."""
    model, context = reference.decoder(), reference.shape.context
    for ids in prompts:
        begun = list(ids)[: max(1, context - TOKENS)]
        count = min(TOKENS, context - len(begun))
        if count < 1:
            continue
        chosen, margins = greedy(model, begun, count)
        others = candidate.greedy(begun, count) if isinstance(candidate, LlamaCpp) else greedy(candidate, begun, count)[0]  # fmt: skip
        yield Continued(ids, tuple(chosen), tuple(others), tuple(margins))


def greedy(model: Decoder, ids: Sequence[int], count: int) -> tuple[list[int], list[float]]:
    """Return the tokens with which a decoder goes on, and how far each stood above the next most likely one, in nats."""
    cache, given = Cache(model, 1, len(ids) + count), list(ids)
    chosen: list[int] = []
    margins: list[float] = []
    with torch.no_grad():
        while len(chosen) < count:
            highest = model.step(torch.tensor([given]), cache)[0, -1].topk(2)
            cache.lengths += len(given)
            given = [int(highest.indices[0])]
            chosen += given
            margins.append(float(highest.values[0] - highest.values[1]))
    return chosen, margins


def stepwise(model: Decoder, ids: Sequence[int]) -> Tensor:
    """Return logits [t, v] of our decoder, one token at a time."""
    cache, rows = Cache(model, 1, len(ids)), []
    with torch.no_grad():
        for token in ids:
            rows.append(model.step(torch.tensor([[token]]), cache)[0, 0])
            cache.lengths += 1
    return torch.stack(rows)
