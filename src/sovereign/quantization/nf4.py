"""NF4 matrices from bitsandbytes, without the trap that ends training in silence (Dettmers et al. 2023, section 3).

Weights stand as indices into sixteen values, the quantiles of a normal distribution, times the largest magnitude of 64 of
them. On CPUs with bfloat16 in AVX-512, `Linear4bit` packs its weights anew when a forward is evaluated, for good, and
no later training has a gradient through them. Every module made or found here has that switched off.

bitsandbytes takes five seconds to import, so the functions that need it do; it comes with sovereign[bitsandbytes].
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

BLOCK = 64  # weights that share a magnitude
GROUP = 256  # magnitudes that share one, where they are quantized too


class Unavailable(Exception):
    """bitsandbytes is not installed."""


def bits(double: bool) -> float:
    """Return the bits that a weight takes, with its share of the magnitudes: 4.127 doubly quantized, 4.5 otherwise."""
    return 4 + ((8 + 32 / GROUP) / BLOCK if double else 32 / BLOCK)


def from_linear(linear: nn.Linear, double: bool = False) -> nn.Module:
    """Return a `Linear4bit` that holds a linear layer's weights as NF4, on its device, ready to be trained through.

    It computes in the dtype of its input and gives its gradient, none to the weights. `double` quantizes the magnitudes too:
    half a bit a weight becomes an eighth. Raises ValueError where weights are not finite or 64 do not divide a row.
    """
    weight = linear.weight.detach()
    if weight.shape[1] % BLOCK:
        raise ValueError(f"nf4: weights {list(weight.shape)}: a row's length must be a multiple of {BLOCK}")
    if not bool(torch.isfinite(weight).all()):
        row, column = torch.isfinite(weight).logical_not().nonzero()[0].tolist()
        raise ValueError(f"nf4: row {row}, column {column} is {float(weight[row, column])}; weights must be finite")
    modules = _bitsandbytes().nn
    held = modules.Linear4bit(linear.in_features, linear.out_features, linear.bias is not None, quant_type="nf4")
    held.weight = modules.Params4bit(
        weight.contiguous(), requires_grad=False, quant_type="nf4", compress_statistics=double, module=held
    )
    if linear.bias is not None:
        held.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
    held = held.to(weight.device)  # which is what quantizes
    # it would take the dtype of its first input for good, and float32 for float16
    held.compute_dtype, held.compute_type_is_set = None, True
    guard(held)
    return held


def quantize(model: nn.Module, names: Iterable[str], double: bool = False) -> None:
    """Replace the named linear layers of a model by NF4 ones, in place. Nothing is replaced if one cannot be.

    Raises KeyError for a name that is not in the model, and TypeError for one that is no linear layer.
    """
    there, made = dict(model.named_modules()), {}
    for name in names:
        if name not in there:
            raise KeyError(f"{name} is no module of the model; it has {', '.join(list(there)[1:9])}, ...")
        module = there[name]
        if not isinstance(module, nn.Linear) or type(module).__name__ == "Linear4bit":
            raise TypeError(f"{name} is a {type(module).__name__}; a linear layer would be right")
        made[name] = from_linear(module, double)
    for name, held in made.items():
        parent, _, last = name.rpartition(".")
        setattr(there[parent], last, held)


def guard(model: nn.Module) -> int:
    """Keep every `Linear4bit` of a model, wherever it came from, from packing its weights anew; return how many there are.

    Raises RuntimeError where one has done so already: it must be loaded again, since training would have no gradient.
    """
    found = 0
    for name, module in model.named_modules():
        if type(module).__name__ not in ("Linear4bit", "LinearNF4", "LinearFP4"):
            continue
        if getattr(module.weight.quant_state, "packing_format_for_cpu", False):
            raise RuntimeError(
                f"{name or 'the module'}: its 4-bit weights were packed for evaluation, and give no gradient any more: "
                "load the model again, and call guard before the first evaluation"
            )
        module.support_avx512bf16_for_cpu = False
        found += 1
    return found


def dequantize(held: Any) -> Tensor:
    """Return the weights that a `Linear4bit` computes with, float32 [outputs, inputs]."""
    state = held.weight.quant_state
    return _bitsandbytes().functional.dequantize_4bit(held.weight.data, state).float().view(state.shape)


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes  # five seconds
    except ImportError as error:
        raise Unavailable(f"NF4 needs bitsandbytes ({error}): pip install 'sovereign[bitsandbytes]'") from None
    return bitsandbytes
