"""One token at a time: a model through its cache, and how two sides go on from a prompt by their most likely tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sovereign.model.decoder import Cache, Decoder
from sovereign.parity.llamacpp import LlamaCpp
from sovereign.shipping.weights import Weights

TOKENS = 16  # with which both sides go on
HELD = 2**26  # logits of our decoder that are held at once, 256 MiB


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
    count = min(TOKENS, context - 1)
    if count < 1:
        return
    for group in _groups(prompts, reference.vocabulary):
        begun = [list(ids)[: context - count] for ids in group]
        chosen, margins = greedy(model, begun, count)
        others = [candidate.greedy(ids, count) for ids in begun] if isinstance(candidate, LlamaCpp) else greedy(candidate, begun, count)[0]  # fmt: skip
        for ids, ours, theirs, margin in zip(group, chosen, others, margins, strict=True):
            yield Continued(ids, tuple(ours), tuple(theirs), tuple(margin))


def greedy(model: Decoder, prompts: Sequence[Sequence[int]], count: int) -> tuple[list[list[int]], list[list[float]]]:
    """Return the tokens with which a decoder goes on from each prompt, and how far each stood above the next, in nats.

    All go on side by side, padded on the right, each at its own positions.
    """
    padded, lengths = _padded(prompts)
    cache = Cache(model, len(prompts), padded.shape[1] + count)
    chosen, margins = [], []
    with torch.no_grad():
        logits = model.step(padded, cache)[torch.arange(len(prompts)), lengths - 1]
        cache.lengths += lengths
        while True:
            highest = logits.topk(2, dim=-1)
            chosen.append(highest.indices[:, 0])
            margins.append(highest.values[:, 0] - highest.values[:, 1])
            if len(chosen) == count:
                return torch.stack(chosen, 1).tolist(), torch.stack(margins, 1).tolist()
            logits = model.step(chosen[-1][:, None], cache)[:, 0]
            cache.lengths += 1


def stepwise(model: Decoder | LlamaCpp, prompts: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    """Yield logits [t, v] of each prompt, one token at a time.

    Our decoder takes all prompts side by side. llama.cpp gains nothing by it (1.8 s for 32 x 128 tokens either way, on one
    core), and among others it adds up in another order, which flips rounding ties: so it goes prompt by prompt.
    """
    if isinstance(model, LlamaCpp):
        yield from (torch.from_numpy(model.stepwise([ids])[0]) for ids in prompts)
        return
    for group in _groups(prompts, model.vocabulary):
        padded, lengths = _padded(group)
        cache, steps = Cache(model, len(group), padded.shape[1]), []
        with torch.no_grad():
            for tokens in padded.T:
                steps.append(model.step(tokens[:, None], cache)[:, 0])
                cache.lengths += 1
        for number, length in enumerate(lengths.tolist()):
            yield torch.stack([logits[number] for logits in steps[:length]])


def _groups(prompts: Sequence[Sequence[int]], vocabulary: int) -> Iterator[Sequence[Sequence[int]]]:
    """Yield prompts, as many at once as their logits are to be held at once."""
    size = max(1, HELD // (vocabulary * max(map(len, prompts), default=1)))
    for start in range(0, len(prompts), size):
        yield prompts[start : start + size]


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return prompts as ids [n, t], padded on the right, and their lengths [n]."""
    lengths = torch.tensor([len(ids) for ids in prompts])
    padded = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.int64)
    for row, ids in enumerate(prompts):
        padded[row, : len(ids)] = torch.tensor(ids)
    return padded, lengths
