"""The block formats: the bytes are llama.cpp's, the values are gguf's."""

import gguf
import numpy as np
import pytest
import torch
from llama import quantize_rows

from sovereign.quantization import q4k, q6k, q8_0, q8k

FORMATS = {"q4_K": q4k, "q6_K": q6k, "q8_0": q8_0}


def drawn(kind):
    """Return weights [64, 512] of one kind; the seed is fixed."""
    torch.manual_seed(1)
    x = torch.randn(64, 512)
    return {
        "normal": x * 0.02,
        "outliers": x * (1 + 100 * (torch.rand(64, 512) > 0.995)),
        "positive": x.abs(),
        "negative": -x.abs(),
        "heavy tails": torch.distributions.StudentT(3.0).sample((64, 512)),
        "sparse": x * (torch.rand(64, 512) > 0.95),
        "subnormal": x * 1e-39,
        "below float16": x * 1e-7,
        "large": x * 3e5,
        "integers": torch.randint(-3, 4, (64, 512)).float(),
        "all equal": torch.arange(-32.0, 32)[:, None].expand(64, 512),
    }[kind]


KINDS = ["normal", "outliers", "positive", "negative", "heavy tails", "sparse", "subnormal", "below float16", "large",
         "integers", "all equal"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_the_bytes_are_those_of_llama_cpp(name, kind):
    """Every block of every kind of weights is quantized to the same bytes as by ggml's reference."""
    weights, module = drawn(kind), FORMATS[name]
    packed = module.quantize(weights)
    theirs = quantize_rows(name, weights.numpy(), packed.numel())

    assert (64, 512 // module.WEIGHTS * module.BYTES) == packed.shape
    assert 0 == (packed.numpy().ravel() != theirs).reshape(-1, module.BYTES).any(1).sum()


@pytest.mark.parametrize("name", FORMATS)
def test_any_bytes_mean_what_gguf_says(name):
    """Random bytes with finite scales dequantize to gguf's values bit for bit, and unpacking loses nothing."""
    module, kind = FORMATS[name], gguf.GGMLQuantizationType[name.upper()]
    packed = torch.randint(0, 256, (50, 4 * module.BYTES), dtype=torch.uint8)
    halves = packed.view(-1, module.BYTES)[:, {"q4_K": [1, 3], "q6_K": [209], "q8_0": [1]}[name]]
    halves = halves & 0xBF  # exponents below the largest: no inf, no nan
    packed.view(-1, module.BYTES)[:, {"q4_K": [1, 3], "q6_K": [209], "q8_0": [1]}[name]] = halves
    theirs = gguf.quants.dequantize(packed.numpy(), kind)

    assert np.array_equal(theirs, module.dequantize(packed).numpy())
    assert torch.equal(packed, module.pack(module.unpack(packed)))


@pytest.mark.parametrize("kind", KINDS)
def test_activations_are_those_of_llama_cpp(kind):
    """Q8_K quants, scales and sums equal those of ggml's reference."""
    x = drawn(kind)
    mine = q8k.quantize(x)
    theirs = quantize_rows("q8_K", x.numpy(), x.numel() // 256 * 292).reshape(64, 2, 292)

    assert np.array_equal(theirs[..., :4].copy().view(np.float32)[..., 0], mine.scales.numpy())
    assert np.array_equal(theirs[..., 4:260].view(np.int8), mine.quants.numpy())
    assert np.array_equal(theirs[..., 260:].copy().view(np.int16), mine.sums.numpy())
