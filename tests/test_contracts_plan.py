"""Every contract that is shipped can be planned here, or is refused for what this machine lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sovereign.contract.contract import Contract
from sovereign.plan import Refused, plan

ROOT = Path(__file__).parent.parent
CONTRACTS = {path.stem: Contract.load(path) for path in sorted((ROOT / "contracts").glob("*.yaml"))}
ABLATIONS = [name for name in CONTRACTS if name.startswith("ablation-")]
LARGE = [name for name in CONTRACTS if name not in ABLATIONS]


def quiet(part: str, done: int, total: int) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a place where corpora are built once: contracts of the same data share theirs; what we ship lies there too."""
    place = tmp_path_factory.mktemp("planned")
    (place / "benchmarks").symlink_to(ROOT / "benchmarks")
    return place


def planned(name: str, root: Path) -> None:
    contract = CONTRACTS[name]
    if contract.training.device == "cuda" and not torch.cuda.is_available():
        with pytest.raises(Refused, match="no GPU is visible"):
            plan(contract, root, "auto", quiet)
        return
    if contract.tuned is not None and contract.tuned.base.run is None:
        return  # a model of the hub, on a machine with a GPU: what it needs stands at its own place
    if contract.tuned is not None:  # what makes its base is a contract beside it
        with pytest.raises(Refused, match=f"base run {contract.tuned.base.run}: no completed run"):
            plan(contract, root, "auto", quiet)
        assert contract.tuned.base.run in CONTRACTS
        return
    found = plan(contract, root, "auto", quiet)

    assert found.refusals == ()
    assert found.parameters == contract.decoder.parameters(found.vocabulary)


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_plans(name: str, root: Path) -> None:
    """No ablation is refused: it loads, its corpus is built, its steps fit."""
    planned(name, root)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_every_other_contract_plans(name: str, root: Path) -> None:
    """So do the others, except on a machine without the device that one insists on."""
    planned(name, root)


@pytest.mark.parametrize("name", [name for name in ABLATIONS if name != "ablation-plain"])
def test_an_ablation_differs_in_the_model_alone(name: str) -> None:
    """Data, tokenizer, training, evaluation and seeds are those of the plain contract, so that one thing differs."""
    plain, other = CONTRACTS["ablation-plain"].plain(), CONTRACTS[name].plain()

    assert {"contract", "title", "model"} == {key for key in plain if plain[key] != other[key]}


def test_the_experts_cost_what_the_plain_decoder_costs() -> None:
    """Two of four networks of half the width: the same operations a token but for the router, more parameters."""
    plain, experts = (CONTRACTS[f"ablation-{name}"].model for name in ("plain", "experts"))

    assert plain.flops_per_token(2048) == pytest.approx(experts.flops_per_token(2048), rel=0.01)
    assert experts.parameters(2048) > 1.5 * plain.parameters(2048)
