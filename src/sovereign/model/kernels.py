"""Operations whose plain form wastes time or memory, each with its gradient written out.

Every one equals what autograd makes of the plain form (tested in float64), and stands here because a
profile of the training step asked for it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CACHED = 2**20  # logits that a CPU passes over together: 4 MiB of float32 stay in its cache
BAND = 2 * CACHED  # logits that a CPU makes in one product: 4 MiB of bfloat16, and more only where 64 tokens' are more
SUMMED = 512  # tokens whose slopes are summed in float16, which ends at 65504; the loss is scaled only afterwards
IGNORED = -100  # a target that is not counted, as in torch's cross-entropy


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the summed loss in nats of `targets` [n] under logits hidden [n, h] @ weight.T [h, v].

    A scalar, in at least float32. Targets equal to IGNORED count nothing and move nothing.
    """
    all_counted = False
    # prompts and padding are two thirds of a batch of examples. A GPU would have to be asked how many they are, and
    # tensors without content have no answer
    if targets.device.type == "cpu" and type(targets) is Tensor:
        counted = (targets != IGNORED).nonzero().squeeze(1)
        if 0 < len(counted) < len(targets):
            hidden, targets = hidden.index_select(0, counted), targets[counted]
        all_counted = len(counted) > 0
    return _LinearCrossEntropy.apply(hidden, weight, targets, all_counted)


