"""What a model has learned by heart: passages it goes on with, documents it knows, secrets it ranks first.

None of these is evidence alone: each is compared with text that was never trained on, scored in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sovereign.model.decoder import Decoder
from sovereign.training.device import Precision, multiplying
from sovereign.training.evaluation import evaluating
from sovereign.training.sampling import sample

LEAST_SHARE = 0.2  # of the tokens, the least likely ones: k of Min-K%++ (Zhang et al. 2024, section 4)


@dataclass(frozen=True)
class Passage:
    """A run of tokens in a document: what is shown, and what would have to follow."""

    side: str
    document: str
    start: int
    ids: tuple[int, ...]  # [prompt + continued]


def passages(
    side: str, documents: Sequence[tuple[str, np.ndarray]], count: int, length: int, seed: int
) -> list[Passage]:
    """Return at most `count` passages of `length` tokens, one a document, each at a drawn place.

    Documents shorter than a passage are passed over. A document's place depends on the seed and its own number alone.
    """
    found: list[Passage] = []
    for number, (document, ids) in enumerate(documents):
        if len(found) == count:
            break
        if len(ids) >= length:
            start = int(np.random.default_rng([seed, number]).integers(len(ids) - length + 1))
            found.append(Passage(side, document, start, tuple(int(one) for one in ids[start : start + length])))
    return found


def extracted(model: Decoder, shown: Sequence[Passage], prompt: int, batch: int = 64) -> list[int]:
    """Return how many tokens of each passage after its first `prompt` the model gives back, decoding greedily.

    Counted up to the first wrong one; a passage is extracted when all are right (Carlini et al. 2022, definition 3.1).
    """
    matched = []
    for at in range(0, len(shown), batch):
        some = shown[at : at + batch]
        continued = len(some[0].ids) - prompt
        written = sample(model, [one.ids[:prompt] for one in some], continued, temperature=0, top_k=0, seed=0)
        for one, ids in zip(some, written, strict=True):
            wrong = [
                place for place, (said, true) in enumerate(zip(ids, one.ids[prompt:], strict=False)) if said != true
            ]
            matched.append(wrong[0] if wrong else len(ids))
    return matched


def familiarity(
    model: Decoder, sequences: Sequence[tuple[str, np.ndarray]], *, precision: Precision, device: torch.device
) -> list[tuple[float, float]]:
    """Return how familiar each sequence is, as (minus its loss per token, its Min-K%++ score); higher is more so.

    Min-K%++ compares a token's log-probability with the mean and spread of all tokens' in its place, and averages
    the least `LEAST_SHARE` of them (Zhang et al. 2024, equation 4). Sequences are cut to the model's context.
    """
    found = []
    with evaluating(model), multiplying(precision, device.type):
        for _, ids in sequences:
            whole = torch.from_numpy(np.asarray(ids[: model.shape.context + 1], dtype=np.int64)).to(device)
            found.append(_scores(model(whole[None, :-1])[0].float(), whole[1:]))
    return found


def _scores(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return both scores of one sequence from logits [t, v] and targets [t]."""
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    mean = (p * log_p).sum(-1)
    spread = ((p * log_p.square()).sum(-1) - mean.square()).clamp(min=1e-12).sqrt()
    said = log_p.gather(1, targets[:, None]).squeeze(1)
    standing = (said - mean) / spread
    least = standing.sort().values[: max(1, round(LEAST_SHARE * len(standing)))]
    return said.mean().item(), least.mean().item()


@dataclass(frozen=True)
class Ranked:
    """A planted secret's loss in nats after its prefix, and its rank among secrets never planted; 1 is the lowest."""

    nll: float
    rank: int
    candidates: int


def ranked(
    model: Decoder, prefix: Sequence[int], planted: Sequence[np.ndarray], candidates: Sequence[np.ndarray], *,
    precision: Precision, device: torch.device,
) -> list[Ranked]:  # fmt: skip
    """Return the rank of each planted secret among the candidates, all of one length (Carlini et al. 2019).

    Raises ArithmeticError where a loss is not finite: a model of NaNs would rank every secret first.
    """
    losses = np.array(list(_secret_losses(model, prefix, [*planted, *candidates], precision, device)))
    if not np.isfinite(losses).all():
        raise ArithmeticError("a secret's loss is not finite: nothing can be ranked by it")
    never = np.sort(losses[len(planted) :])
    return [
        Ranked(float(nll), int(np.searchsorted(never, nll, side="left")) + 1, len(never))
        for nll in losses[: len(planted)]
    ]


def _secret_losses(
    model: Decoder, prefix: Sequence[int], secrets: Sequence[np.ndarray], precision: Precision, device: torch.device
) -> Iterator[float]:
    head = torch.tensor(list(prefix), device=device)
    with evaluating(model), multiplying(precision, device.type):
        for at in range(0, len(secrets), 64):
            some = torch.from_numpy(np.stack(secrets[at : at + 64]).astype(np.int64)).to(device)
            whole = torch.cat([head.expand(len(some), -1), some], 1)
            log_p = model(whole[:, :-1]).float().log_softmax(-1)[:, len(head) - 1 :]
            yield from (-log_p.gather(2, some[:, :, None]).squeeze(2).double().sum(1)).tolist()
