"""Every fault that can be planted, by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, cast

from sovereign.planted import shipping, training, tuning

Fault = Literal[
    "none", "rate_ignored", "validation_trained_on", "targets_uncounted", "resume_forgets", "weights_not_fresh",
    "empty_sampler_writes", "evaluation_shortsighted", "tokenizer_forgets", "device_claimed", "loader_dawdles", "memory_unplanned",
    "more_moves", "frozen_moves", "weights_not_loaded", "split_redrawn", "climbs",
    "head_transposed", "rope_permutation_missing", "tensor_scaled", "blocks_spoiled", "quantization_fell_back",
    "tokenizer_of_another", "reference_coarse", "cache_forgets", "cache_halved", "everything_tied", "check_blind", "suspicion_astray",
]  # fmt: skip
FAULTS: dict[Fault, Callable[[], AbstractContextManager[Any]]] = cast(
    "dict[Fault, Callable[[], AbstractContextManager[Any]]]",
    {
        one.__name__: one
        for one in (
            training.rate_ignored, training.validation_trained_on, training.targets_uncounted, training.resume_forgets,
            training.weights_not_fresh, training.empty_sampler_writes, training.evaluation_shortsighted, training.tokenizer_forgets,
            training.device_claimed, training.loader_dawdles, training.memory_unplanned,
            tuning.more_moves, tuning.frozen_moves, tuning.weights_not_loaded, tuning.split_redrawn, tuning.climbs,
            shipping.head_transposed, shipping.rope_permutation_missing, shipping.tensor_scaled, shipping.blocks_spoiled,
            shipping.quantization_fell_back, shipping.tokenizer_of_another, shipping.reference_coarse, shipping.cache_forgets,
            shipping.cache_halved, shipping.everything_tied, shipping.check_blind, shipping.suspicion_astray,
        )
    },
)  # fmt: skip
