"""Where two implementations part: the first operation that makes something else of the same input, and of what kind it is.

Each operation of the reference is fed with what the candidate had on its way in, so that an error made earlier counts
against its maker alone. What an operation is suspected of is tested by doing it: the reference carries the
operation out with the fault planted, and the suspicion stands if the candidate's output comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sovereign.parity.compare import relative
from sovereign.parity.forward import PRODUCTS, Forward, Operation, Place, in_float32, places, tensor_of, with_tensor
from sovereign.parity.observed import Implementation, entered
from sovereign.shipping.gguf_model import row_order
from sovereign.shipping.weights import EMBEDDING, HEAD

TIMES_FLOOR = 4.0  # llama.cpp on sound files stays below 2, at the worst position of any operation
LEAST = 2.0**-23  # one unit of float32, where an operation's floor is nothing
# An engine counts its angles in powers of base^(-2 / head dim), which it keeps in float32: to half a unit, 2^-24. Taken back
# to the base that is head dim / 2 times as much: 4e-6 at 128, a unit in the sixth digit.
BASE_DIGITS = 5
EXPLAINED = 0.02  # a suspicion stands that leaves less than this share of the divergence


@dataclass(frozen=True)
class Local:
    """How far one operation of the candidate is from the reference's on the same input."""

    place: Place
    tensor: str
    worst: float  # relative L2, at the worst position
    mean: float
    floor: float  # the same of float32 against float64, at the worst position
    allowed: float

    @property
    def parts(self) -> bool:
        return not self.worst <= self.allowed  # a value that is not a number parts, too

    @property
    def name(self) -> str:
        layer, operation = self.place
        return operation if operation in ("embedding", "norm", "head") else f"layer {layer} {operation}"


@dataclass(frozen=True)
class Suspicion:
    """A fault that an operation is suspected of, and the share of the divergence it leaves unexplained."""

    what: str
    left: float


@dataclass(frozen=True)
class Located:
    """The outcome: every operation's divergence, the first that parts, and what explains it."""

    locals: tuple[Local, ...] = field(repr=False)
    first: Local | None
    suspicions: tuple[Suspicion, ...] = ()
    unseen: tuple[str, ...] = ()  # operations whose values the candidate did not show

    @property
    def sentence(self) -> str:
        if self.first is None:
            return "no operation parts from the reference"
        of = f" ({self.first.tensor})" if self.first.tensor else ""
        said = f"{self.first.name}{of} parts first: relative L2 {self.first.worst:.1e}, where {self.first.allowed:.1e} is allowed"
        return f"{said}; {self.suspicions[0].what}" if self.suspicions else f"{said}; no known fault explains it"


def locate(reference: Forward, candidate: Implementation, prompts: Sequence[Sequence[int]]) -> Located:
    """Return where the candidate first parts from the reference over all prompts, and why.

    The reference computes in float64 and rounds as the candidate's engine does. An operation parts when its worst
    position is further off than TIMES_FLOOR times what float32 costs the reference itself on the same input.
    """
    traces = [(list(ids), candidate(ids)) for ids in prompts]
    single = in_float32(reference)
    found, unseen = [], []
    for place, operation in places(reference.shape.layers):
        seen = _seen(traces, place, operation, reference.shape.layers)
        if seen is None:
            unseen.append(f"{place[0]}/{place[1]}")
            continue
        away, floors = [], []
        for ids, inputs, output in seen:
            wanted = reference.apply(place, operation, inputs, ids)
            away.append(relative(output, wanted))
            floors.append(relative(single.apply(place, operation, inputs, ids).double(), wanted))
        apart, floor = torch.cat(away), float(torch.cat(floors).max())
        allowed = TIMES_FLOOR * max(floor, LEAST)
        found.append(Local(place, tensor_of(place, operation), float(apart.max()), float(apart.mean()), floor, allowed))
    first = next((one for one in found if one.parts), None)
    if first is None:
        return Located(tuple(found), None, (), tuple(unseen))
    operation = next(one for place, one in places(reference.shape.layers) if place == first.place)
    seen = _seen(traces, first.place, operation, reference.shape.layers)
    assert seen is not None
    return Located(tuple(found), first, suspected(reference, first.place, operation, seen), tuple(unseen))


