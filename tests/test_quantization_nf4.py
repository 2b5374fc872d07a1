"""NF4: the error it is known for, its own arithmetic, and gradients that an evaluation does not end."""

import pytest
import torch
from torch import nn

pytest.importorskip("bitsandbytes")

from sovereign.quantization import nf4

# bitsandbytes' own products register no autograd kernel; its notice is not ours
pytestmark = pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered:UserWarning")


def linear(inputs=256, outputs=128, seed=0, bias=False):
    torch.manual_seed(seed)
    made = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(made.weight)
    return made


class Adapted(nn.Module):
    """A trained layer below a frozen one, whose gradient must come through the frozen weights."""

    def __init__(self, frozen):
        super().__init__()
        self.adapter, self.frozen = linear(256, 256, 1), frozen

    def forward(self, x):
        return self.frozen(self.adapter(x))


def gradient(model):
    """Return the gradient of the adapter for fixed inputs, or None."""
    model.zero_grad()
    model.train()
    x = torch.randn(8, 256, generator=torch.Generator().manual_seed(2))
    model(x).square().sum().backward()
    return model.adapter.weight.grad


def evaluate(model):
    model.eval()
    with torch.no_grad():
        model(torch.ones(8, 256))


@pytest.mark.parametrize("double", [False, True])
def test_normal_weights_err_by_nine_percent(double):
    """On Gaussian weights the relative error is 9.2 %, with the magnitudes quantized too or not."""
    dense = linear(1024, 512)
    error = nf4.dequantize(nf4.from_linear(dense, double)) - dense.weight

    assert (error.norm() / dense.weight.norm()).item() == pytest.approx(0.092, abs=0.001)


def test_forward_is_that_of_the_dequantized_weights():
    """In float32 the product is exactly that of the weights it holds, and the bias is kept."""
    dense = linear(bias=True)
    held = nf4.from_linear(dense)
    x = torch.randn(5, 256)
    expected = nn.functional.linear(x, nf4.dequantize(held), dense.bias)

    torch.testing.assert_close(held(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_an_evaluation_does_not_end_the_gradient(autocast):
    """The gradient through NF4 weights is bit for bit the same before and after an evaluation, and so are the weights."""
    model = Adapted(nf4.from_linear(linear()))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        before = gradient(model).clone()
        weights = nf4.dequantize(model.frozen)
        evaluate(model)
        after = gradient(model)

    assert after is not None
    assert torch.equal(before, after)
    assert torch.equal(weights, nf4.dequantize(model.frozen))


def test_without_the_guard_the_gradient_ends():
    """The bug itself: on a CPU that has the instructions an evaluation of an unguarded module ends the gradient, and guard says so."""
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("this CPU has no bfloat16 in AVX-512, and so not the bug")
    model = Adapted(nf4.from_linear(linear()))
    model.frozen.support_avx512bf16_for_cpu = True
    sound = gradient(model) is not None
    evaluate(model)
    try:
        after = gradient(model)
    except RuntimeError:  # no tensor of the loss knows a gradient
        after = None

    assert sound
    assert after is None
    with pytest.raises(RuntimeError, match=r"frozen: .* load the model again"):
        nf4.guard(model)


def test_guard_finds_modules_made_elsewhere():
    """guard switches every 4-bit layer of a model, and counts them."""
    model = nn.Sequential(linear(256, 256), linear(256, 64))
    nf4.quantize(model, ["0", "1"])
    model[0].support_avx512bf16_for_cpu = True

    assert 2 == nf4.guard(model)
    assert not model[0].support_avx512bf16_for_cpu
    assert 0 == nf4.guard(linear())


def test_named_layers_are_replaced_or_none():
    """quantize replaces what is named; a misspelt name or another module is an error, and nothing has changed."""
    model = nn.ModuleDict({"a": nn.Sequential(linear()), "b": linear(), "norm": nn.LayerNorm(4)})
    for names, error, words in (
        (["a.0", "c"], KeyError, "c is no module of the model"),
        (["a.0", "norm"], TypeError, "norm is a LayerNorm"),
    ):
        with pytest.raises(error, match=words):
            nf4.quantize(model, names)
        assert type(model["a"][0]) is nn.Linear
    nf4.quantize(model, ["a.0"])

    assert ["Linear4bit", "Linear"] == [type(each).__name__ for each in (model["a"][0], model["b"])]


def test_weights_that_cannot_be_held_are_refused():
    """Values that are not finite, and rows that 64 does not divide, are named."""
    dense = linear()
    with torch.no_grad():
        dense.weight[3, 7] = float("nan")
    with pytest.raises(ValueError, match="row 3, column 7 is nan"):
        nf4.from_linear(dense)
    with pytest.raises(ValueError, match="multiple of 64"):
        nf4.from_linear(linear(100))
