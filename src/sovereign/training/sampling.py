"""Continuations of prompts, each the same whatever stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sovereign.training.device import multiplying_as_kept
from sovereign.training.evaluation import evaluating


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    *,
    temperature: float,
    top_k: int,
    seed: int,
    stop: int | None = None,
) -> list[list[int]]:
    """Return at most `tokens` ids that continue each prompt, without `stop`, which ends a continuation.

    All prompts run in one batch, padded on the right, each at its own positions, in the weights' dtype,
    the narrower one where there are two. Prompt i draws
    from its own generator, seeded with seed + i, so a continuation is a function of weights, prompt and seed + i;
    the others touch it only through the last bit of a float. `temperature` 0 takes the likeliest
    token, `top_k` 0 keeps all of them. Raises ValueError for a prompt that is empty or leaves no room in the context.
    """
    context = model.context
    for index, prompt in enumerate(prompts):
        if not 1 <= len(prompt) <= context - tokens:
            raise ValueError(
                f"prompt {index} has {len(prompt)} tokens; with {tokens} to follow it must have 1 to {context - tokens}"
            )
    if not prompts:
        return []
    device = model.lm_head.weight.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    padded = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        padded[row, : len(prompt)] = torch.tensor(prompt)
    draws = torch.stack(
        [
            torch.rand(tokens, generator=torch.Generator().manual_seed(seed + row), dtype=torch.float64)
            for row in range(len(prompts))
        ]
    ).to(device)

    chosen = torch.empty(len(prompts), tokens, dtype=torch.int64)
    with evaluating(model), multiplying_as_kept(model):
        cache = model.cache(len(prompts), int(lengths.max()) + tokens)
        logits = model.step(padded.to(device), cache)
        logits = logits[torch.arange(len(prompts), device=device), lengths - 1]
        cache.lengths += lengths
        for at in range(tokens):
            ids = choose(logits, draws[:, at], temperature, top_k)
            chosen[:, at] = ids.cpu()
            if at + 1 < tokens:
                logits = model.step(ids[:, None], cache)[:, 0]
                cache.lengths += 1
    return [ids[: ids.index(stop)] if stop in ids else ids for ids in chosen.tolist()]


def choose(logits: Tensor, draws: Tensor, temperature: float, top_k: int) -> Tensor:
    """Return one id [b] for each row of logits [b, v], by the uniform draws [b] in [0, 1)."""
    if temperature == 0:
        return logits.argmax(-1)
    kept, ids = logits.double().div(temperature).topk(min(top_k or logits.shape[-1], logits.shape[-1]))
    # how many of the descending cumulative probabilities the draw has passed
    passed = (kept.softmax(-1).cumsum(-1) <= draws[:, None]).sum(-1, keepdim=True)
    return ids.gather(1, passed.clamp(max=ids.shape[1] - 1)).squeeze(1)
