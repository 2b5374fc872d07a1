"""Small decoders that were really trained, in seconds, on Python source: on random weights most faults hide in noise."""

from __future__ import annotations

import inspect
import json.decoder
import textwrap
from functools import cache

import torch
from tokenizers import Tokenizer

from sovereign.contract.model import Decoder as Shape
from sovereign.corpus.tokens import train_bpe
from sovereign.model.decoder import Decoder, build
from sovereign.shipping.weights import Specials, Weights, plain
from sovereign.training.checkpoint import weights

SHAPES = {
    "tied": Shape(hidden=256, layers=2, heads=4, kv_heads=2, ffn=256, context=128),
    "untied": Shape(hidden=256, layers=2, heads=4, kv_heads=4, ffn=256, context=128, tied_embeddings=False),
    "deep": Shape(hidden=256, layers=3, heads=4, kv_heads=1, ffn=512, context=128, rope_base=5000.0),
}  # rows in multiples of 256, so that each can be Q4_K
VOCABULARY = 320
STEPS, SEQUENCES, WINDOW = 120, 4, 64


@cache
def source() -> list[str]:
    """Return a few modules of the standard library."""
    import argparse
    import ast
    import datetime

    return [inspect.getsource(module) for module in (textwrap, json.decoder, inspect, argparse, ast, datetime)]


def tokenizer() -> Tokenizer:
    """Return a tokenizer of the test's own: what one sets on it, no other sees."""
    return Tokenizer.from_str(_trained_tokenizer())


@cache
def _trained_tokenizer() -> str:
    return str(train_bpe(source(), VOCABULARY).to_str())


@cache
def trained(name: str = "tied", steps: int = STEPS) -> Weights:
    """Return a decoder of one of SHAPES after some steps of AdamW on Python source."""
    ids = torch.tensor([token for text in source() for token in [0, *tokenizer().encode(text).ids]])
    model = build(SHAPES[name], VOCABULARY, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        starts = torch.randint(0, len(ids) - WINDOW - 1, (SEQUENCES,), generator=draw)
        windows = torch.stack([ids[start : start + WINDOW + 1] for start in starts])
        loss = model.loss(windows[:, :-1], windows[:, 1:]) / windows[:, 1:].numel()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return as_weights(model, name)


def as_weights(model: Decoder, name: str) -> Weights:
    stored = {key: plain("F32", tensor.detach().clone()) for key, tensor in weights(model)}
    return Weights(name, model.shape, model.vocabulary, stored, Specials(0, 0, add_begin=True), tokenizer())


def prompts(count: int, length: int) -> list[list[int]]:
    """Return token ids of texts that begin at a line of the source, each behind one end-of-text."""
    lines = [line for text in source() for line in text.splitlines(keepends=True)]
    step = len(lines) // count
    texts = ("".join(lines[start : start + 60]) for start in range(0, step * count, step))
    return [[0, *tokenizer().encode(text).ids][:length] for text in texts]
