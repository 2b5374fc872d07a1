"""Tokens: byte-level BPE with GPT-2's split pattern, which llama.cpp repeats id for id."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sovereign.canonical import Malformed, Problem, digest
from sovereign.contract.data import Expected, HubTokenizer
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


def load(path: Path, end: str = END_OF_TEXT) -> Tokenizer:
    """Return the tokenizer in a tokenizer.json; raises Malformed when it is none, or `end` is no special token of it."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # the library raises bare Exception for every fault
        raise Malformed([Problem(str(path), f"not a tokenizer.json: {error}")]) from None
    special = {one.content for one in tokenizer.get_added_tokens_decoder().values() if one.special}
    if end not in special:
        known = ", ".join(sorted(special)[:8]) or "none"
        raise Malformed(
            [Problem(str(path), f"has no {end} token, which stands between documents; its special tokens: {known}")]
        )
    return tokenizer


def fetch(section: HubTokenizer) -> Path:
    """Return the tokenizer.json of a hub repository at its pinned commit; raises Malformed where it is not to be had."""
    from huggingface_hub import hf_hub_download  # here: only this way to a tokenizer needs it

    try:
        return Path(hf_hub_download(section.repository, section.file, revision=section.revision))
    except (OSError, ValueError) as error:  # the library's errors are of these kinds
        place = f"{section.repository}@{section.revision[:12]}/{section.file}"
        raise Malformed([Problem(place, f"cannot be fetched: {error}")]) from None


def size(tokenizer: Tokenizer) -> int:
    """Return how many rows an embedding needs: one more than the largest id, whatever ids are left out below it."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def end_of_text(tokenizer: Tokenizer, end: str = END_OF_TEXT) -> int:
    """Return the id that stands between documents."""
    found = tokenizer.token_to_id(end)
    assert found is not None  # both ways to a tokenizer have seen to it
    return found


def misfit(vocabulary: int, rows: int, pretrained: bool) -> str | None:
    """Return why a tokenizer of so many entries cannot be used with an embedding of so many rows, or None.

    From scratch the two are equal, since a row without an entry would never be trained; a pretrained model
    may have rows to spare, as many do for alignment.
    """
    if vocabulary > rows:
        return f"the tokenizer has {vocabulary} entries, and the embedding {rows} rows: ids would fall outside it"
    if vocabulary < rows and not pretrained:
        return f"the tokenizer has {vocabulary} entries, where the contract asks for {rows}"
    return None


def unexpected(tokenizer: Tokenizer, expected: Expected, documents: int, tokens: int) -> list[str]:
    """Return how a tokenizer is not the one that was meant, after it made `tokens` ids of `documents` bytes (CASE-13)."""
    found = []
    special = {one.content: id_ for id_, one in tokenizer.get_added_tokens_decoder().items() if one.special}
    for name, wanted in expected.special.items():
        if special.get(name) != wanted:
            got = f"has id {special[name]}" if name in special else "is no special token"
            found.append(f"{name} {got}, where the contract expects {wanted}")
    for one in expected.strings:
        ids = encode(tokenizer, [one.text])[0].tolist()
        if ids != list(one.ids):
            found.append(f"{one.text!r} gives the ids {ids}, where the contract expects {list(one.ids)}")
    ratio = documents / max(1, tokens)
    low, high = expected.least_bytes_per_token or 0.0, expected.most_bytes_per_token or math.inf
    if not low <= ratio <= high:
        found.append(f"{ratio:.3f} bytes a token, where the contract expects {low:g} to {high:g}")
    return found


@dataclass(frozen=True)
class Probed:
    """What a tokenizer makes of one string; the fields of a tokenizer row."""

    text: str
    ids: tuple[int, ...]
    exact: bool


# of every kind that tokenizers are known to differ on, or to lose (CASE-13)
PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    "def f(x: int) -> int:\n    return x + 1\n",
    "  two  spaces,\ttabs\t\tand\r\nline ends \n\n\n",
    "1234567890 3.14159 0x1F 1e-9",
    "naïve café, Zürich, İstanbul, ﬁne",
    "日本語の文章と漢字、한국어",
    "עברית العربية हिन्दी",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈",
    "\u0000\u0007\u200b\ufeff",
    END_OF_TEXT,
)


def probed(tokenizer: Tokenizer) -> list[Probed]:
    """Return the ids of strings that are the same for every tokenizer, so that two can be told apart from rows."""
    ids = encode(tokenizer, PROBES)
    return [
        Probed(text, tuple(one.tolist()), decode(tokenizer, one.tolist()) == text)
        for text, one in zip(PROBES, ids, strict=True)
    ]


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return the digest of what the tokenizer is, whatever the layout of its file."""
    return digest(json.loads(tokenizer.to_str()))


def encode(tokenizer: Tokenizer, texts: Sequence[str], batch: int = 64) -> list[Ids]:
    """Return the ids of each text; special tokens written out in a text are taken as text."""
    tokenizer.encode_special_tokens = True
    item = np.uint16 if size(tokenizer) <= 65536 else np.uint32
    found: list[Ids] = []
    for start in range(0, len(texts), batch):
        for one in tokenizer.encode_batch_fast(list(texts[start : start + batch]), add_special_tokens=False):
            found.append(np.array(one.ids, dtype=item))
    return found


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of ids; bytes that are no UTF-8 come out as the replacement character."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))


def round_trips(tokenizer: Tokenizer, texts: Sequence[str], ids: Sequence[Ids], batch: int = 256) -> list[bool]:
    """Return, for each text, whether it comes back from its ids exactly."""
    found: list[bool] = []
    for start in range(0, len(texts), batch):
        some = tokenizer.decode_batch([one.tolist() for one in ids[start : start + batch]], skip_special_tokens=False)
        found += [text == again for text, again in zip(texts[start : start + batch], some, strict=True)]
    return found


def round_trip_errors(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """Return how many texts do not come back from their ids exactly."""
    return round_trips(tokenizer, texts, encode(tokenizer, texts)).count(False)
