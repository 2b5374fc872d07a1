"""The decoder: the same function as transformers' Llama, with exact gradients and a sound start."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from sovereign.contract.model import Decoder as Shape
from sovereign.model.decoder import Cache, build, hf_config
from sovereign.model.kernels import (
    IGNORED,
    KEPT,
    attention,
    cpu_attention,
    linear_cross_entropy,
    rms_norm,
    rotate,
    token_losses,
)
from sovereign.training.checkpoint import weights

TINY = Shape(hidden=32, layers=2, heads=4, kv_heads=2, ffn=64, context=32)


def shaped(**changes):
    return Shape(**{**TINY.model_dump(), **changes})


def random_ids(b, t, vocabulary=97, seed=0):
    return torch.randint(0, vocabulary, (b, t), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 4), (8, 8), (8, 1)])
def test_transformers_gives_the_same_logits_from_the_saved_weights(tied, heads, kv_heads, tmp_path):
    """config.json and our weights are a LlamaForCausalLM with the same logits, tied or not, GQA, MHA and MQA."""
    from transformers import LlamaForCausalLM

    shape = shaped(hidden=64, heads=heads, kv_heads=kv_heads, tied_embeddings=tied, rope_base=5000.0, norm_epsilon=1e-4)
    model = build(shape, 97, seed=1)
    with torch.no_grad():  # larger weights than at the start, so that a fault in rotation or norm shows
        for _, weight in weights(model):
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)) * 0.2)
    save_file(dict(weights(model)), tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(hf_config(shape, 97)))
    theirs, loading = LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    ids = random_ids(2, 32)

    assert [list(loading[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")] == [[], [], []]
    torch.testing.assert_close(theirs(ids).logits, model(ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_the_state_dict_is_that_of_llama(tied):
    """Names, shapes and their order-free set equal LlamaForCausalLM's, which loads them strictly."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = shaped(tied_embeddings=tied)
    theirs = LlamaForCausalLM(LlamaConfig(**hf_config(shape, 97)))
    model = build(shape, 97, seed=1)
    loaded = theirs.load_state_dict(model.state_dict(), strict=True)

    assert [loaded.missing_keys, loaded.unexpected_keys] == [[], []]
    torch.testing.assert_close(theirs(random_ids(1, 8)).logits, model(random_ids(1, 8)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "shape", [TINY, shaped(tied_embeddings=False), shaped(kv_heads=4), shaped(kv_heads=1), shaped(layers=3, ffn=128)]
)
def test_the_parameters_are_as_many_as_the_shape_says(shape):
    """What is built has exactly the parameters that the plan counts."""
    counted = sum(weight.numel() for weight in build(shape, 97, seed=0).parameters())

    assert shape.parameters(97) == counted


@pytest.mark.parametrize("vocabulary", [300, 4096])
@pytest.mark.parametrize(
    "shape",
    [
        TINY,
        shaped(hidden=256, heads=8, kv_heads=4, ffn=768, layers=4),
        shaped(hidden=512, heads=8, kv_heads=8, ffn=1024, layers=8),
    ],
    ids=["tiny", "model2", "deep"],
)
@pytest.mark.parametrize("tied", [True, False])
def test_fresh_weights_know_nothing(shape, vocabulary, tied):
    """The first loss is within 0.5 of a uniform guess."""
    model = build(shaped(**{**shape.model_dump(), "tied_embeddings": tied}), vocabulary, seed=3)
    ids = random_ids(4, 33, vocabulary)
    loss = model.losses(ids[:, :-1], ids[:, 1:]).mean().item()

    assert math.log(vocabulary) == pytest.approx(loss, abs=0.5)


def test_a_seed_decides_the_weights_and_nothing_else_does():
    """Building draws from its own generator: the same seed, the same weights; the global state is untouched."""
    torch.manual_seed(1)
    first = build(TINY, 97, seed=5)
    state = torch.get_rng_state()
    second = build(TINY, 97, seed=5)
    other = build(TINY, 97, seed=6)

    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("n", [1, 40, 200, 500])
def test_the_chunked_loss_is_cross_entropy_to_the_last_digits(n, monkeypatch):
    """Value and both gradients equal plain autograd in float64, whole chunks or not, ignored targets among them.

    Of 500 rows 333 count, and make two products for the weight; with the second put in place of the first, not added, its gradient is off.
    """
    monkeypatch.setattr("sovereign.model.kernels.chunk_rows", lambda vocabulary, device: 64)
    monkeypatch.setattr("sovereign.model.kernels.BAND", 50 * 128)  # two chunks
    draw = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(rows, 16, generator=draw, dtype=torch.float64) for rows in (n, 50))
    targets = torch.randint(0, 50, (n,), generator=draw)
    targets[1::3] = IGNORED
    mine = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    plain = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    loss = linear_cross_entropy(*mine, targets)
    expected = F.cross_entropy(plain[0] @ plain[1].T, targets, reduction="sum", ignore_index=IGNORED)
    (loss / 7).backward()
    (expected / 7).backward()

    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=1e-10)
    for a, b in zip(mine, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(token_losses(hidden, weight, targets).sum(), expected, atol=1e-10, rtol=1e-10)
    assert 0 == linear_cross_entropy(*mine, torch.full_like(targets, IGNORED))


def test_a_frozen_head_costs_no_gradient_and_changes_none():
    """Where the head does not move, the hidden states' gradient is the same, and the head has none."""
    draw = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(rows, 16, generator=draw) for rows in (9, 50))
    targets = torch.randint(0, 50, (9,), generator=draw)
    found = []
    for moves in (True, False):
        mine, head = hidden.clone().requires_grad_(), weight.clone().requires_grad_(moves)
        linear_cross_entropy(mine, head, targets).backward()
        found.append((mine.grad, head.grad))

    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] is not None
    assert found[1][1] is None


