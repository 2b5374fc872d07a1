"""Benchmarks: what they compare still runs, and still computes the same thing."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from sovereign.contract.model import Decoder as Shape

CPU = torch.device("cpu")


SHAPE = Shape(hidden=32, layers=2, heads=4, kv_heads=2, ffn=64, context=16)


def benchmark(name):
    """Return a module of benchmarks/, which stand in no package."""
    path = Path(__file__).parent.parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_of_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def training():
    return benchmark("training")


@pytest.fixture(scope="module")
def case(training):
    return training.Case(SHAPE, 61, 4)


@pytest.mark.parametrize("name", ["ours", "plain", pytest.param("trainer", marks=pytest.mark.slow)])
def test_every_loop_of_the_training_benchmark_makes_its_steps(training, case, name):
    """A round of any length ends each step once, later than the one before, and goes on where the last one ended."""
    some = training.LOOPS[name](case, CPU, False, False)
    for steps in (2, 3):
        ends = some(steps)
        assert (len(ends), ends) == (steps, sorted(ends))
        assert training.rate(ends, case.tokens) > 0


def test_the_plain_network_is_ours(training, case):
    """With our weights the peer's loss is our loss: the two loops do the same arithmetic."""
    ours = training.build(case.shape, case.vocabulary, seed=0)
    plain = training.PlainDecoder(case.shape, case.vocabulary)
    named = {
        "norm1": "input_layernorm", "norm2": "post_attention_layernorm",
        **{one: f"self_attn.{one}_proj" for one in "qkvo"}, **{one: f"mlp.{one}_proj" for one in ("gate", "up", "down")},
    }  # fmt: skip
    with torch.no_grad():
        plain.embed.weight.copy_(ours.model.embed_tokens.weight)
        for layer, own in zip(plain.layers, ours.model.layers, strict=True):
            for name, theirs in named.items():
                layer[name].weight.copy_(own.get_submodule(theirs).weight)
    batch = case.stream.batch(1)
    inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)

    assert plain(inputs, targets).item() == pytest.approx(
        (ours.loss(inputs, targets) / targets.numel()).item(), abs=1e-5
    )


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_what_the_benchmark_of_operations_compares_is_the_same_operation(dtype, bound, capsys):
    """Every contender's value and gradients are float64's, to rounding; a kernel that left a part out would seem fast."""
    written = benchmark("operations")
    seen = written.operations(SHAPE, 61, dtype)
    for operation in seen:
        found = written.compare(operation, rounds=2)

        assert len(found) >= 2
        assert all(max(one.of_value, one.of_gradients) < bound for one in found.values()), (operation.name, found)
    assert sum(one.name.startswith("attention") for one in seen) == (2 if dtype == torch.bfloat16 else 0)
    assert capsys.readouterr().out.count("times ours") >= len(seen)
