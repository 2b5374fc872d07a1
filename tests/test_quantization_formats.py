"""The block formats: the bytes are llama.cpp's, the values are gguf's."""

import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from llama import quantize_rows

from sovereign.quantization import arithmetic, q4k, q6k, q8_0, q8k
from sovereign.quantization.formats import FORMATS as TABLE

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


# a few values repeated, among them zeros, both signs, subnormals and outliers; or all of them drawn
VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, 6e-8, 1e-15, 1e3, -4e4]),
    st.floats(-1e5, 1e5, width=32),
    st.floats(-1.0, 1.0, width=32),
)
CONTENTS = st.one_of(
    arrays(np.float32, 256, elements=VALUES, fill=VALUES),
    arrays(np.float32, 256, elements=st.floats(-1.0, 1.0, width=32), fill=st.nothing()),
    arrays(np.float32, 256, elements=st.floats(0.5, 1.5, width=32), fill=st.nothing()),
)


@settings(max_examples=100)
@given(CONTENTS)
@pytest.mark.parametrize("name", FORMATS)
def test_any_block_is_quantized_as_llama_cpp_does(name, block):
    """Whatever stands in a block, equal values, zeros, outliers, subnormals: the bytes are ggml's."""
    module = FORMATS[name]
    packed = module.quantize(torch.from_numpy(block))

    assert np.array_equal(quantize_rows(name, block, packed.numel()), packed.numpy())


@settings(max_examples=100)
@given(CONTENTS)
def test_any_activations_are_rounded_as_llama_cpp_does(block):
    """Whatever the activations, quants, scale and sums are ggml's; of no activations but zeros the sums are 0."""
    mine = q8k.quantize(torch.from_numpy(block))
    theirs = quantize_rows("q8_K", block, 292)

    assert np.array_equal(theirs[:4].view(np.float32), mine.scales.numpy())
    assert np.array_equal(theirs[4:260].view(np.int8), mine.quants.numpy()[0])
    assert np.array_equal(theirs[260:].view(np.int16), mine.sums.numpy()[0])


@settings(max_examples=50)
@given(CONTENTS, st.sampled_from(["q4_k", "q6_k", "q8_0"]))
def test_packing_is_undone_by_unpacking(block, name):
    """pack and unpack are each other's inverse, and every dequantized weight lies within a step of the block's range."""
    module = FORMATS[{"q4_k": "q4_K", "q6_k": "q6_K"}.get(name, name)]
    packed = module.quantize(torch.from_numpy(block))
    again = module.dequantize(packed)

    assert torch.equal(packed, module.pack(module.unpack(packed)))
    assert bool(torch.isfinite(again).all())
    assert (256,) == again.shape


def test_every_field_comes_back_from_the_bytes():
    """Any scales, minima and quants in their ranges, each other than the rest, are packed and unpacked unchanged."""
    draw = torch.Generator().manual_seed(0)

    def some(high, *shape, low=0):
        return torch.randint(low, high, (3, 5, *shape), generator=draw)

    d, dmin = (torch.randn(3, 5, generator=draw).half() for _ in range(2))
    four = q4k.Blocks(d, dmin, some(64, 8).byte(), some(64, 8).byte(), some(16, 8, 32).byte())
    six = q6k.Blocks(d, some(128, 16, low=-128).to(torch.int8), some(64, 16, 16).byte())
    eight = q8_0.Blocks(d, some(128, 32, low=-127).to(torch.int8))
    for module, blocks in ((q4k, four), (q6k, six), (q8_0, eight)):
        packed = module.pack(blocks)

        assert (3, 5 * module.BYTES) == packed.shape
        assert all(torch.equal(each, vars(module.unpack(packed))[name]) for name, each in vars(blocks).items())


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(bad, name):
    """The error names the row, the column and the value."""
    weights = torch.ones(3, 512)
    weights[1, 300] = bad
    with pytest.raises(ValueError, match=f"^{name}: row 1, column 300 is {bad}; weights must be finite"):
        TABLE[name].quantize(weights)


def test_activations_that_are_not_finite_are_refused():
    """The error names the row, the column and the value."""
    x = torch.ones(3, 512)
    x[2, 300] = float("nan")
    with pytest.raises(ValueError, match=r"^q8_k: row 2, column 300 is nan"):
        q8k.quantize(x)


