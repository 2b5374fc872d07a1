"""The loss of documents, in evaluation mode."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sovereign.corpus.examples import Encoded
from sovereign.model.kernels import IGNORED
from sovereign.training.device import Precision, multiplying
from sovereign.training.distributed import ALONE, Ranks

# A window is padded to a multiple of this, its own length deciding, never its neighbours': in bf16 attention
# rounds by the padded length (5e-5 of a loss), while the number of rows changes nothing.
PADDED_TO = 64


def evaluate(
    model: nn.Module,
    sequences: Sequence[tuple[str, np.ndarray]],
    *,
    batch: int,
    context: int,
    precision: Precision,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> list[tuple[str, float, int]]:
    """Return (document, loss summed in nats, target tokens) of each sequence, in their order.

    A sequence s is scored on s[1:], each token given those before it in its window: windows of `context`
    targets follow one another without overlap, each beginning with the token before its first target.
    The result does not depend on `batch`, nor on how many processes share the work, which all get it; weights,
    mode and random state are left as they were.
    """
    windows = [
        Window(index, ids[at : min(at + context, len(ids) - 1)], ids[at + 1 : at + context + 1])
        for index, (_, ids) in enumerate(sequences)
        for at in range(0, len(ids) - 1, context)
    ]
    sums = _summed(model, windows, len(sequences), batch, context, precision, device, ranks)
    return [(name, sums[index], len(ids) - 1) for index, (name, ids) in enumerate(sequences)]


def evaluate_examples(
    model: nn.Module,
    examples: Sequence[Encoded],
    *,
    batch: int,
    context: int,
    precision: Precision,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> list[tuple[str, float, int]]:
    """Return (example, loss summed in nats, targets that carry loss) of each example, whole, in their order."""
    windows = [Window(index, one.inputs, one.targets) for index, one in enumerate(examples)]
    sums = _summed(model, windows, len(examples), batch, context, precision, device, ranks)
    return [(one.document, sums[index], one.counted) for index, one in enumerate(examples)]


@dataclass(frozen=True)
class Window:
    """What is scored at once: inputs and the target of each, [t], and which sequence they count for."""

    sequence: int
    inputs: np.ndarray
    targets: np.ndarray


def _summed(
    model: nn.Module, windows: Sequence[Window], sequences: int, batch: int, context: int, precision: Precision,
    device: torch.device, ranks: Ranks,
) -> list[float]:  # fmt: skip
    """Return the loss of each sequence, summed over its windows."""
    groups: dict[int, list[Window]] = defaultdict(list)
    for window in windows:
        groups[min(context, -(-len(window.inputs) // PADDED_TO) * PADDED_TO)].append(window)
    batches = [
        (length, group[start : start + batch])
        for length, group in sorted(groups.items())
        for start in range(0, len(group), batch)
    ]
    sums = [0.0] * sequences
    with evaluating(model), multiplying(precision, device.type):
        for start in range(0, len(batches), ranks.size):
            # a model in parts is gathered by all processes at once, so one without work repeats the last batch
            length, some = batches[min(start + ranks.rank, len(batches) - 1)]
            inputs = np.zeros((len(some), length), dtype=np.int64)
            targets = np.full((len(some), length), IGNORED, dtype=np.int64)
            for row, window in enumerate(some):
                inputs[row, : len(window.inputs)], targets[row, : len(window.targets)] = window.inputs, window.targets
            losses = model.losses(torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device))  # type: ignore[operator]
            found = losses.double().sum(1).tolist()
            for at, scored in enumerate(ranks.every(found)[: len(batches) - start]):
                for window, loss in zip(batches[start + at][1], scored, strict=True):
                    sums[window.sequence] += loss
    return sums


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold the model in evaluation mode without gradients, and put every module's mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