Seen = tuple[list[int], list[Tensor], Tensor]  # ids, inputs, output


def _seen(traces: Sequence[tuple[list[int], Mapping[Place, Tensor]]], place: Place, operation: Operation, layers: int) -> list[Seen] | None:  # fmt: skip
    found = []
    for ids, trace in traces:
        inputs = entered(dict(trace), place, operation.takes, layers)
        if inputs is None or place not in trace:
            return None
        found.append((ids, inputs, trace[place]))
    return found


# ── what it is suspected of ──────────────────────────────────────────────────────────────────────


def suspected(reference: Forward, place: Place, operation: Operation, seen: Sequence[Seen]) -> tuple[Suspicion, ...]:
    """Return the faults that explain a divergence, the best explanation first."""
    wanted = torch.cat([reference.apply(place, operation, inputs, ids) for ids, inputs, _ in seen])
    output = torch.cat([value for _, _, value in seen])
    whole = float((output - wanted).norm())
    stands = []
    for what, guess in _guesses(reference, place, operation, seen, wanted, output):
        left = float((output - guess).norm()) / whole
        if left < EXPLAINED:
            stands.append(Suspicion(what, left))
    # a scale explains a sign, a permutation explains a swap: of equal explanations the first named is the narrower one
    return tuple(sorted(stands, key=lambda one: round(one.left, 3)))


Guess = tuple[str, Tensor]


def _guesses(
    reference: Forward, place: Place, operation: Operation, seen: Sequence[Seen], wanted: Tensor, output: Tensor
) -> Iterator[Guess]:
    name = operation.name

    def again(forward: Forward) -> Tensor:
        return torch.cat([forward.apply(place, operation, inputs, ids) for ids, inputs, _ in seen])

    if name in PRODUCTS:
        yield from _of_products(reference, tensor_of(place, operation), again)
    elif name == "embedding":
        yield from _of_rows(reference, seen, wanted, output)
    elif name in ("attn_norm", "ffn_norm", "norm"):
        yield from _of_norms(reference, tensor_of(place, operation), seen, output, again)
    elif name in ("q_rope", "k_rope"):
        yield from _of_rope(reference, seen, again)
    elif name == "attention":
        yield from _of_attention(reference, seen)
    elif name == "activation":
        yield "gate and up swapped", torch.cat([torch.nn.functional.silu(up) * gate for _, (gate, up), _ in seen])
    yield from _of_outputs(reference, wanted, output, name)


