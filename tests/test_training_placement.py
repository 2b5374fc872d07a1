"""Placement: tensors are asked where they lie, whatever the settings say."""

import torch
from test_training_loop import SHAPE, VOCABULARY, run

from sovereign.contract.training import Adamw
from sovereign.model.decoder import build
from sovereign.training.optimizer import optimizer_for
from sovereign.training.placement import placement


def test_weights_and_moments_are_counted_where_they_lie():
    """Four bytes a weight and eight of moments on the CPU; a layer that was left elsewhere shows (planted)."""
    model = build(SHAPE, VOCABULARY, seed=0)
    optimizer = optimizer_for(model, Adamw())
    assert list(placement(model, optimizer)) == [{"what": "weights", "device": "cpu", "bytes": 4 * size(model)}]
    run(model=model, optimizer=optimizer)

    assert list(placement(model, optimizer)) == [
        {"what": "weights", "device": "cpu", "bytes": 4 * size(model)},
        {"what": "moments", "device": "cpu", "bytes": 8 * size(model)},
    ]
    left = model.model.layers[1]
    left.to("meta")
    found = {(one["what"], one["device"]): one["bytes"] for one in placement(model, optimizer)}
    assert found["weights", "meta"] == 4 * size(left)
    assert found["weights", "cpu"] == 4 * (size(model) - size(left))


def size(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
