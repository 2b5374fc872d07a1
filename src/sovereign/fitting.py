"""Whether a contract's training fits a card, and which switch makes it fit: from configurations alone, no weight is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from sovereign.contract.contract import Contract
from sovereign.contract.training import Adamw, Adamw8bit, Training
from sovereign.model.decoder import build
from sovereign.model.pretrained import Unfit, outlined
from sovereign.training.device import DTYPES, Precision, keep_as
from sovereign.training.memory import taken
from sovereign.tuning import Language, made, packed_away

GIB = 2**30
# a card that is sold as 16 GB has about 15.6 GiB; a process's context and the libraries' workspaces take half of one, and
# an allocator leaves holes
CONTEXT, HOLES = 0.9 * GIB, 0.05


Switch = tuple[str, dict[str, Any]]  # what it is called, and the settings it changes


@dataclass(frozen=True)
class Fit:
    """What training takes with some settings changed; none changed is the contract as it stands."""

    changed: tuple[str, ...]
    bytes: int
    fits: bool


def room(card_gib: float) -> int:
    """Return the bytes that tensors may take on a card of so many GiB."""
    return int(card_gib * GIB * (1 - HOLES) - CONTEXT)


def fits(contract: Contract, root: Path, card_gib: float) -> Iterator[Fit]:
    """Yield the contract as it stands; each switch that it has thrown, taken back; and where it does not fit, the fewest that help.

    Raises Unfit where a base is known by no configuration.
    """
    most, training = room(card_gib), contract.training
    thrown: list[Switch] = []
    open_: list[Switch] = []
    for name, on, settings in _switches(training):
        (thrown if on else open_).append((name, settings))

    def fit(changed: tuple[str, ...], settings: Training) -> Fit:
        tensors = needed(contract.model_copy(update={"training": settings}), root)
        return Fit(changed, tensors, tensors <= most)

    yield (whole := fit((), training))
    if whole.fits:
        for name, update in thrown:
            yield fit((name,), training.model_copy(update=update))
        return
    for size in range(1, len(open_) + 1):
        found = [
            fit(tuple(name for name, _ in some), training.model_copy(update=_united(some)))
            for some in combinations(open_, size)
        ]
        yield from (one for one in found if one.fits or size == len(open_))
        if any(one.fits for one in found):
            return


def _united(some: tuple[Switch, ...]) -> dict[str, Any]:
    return {key: value for _, update in some for key, value in update.items()}


def _switches(training: Training) -> Iterator[tuple[str, bool, dict[str, Any]]]:
    """Yield each switch: what throwing it, or taking it back, is called; whether it is thrown; and the change."""
    kept = training.weights != "fp32"
    other = "fp32" if kept else "fp16" if training.precision == "fp16" else "bf16"
    eight = (
        Adamw8bit(**{**training.optimizer.plain(), "kind": "adamw8bit"}) if training.optimizer.kind == "adamw" else None
    )
    if other == "fp16" and eight:  # what moves in fp16 needs it
        yield "training.weights: fp16, training.optimizer: adamw8bit", kept, {"weights": other, "optimizer": eight}
    else:
        yield f"training.weights: {other}", kept, {"weights": other}
    again = training.activation_checkpointing
    yield f"training.activation_checkpointing: {str(not again).lower()}", again, {"activation_checkpointing": not again}
    optimizer = training.optimizer
    if isinstance(optimizer, Adamw8bit) and training.weights != "fp16":  # where its moments would be in fp16 too
        yield "training.optimizer: adamw", True, {"optimizer": Adamw(**{**optimizer.plain(), "kind": "adamw"})}
    elif eight:
        yield "training.optimizer: adamw8bit", False, {"optimizer": eight}
    if (training.micro_batch or training.sequences) > 1:
        yield "training.micro_batch: 1", False, {"micro_batch": 1}


def needed(contract: Contract, root: Path) -> int:
    """Return the most bytes of tensors alive at once: two updates of the very model, on tensors without content.

    They are counted as on a CPU, where a model from scratch keeps the attention weights of up to 512 positions.
    """
    training, method = contract.training, contract.tuned
    precision: Precision = "bf16" if training.precision == "auto" else training.precision
    with torch.device("meta"):  # PEFT moves what it attaches, which tensors without content allow nowhere else
        base = _skeleton(contract, root)
        model = made(base, method, 0, labels=2) if method else base
        keep_as(model, training.weights)
        saved = packed_away(model, method, DTYPES[precision])
    whole = taken(
        lambda: model, training, training.sequences, contract.context,
        precision, "cpu",
    )  # fmt: skip
    return whole.tensors - saved


def _skeleton(contract: Contract, root: Path) -> Language:
    """Return the model without its weights; raises Unfit where nobody says its shape."""
    method = contract.tuned
    if method is None:
        tokenizer = contract.trained_tokenizer
        if tokenizer.vocabulary is None:
            raise Unfit(f"tokenizer.vocabulary: give it; a tokenizer of kind {tokenizer.kind} is not read for its size")
        rows = tokenizer.vocabulary
        return build(contract.decoder, rows, 0, None)
    base = method.base
    if base.run is not None:
        raise Unfit(
            f"method.base: {base.run} is a run, whose size `sovereign plan` counts; --card is for hub and folder"
        )
    path = root / base.folder / "config.json" if base.folder else root / base.config if base.config else None
    if path is None:
        raise Unfit(
            f"method.base.config: say where the config.json of {base.hub} stands; nothing is fetched for a size"
        )
    return outlined(path)
