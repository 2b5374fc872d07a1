"""What a decoder may be beyond the plain one: each option as somebody else computes it, and none felt where it is off."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sovereign.contract.model import Decoder as Shape
from sovereign.contract.model import Experts
from sovereign.contract.training import Adamw, Schedule, Training
from sovereign.model.decoder import Cache, build, hf_config, rotation_table
from sovereign.model.decoder import Experts as Mixture
from sovereign.model.kernels import _with_sinks, attention, linear_cross_entropy, rms_norm, rotate
from sovereign.training.checkpoint import weights, weights_digest
from sovereign.training.evaluation import evaluate
from sovereign.training.layers import training_layers
from sovereign.training.memory import taken
from sovereign.training.optimizer import optimizer_for

TINY = Shape(hidden=32, layers=2, heads=4, kv_heads=2, ffn=64, context=32)
MODEL2 = Shape(hidden=256, layers=4, heads=8, kv_heads=4, ffn=768, context=256)
V = 97
END = 0


def shaped(**changes):
    return Shape(**{**TINY.model_dump(), **changes})


FOUR = Experts(count=4, active=2, balance=0.02)
OPTIONS = {
    "plain": TINY,
    "window": shaped(window=5),
    "sinks": shaped(sinks=True),
    "documents": shaped(within_documents=True),
    "experts": shaped(experts=FOUR),
    "all": shaped(window=6, sinks=True, within_documents=True, experts=FOUR),
}


def ids_of(b, t, seed=0, low=1):
    return torch.randint(low, V, (b, t), generator=torch.Generator().manual_seed(seed))


def grown(model, seed=2):
    """Return the model with larger weights than at the start, so that a fault shows."""
    with torch.no_grad():
        for _, weight in weights(model):
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)) * 0.2)
    return model


# ── off by default ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="torch draws other normal numbers from the same seed where it has no AVX2",
)
@pytest.mark.parametrize(
    ("shape", "vocabulary", "digest"),
    [
        (TINY, 97, "sha256:0161e13ef25a12e94b655d96be2b80049b4ab52af5998f669bd5ff2d117bcdd1"),
        (MODEL2, 4096, "sha256:7eaafe904382b05ce6e3549966d0dc6e4e07be98cdf7cb45098d87b1217645d5"),
    ],
    ids=["tiny", "model2"],
)
def test_the_first_weights_of_a_seed_are_what_they_always_were(shape, vocabulary, digest):
    """An option that is off draws no number: the weights of seed 1 are those from before there were options."""
    assert digest == weights_digest(build(shape, vocabulary, seed=1))


def test_the_weights_of_a_seed_are_drawn_in_a_fixed_order():
    """On any machine: embedding, then q, k, v, o, gate, up, down of each layer, from one generator of that seed."""
    draw = torch.Generator().manual_seed(7)
    model = dict(build(TINY, V, seed=7).named_parameters())
    kv = TINY.kv_heads * TINY.head_dim
    layer = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (kv, 32), "self_attn.v_proj": (kv, 32), "self_attn.o_proj": (32, 32),
             "mlp.gate_proj": (64, 32), "mlp.up_proj": (64, 32), "mlp.down_proj": (32, 64)}  # fmt: skip
    expected = {"model.embed_tokens.weight": torch.empty(V, 32).normal_(0.0, 0.02, generator=draw)}
    for at in range(2):
        for name, size in layer.items():
            narrow = 0.02 / 4**0.5 if name in ("self_attn.o_proj", "mlp.down_proj") else 0.02
            expected[f"model.layers.{at}.{name}.weight"] = torch.empty(size).normal_(0.0, narrow, generator=draw)
    gains = {name for name in model if name not in expected}

    assert all(torch.equal(weight, model[name]) for name, weight in expected.items())
    assert all(name.endswith("norm.weight") and bool((model[name] == 1).all()) for name in gains)
    assert 5 == len(gains)


def plain_loss(model, inputs, targets):
    """Return the loss of the decoder as it was before it had options, kernel by kernel."""
    shape, named = model.shape, dict(model.named_parameters())
    b, t = inputs.shape
    cos, sin = (part[:t, None] for part in rotation_table(shape, shape.context))
    cos, sin = cos.repeat(1, 1, 2), torch.cat((-sin, sin), -1)
    x = F.embedding(inputs, named["model.embed_tokens.weight"])
    for at in range(shape.layers):
        own = {
            name.split(".", 3)[3]: weight for name, weight in named.items() if name.startswith(f"model.layers.{at}.")
        }
        y = rms_norm(x, own["input_layernorm.weight"], shape.norm_epsilon)
        q, k, v = (F.linear(y, own[f"self_attn.{one}_proj.weight"]).view(b, t, -1, shape.head_dim) for one in "qkv")
        heads = (x.transpose(1, 2) for x in (rotate(q, cos, sin), rotate(k, cos, sin), v))
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)
        x = x + F.linear(mixed.transpose(1, 2).reshape(b, t, -1), own["self_attn.o_proj.weight"])
        y = rms_norm(x, own["post_attention_layernorm.weight"], shape.norm_epsilon)
        gated = F.silu(F.linear(y, own["mlp.gate_proj.weight"])) * F.linear(y, own["mlp.up_proj.weight"])
        x = x + F.linear(gated, own["mlp.down_proj.weight"])
    x = rms_norm(x, named["model.norm.weight"], shape.norm_epsilon)
    head = named.get("lm_head.weight", named["model.embed_tokens.weight"])
    return linear_cross_entropy(x.flatten(0, 1), head, targets.flatten())


def test_a_decoder_without_options_trains_bit_for_bit_as_before():
    """Three updates by the decoder and by its plain form, written out, give equal losses, gradients and weights."""
    mine, plain = build(TINY, V, seed=1), build(TINY, V, seed=1)
    steps = [optimizer_for(model, Adamw()) for model in (mine, plain)]
    for step in range(3):
        ids = ids_of(4, 33, seed=step, low=0)
        losses = [mine.loss(ids[:, :-1], ids[:, 1:]), plain_loss(plain, ids[:, :-1], ids[:, 1:])]
        for loss, optimizer in zip(losses, steps, strict=True):
            (loss / 128).backward()
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 1e-2

        assert losses[0].item() == losses[1].item()
        for a, b in zip(mine.parameters(), plain.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad)
        for optimizer in steps:
            optimizer.step()
            optimizer.zero_grad()

    assert weights_digest(mine) == weights_digest(plain)


# ── against transformers ─────────────────────────────────────────────────────────────────────────


def saved(model, folder):
    save_file(dict(weights(model)), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(hf_config(model.shape, V)))


@pytest.mark.parametrize("window", [1, 5, 31, 32, 40])
def test_a_sliding_window_is_mistrals(window, tmp_path):
    """Logits and every gradient of the loss equal MistralForCausalLM's, windows at and beyond the context included."""
    from transformers import MistralForCausalLM

    model = grown(build(shaped(window=window), V, seed=1))
    saved(model, tmp_path)
    theirs = MistralForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    ids = ids_of(2, 33)
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    logits = theirs(ids[:, :-1]).logits
    F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").backward()

    torch.testing.assert_close(logits, model(ids[:, :-1]), atol=1e-4, rtol=1e-4)
    named = dict(theirs.named_parameters())
    for name, weight in weights(model):
        torch.testing.assert_close(weight.grad, named[name].grad, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("active", [1, 2, 3])
def test_experts_are_mixtrals(active, tmp_path):
    """config.json and our weights are a MixtralForCausalLM with the same logits and the same gradients."""
    from transformers import MixtralForCausalLM

    model = grown(build(shaped(experts=Experts(count=4, active=active, balance=0.0)), V, seed=1))
    saved(model, tmp_path)
    theirs, loading = MixtralForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager", experts_implementation="eager"
    )
    ids = ids_of(2, 33)
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    logits = theirs(ids[:, :-1]).logits
    F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").backward()
    mine, named = dict(model.named_parameters()), dict(theirs.named_parameters())

    assert [list(loading[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")] == [[], [], []]
    torch.testing.assert_close(logits, model(ids[:, :-1]), atol=1e-4, rtol=1e-4)
    for at in range(2):
        ours, other = f"model.layers.{at}.block_sparse_moe", f"model.layers.{at}.mlp"
        pairs = [(mine[f"{ours}.gate.weight"].grad, named[f"{other}.gate.weight"].grad)]
        for one in range(4):
            gate, up = named[f"{other}.experts.gate_up_proj"].grad[one].chunk(2)
            pairs += [
                (mine[f"{ours}.experts.{one}.w1.weight"].grad, gate),
                (mine[f"{ours}.experts.{one}.w3.weight"].grad, up),
                (mine[f"{ours}.experts.{one}.w2.weight"].grad, named[f"{other}.experts.down_proj"].grad[one]),
            ]
        for a, b in pairs:
            torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("active", [1, 2])
def test_the_balance_of_a_sequence_is_mixtrals(active):
    """For one sequence and layer the unevenness, and its gradient, are transformers' load-balancing loss."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    shape = shaped(experts=Experts(count=4, active=active))
    mixture = Mixture(shape, shape.experts).double()
    x = torch.randn(3, 20, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, uneven = mixture(x)
    theirs = torch.stack([load_balancing_loss_func((mixture.gate(one),), 4, active) for one in x])
    mine_slope, their_slope = (torch.autograd.grad(one.sum(), mixture.gate.weight)[0] for one in (uneven, theirs))

    torch.testing.assert_close(uneven, theirs.double(), atol=1e-6, rtol=1e-6)  # theirs counts in float32
    torch.testing.assert_close(mine_slope, their_slope, atol=1e-6, rtol=1e-6)


def test_the_balance_moves_the_router_and_not_the_reported_loss():
    """The value is cross-entropy alone; the gradient is that of cross-entropy + balance x unevenness x tokens."""
    ids = ids_of(3, 33)
    model = grown(build(shaped(experts=Experts(count=4, active=2, balance=0.5)), V, seed=1)).double()
    without = copy.deepcopy(model)
    without.shape = shaped(experts=Experts(count=4, active=2, balance=0.0))
    loss, plain = (one.loss(ids[:, :-1], ids[:, 1:]) for one in (model, without))
    loss.backward()
    (plain + 0.5 * (without.model(ids[:, :-1])[1] * 32).sum()).backward()

    assert loss.item() == plain.item()
    for a, b in zip(model.parameters(), without.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", ["experts", "all"])
def test_the_gradient_does_not_depend_on_the_split(name):
    """One micro-batch of 8 windows or eight of one, targets uneven: gradients agree in float64, balance included."""
    ids = ids_of(8, 33, low=0)
    targets = ids[:, 1:].clone()
    for row in range(8):
        targets[row, : row * 3] = -100
    found = []
    for size in (8, 1):
        model = grown(build(OPTIONS[name], V, seed=1, end_of_text=END)).double()
        for some, wanted in zip(ids[:, :-1].split(size), targets.split(size), strict=True):
            model.loss(some, wanted).backward()
        found.append([weight.grad for weight in model.parameters()])

    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_training_balances_a_lopsided_router():
    """A router that sends nearly all tokens to one expert is evened out with the balancing loss, and not without."""
    reached = {}
    for balance in (0.0, 1.0):
        torch.manual_seed(0)
        shape = shaped(layers=1, experts=Experts(count=4, active=1, balance=balance))
        model = build(shape, V, seed=1)
        with torch.no_grad():
            model.model.embed_tokens.weight[:, 0] = 1.0  # a direction that every token has, and the router favours
            model.model.layers[0].block_sparse_moe.gate.weight[0, 0] = 0.5
        optimizer = torch.optim.AdamW(model.model.layers[0].block_sparse_moe.gate.parameters(), lr=1e-2)
        for step in range(60):
            ids = ids_of(4, 33, seed=step)
            (model.loss(ids[:, :-1], ids[:, 1:]) / 128).backward()
            optimizer.step()
            optimizer.zero_grad()
        reached[balance] = model.model(ids_of(4, 32, seed=99))[1].mean().item()

    assert reached[0.0] > 1.5 > 1.2 > reached[1.0]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("window", [None, 5])
def test_sinks_are_those_of_gpt_oss(heads, kv_heads, window):
    """GptOssAttention with our matrices and sinks gives the same output and gradients, with a window and without."""
    from transformers import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention

    shape = shaped(heads=heads, kv_heads=kv_heads, sinks=True, window=window)
    mine = grown(build(shape, V, seed=1)).model.double()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        mine.layers[0].self_attn.sinks.copy_(torch.randn(heads, generator=draw) * 2)
    config = GptOssConfig(
        hidden_size=32, num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=8, attention_bias=False,
        num_hidden_layers=1, layer_types=["full_attention"], attn_implementation="eager",
    )  # fmt: skip
    theirs = GptOssAttention(config, 0).double()
    theirs.load_state_dict(mine.layers[0].self_attn.state_dict(), strict=True)
    x = torch.randn(2, 20, 32, dtype=torch.float64, generator=draw)
    rotation = mine.rotation(20, torch.float64)
    places = torch.arange(20)
    hidden = (places > places[:, None]) | (places <= places[:, None] - (window or 20))
    mask = torch.zeros(1, 1, 20, 20, dtype=torch.float64).masked_fill(hidden, -math.inf)
    ours = mine.layers[0].self_attn(x, rotation, mine.seen(ids_of(2, 20)), None, 0)
    cos, sin = (part[None, :, 0, 4:] for part in rotation)
    other, _ = theirs(x, (cos, sin), mask)
    for out in (ours, other):
        out.square().sum().backward()

    torch.testing.assert_close(ours, other, atol=1e-9, rtol=1e-9)
    for name, weight in mine.layers[0].self_attn.named_parameters():
        torch.testing.assert_close(weight.grad, dict(theirs.named_parameters())[name].grad, atol=1e-8, rtol=1e-8)


def test_sinks_take_attention_and_give_nothing():
    """With the sinks far down attention is as without them; far up it is nothing; in bf16 it is near float64's."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 16, 8, dtype=torch.float64, generator=draw) for n in (4, 2, 2))
    seen = torch.ones(16, 16, dtype=torch.bool).tril()[None, None]
    sinks = torch.randn(4, dtype=torch.float64, generator=draw)
    exact = _with_sinks(q, k, v, seen, sinks)
    rounded = _with_sinks(q.bfloat16(), k.bfloat16(), v.bfloat16(), seen, sinks.float())

    torch.testing.assert_close(_with_sinks(q, k, v, seen, sinks - 60), attention(q, k, v), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(_with_sinks(q, k, v, seen, sinks + 60), torch.zeros_like(q), atol=1e-9, rtol=0)
    assert (rounded.double() - exact).norm() / exact.norm() < 0.01


# ── within documents ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["documents", "all"])
def test_packed_documents_are_scored_as_if_alone(name):
    """The loss of a window of several documents is the sum of theirs, each from one end-of-text to the next."""
    lengths = [1, 7, 12, 9]
    bodies = [ids_of(1, length, seed=length)[0] for length in lengths]
    end = torch.tensor([END])
    packed = torch.cat([end, *(torch.cat([body, end]) for body in bodies)])[None]
    model = grown(build(OPTIONS[name], V, seed=1, end_of_text=END)).double()
    together = model.losses(packed[:, :-1], packed[:, 1:])[0]
    alone = torch.cat(
        [model.losses(one[None, :-1], one[None, 1:])[0] for body in bodies for one in [torch.cat([end, body, end])]]
    )

    # to the last digits of the rotation tables, which are float32
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)


def test_without_the_option_documents_see_each_other():
    """The planted fault of the test above: a plain decoder scores packed documents otherwise."""
    end = torch.tensor([END])
    packed = torch.cat([end, ids_of(1, 9)[0], end, ids_of(1, 9, seed=1)[0], end])[None]
    model = grown(build(TINY, V, seed=1))
    together = model.losses(packed[:, :-1], packed[:, 1:])[0, 10:]
    alone = model.losses(packed[:, 10:-1], packed[:, 11:])[0]

    assert not torch.allclose(together, alone, atol=1e-2)


def test_a_decoder_that_stops_at_documents_must_know_their_end():
    """Building it without the end-of-text id is refused."""
    with pytest.raises(ValueError, match="within_documents needs the end-of-text id"):
        build(OPTIONS["documents"], V, seed=1)


# ── every option ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", OPTIONS)
def test_decoding_a_token_at_a_time_gives_the_logits_of_the_whole(name):
    """With a cache, for sequences of different lengths side by side and several documents in each."""
    model = grown(build(OPTIONS[name], V, seed=0, end_of_text=END))
    ids = ids_of(3, 20)
    ids[:, 0] = ids[0, 6] = ids[1, 3] = ids[1, 12] = END
    lengths = torch.tensor([9, 4, 1])
    with torch.no_grad():
        whole = model(ids)
        cache = Cache(model, 3, 20)
        padded = ids[:, :9].clone()
        padded[1, 4:] = padded[2, 1:] = END  # padding that looks like the end of a document
        model.step(padded, cache)
        cache.lengths += lengths
        rows = torch.arange(3)
        for _ in range(11):
            logits = model.step(ids[rows, cache.lengths][:, None], cache)[:, 0]

            torch.testing.assert_close(logits, whole[rows, cache.lengths], atol=1e-4, rtol=1e-4)
            cache.lengths += 1


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_parameters_are_as_many_as_the_shape_says(name, tied):
    """What is built has exactly the parameters that the plan counts."""
    shape = Shape(**{**OPTIONS[name].model_dump(), "tied_embeddings": tied})
    counted = sum(weight.numel() for weight in build(shape, V, seed=0, end_of_text=END).parameters())

    assert shape.parameters(V) == counted


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["plain", "documents", "experts"])
def test_the_operations_are_as_many_as_the_shape_says(name, tied):
    """Torch's own count of a training step, forward and back, is the formula's to the last one."""
    shape = Shape(**{**OPTIONS[name].model_dump(), "tied_embeddings": tied})
    model = build(shape, V, seed=0, end_of_text=END)
    ids = ids_of(4, 33)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.loss(ids[:, :-1], ids[:, 1:]).backward()

    assert counter.get_total_flops() == shape.flops_per_token(V) * 128


def test_a_window_saves_attention():
    """What a window hides is not counted, since it is not needed; torch computes it all the same."""
    saved_ = OPTIONS["plain"].flops_per_token(V) - shaped(window=8).flops_per_token(V)

    assert saved_ == 12.0 * 2 * 32 * 24
    assert OPTIONS["plain"].flops_per_token(V) == shaped(window=64).flops_per_token(V)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_learns_one_batch(name):
    """Each decoder, and all options at once, overfits four windows: every part takes part in the gradient."""
    model = build(OPTIONS[name], V, seed=0, end_of_text=END)
    ids = ids_of(4, 33)
    ids[:, 9] = END
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = None
    for _ in range(60):
        loss = model.loss(ids[:, :-1], ids[:, 1:]) / 128
        loss.backward()
        assert all(weight.grad is not None for weight in model.parameters())
        first = first or loss.item()
        optimizer.step()
        optimizer.zero_grad()

    assert first == pytest.approx(math.log(V), abs=0.5)
    assert loss.item() < 1.0


@pytest.mark.parametrize("name", OPTIONS)
def test_the_batch_size_does_not_change_a_score(name):
    """Scores of documents at batch 1 and 8 agree to 1e-6 of themselves."""
    model = build(OPTIONS[name], V, seed=0, end_of_text=END)
    sequences = [(f"{at:016x}", ids_of(1, length, seed=at)[0].numpy()) for at, length in enumerate([5, 33, 70, 12, 40])]
    one, eight = (
        evaluate(model, sequences, batch=size, context=32, precision="fp32", device=torch.device("cpu"))
        for size in (1, 8)
    )

    assert [nll for _, nll, _ in eight] == pytest.approx([nll for _, nll, _ in one], rel=1e-6)


def test_beyond_its_context_a_decoder_turns_on():
    """Positions past the trained length go on where the table ends: within it nothing changes, beyond it is Llama's."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = grown(build(TINY, V, seed=1))
    theirs = LlamaForCausalLM(LlamaConfig(**hf_config(TINY, V)))
    theirs.load_state_dict(model.state_dict())
    ids = ids_of(1, 80)

    torch.testing.assert_close(theirs(ids).logits, model(ids), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(ids)[:, :32], model(ids[:, :32]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"experts": {"count": 4, "active": 4}}, "active 4 of 4 experts chooses nothing"),
        ({"experts": {"count": 1, "active": 1}}, "greater than or equal to 2"),
        ({"window": 0}, "greater than or equal to 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(given, told):
    """A mixture that does not choose, and a window that sees nothing, are errors of the contract."""
    with pytest.raises(ValidationError, match=told):
        shaped(**given)


def test_sinks_have_nowhere_to_be_exported_to():
    """No architecture of transformers is a Llama with sinks, and nobody is told otherwise."""
    with pytest.raises(ValueError, match="no Llama with attention sinks"):
        hf_config(shaped(sinks=True), V)


@pytest.mark.parametrize("name", OPTIONS)
def test_recomputed_layers_have_the_same_gradients(name):
    """Activation checkpointing runs each layer twice, and with every option changes no gradient."""
    plain, again = (build(OPTIONS[name], V, seed=0, end_of_text=END) for _ in range(2))
    ids = ids_of(2, 33)
    ids[:, 9] = END
    plain.loss(ids[:, :-1], ids[:, 1:]).backward()
    with training_layers(again, recomputed=True):
        again.loss(ids[:, :-1], ids[:, 1:]).backward()

    for a, b in zip(plain.parameters(), again.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_memory_is_predicted_for_experts_without_computing():
    """Shapes alone tell the memory of a training step, where routing would need values."""
    settings = Training(steps=2, sequences=2, schedule=Schedule(kind="constant", peak=1e-3))
    found = [
        taken(lambda name=name: build(OPTIONS[name], V, 0, END), settings, 2, 32, "fp32", "cpu").tensors
        for name in ("plain", "all")
    ]

    assert 16 * OPTIONS["plain"].parameters(V) < found[0] < found[1]
