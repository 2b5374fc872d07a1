"""Two sets of logits over the same positions, and what lies between them; and what must be so before they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from sovereign.shipping.weights import Weights

LEAST_PROMPTS = 32


class Incomparable(Exception):
    """Two sides that are not alike enough to be compared; names the precondition and both values."""


@dataclass(frozen=True)
class Logits:
    """The logits of one implementation on one sequence, and which positions they stand at.

    What follows from them is in float64, and kept: the same logits are held against several others.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    values: Tensor = field(repr=False)  # [positions, v]

    @cached_property
    def exact(self) -> Tensor:
        return self.values.double()

    @cached_property
    def logarithms(self) -> Tensor:
        return self.exact.log_softmax(-1)

    @cached_property
    def sizes(self) -> Tensor:
        return self.exact.norm(dim=-1)

    @cached_property
    def highest(self) -> tuple[Tensor, Tensor]:
        """Return the two highest logits of each position, and their tokens."""
        found = self.exact.topk(2, dim=-1)
        return found.values, found.indices

    @cached_property
    def finite(self) -> bool:
        # one pass: a sum in float64 is finite only where all values are; where it is not, it may have overflowed by itself
        return bool(self.values.sum(dtype=torch.float64).isfinite()) or bool(self.values.isfinite().all())


def every(ids: Sequence[int], values: Tensor) -> Logits:
    """Return logits that are said to stand at every position of a sequence."""
    return Logits(tuple(ids), tuple(range(len(ids))), values)


@dataclass(frozen=True)
class Measured:
    """What lies between reference and candidate on one sequence, one entry a position; losses in nats."""

    relative_l2: Tensor
    cosine: Tensor
    max_difference: Tensor
    kl: Tensor  # KL(reference || candidate)
    agree: Tensor  # whether both have the same most likely token
    margin: Tensor  # between the reference's two highest logits
    reference_nll: float  # over the tokens that follow a position
    candidate_nll: float
    targets: int


def require_comparable(reference: Logits, candidate: Logits) -> None:
    """Raise Incomparable unless both are of the same tokens, at the same positions, in the same shape."""
    if reference.ids != candidate.ids:
        at = next((index for index, (one, two) in enumerate(zip(reference.ids, candidate.ids, strict=False)) if one != two), min(len(reference.ids), len(candidate.ids)))  # fmt: skip
        raise Incomparable(
            f"token ids: {len(reference.ids)} tokens against {len(candidate.ids)}, which part at index {at}"
        )
    if reference.positions != candidate.positions:
        raise Incomparable(
            f"positions: the reference's logits stand at {_span(reference.positions)}, the candidate's at {_span(candidate.positions)}; "
            "statistics of all tokens and of the last token are of different things"
        )
    for side, name in ((reference, "reference"), (candidate, "candidate")):
        if side.values.shape[0] != len(side.positions):
            raise Incomparable(
                f"counts: the {name} has {side.values.shape[0]} rows of logits for {_span(side.positions)}"
            )
    if reference.values.shape != candidate.values.shape:
        raise Incomparable(f"shapes: logits {list(reference.values.shape)} against {list(candidate.values.shape)}")
    for side, name in ((reference, "reference"), (candidate, "candidate")):
        if not side.finite:
            raise Incomparable(f"values: the {name}'s logits are not all finite")


def _span(positions: Sequence[int]) -> str:
    if len(positions) == 1:
        return f"position {positions[0]} alone"
    return f"{len(positions)} positions, {positions[0]} to {positions[-1]}" if positions else "no position"


def require_alike(reference: Weights, candidate: Weights, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, which both sides agree on.

    Raises Incomparable for another vocabulary, another policy of special tokens, another size, or other ids; settings
    that only change the arithmetic (rope base, epsilon) are left to the forward pass, whose work is to see them.
    """
    ours, theirs = reference.shape, candidate.shape
    if reference.vocabulary != candidate.vocabulary:
        raise Incomparable(f"vocabulary: {reference.vocabulary} tokens against {candidate.vocabulary}")
    for name in ("hidden", "layers", "heads", "kv_heads", "ffn"):
        if getattr(ours, name) != getattr(theirs, name):
            raise Incomparable(f"shapes: {name} is {getattr(ours, name)} against {getattr(theirs, name)}")
    if reference.specials != candidate.specials:
        raise Incomparable(f"special tokens: {reference.specials} against {candidate.specials}")
    first = [tokenized(reference, text) for text in texts]
    for index, (text, ids) in enumerate(zip(texts, first, strict=True)):
        others = tokenized(candidate, text)
        if ids != others:
            at = next((number for number, (one, two) in enumerate(zip(ids, others, strict=False)) if one != two), min(len(ids), len(others)))  # fmt: skip
            raise Incomparable(
                f"token ids: prompt {index} is {len(ids)} tokens against {len(others)}, which part at index {at}"
            )
    return first


def tokenized(weights: Weights, text: str) -> list[int]:
    """Return the ids of a text as its model takes it: special tokens around it, and none read out of it."""
    if weights.tokenizer is None:
        raise Incomparable(f"token ids: {weights.origin} has no tokenizer that is read here")
    weights.tokenizer.encode_special_tokens = True
    specials = weights.specials
    ids = weights.tokenizer.encode(text, add_special_tokens=False).ids
    begin = [specials.begin] if specials.add_begin and specials.begin is not None else []
    end = [specials.end] if specials.add_end and specials.end is not None else []
    return [*begin, *ids, *end]


def compared(reference: Logits, candidate: Logits) -> Measured:
    """Return what lies between two sides, in float64; raises Incomparable where they are not alike."""
    require_comparable(reference, candidate)
    one, two = reference.exact, candidate.exact
    difference = two - one
    first, second = reference.logarithms, candidate.logarithms
    highest, likeliest = reference.highest
    targets = [reference.ids[at + 1] if at + 1 < len(reference.ids) else -1 for at in reference.positions]
    rows = [row for row, target in enumerate(targets) if target >= 0]
    wanted = torch.tensor([targets[row] for row in rows], dtype=torch.int64)
    return Measured(
        relative_l2=difference.norm(dim=-1) / reference.sizes,
        cosine=((one * two).sum(-1) / (reference.sizes * candidate.sizes)).clamp(-1, 1),
        max_difference=difference.abs().amax(-1),
        # rounding makes a vanishing divergence negative by a few 1e-17
        kl=(first.exp() * (first - second)).sum(-1).clamp(min=0),
        agree=likeliest[:, 0] == candidate.exact.argmax(-1),
        margin=highest[:, 0] - highest[:, 1],
        reference_nll=-float(first[rows, wanted].sum()),
        candidate_nll=-float(second[rows, wanted].sum()),
        targets=len(rows),
    )


def relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the relative L2 distance of each row, [t]; a row of zeros is at distance 0 from itself alone."""
    distance, size = (found - wanted).norm(dim=-1), wanted.norm(dim=-1)
    return torch.where(distance == 0, 0.0, distance / size)