def test_the_whole_model_has_the_gradients_of_the_plain_model():
    """In float64 the gradient of every parameter equals that of cross-entropy on all logits."""
    model = build(TINY, 97, seed=0).double()
    ids = random_ids(3, 33)
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    mine = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").backward()

    for name, weight in model.named_parameters():
        torch.testing.assert_close(mine[name], weight.grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("trained", [True, False])
def test_the_norm_has_the_value_and_gradients_of_torch_s(trained):
    """In float64 the written-out backward is autograd's; a frozen gain has no gradient, and changes none."""
    draw = torch.Generator().manual_seed(0)
    x, slope = (torch.randn(3, 7, 32, generator=draw, dtype=torch.float64) for _ in range(2))
    gain = torch.randn(32, generator=draw, dtype=torch.float64)
    results = []
    for norm in (rms_norm, lambda x, gain, epsilon: F.rms_norm(x, gain.shape, gain, epsilon)):
        mine, own = x.clone().requires_grad_(), gain.clone().requires_grad_(trained)
        value = norm(mine, own, 1e-5)
        value.backward(slope)
        results.append((value.detach(), mine.grad, own.grad))

    torch.testing.assert_close(*results, atol=1e-12, rtol=1e-12)


def test_a_rotation_is_that_of_complex_numbers_and_its_gradient_turns_back():
    """A pair is a complex number times e^(i angle), as in Su et al. 2021; the gradient agrees with finite differences."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 8, generator=draw, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(5, 1, 4, generator=draw, dtype=torch.float64)
    cos, sin = angles.cos().repeat(1, 1, 2), torch.cat((-angles.sin(), angles.sin()), -1)
    turned = torch.complex(*x.detach().chunk(2, -1)) * torch.polar(torch.ones_like(angles), angles)

    torch.testing.assert_close(rotate(x, cos, sin).detach(), torch.cat((turned.real, turned.imag), -1))
    torch.testing.assert_close(rotate(x, cos.repeat(1, 4, 1), sin.repeat(1, 4, 1)), rotate(x, cos, sin))
    assert torch.autograd.gradcheck(lambda x: rotate(x, cos, sin), (x,))


@pytest.mark.parametrize("positions", [150, KEPT], ids=["in blocks and a part", "as many as are kept"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 4), (4, 4), (8, 1)])
def test_attention_in_bf16_has_the_value_and_gradients_of_attention(heads, kv_heads, positions):
    """What is written out is as near the float64 value and gradient as bf16 lets it be, and exact in float32.

    With the mask left out, or a block's keys cut short, it is far off.
    """
    draw = torch.Generator().manual_seed(0)
    q, k, v, slope = (
        torch.randn(2, n, positions, 32, generator=draw, dtype=torch.float64)
        for n in (heads, kv_heads, kv_heads, heads)
    )
    exact = [x.clone().requires_grad_() for x in (q, k, v)]
    expected = F.scaled_dot_product_attention(*exact, is_causal=True, enable_gqa=True)
    expected.backward(slope)

    for dtype, bound in ((torch.bfloat16, 0.015), (torch.float32, 1e-5)):
        mine = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        mixed = cpu_attention(*mine)[0]
        mixed.backward(slope.to(dtype))
        pairs = [(mixed, expected), *((a.grad, b.grad) for a, b in zip(mine, exact, strict=True))]
        for found, wanted in pairs:
            error = (found.double() - wanted).norm() / wanted.norm()

            assert error < bound


@pytest.mark.parametrize("positions", [70, 130])
def test_attention_is_an_operation_to_torch(positions):
    """Its schema, its tensors without content and its registered gradient are what torch asks of an operation's author."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, positions, n, 8, generator=draw).bfloat16().transpose(1, 2) for n in (4, 2, 2))
    for one in (q, k, v):
        one.requires_grad_()

    torch.library.opcheck(cpu_attention, (q, k, v))
    with torch.profiler.profile() as profile:
        cpu_attention(q, k, v)[0].sum().backward()
    made = {event.key for event in profile.key_averages()}
    assert "aten::zero_" in made  # of the slopes of keys and values
    assert "aten::zeros" not in made  # planted: slopes of the weights, which nobody asks for, made of zeros


@pytest.mark.parametrize("positions", [KEPT, KEPT + 1])
def test_attention_over_many_positions_is_torchs(positions):
    """As many weights as are kept are ours; beyond, where they would fill the memory, it is SDPA to the bit."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, n, positions, 8, generator=draw).bfloat16().requires_grad_() for n in (2, 1, 1))
    found, torchs = attention(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    assert ("sovereign_attention" in type(found.grad_fn).__name__) == (positions == KEPT)
    assert torch.equal(found, torchs) == (positions > KEPT)


def test_autocast_rounds_no_score():
    """Under autocast far-apart scores make weights as exact as SDPA's; rounded to bf16 they were six times as far off."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 96, 32, generator=draw).bfloat16().requires_grad_() for _ in range(3))
    q = (q * 8).detach().requires_grad_()
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True)
    with torch.autocast("cpu", torch.bfloat16):
        mine = cpu_attention(q, k, v)[0]
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    mine, theirs = ((found.double() - exact).norm() for found in (mine, theirs))

    assert mine < 1.5 * theirs


