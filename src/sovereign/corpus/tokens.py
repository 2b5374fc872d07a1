"""Tokenizers: byte-level BPE trained on the train side, or one that exists already; and what they make of text.

Text is text: the characters `<|endoftext|>` inside a document are encoded as characters, never as the
special id, which stands only where a document ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sovereign.canonical import Malformed, Problem, digest

if TYPE_CHECKING:  # the bare install has no tokenizers; each function that builds one imports it
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
# what the tokenizers of public models call it; the first that is there is taken
END_OF_TEXT_NAMES = (END_OF_TEXT, "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>", "[EOS]")
BATCH = 256  # texts encoded at once: enough to keep every core busy, few enough to keep memory flat


def train_bpe(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Return a byte-level BPE tokenizer with exactly `vocabulary` entries, split as GPT-2 does.

    Id 0 is `<|endoftext|>`, ids 1 to 256 the bytes, then the merges in the order they were learned.
    Raises ValueError with the number of entries where the texts do not give as many.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocabulary:
        raise ValueError(f"the texts give {tokenizer.get_vocab_size()} entries, not {vocabulary}; ask for no more than they give")
    return _plain(tokenizer)


def load(path: Path) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json; raises Malformed for a file that is not one."""
    from tokenizers import Tokenizer

    try:
        return _plain(Tokenizer.from_str(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise Malformed([Problem(str(path), f"cannot be read: {error.strerror}")]) from None
    except Exception as error:  # the library raises bare Exception for every fault it finds
        raise Malformed([Problem(str(path), f"not a tokenizer: {error}")]) from None


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer set to read special tokens in a text as characters, and to neither cut nor pad."""
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return the digest of what tokenizer.json says, however it is indented."""
    return digest(json.loads(tokenizer.to_str()))


def end_of_text(tokenizer: Tokenizer) -> int:
    """Return the id that closes a document; raises ValueError where the tokenizer has none that we know."""
    for name in END_OF_TEXT_NAMES:
        found = tokenizer.token_to_id(name)
        if found is not None:
            return int(found)
    raise ValueError(f"the tokenizer has no end-of-text token; known names are {', '.join(END_OF_TEXT_NAMES)}")


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Return the largest id plus one: what an embedding must hold, gaps between ids included."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> list[NDArray[np.uint32]]:
    """Return the ids of each text, without any special token."""
    return [ids for batch in _batches(texts) for ids in _encoded(tokenizer, batch)]


def _encoded(tokenizer: Tokenizer, batch: Sequence[str]) -> list[NDArray[np.uint32]]:
    # the fast variant computes no offsets into the text, which nobody here asks for
    encodings = tokenizer.encode_batch_fast(list(batch), add_special_tokens=False)
    return [np.array(one.ids, dtype=np.uint32) for one in encodings]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    pending = iter(texts)
    while batch := list(islice(pending, BATCH)):
        yield batch


def decode(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """Return the text of ids, special tokens shown by their names."""
    return tokenizer.decode(list(map(int, ids)), skip_special_tokens=False)


def round_trip_errors(
    tokenizer: Tokenizer, texts: Sequence[str], encoded: Sequence[NDArray[np.uint32]] | None = None
) -> int:
    """Return how many texts are not what decoding their ids gives; `encoded` spares encoding them again."""
    ids = encode(tokenizer, texts) if encoded is None else encoded
    wrong = 0
    for start in range(0, len(texts), BATCH):
        batch = [one.tolist() for one in ids[start : start + BATCH]]
        decoded = tokenizer.decode_batch(batch, skip_special_tokens=False)
        wrong += sum(text != back for text, back in zip(texts[start : start + BATCH], decoded, strict=True))
    return wrong
