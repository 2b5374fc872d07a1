"""Predicted quantization error: right where weights fill their steps, never too low, and far below what a fault makes."""

import pytest
import torch

from sovereign.quantization import noise, q4k
from sovereign.quantization.formats import FORMATS

QUANTIZED = ["q4_k", "q6_k", "q8_0", "f16"]


def drawn(kind):
    torch.manual_seed(3)
    x = torch.randn(96, 1024)
    return {
        "normal": x * 0.02,
        "rows of many sizes": x * torch.logspace(-3, 1, 96)[:, None],
        "laplace": torch.distributions.Laplace(0.0, 1.0).sample((96, 1024)),
        "heavy tails": torch.distributions.StudentT(3.0).sample((96, 1024)),
        "uniform": torch.rand(96, 1024) - 0.5,
        "positive": x.abs(),
        "outliers": x * (1 + 100 * (torch.rand(96, 1024) > 0.998)),
        "sparse": x * (torch.rand(96, 1024) > 0.9),
    }[kind]


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("kind", ["normal", "rows of many sizes", "laplace", "heavy tails", "uniform", "positive"])
def test_ordinary_weights_err_as_predicted(kind, name):
    """What is predicted from the packed blocks is within 7 % of what is measured against the weights."""
    weights = drawn(kind)
    packed = FORMATS[name].quantize(weights)

    assert noise.expected(packed, name) == pytest.approx(noise.measured(weights, packed, name), rel=0.07)


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("kind", ["outliers", "sparse"])
def test_where_weights_share_a_step_the_prediction_is_an_upper_bound(kind, name):
    """With outliers or zeros everywhere the measured error stays below the predicted."""
    weights = drawn(kind)
    packed = FORMATS[name].quantize(weights)

    assert 0 < noise.measured(weights, packed, name) <= 1.07 * noise.expected(packed, name)


def test_there_is_no_error_where_nothing_is_rounded():
    """float32 and tensors of zeros have no error, predicted and measured; zeros packed from something else have no end."""
    weights, zeros = drawn("normal"), torch.zeros(2, 256)
    packed = FORMATS["f32"].quantize(weights)

    assert (0, 0) == (noise.expected(packed, "f32"), noise.measured(weights, packed, "f32"))
    for name in QUANTIZED:
        nothing = FORMATS[name].quantize(zeros)
        assert (0, 0) == (noise.expected(nothing, name), noise.measured(zeros, nothing, name))
        assert (0, 1) == (noise.expected(nothing, name), noise.measured(zeros + 1, nothing, name))


@pytest.mark.parametrize(
    "fault", ["nibbles swapped", "d and dmin swapped", "high scale bits lost", "minima zeroed", "scale doubled"]
)
def test_a_fault_in_a_whole_tensor_stands_far_above_the_prediction(fault):
    """Each planted defect of the packed bytes errs more than twice what its own blocks predict."""
    weights = drawn("normal")
    blocks = q4k.unpack(q4k.quantize(weights))
    changed = {
        "nibbles swapped": {"quants": blocks.quants.unflatten(-2, (4, 2)).flip(-2).flatten(-3, -2)},
        "d and dmin swapped": {"d": blocks.dmin, "dmin": blocks.d},
        "high scale bits lost": {"scales": blocks.scales & torch.tensor([63] * 4 + [15] * 4, dtype=torch.uint8)},
        "minima zeroed": {"minima": torch.zeros_like(blocks.minima)},
        "scale doubled": {"d": blocks.d * 2},
    }[fault]
    packed = q4k.pack(q4k.Blocks(**(vars(blocks) | changed)))

    assert noise.measured(weights, packed, "q4_k") > 2 * noise.expected(packed, "q4_k")