def test_one_token_at_a_time_gives_the_logits_of_the_whole():
    """Decoding with a cache equals the full forward, for sequences of different lengths side by side."""
    model = build(TINY, 97, seed=0)
    ids = random_ids(3, 20)
    lengths = torch.tensor([9, 4, 1])
    whole = model(ids)
    cache = Cache(model, 3, 20)
    with torch.no_grad():
        first = model.step(ids[:, :9], cache)
        cache.lengths += lengths
        for _ in range(11):
            rows = torch.arange(3)
            logits = model.step(ids[rows, cache.lengths][:, None], cache)[:, 0]

            torch.testing.assert_close(logits, whole[rows, cache.lengths], atol=1e-5, rtol=1e-5)
            cache.lengths += 1

    torch.testing.assert_close(first[0], whole[0, :9], atol=1e-5, rtol=1e-5)


def test_training_and_evaluation_agree_on_one_batch():
    """The loss that is trained on and the losses that are reported are the same number."""
    model = build(TINY, 97, seed=0)
    ids = random_ids(4, 33)
    trained = model.train().loss(ids[:, :-1], ids[:, 1:]).item()
    scored = model.eval().losses(ids[:, :-1], ids[:, 1:]).sum().item()

    assert trained == pytest.approx(scored, rel=1e-5)
