"""New vocabulary: identifiers that a tokenizer writes in many tokens, found in the train side, as one token each."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from sovereign.contract.method import NewTokens
from sovereign.corpus import tokens
from sovereign.corpus.shards import Shards

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{3,}")


def costly_identifiers(train: Shards, tokenizer: Tokenizer, settings: NewTokens) -> list[tuple[str, list[int]]]:
    """Return (identifier, the ids it is written with so far), those first that save the most tokens of the train side.

    Identifiers of the text, whole words of it, of at least `least_tokens` tokens. Raises ValueError for fewer than asked.
    """
    counted: Counter[str] = Counter()
    for document in train.documents:
        counted.update(IDENTIFIER.findall(tokens.decode(tokenizer, train.ids(document).tolist())))
    names = [name for name, count in counted.items() if count > 1]
    written = {
        name: ids.tolist()
        for name, ids in zip(names, tokens.encode(tokenizer, names, batch=4096), strict=True)
        if len(ids) >= settings.least_tokens
    }
    drawn = sorted(written, key=lambda name: (-counted[name] * (len(written[name]) - 1), name))[: settings.count]
    if len(drawn) < settings.count:
        raise ValueError(
            f"the train side holds {len(drawn)} identifiers of {settings.least_tokens} tokens or more that stand in it "
            f"twice, where {settings.count} are asked for"
        )
    return [(name, written[name]) for name in drawn]


def extended(tokenizer: Tokenizer, names: list[str]) -> Tokenizer:
    """Return a copy of a tokenizer in which each name, as a whole word, is one more token; the ids follow in order."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Bpe

    copy = Bpe.from_str(tokenizer.to_str())
    before = tokens.size(copy)
    copy.add_tokens([AddedToken(name, single_word=True, normalized=False) for name in names])
    if tokens.size(copy) != before + len(names):
        raise ValueError(f"{before + len(names) - tokens.size(copy)} of the new tokens stood in the vocabulary already")
    return copy