@pytest.mark.parametrize(("name", "least"), [("f16", 65520.0), ("q8_0", 8.4e6), ("q6_k", 2.8e8), ("q4_k", 6.3e7)])
def test_what_float16_scales_cannot_hold_is_refused(name, least):
    """Where llama.cpp would write infinite scales, the block and the limit are named; what can be held is."""
    weights = torch.zeros(4, 256)
    weights[2, 5] = least
    with pytest.raises(ValueError, match=rf"^{name}: (row 2, |block {16 if name == 'q8_0' else 2} ).*can be held"):
        TABLE[name].quantize(weights)
    weights[2, 5] = least * 0.9

    assert bool(torch.isfinite(TABLE[name].dequantize(TABLE[name].quantize(weights))).all())


@pytest.mark.parametrize("name", TABLE)
def test_shapes_and_dtypes_that_are_no_weights_are_refused(name):
    """A row that is no multiple of the block, a scalar, integers, float64, and bytes that are no blocks, are errors."""
    kind = TABLE[name]
    if kind.block > 1:
        with pytest.raises(ValueError, match=f"multiple of {kind.block}"):
            kind.quantize(torch.zeros(2, kind.block + 1))
    for weights in (torch.zeros(2, 256, dtype=torch.int32), torch.zeros(2, 256, dtype=torch.float64)):
        with pytest.raises(TypeError, match=r"float32, float16 or bfloat16"):
            kind.quantize(weights)
    with pytest.raises(ValueError, match=f"multiple of {kind.bytes}"):
        kind.dequantize(torch.zeros(2, kind.bytes + 1, dtype=torch.uint8))
    with pytest.raises(TypeError, match="uint8"):
        kind.dequantize(torch.zeros(2, kind.bytes))


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_weights_are_quantized_as_the_float32_they_are(name, dtype):
    """float16 and bfloat16 weights of any strides give the bytes of their float32 values; so does every shape."""
    weights = drawn("normal").to(dtype)
    kind = TABLE[name]

    assert torch.equal(kind.quantize(weights.float()), kind.quantize(weights))
    assert torch.equal(kind.quantize(weights.float().T.contiguous().T), kind.quantize(weights))
    assert torch.equal(kind.quantize(weights).view(4, 16, -1), kind.quantize(weights.view(4, 16, 512)))


def test_many_threads_and_chunks_give_the_same_bytes():
    """The bytes do not depend on how many threads share the blocks, and torch's number of threads is left as it was."""
    weights = torch.randn(1100, 512, generator=torch.Generator().manual_seed(0))  # five chunks, the last a short one
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        shared = [module.quantize(weights) for module in FORMATS.values()]
        held = torch.get_num_threads()
        torch.set_num_threads(1)
        alone = [module.quantize(weights) for module in FORMATS.values()]
    finally:
        torch.set_num_threads(before)
    weights[1000, 7] = 1e30
    with pytest.raises(ValueError, match=r"^q4_k: block 2000 "):
        q4k.quantize(weights)

    assert 3 == held
    assert all(torch.equal(a, b) for a, b in zip(shared, alone, strict=True))


def test_sums_run_from_left_to_right():
    """running_sum is the plain loop, bit for bit, whichever way it takes: torch's sum on a CPU, or row after row."""
    draw = torch.Generator().manual_seed(0)
    for m, n in ((16, 1024), (32, 1024), (32, 1000), (20, 64), (32, 8)):
        terms = torch.randn(m, n, generator=draw) * torch.logspace(-3, 3, n)
        expected = terms.numpy()[0].copy()
        for row in terms.numpy()[1:]:
            expected = expected + row

        assert np.array_equal(expected, arithmetic.running_sum(terms.clone()).numpy())
    assert arithmetic.torch_sums_in_order()  # a torch where it does not hold is slower, and no less right


def test_without_torch_summing_in_order_the_bytes_are_the_same(monkeypatch):
    """Where torch's own sum goes another way, rows are added one by one, to the same bytes."""
    weights = drawn("normal")
    expected = [module.quantize(weights) for module in FORMATS.values()]
    monkeypatch.setattr(arithmetic, "torch_sums_in_order", lambda: False)

    assert all(torch.equal(a, module.quantize(weights)) for a, module in zip(expected, FORMATS.values(), strict=True))


