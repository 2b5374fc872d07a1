"""Samples: a continuation belongs to its prompt and seed alone."""

import pytest
import torch

from sovereign.contract.model import Decoder as Shape
from sovereign.model.decoder import build
from sovereign.model.pretrained import Pretrained
from sovereign.training.device import keep_as
from sovereign.training.sampling import choose, sample

SHAPE = Shape(hidden=32, layers=2, heads=4, kv_heads=2, ffn=64, context=64)
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10], [1, 2, 3]]


def continued(model=None, prompts=PROMPTS, tokens=12, **changes):
    return sample(
        model or build(SHAPE, 61, seed=0), prompts, tokens, **{"temperature": 1.0, "top_k": 20, "seed": 3, **changes}
    )


def test_a_continuation_does_not_depend_on_its_neighbours():
    """Prompt i alone, with seed + i, continues as it does among the others; equal prompts differ by their seed."""
    together = continued()
    alone = [continued(prompts=[prompt], seed=3 + index)[0] for index, prompt in enumerate(PROMPTS)]

    assert together == alone
    assert together[0] != together[3]
    assert together == continued()
    assert together != continued(seed=4)


def test_greedy_takes_the_likeliest_token_of_the_full_forward():
    """At temperature 0 each token is the argmax after everything before it."""
    model = build(SHAPE, 61, seed=0)
    for prompt, ids in zip(PROMPTS, continued(model, temperature=0.0), strict=True):
        expected = list(prompt)
        for _ in range(12):
            expected.append(int(model(torch.tensor([expected]))[0, -1].argmax()))

        assert expected[len(prompt) :] == ids


def test_a_continuation_ends_before_the_stop_token():
    """What follows `stop` is left out, and `stop` itself."""
    free = continued()
    stop = free[0][5]
    stopped = continued(stop=stop)

    assert stopped == [ids[: ids.index(stop)] if stop in ids else ids for ids in free]
    assert len(stopped[0]) <= 5


def test_tokens_are_drawn_as_often_as_they_are_likely():
    """Over many draws the shares are the softmax at the temperature, and nothing outside top_k appears."""
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0]).log_softmax(0)
    draws = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    ids = choose(logits.expand(10_000, -1), draws, temperature=0.5, top_k=3)
    shares = torch.bincount(ids, minlength=4) / 10_000
    expected = torch.tensor([4.0, 0.0, 2.0, -torch.inf]).softmax(0)

    torch.testing.assert_close(shares, expected, atol=2e-4, rtol=0)


def test_a_prompt_without_room_is_refused():
    """Positions end with the context; the error says which prompt and how long it may be."""
    with pytest.raises(ValueError, match="prompt 1 has 60 tokens; with 12 to follow it must have 1 to 52"):
        continued(prompts=[[1], [2] * 60])
    with pytest.raises(ValueError, match="prompt 0 has 0 tokens"):
        continued(prompts=[[]])


@pytest.mark.parametrize("kept_in", ["bf16", "fp16"])
def test_weights_in_two_dtypes_write(kept_in):
    """An embedding that moves in float32 over layers kept in half: as wake's first phase leaves a hub model behind.

    Planted: outside the narrower dtype's context its first product fails, after the whole training.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = Pretrained(LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=61)))
    model.requires_grad_(False)
    model.net.get_input_embeddings().weight.requires_grad_(True)
    keep_as(model, kept_in)

    assert [len(ids) for ids in continued(model, prompts=PROMPTS[:2], tokens=4)] == [4, 4]