def _of_products(reference: Forward, tensor: str, again: Callable[[Forward], Tensor]) -> Iterator[Guess]:
    matrix = reference.tensors[tensor]
    rows, columns = matrix.shape

    def with_matrix(other: Tensor) -> Tensor:
        return again(with_tensor(reference, tensor, other))

    if rows == columns:
        yield "transposed", with_matrix(matrix.T)
    else:
        yield "stored transposed: read row by row as if it were columns", with_matrix(matrix.T.reshape(rows, columns))
    if tensor.endswith(("q_proj.weight", "k_proj.weight")):
        order = row_order(rows // reference.shape.head_dim, reference.shape.head_dim)
        yield "rows permuted: rope permutation missing", with_matrix(matrix[torch.argsort(order)])
        yield "rows permuted: rope permutation applied twice", with_matrix(matrix[order])
    for other, held in reference.tensors.items():
        if other != tensor and held.shape == matrix.shape and held is not matrix:
            yield f"holds another tensor: {other}", with_matrix(held)
            if tensor.endswith(("q_proj.weight", "k_proj.weight")) and rows % reference.shape.head_dim == 0:
                order = row_order(rows // reference.shape.head_dim, reference.shape.head_dim)
                yield (
                    f"holds another tensor: {other}, its rows in llama.cpp's order",
                    with_matrix(held[torch.argsort(order)]),
                )
    if tensor == HEAD and EMBEDDING in reference.tensors and reference.tensors[EMBEDDING] is not matrix:
        yield "tied head: the embedding stands in for it", with_matrix(reference.tensors[EMBEDDING])
    yield "rows in reverse order", with_matrix(matrix.flip(0))
    yield "columns in reverse order", with_matrix(matrix.flip(1))
    if tensor.endswith("o_proj.weight"):
        for what, order in _swaps(reference.shape.heads, reference.shape.head_dim):
            yield f"columns permuted: heads {what} swapped", with_matrix(matrix[:, order])


def _swaps(heads: int, dim: int) -> Iterator[tuple[str, Tensor]]:
    """Yield every exchange of two heads, as an order of rows; of more than 8 heads, of neighbours only."""
    for one in range(heads):
        for two in range(one + 1, heads if heads <= 8 else min(one + 2, heads)):
            order = torch.arange(heads * dim).view(heads, dim)
            order[[one, two]] = order[[two, one]]
            yield f"{one} and {two}", order.reshape(-1)


def _of_outputs(reference: Forward, wanted: Tensor, output: Tensor, name: str) -> Iterator[Guess]:
    """Guess from the output alone: a factor, a constant, rows in another order, or a few rows gone wrong."""
    factor = float((output * wanted).sum() / wanted.square().sum())
    yield f"scale wrong by a factor of {factor:.4g}", wanted * factor
    constant = (output - wanted).mean(0, keepdim=True)
    yield "bias: a constant is added that the reference has not (or one is missing)", wanted + constant
    apart = (output - wanted).norm(dim=0)
    bad = apart > 1e-3 * apart.max()
    count = int(bad.sum())
    if 0 < count <= max(1, wanted.shape[1] // 16):
        zero = bool((output[:, bad] == 0).all())
        which = ", ".join(map(str, bad.nonzero().flatten().tolist()[:8]))
        yield f"{'rows zeroed' if zero else 'a few rows wrong'}: {which}", torch.where(bad, output, wanted)
    if name in PRODUCTS and wanted.shape[1] <= 4096:
        yield from _permuted(reference, wanted, output, name)


def _permuted(reference: Forward, wanted: Tensor, output: Tensor, name: str) -> Iterator[Guess]:
    first, second = (one / one.norm(dim=0).clamp(min=1e-300) for one in (wanted, output))
    order = (second.T @ first).argmax(1)  # of each output, which row of the reference it looks like
    if not torch.equal(order.sort().values, torch.arange(len(order))):
        return
    moved = int((order != torch.arange(len(order))).sum())
    dim = reference.shape.head_dim
    blocks = order.view(-1, dim) if name in ("q", "k", "v") else order[:0].view(-1, 1)
    if len(blocks) and bool((blocks == blocks[:, :1] + torch.arange(dim)).all()):
        yield f"rows permuted: heads stand in the order {(blocks[:, 0] // dim).tolist()}", wanted[:, order]
    yield f"rows permuted: {moved} of {len(order)} stand elsewhere", wanted[:, order]


def _of_rows(reference: Forward, seen: Sequence[Seen], wanted: Tensor, output: Tensor) -> Iterator[Guess]:
    apart = relative(output, wanted) > 1e-6
    tokens = torch.cat([torch.tensor(ids) for ids, _, _ in seen])
    wrong = set(tokens[apart].tolist())
    if wrong and not wrong & set(tokens[~apart].tolist()) and len(wrong) <= max(1, len(set(tokens.tolist())) // 4):
        named = ", ".join(map(str, sorted(wrong)[:8]))
        yield f"rows wrong, of tokens {named}", torch.where(apart[:, None], output, wanted)
    matrix = reference.tensors[EMBEDDING]
    yield "stored transposed: read row by row as if it were columns", matrix.T.reshape(matrix.shape)[tokens]
    if HEAD in reference.tensors and reference.tensors[HEAD] is not matrix:
        yield "holds another tensor: the head", reference.tensors[HEAD][tokens]


def _of_norms(
    reference: Forward, tensor: str, seen: Sequence[Seen], output: Tensor, again: Callable[[Forward], Tensor]
) -> Iterator[Guess]:
    x = torch.cat([inputs[0] for _, inputs, _ in seen])
    weight = reference.tensors[tensor]
    # of each position, the factor that was put on x * weight, and the epsilon under which it is right
    factor = (output * (x * weight)).sum(-1) / (x * weight).square().sum(-1)
    epsilon = float((factor.abs().clamp(min=1e-30) ** -2 - x.square().mean(-1)).median())
    if epsilon >= 0:
        changed = replace(reference, shape=reference.shape.model_copy(update={"norm_epsilon": epsilon}))
        yield f"norm epsilon {epsilon:.2g} instead of {reference.shape.norm_epsilon:.2g}", again(changed)
    yield "weights replaced by ones", again(with_tensor(reference, tensor, torch.ones_like(weight)))
    for other, held in reference.tensors.items():
        if other != tensor and held.shape == weight.shape:
            yield f"holds another tensor: {other}", again(with_tensor(reference, tensor, held))


def _of_rope(reference: Forward, seen: Sequence[Seen], again: Callable[[Forward], Tensor]) -> Iterator[Guess]:
    yield "rope pairing: neighbours are turned together, not halves", again(replace(reference, pairs="neighbours"))
    base, own = _fitted_base(reference, seen), reference.shape.rope_base
    if base is not None and _known(base) != _known(own):
        changed = replace(reference, shape=reference.shape.model_copy(update={"rope_base": base}))
        yield f"rope base {_known(base):.12g} instead of {own:.12g}", again(changed)
    yield "not turned at all", torch.cat([inputs[0] for _, inputs, _ in seen])
    moved = []
    for _, inputs, _ in seen:  # one position further than it should be
        longer = torch.cat((torch.zeros_like(inputs[0][:1]), inputs[0]))
        moved.append(reference._turned(longer.to(reference.dtype))[1:])
    yield "positions counted from 1", torch.cat(moved)


def _known(base: float) -> float:
    return float(f"{base:.{BASE_DIGITS}g}")


def _fitted_base(reference: Forward, seen: Sequence[Seen]) -> float | None:
    """Return the base under which position 1 is turned as it was: each pair's angle there is base^(-2 pair / dim)."""
    dim, found = reference.shape.head_dim, []
    for _, inputs, output in seen:
        if len(output) < 2:
            continue
        before, after = (one[1].view(-1, dim) for one in (inputs[0], output))
        one, two = (torch.complex(*half.chunk(2, dim=-1)) for half in (before, after))
        angles = torch.angle((two * one.conj()).sum(0))
        for pair in range(1, dim // 2):
            if angles[pair] > 1e-4:
                found.append(float(angles[pair]) ** (-dim / (2 * pair)))
    return float(torch.tensor(found, dtype=torch.float64).median()) if found else None


def _of_attention(reference: Forward, seen: Sequence[Seen]) -> Iterator[Guess]:
    shape = reference.shape
    for what, scale in {"1": 1.0, "1 / head dim": 1 / shape.head_dim, "1 / sqrt(hidden)": shape.hidden**-0.5}.items():
        factor = scale * shape.head_dim**0.5
        yield f"scores scaled by {what}", torch.cat([reference._mixed(q * factor, k, v) for _, (q, k, v), _ in seen])
    if shape.kv_heads not in (1, shape.heads):
        group = shape.heads // shape.kv_heads
        order = torch.arange(shape.heads).view(group, shape.kv_heads).T.reshape(-1)
        guesses = []
        for _, (q, k, v), _ in seen:
            heads = q.view(len(q), shape.heads, -1)[:, order].reshape(len(q), -1)
            back = torch.argsort(order)
            guesses.append(reference._mixed(heads, k, v).view(len(q), shape.heads, -1)[:, back].reshape(len(q), -1))
        yield "query heads grouped to other key heads", torch.cat(guesses)