@pytest.mark.parametrize("name", TABLE)
def test_packed_bytes_may_lie_anywhere(name):
    """Bytes at an odd address, with gaps or strides between them, or in many chunks, mean the same weights."""
    kind = TABLE[name]
    packed = kind.quantize(torch.randn(2100, 512, generator=torch.Generator().manual_seed(0)))
    expected = kind.dequantize(packed)
    shifted = torch.cat((packed.new_zeros(3), packed.flatten()))[3:].view_as(packed)
    wide = torch.cat((packed, packed), dim=1)[:, : packed.shape[1]]
    strided = packed.T.contiguous().T

    for other in (shifted, wide, strided, packed.repeat_interleave(2, 1)[:, ::2]):
        assert torch.equal(expected, kind.dequantize(other))
    assert torch.equal(expected[1999], kind.dequantize(packed[1999]))
    assert torch.equal(expected[1999, : kind.block], kind.dequantize(packed[1999, : kind.bytes]))


def test_weights_may_be_written_into_memory_that_is_there():
    """q4k.dequantize fills `out`, and refuses one of another shape, dtype or layout."""
    packed = q4k.quantize(drawn("normal"))
    room = torch.empty(64, 512)

    assert q4k.dequantize(packed, out=room) is room
    assert torch.equal(q4k.dequantize(packed), room)
    for wrong in (torch.empty(64, 256), torch.empty(64, 512, dtype=torch.float64), torch.empty(512, 64).T):
        with pytest.raises(ValueError, match=r"contiguous float32 \[64, 512\] would be right"):
            q4k.dequantize(packed, out=wrong)
    with pytest.raises(ValueError, match="on meta; the compiled kernel is for a CPU"):
        q4k.dequantize(packed.to("meta"), compiled=True)


@pytest.mark.slow
def test_the_compiled_kernel_writes_the_same_bits():
    """Compiled or not, in one chunk or several, on bytes that lie anywhere, each weight is the same to the last bit."""
    draw = torch.Generator().manual_seed(0)
    packed = torch.randint(0, 256, (20_000, 144), dtype=torch.uint8, generator=draw)
    packed[:, [1, 3]] &= 0x3F  # finite scales
    shifted = torch.cat((packed.new_zeros(3), packed.flatten()))[3:].view_as(packed)

    for some in (packed, packed[:1], packed[5:7], shifted):
        assert torch.equal(q4k.dequantize(some), q4k.dequantize(some, compiled=True))


def identical(weights, packed):
    """Return the share of super-blocks that equal llama.cpp's."""
    theirs = quantize_rows("q4_K", weights.numpy(), packed.numel())
    return (packed.numpy().reshape(-1, 144) == theirs.reshape(-1, 144)).all(1).mean()


@pytest.mark.parametrize("fault", ["nibbles swapped", "d and dmin swapped", "high scale bits lost", "one bit flipped"])
def test_planted_faults_of_packing_are_seen(fault, monkeypatch):
    """Each defect planted in the packing shows both in the bytes against llama.cpp and in the values against gguf."""
    weights = drawn("normal")
    sound = q4k.pack

    def broken(blocks):
        packed = sound(blocks).unflatten(-1, (-1, 144)).clone()
        if fault == "nibbles swapped":
            packed[..., 16:] = packed[..., 16:] << 4 | packed[..., 16:] >> 4
        elif fault == "d and dmin swapped":
            packed[..., :4] = packed[..., [2, 3, 0, 1]]
        elif fault == "high scale bits lost":
            packed[..., 4:12] &= 63
        else:
            packed[3, 0, 100] ^= 8
        return packed.flatten(-2)

    before = q4k.dequantize(q4k.quantize(weights))
    monkeypatch.setattr(q4k, "pack", broken)
    packed = q4k.quantize(weights)
    values = gguf.quants.dequantize(packed.numpy(), gguf.GGMLQuantizationType.Q4_K)

    assert identical(weights, packed) < 1
    assert not np.array_equal(before.numpy(), values)


