"""Matrices that run from packed weights: what llama.cpp computes, in the memory of the packed bytes."""

import subprocess
import sys

import pytest
import torch
from llama import products

from sovereign.quantization import q8k
from sovereign.quantization.formats import FORMATS
from sovereign.quantization.linear import PackedLinear, Q4KLinear, llama_product

KINDS = list(FORMATS)


def drawn(n, k, seed=0, scale=1.0):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * scale


def relative(a, b):
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("variant", ["", "_generic"])
@pytest.mark.parametrize("kind", ["q4_k", "q6_k", "q8_0"])
@pytest.mark.parametrize("k", [256, 1024, 4096])
def test_the_product_is_llama_cpps(k, kind, variant):
    """Outputs agree with ggml's own dot products to 1e-6, the one compiled for this CPU and the generic one."""
    x, packed = drawn(9, k), FORMATS[kind].quantize(drawn(17, k, 1, 0.02))
    theirs = torch.from_numpy(products(kind, x.numpy(), packed.numpy(), variant))

    assert relative(llama_product(x, packed, kind), theirs) <= 1e-6


@pytest.mark.parametrize("kind", ["q4_k", "q6_k"])
def test_integer_sums_are_exact_at_their_largest(kind):
    """With every scale, quant and activation at its limit and of one sign, the sums lose nothing to float32."""
    x = torch.full((1, 256), 1.0)
    packed = torch.full((1, FORMATS[kind].bytes), 0xFF, dtype=torch.uint8)
    if kind == "q4_k":
        packed[0, :4] = torch.tensor([1.0, 0.0], dtype=torch.float16).view(torch.uint8)
        expected = 63 * 15
    else:
        packed[0, 192:208] = 127
        packed[0, 208:] = torch.tensor([1.0], dtype=torch.float16).view(torch.uint8)
        expected = 127 * 31
    scale = q8k.quantize(x).scales.item()

    assert torch.tensor(expected * 256 * -127.0) * scale == llama_product(x, packed, kind)[0, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_plain_product_is_that_of_the_dequantized_weights(kind, dtype):
    """forward and the gradient for x equal those of the dense layer with dequantized weights, several pieces long."""
    linear = PackedLinear.of(drawn(9000, 256, 1, 0.02), kind, bias=drawn(1, 9000, 2)[0])
    dense = FORMATS[kind].dequantize(linear.packed).to(dtype)
    x = drawn(6, 256).view(2, 3, 256).to(dtype).requires_grad_()
    y = linear(x)
    slope = torch.ones_like(y)
    (mine,) = torch.autograd.grad(y, x, slope)
    expected = torch.nn.functional.linear(x, dense) + linear.bias.to(dtype)
    (theirs,) = torch.autograd.grad(expected, x, slope)

    assert (9000, 256) == (linear.outputs, linear.inputs)
    assert relative(y, expected) <= {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float64: 1e-12}[dtype]
    assert relative(mine, theirs) <= {torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float64: 1e-12}[dtype]


def test_a_gradient_through_rounded_activations_is_refused():
    """as_llama computes no gradient, and says so instead of cutting it off."""
    linear = PackedLinear.of(drawn(4, 256), "q4_k", as_llama=True)
    with pytest.raises(RuntimeError, match=r"no gradient.*as_llama=False"):
        linear(drawn(1, 256).requires_grad_())


def test_autocast_does_not_round_the_integers():
    """Under bfloat16 autocast the product as llama.cpp computes it is bit for bit the same."""
    linear = PackedLinear.of(drawn(40, 512), "q4_k", as_llama=True)
    x = drawn(3, 512)
    with torch.autocast("cpu", torch.bfloat16):
        inside = linear(x)

    assert torch.equal(linear(x), inside)


def test_a_wrong_width_is_named():
    """x of another width, and packed bytes that are no rows of the format, are errors that say what would be right."""
    with pytest.raises(ValueError, match="last axis of 512"):
        PackedLinear.of(drawn(4, 512), "q4_k")(drawn(1, 256))
    with pytest.raises(ValueError, match="multiple of 144"):
        PackedLinear(torch.zeros(4, 100, dtype=torch.uint8), "q4_k")


def test_the_state_is_the_packed_bytes():
    """A Q4KLinear holds 4.5 bits a weight and its bias, and state_dict brings it back."""
    torch.manual_seed(0)
    dense = torch.nn.Linear(512, 64)
    linear = Q4KLinear.from_linear(dense)
    again = Q4KLinear(torch.zeros_like(linear.packed), torch.zeros(64))
    again.load_state_dict(linear.state_dict())
    x = drawn(3, 512)

    assert 64 * 512 * 4.5 / 8 + 64 * 4 == sum(each.nbytes for each in linear.state_dict().values())
    assert torch.equal(linear(x), again(x))
    assert relative(linear(x), dense(x)) <= 0.12


MEMORY = """
import torch
from sovereign.quantization.linear import Q4KLinear

def held(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024

rows = torch.zeros(1 << 16, 4096 // 256 * 144, dtype=torch.uint8)  # 2^28 weights: 151 MB packed, 1074 MB as float32
rows.fill_(1)
x = torch.randn(2, 4096)
for as_llama in (False, True):
    Q4KLinear(rows[:8], as_llama=as_llama)(x)
before = held("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
with torch.no_grad():
    for as_llama in (False, True):
        Q4KLinear(rows, as_llama=as_llama)(x)
print(rows.nbytes, held("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_forward_never_holds_the_dense_weights():
    """Running 2^28 weights takes less than half their packed size on top of it, where dense weights take seven times it."""
    ran = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    packed, more = map(int, ran.stdout.split())

    assert 0 <= more < packed / 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_runs_the_same(kind):
    """On CUDA bytes are the same, and products agree to 1e-6."""
    weight, x = drawn(300, 512, 1, 0.02), drawn(5, 512)
    packed = FORMATS[kind].quantize(weight)
    there = FORMATS[kind].quantize(weight.cuda())

    assert torch.equal(packed, there.cpu())
    assert torch.equal(FORMATS[kind].dequantize(packed), FORMATS[kind].dequantize(there).cpu())
    assert relative(llama_product(x.cuda(), there, kind).cpu(), llama_product(x, packed, kind)) <= 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_runs_from_packed_weights():
    """On CUDA a Q4KLinear gives the CPU's outputs and gradients to what float32 allows, and holds only packed weights."""
    linear = torch.nn.Linear(512, 300)
    torch.nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(0))
    here, x = Q4KLinear.from_linear(linear), drawn(5, 512)
    there = Q4KLinear.from_linear(linear).cuda()
    inputs = [x.clone().requires_grad_(), x.cuda().requires_grad_()]
    outputs = [module(one) for module, one in zip((here, there), inputs, strict=True)]
    for one in outputs:
        one.square().sum().backward()

    torch.testing.assert_close(outputs[1].cpu(), outputs[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(inputs[1].grad.cpu(), inputs[0].grad, rtol=1e-4, atol=1e-2)
    assert sum(one.numel() * one.element_size() for one in there.buffers()) <= 300 * 512 // 256 * 144 + 300 * 4