class _LinearCrossEntropy(torch.autograd.Function):
    """The output head and its cross-entropy together, so that only one chunk of logits exists at a time.

    The gradient is known as soon as the logits are, so it is taken on the way forward, and the logits
    are neither kept nor computed twice (Hsu et al. 2024, Liger kernels, section 3.2).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, all_counted: bool) -> Tensor:
        matrix = weight.to(hidden.dtype)
        exact = torch.promote_types(hidden.dtype, torch.float32)
        total = hidden.new_zeros((), dtype=exact)
        wanted, of_weight = any(ctx.needs_input_grad), ctx.needs_input_grad[1]  # a frozen head wants none
        to_hidden, to_weight = torch.empty_like(hidden), torch.empty_like(weight) if of_weight else None
        chunk = min(len(hidden), chunk_rows(len(weight), hidden.device))
        # what passes over logits fits a CPU's cache; products, and what becomes of the weight's, are better longer
        band = min(len(hidden), max(chunk, BAND // len(weight))) if hidden.device.type == "cpu" else chunk
        if hidden.dtype == torch.float16:
            band = min(band, SUMMED)
        # the same memory every time: fresh pages cost a CPU more than the arithmetic on them
        room, powers_room = hidden.new_empty(band, len(weight)), hidden.new_empty(chunk, len(weight), dtype=exact)
        part = torch.empty_like(matrix if of_weight else matrix[:0])
        for first in range(0, len(hidden), band):
            some = slice(first, min(first + band, len(hidden)))
            # logits, and in their place what the loss changes by with each
            slopes = torch.mm(hidden[some], matrix.T, out=room[: some.stop - first])
            for logits, labels in zip(slopes.split(chunk), targets[some, None].split(chunk), strict=True):
                powers, chosen, counted = powers_room[: len(logits)], labels.clamp(min=0), (labels != IGNORED).to(exact)
                own, highest = logits.gather(1, chosen).to(exact), powers.copy_(logits).amax(1, keepdim=True)
                # one kernel in place of four; the highest's share, 1 over the sum of powers, gives the log-sum-exp
                torch.softmax(powers, 1, out=powers)
                total += (counted * (highest - powers.amax(1, keepdim=True).log() - own)).sum()
                if not all_counted:
                    powers.mul_(counted)
                if wanted:
                    logits.copy_(powers.scatter_add_(1, chosen, -counted))
            if wanted:
                torch.mm(slopes, matrix, out=to_hidden[some])
            if to_weight is not None:
                torch.mm(slopes.T, hidden[some], out=part)
                to_weight = to_weight.add_(part) if first else to_weight.copy_(part)
        if wanted:
            ctx.save_for_backward(*(one for one in (to_hidden, to_weight) if one is not None))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        to_hidden, *to_weight = ctx.saved_tensors
        return to_hidden.mul_(slope), to_weight[0].mul_(slope) if to_weight else None, None, None


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None, sinks: Tensor | None = None) -> Tensor:
    """Return attention [b, heads, t, d] of q [b, heads, t, d] to k and v [b, kv heads, s, d].

    Causal, unless `seen` [b or 1, 1, t, s] says which keys a query may see. `sinks` [heads] are logits that join
    every softmax of their head and stand for no value (OpenAI 2025, gpt-oss; Xiao et al. 2023); they need `seen`.
    """
    if sinks is not None:
        assert seen is not None  # whoever has sinks has a mask: torch's causal one does not reach past them
        return _with_sinks(q, k, v, seen, sinks)
    if seen is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad and q.shape[2] <= KEPT:
        return cpu_attention(q, k, v)[0]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


SPARE = 8  # columns added for the sinks: one is used, and GPU kernels want head dimensions in multiples of 8


def _with_sinks(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, sinks: Tensor) -> Tensor:
    """Return attention in which a first key, of value zero, has the score `sinks` for every query.

    A key is shared by several heads and a sink is not, so its score comes in through a further column of the queries.
    """
    (b, heads, t, d), scale = q.shape, q.shape[-1] ** -0.5
    scores = (sinks / scale).to(q.dtype).view(1, heads, 1, 1).expand(b, heads, t, 1)
    queries = torch.cat((q, scores, q.new_zeros(b, heads, t, SPARE - 1)), -1)
    keys, values = F.pad(k, (0, SPARE, 1, 0)), F.pad(v, (0, SPARE, 1, 0))
    first = torch.zeros(keys.shape[2:], dtype=keys.dtype, device=keys.device)
    first[0, d] = 1
    mixed = F.scaled_dot_product_attention(
        queries, keys + first, values, attn_mask=F.pad(seen, (1, 0), value=True), scale=scale, enable_gqa=True
    )
    return mixed[..., :d]


KEPT = 512  # positions up to which attention weights are kept: 2.3 MiB a sequence and layer of eight heads, at most


def _attention(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """Return causal attention as `attention` does, and its weights, block after block in one row, in the dtype of q.

    Batched matrix products, of a block of queries with all keys up to its last at a time. Weights are computed once and
    kept for the way back; those of many positions would fill the memory, and SDPA, which makes them anew, takes those.
    Scores and their softmax are float32: a score rounded to bfloat16 is a weight that is wrong by per cents.
    """
    kv_heads, d = k.shape[1], q.shape[-1]
    exact = torch.promote_types(q.dtype, torch.float32)
    queries, keys = _sharing(q, kv_heads).to(exact).contiguous(), k.to(exact).contiguous()
    values, mixed, kept = v.contiguous(), torch.empty_like(q), q.new_empty(_weights(q))
    # the same memory for the scores of every block, as much as the last and longest needs
    room = queries.new_empty(max(queries[rows, :, at, :, 0].numel() * at.stop for rows, at in _blocks(q)))
    with torch.autocast(q.device.type, enabled=False):  # it would round the scores
        for (rows, block), weights in zip(_blocks(q), _split(kept, q, kv_heads), strict=True):
            some, seen = _matrices(queries[rows, :, block]), _matrices(keys[rows, :, : block.stop])
            scores = room[: weights.numel()].view_as(weights)
            torch.baddbmm(scores, some, seen.mT, beta=0, alpha=d**-0.5, out=scores)
            scores[..., block] += _hiding(queries[rows, :, block])
            weights.copy_(torch.softmax(scores, -1, out=scores))
            some = torch.bmm(weights, _matrices(values[rows, :, : block.stop]))
            _sharing(mixed, kv_heads)[rows, :, block] = some.view_as(queries[rows, :, block])
    return [mixed, kept]


def _attention_backward(slope: Tensor, q: Tensor, k: Tensor, v: Tensor, mixed: Tensor, kept: Tensor) -> list[Tensor]:
    """Return what q, k and v change the loss by, if attention, `mixed`, changes it by `slope` [b, heads, t, d]."""
    kv_heads, d = k.shape[1], q.shape[-1]
    scale, exact = d**-0.5, torch.promote_types(q.dtype, torch.float32)
    # what is subtracted of every slope joins the product as two more columns, high and low part, because a float32 sum
    # of bfloat16 products is the only place where the difference survives the rounding (Dao et al. 2022, algorithm 4)
    towards = (slope * mixed).sum(-1, keepdim=True, dtype=exact)
    slopes = _two_more(_sharing(slope, kv_heads), -_sharing(towards, kv_heads))
    queries, values, scaled = _sharing(q, kv_heads).contiguous(), _two_more(v), (k * scale).contiguous()
    to_q, to_k, to_v = torch.empty_like(q), torch.zeros_like(k, dtype=exact), torch.zeros_like(v, dtype=exact)
    for (rows, block), weights in zip(_blocks(q), _split(kept, q, kv_heads), strict=True):
        before, shape = slice(block.stop), (-1, kv_heads, block.stop, d)
        some = _matrices(slopes[rows, :, block])
        to_scores = torch.bmm(some, _matrices(values[rows, :, before]).mT).mul_(weights)
        to_v[rows, :, before] += torch.bmm(weights.mT, some[..., :d]).view(shape)
        to_k[rows, :, before] += torch.bmm(to_scores.mT, _matrices(queries[rows, :, block])).view(shape)
        some = torch.bmm(to_scores, _matrices(scaled[rows, :, before]))
        _sharing(to_q, kv_heads)[rows, :, block] = some.view_as(queries[rows, :, block])
    return [to_q, to_k.mul_(scale).to(k.dtype), to_v.to(v.dtype)]


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: list[Tensor]) -> None:
    ctx.set_materialize_grads(False)  # nobody takes a gradient through the weights: it would be made, of zeros
    ctx.save_for_backward(*inputs, *output)


def _slopes_of_attention(ctx: Any, slopes: list[Tensor]) -> tuple[Tensor, ...]:
    return tuple(_attention_back(slopes[0], *ctx.saved_tensors))


# operations to torch, which a compiler leaves as they are: it would write their products out, block after block, for half a
# minute and no gain. Its cache knows them by their names, and would go on with a gradient as it was before an edit, so the
# names change with this file
_EDITION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
cpu_attention = torch.library.custom_op(f"sovereign::attention_{_EDITION}", _attention, mutates_args=())
_attention_back = torch.library.custom_op(f"sovereign::attention_back_{_EDITION}", _attention_backward, mutates_args=())
# what they give, where lengths are symbols: compiled once, they then serve batches of every length
cpu_attention.register_fake(lambda q, k, v: [torch.empty_like(q), q.new_empty(_weights(q))])
_attention_back.register_fake(lambda slope, q, k, v, mixed, kept: [torch.empty_like(one) for one in (q, k, v)])
cpu_attention.register_autograd(_slopes_of_attention, setup_context=_keep)
WRITTEN_OUT: dict[Any, Callable[..., list[Tensor]]] = {  # what each does, for whoever counts its tensors
    cpu_attention._opoverload: _attention,
    _attention_back._opoverload: _attention_backward,
}


def _sharing(x: Tensor, kv_heads: int) -> Tensor:
    """Return x [b, heads, t, d] as a view [b, kv heads, t, group, d]: queries that share a key stand side by side."""
    return x.unflatten(1, (kv_heads, -1)).transpose(2, 3)


def _matrices(x: Tensor) -> Tensor:
    """Return x [b, kv heads, t, d] or [b, kv heads, t, group, d] as one batch of matrices, without a copy."""
    return x.flatten(2, -2).flatten(0, 1)


def _hiding(queries: Tensor) -> Tensor:
    """Return what to add to the scores of a block of queries [.., t, group, d] with its own keys, [t * group, t]."""
    t, group = queries.shape[-3:-1]
    return queries.new_full((t, t), -torch.inf).triu_(1).repeat_interleave(group, 0)


def _blocks(q: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield which sequences and queries of q [b, heads, t, d] to take together."""
    b, heads, t, _ = q.shape
    size = _block(t)
    together = max(1, 2**20 // (heads * size * t))  # 2 MiB of bfloat16 weights at a time stay in a CPU's cache
    for first in range(0, b, together):
        for start in range(0, t, size):
            yield slice(first, min(first + together, b)), slice(start, min(start + size, t))


def _block(t: int) -> int:
    return max(64, -(-t // 8))


def _weights(q: Tensor) -> int:
    """Return how many weights attention has from q [b, heads, t, d]: of every query, with the keys up to its block's last."""
    b, heads, t, _ = q.shape
    size, whole = _block(t), (t - 1) // _block(t)  # the last block may be shorter than the whole ones before it
    return b * heads * (size * size * whole * (whole + 1) // 2 + (t - whole * size) * t)


def _split(kept: Tensor, q: Tensor, kv_heads: int) -> Iterator[Tensor]:
    """Yield the part of `kept` of each block of q, [sequences * kv heads, queries * group, keys]."""
    first, group = 0, q.shape[1] // kv_heads
    for rows, block in _blocks(q):
        shape = (rows.stop - rows.start) * kv_heads, (block.stop - block.start) * group, block.stop
        yield kept[first : first + math.prod(shape)].view(shape)
        first += math.prod(shape)


def _two_more(x: Tensor, shift: Tensor | None = None) -> Tensor:
    """Return x [..., d] with two more columns: the shift [..., 1] in two parts, or ones that will take such a shift."""
    if shift is None:
        return F.pad(x, (0, 2), value=1.0)
    high = shift.to(x.dtype)
    return torch.cat((x, high, (shift - high).to(x.dtype)), -1)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Return x [..., h] over the root of its mean square, times weight [h] (Zhang & Sennrich 2019)."""
    if x.dtype == torch.float32:
        weight = weight.float()  # a frozen one may be kept in bfloat16, above an embedding that moves in float32
    plain = torch.compiler.is_compiling()  # a compiler writes out what stands here, and keeps what it writes
    if x.device.type == "cpu" and x.requires_grad and x.dtype in (torch.float32, torch.float64) and not plain:
        return _CpuRMSNorm.apply(x, weight, epsilon)
    return F.rms_norm(x, weight.shape, weight, epsilon)


class _CpuRMSNorm(torch.autograd.Function):
    """RMSNorm in three passes over x, and six back; what autograd makes of torch's on a CPU takes three times as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(len(weight)).add_(epsilon).rsqrt_()
        unit = x * inverse
        ctx.save_for_backward(unit, weight, inverse)
        return unit * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor | None, None]:
        unit, weight, inverse = ctx.saved_tensors
        along = slope * unit
        to_weight = along.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        back = (along @ weight).unsqueeze(-1).div_(len(weight))
        return torch.mul(slope, weight, out=along).addcmul_(unit, back, value=-1).mul_(inverse), to_weight, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return x [b, t, heads, d] with pair (i, i + d / 2) turned by its position's angle (Su et al. 2021).

    `cos` and `sin` [t, 1, d] or [b, t, 1, d] in the dtype of x hold each angle at both places of its pair, the sine
    negative at the first. They may hold it for as many heads as x has, or for more.
    """
    cos, sin = cos[..., : x.shape[-2], :], sin[..., : x.shape[-2], :]
    return _turned(x, cos, sin) if torch.compiler.is_compiling() else _Rotate.apply(x, cos, sin)


class _Rotate(torch.autograd.Function):
    """A turn, whose gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(slope, cos, sin, -1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int = 1) -> Tensor:
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin, value=sign)


def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each of `targets` [n] in nats, [n] in at least float32; IGNORED loses 0. No gradient."""
    matrix = weight.to(hidden.dtype)
    exact = torch.promote_types(hidden.dtype, torch.float32)
    losses = hidden.new_empty(len(hidden), dtype=exact)
    chunk = chunk_rows(len(weight), hidden.device)
    with torch.no_grad():
        for start in range(0, len(hidden), chunk):
            rows = slice(start, start + chunk)
            logits = (hidden[rows] @ matrix.T).to(exact)
            losses[rows] = F.cross_entropy(logits, targets[rows], reduction="none", ignore_index=IGNORED)
    return losses


def chunk_rows(vocabulary: int, device: torch.device) -> int:
    """Return how many rows of logits to hold at once."""
    logits = CACHED if device.type == "cpu" else 2**28  # a GPU wants few, large kernels
    return max(64, logits // vocabulary)
