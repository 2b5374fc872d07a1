"""CASE-06 Adapter settings never applied.

Stage: before step 0
Outcome: refused: an unknown key names its place, and a live model whose rank, scale, dropout or count is another starts nothing
"""

from __future__ import annotations

from typing import Any

import pytest
from tuned import LORA, PAIRS, contract, tuned

from sovereign.canonical import Malformed
from sovereign.contract.method import Adapter
from sovereign.contract.model import Decoder as Shape
from sovereign.model import adapters
from sovereign.model.attestation import trainable_parameters
from sovereign.model.decoder import Decoder, build

SHAPE = Shape(hidden=64, layers=12, heads=8, kv_heads=4, ffn=96, context=16)
ASKED = Adapter(rank=16, alpha=32, dropout=0.05, targets=("q_proj", "v_proj"), layers=12)


def model() -> Decoder:
    return build(SHAPE, 61, seed=0)


def test_a_setting_beside_its_section_is_no_setting() -> None:
    """Plant: rank, dropout and DoRA at the top level of the file, where the trainer in the case did not read them."""
    for key in ("lora_rank: 16", "lora_dropout: 0.1", "use_dora: true"):
        with pytest.raises(Malformed, match=f"{key.split(':')[0]}: unknown key"):
            contract(tuned("toy", PAIRS, "lora") + key + "\n")
    with pytest.raises(Malformed, match=r"method\.adapter\.use_dora: unknown key"):
        contract(tuned("toy", PAIRS, "lora").replace(LORA, LORA.replace("}", ", use_dora: true}")))


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        ("r", "rank is 8"),
        ("lora_alpha", "alpha / rank is 0.5"),
        ("lora_dropout", "dropout is 0.0"),
        ("target_modules", "stand at"),
    ],
)
def test_a_builder_that_drops_a_setting_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, dropped: str, message: str
) -> None:
    """Plant: PEFT is given its own default for one setting; the live model is held to the contract."""
    import peft

    real = peft.LoraConfig

    def forgetful(**given: Any) -> Any:
        if dropped == "target_modules":
            given["target_modules"] = given["target_modules"][:-1]
        else:
            del given[dropped]
        return real(**given)

    monkeypatch.setattr(peft, "LoraConfig", forgetful)

    with pytest.raises(adapters.Unattached, match=message):
        adapters.attach(model(), ASKED, seed=0)


def test_the_count_follows_from_the_contract_alone() -> None:
    """What moves in the live model is rank x (inputs + outputs) x modules, from the contract and the shapes of a file."""
    live = model()
    shapes = {name: tuple(weight.shape) for name, weight in live.named_parameters()}
    adapters.attach(live, ASKED, seed=0)

    assert (
        16 * ((64 + 64) + (64 + 32)) * 12 == adapters.expected_parameters(shapes, ASKED) == trainable_parameters(live)
    )


def test_one_misspelt_target_of_several_is_refused() -> None:
    """PEFT alone adapts the module that it knows and is silent about the other."""
    import peft

    wrong = ASKED.model_copy(update={"targets": ("q_proj", "v_prj")})
    silent = model()
    peft.inject_adapter_in_model(peft.LoraConfig(r=4, target_modules=["q_proj", "v_prj"]), silent)

    assert trainable_parameters(silent) > 0
    with pytest.raises(adapters.Unattached, match="no v_prj in layer 0; there are down_proj"):
        adapters.attach(model(), wrong, seed=0)


def test_layers_are_counted_from_the_top() -> None:
    """With four layers asked for, the four topmost are adapted, and no other."""
    live = model()
    adapters.attach(live, ASKED.model_copy(update={"layers": 4}), seed=0)

    assert {8, 9, 10, 11} == {int(name.split(".")[2]) for name, _ in adapters.adapted(live)}
