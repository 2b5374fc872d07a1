"""Tokens: byte-level BPE with GPT-2's split pattern, which llama.cpp repeats id for id."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sovereign.canonical import Malformed, Problem, digest
from sovereign.corpus.scoring import Ids

if TYPE_CHECKING:  # the package is loaded only where tokens are made
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"


def train_bpe(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Return a tokenizer of exactly `vocabulary` entries: end-of-text is id 0, then the 256 bytes, then merges.

    Raises ValueError when the texts give fewer merges than that.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocabulary:
        raise ValueError(
            f"the texts give {tokenizer.get_vocab_size()} entries, not {vocabulary}; ask for fewer, or add text"
        )
    return tokenizer


def load(path: Path) -> Tokenizer:
    """Return the tokenizer in a tokenizer.json; raises Malformed when it is none, or has no end-of-text."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # the library raises bare Exception for every fault
        raise Malformed([Problem(str(path), f"not a tokenizer.json: {error}")]) from None
    if tokenizer.token_to_id(END_OF_TEXT) is None:
        raise Malformed([Problem(str(path), f"has no {END_OF_TEXT} token, which stands between documents")])
    return tokenizer


def end_of_text(tokenizer: Tokenizer) -> int:
    """Return the id that stands between documents."""
    found = tokenizer.token_to_id(END_OF_TEXT)
    assert found is not None  # both ways to a tokenizer have seen to it
    return found


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return the digest of what the tokenizer is, whatever the layout of its file."""
    return digest(json.loads(tokenizer.to_str()))


def encode(tokenizer: Tokenizer, texts: Sequence[str], batch: int = 64) -> list[Ids]:
    """Return the ids of each text; special tokens written out in a text are taken as text."""
    tokenizer.encode_special_tokens = True
    item = np.uint16 if tokenizer.get_vocab_size() <= 65536 else np.uint32
    found: list[Ids] = []
    for start in range(0, len(texts), batch):
        for one in tokenizer.encode_batch_fast(list(texts[start : start + batch]), add_special_tokens=False):
            found.append(np.array(one.ids, dtype=item))
    return found


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of ids; bytes that are no UTF-8 come out as the replacement character."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))


def round_trip_errors(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """Return how many texts do not come back from their ids exactly."""
    return sum(
        decode(tokenizer, ids.tolist()) != text for text, ids in zip(texts, encode(tokenizer, texts), strict=True)
    )
