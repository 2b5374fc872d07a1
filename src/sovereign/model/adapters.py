"""Adapters by PEFT: attached to modules that were looked up one by one, and read back from the live model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sovereign.contract.method import EMBEDDING, Adapter

NAME = "default"  # what PEFT calls the only adapter
LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")


class Unattached(Exception):
    """Adapters that cannot be attached as asked, or were not."""


def targeted(names: Sequence[str], settings: Adapter) -> list[str]:
    """Return the modules to adapt, of the `names` of a model's matrices: each target in each of the topmost layers.

    The embedding stands in none, and is adapted where it is named. Raises Unattached for a target that some layer has not, with what there is (PEFT would take the others and be
    silent), and for more layers than the model has.
    """
    numbers = sorted({int(_layer(name)) for name in names if LAYER.search(name)})
    asked = settings.layers or len(numbers)
    if asked > len(numbers):
        raise Unattached(f"method.adapter.layers: {asked} from the top, and the model has {len(numbers)}")
    top = numbers[len(numbers) - asked :]
    found: list[str] = []
    for target in settings.targets:
        if target in EMBEDDING:
            rows = [name for name in names if name.endswith(f".{target}")]
            if not rows:
                known = [name for name in names if name.endswith(EMBEDDING)]
                raise Unattached(
                    f"method.adapter.targets: no {target}; the embedding is {', '.join(known) or 'not found'}"
                )
            found += rows
            continue
        mine = [name for name in names if LAYER.search(name) and name.endswith(f".{target}")]
        here = {layer: [one for one in mine if int(_layer(one)) == layer] for layer in top}
        bare = [layer for layer, modules in here.items() if not modules]
        if bare:
            last = sorted({name.rpartition(".")[2] for name in names if LAYER.search(name)})
            raise Unattached(f"method.adapter.targets: no {target} in layer {bare[0]}; there are {', '.join(last)}")
        found += [one for layer in top for one in here[layer]]
    return sorted(found, key=list(names).index)


def _layer(name: str) -> str:
    found = LAYER.search(name)
    assert found is not None
    return found[1]


def matrices(model: nn.Module) -> list[str]:
    """Return the names of the modules that hold a matrix which adapters can stand beside."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        or type(module).__name__ == "Conv1D"
        or (isinstance(module, nn.Embedding) and name.endswith(EMBEDDING))
    ]


def layer_matrices(model: nn.Module) -> list[str]:
    """Return the names of the matrices that stand in a layer: neither the embedding nor the head."""
    return [name for name in matrices(model) if LAYER.search(name)]


def expected_parameters(shapes: Mapping[str, tuple[int, ...]], settings: Adapter) -> int:
    """Return how many parameters adapters have, from the contract and the shapes of the base's matrices alone.

    rank x (inputs + outputs) for each: it does not matter which of a matrix's two sizes is which.
    """
    sizes = {name.removesuffix(".weight"): sum(size) for name, size in shapes.items() if len(size) == 2}
    return settings.rank * sum(sizes[name] for name in targeted(list(sizes), settings))


def attach(model: nn.Module, settings: Adapter, seed: int) -> None:
    """Attach adapters in place, freeze all else, and hold the live model to what was asked (CASE-06).

    Fresh adapters change nothing: B is zero, beside an embedding A. The same seed gives the same A, whatever ran before.
    """
    from peft import LoraConfig, inject_adapter_in_model  # seven seconds, for those who ask for it

    names = targeted(matrices(model), settings)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=names, bias="none",  # type: ignore[arg-type]
        fan_in_fan_out=any(type(model.get_submodule(name)).__name__ == "Conv1D" for name in names),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    require_as_asked(model, names, settings)


def require_as_asked(model: nn.Module, names: Sequence[str], settings: Adapter) -> None:
    """Raise Unattached unless rank, scale, dropout and place of every live adapter are those of the contract."""
    live = dict(adapted(model))
    if sorted(live) != sorted(names):
        differing = sorted(set(live) ^ set(names))
        raise Unattached(f"adapters stand at {len(live)} modules, {len(names)} were asked for; {differing[0]} differs")
    for name, module in live.items():
        dropout = module.lora_dropout[NAME]
        found = {
            "rank": module.r[NAME],
            "rows of A": _rows_of_a(module),
            "alpha / rank": module.scaling[NAME],
            "dropout": dropout.p if isinstance(dropout, nn.Dropout) else 0.0,
        }
        wanted = {
            "rank": settings.rank,
            "rows of A": settings.rank,
            "alpha / rank": settings.alpha / settings.rank,
            "dropout": settings.dropout,
        }
        for key, value in wanted.items():
            if found[key] != value:
                raise Unattached(f"{name}: {key} is {found[key]} in the live model, the contract says {value}")


def _rows_of_a(module: Any) -> int:
    a: Tensor = module.lora_A[NAME].weight if NAME in module.lora_A else module.lora_embedding_A[NAME]
    return a.shape[0]


def adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the modules of a model that adapters stand beside."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            yield name, module


def merged(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of the plain model that computes what this one does, by the plain model's names.

    Adapters are added to their matrices, in float32; four-bit matrices are what they stand for; an embedding that
    grew is one matrix.
    """
    found: dict[str, Tensor] = {}
    inside = dict(adapted(model))
    for name, weight in model.named_parameters():
        owner, _, last = name.rpartition(".")
        if ".lora_" in name or owner.removesuffix(".base_layer") in inside:
            continue
        if last == "old":
            found[f"{owner}.weight"] = model.get_submodule(owner).weight.detach()  # type: ignore[operator]
        elif getattr(weight, "quant_state", None) is not None:
            found[name] = whole_matrix(model.get_submodule(owner))
        elif last != "rows":
            found[name] = weight.detach()
    for name, module in inside.items():
        plain = whole_matrix(module.base_layer)
        found[f"{name}.weight"] = (plain + module.get_delta_weight(NAME).to(plain.dtype)).detach()
        if getattr(module.base_layer, "bias", None) is not None:
            found[f"{name}.bias"] = module.base_layer.bias.detach()
    return found


def whole_matrix(module: Any) -> Tensor:
    """Return the matrix of a linear module in float32; one of four bits is dequantized."""
    if getattr(module.weight, "quant_state", None) is None:
        return module.weight.detach().float()
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(module.weight.data, module.weight.quant_state).float()
