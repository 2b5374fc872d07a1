"""Rounding ties: activations so near the boundary of two quants that two sound implementations may round them differently.

Marked from our own forward alone, before an engine is read: once within a fixed distance of a half (TIE), and once within
what float32 errs by, which is measured: the same layer is carried out in float32 with every rounding falling as in
float64, and its quotients are held against the exact ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sovereign.parity.forward import (
    K_QUANTS,
    LAYER,
    LOGITS,
    NORM,
    PRODUCTS,
    Forward,
    Operation,
    Place,
    Trace,
    tensor_of,
    ties,
)
from sovereign.quantization import q8k

TIE = 1e-4  # of a quotient from a half
DEVIATIONS = 5.0  # of float32's measured error, within which a quotient may fall on either side of a half
Watch = Callable[[Place, Tensor], None]


def tie_watch(like: Forward, tied: dict[Place, Tensor]) -> Watch:
    """Return a watcher that notes, of each product, the positions at which its input may be rounded either way."""
    takers: dict[str, list[Operation]] = {}
    for operation in (*LAYER, LOGITS):
        if operation.name in PRODUCTS:
            takers.setdefault(operation.takes[0], []).append(operation)

    def seen(place: Place, value: Tensor) -> None:
        found: dict[str, Tensor] = {}  # what enters several products is looked at once
        for operation in takers.get(place[1], ()):
            at = (place[0], operation.name)
            kind = like.kinds[tensor_of(at, operation)]
            if kind not in found:
                found[kind] = ties(kind, value, TIE)
            tied[at] = found[kind]

    return seen


def near(
    single: Forward, layer: int, x: Tensor, ids: Sequence[int], exact: Trace, instead: Mapping[str, Tensor]
) -> tuple[dict[Place, Tensor], float | None]:
    """Return, of each product of a layer, the positions with a quotient nearer to a half than float32 errs, bool [t].

    With them goes the mean distance that counted as near; None where nothing is rounded. `exact` holds the values of
    the layer in float64, `single` is the same forward in float32, `instead` are values that both were given.
    """
    found: dict[Place, Tensor] = {}
    widths: list[Tensor] = []
    met: dict[str, tuple[Tensor, Tensor]] = {}  # of each value that enters a product; several may be made of one
    values = _in_float32(single, layer, x, ids, exact, instead)
    for operation in _operations(single, layer):
        at, entered = (layer, operation.name), operation.takes[0]
        if operation.name not in PRODUCTS or single.kinds[tensor_of(at, operation)] not in K_QUANTS:
            continue
        if entered not in met:
            met[entered] = _nearer(q8k.quotients(exact[(layer, entered)]), q8k.quotients(values[entered]))
        found[at], width = met[entered]
        widths.append(width)
    return found, float(torch.stack(widths).mean()) if widths else None


def _nearer(wanted: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions with a quotient nearer to a half than float32 errs, bool [t], and the mean distance that counts."""
    # a sum errs by as much whatever its outcome, a product by a share of it: the measured error is spread over both
    size = (wanted.square() + wanted.square().mean(-1, keepdim=True)).sqrt().clamp(min=1e-300)
    error = ((found - wanted) / size).square().mean(-1, keepdim=True).sqrt()
    width = DEVIATIONS * error * size
    return ((wanted - wanted.floor() - 0.5).abs() <= width).any(-1) | (wanted > 127 - width).any(-1), width.mean()


def _operations(forward: Forward, layer: int) -> tuple[Operation, ...]:
    return LAYER if layer < forward.shape.layers else (NORM, LOGITS)


def _in_float32(
    single: Forward, layer: int, x: Tensor, ids: Sequence[int], exact: Trace, instead: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the values of a layer in float32, each activation rounded to the quant that the exact one is rounded to."""
    values = {"x": x.float()}
    met: dict[str, Tensor] = {}  # activations as they meet a K-quantized matrix
    for operation in _operations(single, layer):
        place = (layer, operation.name)
        given = [values[one] for one in operation.takes]
        if operation.name in PRODUCTS and single.kinds[tensor := tensor_of(place, operation)] in K_QUANTS:
            entered = operation.takes[0]
            if entered not in met:
                quants = q8k.quantize(exact[(layer, entered)].float()).quants
                met[entered] = (quants * q8k.quantize(given[0]).scales[..., None]).flatten(-2)
            values[operation.name] = met[entered] @ single.tensors[tensor].T
        else:
            values[operation.name] = single.apply(place, operation, given, ids)
        if operation.name in instead:
            values[operation.name] = instead[operation.name].float()
    return values
