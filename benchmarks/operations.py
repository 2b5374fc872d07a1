"""What each operation of `sovereign.model.kernels` costs beside torch's own, forward and back together.

    python benchmarks/operations.py [--quick] [--rounds N] [--shape 5m|25m] [--precision bf16|fp32]

The claim is that of the module: each stands there because the plain form wastes time or memory in a training step. All
contenders take the same leaves and the same slope, in the same round, each of them first in turn; what is reported is the
median ratio of a round with its extremes, peer / ours, so that more than 1 is time saved. Beside it stands how far value
and worst gradient lie from float64's on the same rounded inputs, so that time bought with rounding shows. Shapes are those of
benchmarks/training.py; dtypes those of its step, where norms and the head's weight stay float32. In float32
attention is torch's own on both sides, and is left out, as it is beyond 512 positions.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sovereign.contract.model import Decoder as Shape
from sovereign.model.decoder import rotation_table
from sovereign.model.kernels import attention, linear_cross_entropy, rms_norm, rotate
from sovereign.training.device import keep_freed_memory

SHAPES = {
    "5m": (Shape(hidden=256, layers=4, heads=8, kv_heads=4, ffn=768, context=256), 4096),
    "25m": (Shape(hidden=512, layers=7, heads=8, kv_heads=4, ffn=1536, context=256), 8192),
}
SEQUENCES = 8

Kernel = Callable[..., Tensor]


@dataclass(frozen=True)
class Operation:
    """One operation on leaves, as ours and as peers compute it."""

    name: str
    leaves: Sequence[Tensor]
    slope: Tensor  # of the value, in the dtype of the leaves, so that nobody rounds it
    contenders: dict[str, Kernel]  # the first is ours
    exact: Kernel  # the same in whatever dtype it is given


@dataclass(frozen=True)
class Found:
    """What a contender costs, times ours, and its relative errors."""

    ratio: float
    of_value: float
    of_gradients: float  # the largest


def operations(shape: Shape, vocabulary: int, dtype: torch.dtype) -> list[Operation]:
    """Return the operations at the sizes of a training step, and attention over twice as many positions."""
    draw = torch.Generator().manual_seed(0)
    b, t, h, d = SEQUENCES, shape.context, shape.hidden, shape.head_dim

    def normal(*size: int, dtype: torch.dtype = dtype, scale: float = 1.0) -> Tensor:
        return (torch.randn(*size, generator=draw) * scale).to(dtype)

    def heads(n: int, b: int, t: int) -> Tensor:
        return normal(b, t, n, d).transpose(1, 2)  # as a projection leaves them

    targets = torch.randint(vocabulary, (b * t,), generator=draw)
    gain = 1 + normal(h, dtype=torch.float32, scale=0.1)
    half = [part[:, None].to(dtype) for part in rotation_table(shape, t)]
    cos, sin = half[0].repeat(1, shape.heads, 2), torch.cat((-half[1], half[1]), -1).repeat(1, shape.heads, 1)

    def plain_head(hidden: Tensor, weight: Tensor) -> Tensor:
        logits = F.linear(hidden, weight.to(hidden.dtype))
        return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets, reduction="sum")

    def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    def torch_norm(x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, 1e-5)

    def plain_rotation(x: Tensor) -> Tensor:
        (first, second), (c, s) = x.chunk(2, -1), (part.to(x.dtype) for part in half)
        return torch.cat((first * c - second * s, second * c + first * s), -1)

    def attentions(sequences: int, positions: int) -> Operation:
        q, k, v = (heads(n, sequences, positions) for n in (shape.heads, shape.kv_heads, shape.kv_heads))
        contenders: dict[str, Kernel] = {"ours": attention, "torch's SDPA": sdpa}
        return Operation(
            f"attention, {positions:,}", [q, k, v], heads(shape.heads, sequences, positions), contenders, sdpa
        )

    head: dict[str, Kernel] = {"ours": lambda x, w: linear_cross_entropy(x, w, targets), "plain": plain_head}
    if chunked := chunked_head(targets):
        head["torch's chunks"] = chunked
    hidden, weight = normal(b * t, h), normal(vocabulary, h, dtype=torch.float32, scale=0.02)
    norms: dict[str, Kernel] = {"ours": lambda x, w: rms_norm(x, w, 1e-5), "F.rms_norm": torch_norm}
    turns: dict[str, Kernel] = {"ours": lambda x: rotate(x, cos, sin), "plain": plain_rotation}
    x, y = normal(b, t, h, dtype=torch.float32), normal(b, t, h, dtype=torch.float32)
    return [
        # the slope of a mean over tokens, a power of two: bfloat16 holds it exactly
        Operation("output head and loss", [hidden, weight], torch.tensor(2.0**-11), head, plain_head),
        *([attentions(b, t), attentions(max(1, b // 2), 2 * t)] if dtype == torch.bfloat16 else []),
        Operation("RMSNorm", [x, gain], y, norms, torch_norm),
        Operation(
            "rotation", [normal(b, t, shape.heads, d)], normal(b, t, shape.heads, d), turns, plain_rotation
        ),
    ]  # fmt: skip


def chunked_head(targets: Tensor) -> Kernel | None:
    """Return torch's own head and loss in chunks, which 2.13 brought; None where torch has none."""
    try:
        from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions
    except ImportError:
        return None

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        matrix = weight.to(hidden.dtype)
        return F.linear_cross_entropy(hidden, matrix, targets, reduction="sum", options=LinearCrossEntropyOptions())

    return loss


