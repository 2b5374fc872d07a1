"""Merged adapters and four-bit matrices by the checker of exports, and what flows back through a merge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from trained import prompts, trained

from sovereign.evidence.folder import Observed
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import KINDS, Row
from sovereign.metrics import parity
from sovereign.model.adapters import merged
from sovereign.parity.check import check
from sovereign.shipping.weights import Weights, plain

pytestmark = pytest.mark.slow  # peft and bitsandbytes take five to seven seconds to import


def adapted_llama() -> tuple[Any, Any]:
    """Return a small Llama with adapters that do something, in float64, and the plain model of the same shape."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=97, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
        max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(shape)
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    tuned = get_peft_model(model, settings)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return tuned.double().eval(), LlamaForCausalLM(shape).double().eval()


def test_a_merge_computes_and_gives_back_what_its_adapters_do() -> None:
    """Logits agree to 1e-6, and each adapter's gradient is that of its merged matrix by the chain rule, to 1e-5.

    W = base + s B A, so dL/dB = s dL/dW A' and dL/dA = s B' dL/dW. Planted by hand: the scale left out is a factor of 2.
    """
    tuned, whole = adapted_llama()
    names = {name.removeprefix("base_model.model."): weight.double() for name, weight in merged(tuned).items()}
    whole.load_state_dict(names)
    ids = torch.randint(0, 97, (3, 20), generator=torch.Generator().manual_seed(1))
    outputs = [model(ids).logits for model in (tuned, whole)]
    for one in outputs:
        one.log_softmax(-1)[..., 5].sum().backward()

    assert (outputs[0] - outputs[1]).norm() <= 1e-6 * outputs[0].norm()
    gradients = dict(whole.named_parameters())
    checked = 0
    for name, module in tuned.named_modules():
        if not hasattr(module, "lora_A") or not module.lora_A:
            continue
        slope = gradients[f"{name.removeprefix('base_model.model.')}.weight"].grad
        a, b, scale = module.lora_A["default"].weight, module.lora_B["default"].weight, module.scaling["default"]
        for found, wanted in ((b.grad, scale * slope @ a.T), (a.grad, scale * b.T @ slope)):
            assert (found - wanted).norm() <= 1e-5 * wanted.norm()
            checked += 1
    assert 12 == checked


def measured(reference: Weights, candidate: Weights) -> dict[str, float]:
    rows: dict[str, list[Row]] = {}
    ids = list({tuple(one): one for one in prompts(60, 24) if len(one) == 24}.values())[:32]
    check(reference, candidate, ids, lambda kind, **said: rows.setdefault(kind, []).append(KINDS[kind](run="r", **said)), lambda *told: None, None)  # fmt: skip
    observed = Observed(cast("Intent", None), {kind: tuple(found) for kind, found in rows.items()})
    return {
        name: parity.METRICS[name](observed).value
        for name in ("parity/whole_l2", "parity/whole_kl", "parity/foreign_blocks")
    }


def test_nf4_is_seen_by_the_checker_of_exports() -> None:
    """NF4 against float32 by the same check: every weight is another, the logits some percent, the divergence small."""
    from sovereign.quantization import nf4

    weights, held = trained(), {}
    for name in weights.stored:
        if name.endswith("proj.weight"):
            matrix = weights.tensor(name)
            linear = torch.nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
            linear.weight = torch.nn.Parameter(matrix)
            held[name] = plain("F32", nf4.dequantize(nf4.from_linear(linear)))
    same, found = (measured(weights, replace(weights, stored={**weights.stored, **changed})) for changed in ({}, held))

    assert (0, True) == (same["parity/foreign_blocks"], same["parity/whole_l2"] < 1e-6)
    assert found["parity/foreign_blocks"] > 0
    assert 1e-3 < found["parity/whole_l2"] < 0.3
    assert 0 < found["parity/whole_kl"] < 0.1
