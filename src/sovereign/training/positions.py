"""The loss of documents by position, within the length that was trained on and beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from sovereign.training.device import Precision, multiplying
from sovereign.training.evaluation import evaluating

ByPosition = tuple[str, int, int, float, int]  # document, start, stop, summed nats, target tokens


def by_position(
    model: nn.Module,
    sequences: Sequence[tuple[str, np.ndarray]],
    *,
    context: int,
    precision: Precision,
    device: torch.device,
) -> list[ByPosition]:
    """Return the loss of each sequence s, given whole, over runs of positions that double in length.

    Position p is that of the target s[p + 1], which is given p + 1 tokens. Unlike `training.evaluation`
    nothing is cut at `context`: the model attends as far as its shape lets it, at positions it was never trained on.
    """
    found: list[ByPosition] = []
    with evaluating(model), multiplying(precision, device.type):
        for document, ids in sequences:
            on_device = torch.from_numpy(np.asarray(ids, dtype=np.int64)).to(device)[None]
            losses = model.losses(on_device[:, :-1], on_device[:, 1:])[0].double()  # type: ignore[operator]
            for start, stop in pairwise(edges(context, len(ids) - 1)):
                found.append((document, start, stop, float(losses[start:stop].sum()), stop - start))
    return found


def edges(context: int, tokens: int) -> list[int]:
    """Return positions from 0 to `tokens` at which a run ends: the context, halved down to 1 and doubled as far as it goes.

    So the second half of what was trained on is one run, and no run lies across its end.
    """
    found = {0, tokens}
    at = context
    while at >= 1:
        found.add(at)
        at //= 2
    at = context * 2
    while at < tokens:
        found.add(at)
        at *= 2
    return sorted(one for one in found if one <= tokens)