def once(kernel: Kernel, leaves: Sequence[Tensor], slope: Tensor) -> tuple[float, list[Tensor]]:
    """Return the seconds of one way there and back, and the value and gradients."""
    own = [leaf.detach().requires_grad_() for leaf in leaves]
    began = time.perf_counter()
    value = kernel(*own)
    value.backward(slope.to(value.dtype))
    seconds = time.perf_counter() - began
    return seconds, [value.detach(), *(leaf.grad for leaf in own if leaf.grad is not None)]


def errors(found: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    """Return the relative error of each tensor, by its norm."""
    return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]


def compare(operation: Operation, rounds: int) -> dict[str, Found]:
    """Print what an operation costs, and return it by contender."""
    exact = once(operation.exact, [leaf.double() for leaf in operation.leaves], operation.slope)[1]
    off = {
        name: errors(once(one, operation.leaves, operation.slope)[1], exact)
        for name, one in operation.contenders.items()
    }
    names = list(operation.contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(once(operation.contenders[name], operation.leaves, operation.slope)[0])
    result = {}
    for name in names:
        ratios = [theirs / ours for theirs, ours in zip(times[name], times["ours"], strict=True)]
        result[name] = Found(statistics.median(ratios), off[name][0], max(off[name][1:]))
        print(
            f"{operation.name if name == 'ours' else '':21} {name:15} {1e3 * statistics.median(times[name]):8.2f} ms   "
            f"off by {result[name].of_value:.1e}, back {result[name].of_gradients:.1e}"
            + (
                ""
                if name == "ours"
                else f"   {result[name].ratio:.2f} times ours  [{min(ratios):.2f}, {max(ratios):.2f}]"
            )
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: seconds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--shape", choices=SHAPES, default="5m", help="that of the model of about so many parameters")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    asked = parser.parse_args()
    keep_freed_memory()  # for all of them: a loop that keeps none is measured in benchmarks/training.py
    dtype = torch.bfloat16 if asked.precision == "bf16" else torch.float32
    print(f"cpu, {torch.get_num_threads()} threads, {asked.precision}, torch {torch.__version__}, {asked.shape}")
    for operation in operations(*SHAPES[asked.shape], dtype):
        compare(operation, asked.rounds or (6 if asked.quick else 42))


if __name__ == "__main__":
    main()
