"""What an implementation had at every place of its forward pass, in our names and our order of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sovereign.contract.model import Decoder as Shape
from sovereign.parity.forward import Forward, Place, Trace
from sovereign.parity.llamacpp import Captured, LlamaCpp
from sovereign.shipping.gguf_model import row_order

# an implementation: ids -> every value on its way, the logits at (layers, "head")
Implementation = Callable[[Sequence[int]], Trace]

# llama.cpp's name of a value, and which of those under it: what enters the rotation, and what leaves it, are both called Qcur
IN_LAYER = {
    "attn_norm": ("attn_norm", 0), "q": ("Qcur", -2), "k": ("Kcur", -2), "v": ("Vcur", -1), "q_rope": ("Qcur", -1),
    "k_rope": ("Kcur", -1), "attention": ("kqv_out", 0), "output": ("attn_out", 0), "attn_residual": ("ffn_inp", 0),
    "ffn_norm": ("ffn_norm", 0), "gate": ("ffn_gate", 0), "up": ("ffn_up", 0), "activation": ("ffn_swiglu", 0),
    "down": ("ffn_out", 0), "out": ("l_out", 0),
}  # fmt: skip
WHOLE = {"embedding": ("embd", 0), "norm": ("result_norm", 0), "head": ("result_output", 0)}
ROTATED = frozenset({"q", "k", "q_rope", "k_rope"})


def of_torch(forward: Forward) -> Implementation:
    """Return a forward of ours as an implementation."""
    return lambda ids: {place: value.double() for place, value in forward.trace(ids).items()}


def of_llamacpp(engine: LlamaCpp, shape: Shape) -> Implementation:
    """Return llama.cpp as an implementation: every value it computes, fetched through its evaluation callback."""
    wanted = {f"{theirs}-{layer}" for theirs, _ in IN_LAYER.values() for layer in range(shape.layers)}
    wanted |= {theirs for theirs, _ in WHOLE.values()}

    def observe(ids: Sequence[int]) -> Trace:
        with engine.watching(wanted.__contains__) as captured:
            logits = engine.prefill(ids)
        found = translated(captured, shape, len(ids))
        found[(shape.layers, "head")] = torch.from_numpy(logits).double()
        return found

    return observe


def translated(captured: Captured, shape: Shape, t: int) -> Trace:
    """Return captured tensors under our names; q and k come back from llama.cpp's order of rows."""
    found: Trace = {}
    for name, (theirs, which) in WHOLE.items():
        if theirs in captured:
            found[(-1 if name == "embedding" else shape.layers, name)] = _rows(captured[theirs][which], t)
    for layer in range(shape.layers):
        for name, (theirs, which) in IN_LAYER.items():
            held = captured.get(f"{theirs}-{layer}")
            if held is None:
                continue
            rows = _rows(held[which], t)
            if name in ROTATED:
                rows = rows[:, torch.argsort(row_order(rows.shape[1] // shape.head_dim, shape.head_dim))]
            found[(layer, name)] = rows
    return found


def _rows(held: object, t: int) -> Tensor:
    return torch.from_numpy(held).double().reshape(t, -1)


def entered(trace: Trace, place: Place, takes: Sequence[str], layers: int) -> list[Tensor] | None:
    """Return the inputs of an operation as an implementation had them; None where one of them was not seen."""
    layer, _ = place
    values = []
    for name in takes:
        if name == "x":
            key: Place = (layer - 1, "out") if layer else (-1, "embedding")
        elif name == "norm":
            key = (layers, "norm")
        else:
            key = (layer, name)
        if key not in trace:
            return None
        values.append(trace[key])
    return values