def test_a_search_that_spreads_from_the_smallest_weight_is_seen(monkeypatch):
    """Without the quirk of the moving minimum more than a third of the blocks differ, at the same error: only bytes tell."""

    class Still(q4k.Search):
        def attempt(self, steps):
            kept, before, self.minimum = self.minimum, self.error, self.x.amin(0).clamp_(max=0)
            super().attempt(steps)
            self.minimum = torch.where(self.error < before, self.minimum, kept)

    weights = drawn("normal")
    sound = q4k.quantize(weights)
    monkeypatch.setattr(q4k, "Search", Still)
    still = q4k.quantize(weights)
    error, wrong = ((q4k.dequantize(each) - weights).norm().item() for each in (sound, still))

    assert 1 == identical(weights, sound)
    assert identical(weights, still) < 2 / 3
    assert wrong == pytest.approx(error, rel=0.01)


@pytest.mark.parametrize(
    ("name", "replacement"),
    [("root", torch.sqrt), ("running_sum", lambda terms: terms.double().sum(0).float())],
)
def test_every_rounding_of_the_search_decides_bytes(name, replacement, monkeypatch):
    """Each of the roundings that `arithmetic` reproduces, done torch's way instead, changes some blocks."""
    weights = torch.randn(2048, 256, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(q4k, name, replacement)

    assert 0.8 < identical(weights, q4k.quantize(weights)) < 1


def test_ties_are_what_two_implementations_may_round_apart():
    """Exactly the activations within 1e-4 of a half are marked, in float64, and a block without a single maximum as a whole."""
    x = torch.zeros(4, 256, dtype=torch.float64)
    x[:, 0] = 127.0  # so that the quotient is minus the value
    x[0, 1:5] = torch.tensor([3.50009, 3.50011, -7.49991, 7.5])
    x[1, 1] = -127.0
    x[2, 1] = 127.0
    marked = q8k.ties(x)

    assert [1, 3, 4] == marked[0].nonzero().flatten().tolist()
    assert [True, False, False] == [bool(marked[row].any()) for row in (1, 2, 3)]
    assert bool(marked[1].all())
    assert not bool(q8k.ties(torch.zeros(256)).any())


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_what_is_not_marked_as_a_tie_is_rounded_alike(seed):
    """Inputs that differ by a last digit of float32 round to the same quants wherever no tie is marked."""
    draw = torch.Generator().manual_seed(seed)
    exact = torch.randn(8, 512, generator=draw, dtype=torch.float64)
    moved = exact * (1 + 2e-7 * torch.randn(exact.shape, generator=draw, dtype=torch.float64))
    mine, theirs = (q8k.quantize(each.float()).quants.flatten(-2) for each in (exact, moved))
    marked = q8k.ties(exact)

    assert not bool(((mine != theirs) & ~marked).any())


def test_few_values_are_ties():
    """Of two million normal activations under one in a thousand is marked: marking everything would excuse everything.

    A window of 1e-4 on both sides of a half holds 2e-4 of all quotients. The sample is large and fixed, since in one of
    a few thousand values five marks, which chance brings every few hundred samples, are more than that share.
    """
    marked = q8k.ties(torch.randn(4096, 512, generator=torch.Generator().manual_seed(0), dtype=torch.float64))

    assert 1e-4 < float(marked.double().mean()) < 1e-3


@pytest.mark.parametrize("threads", [1, 2])
@given(blocks=st.integers(0, 40_000), weights=st.sampled_from([32, 256]), larger=st.integers(1, 4))
@settings(deadline=None)
def test_every_block_is_worked_on_once(threads, blocks, weights, larger):
    """Chunks are all blocks, each once, none larger than a thread may hold; only the last one of a share may be smaller."""
    seen, before = [], torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        arithmetic.in_chunks(seen.append, blocks, weights, torch.device("cpu"), larger)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)

    seen.sort(key=lambda part: part.start)
    assert [block for part in seen for block in range(part.start, part.stop)] == list(range(blocks))
    assert all((part.stop - part.start) * weights <= larger * arithmetic.HELD for part in seen)
    assert len({part.stop - part.start for part in seen[:-1]}) <= 1


def test_a_forked_child_has_threads_of_its_own():
    """Threads stay for the next matrix, and are not there after a fork: a child that waited for its parent's would wait for ever."""
    script = """
import os, signal, time, torch
from sovereign.quantization.arithmetic import in_chunks
torch.set_num_threads(2)
go = lambda: in_chunks(lambda part: time.sleep(0.2), 4096, 256, torch.device("cpu"))  # long enough for both threads
go()
child = os.fork()
if child == 0:
    signal.alarm(20)
    go()
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert found.stdout == "0\n", found.stderr
