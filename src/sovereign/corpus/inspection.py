"""What a person wants to know of a corpus before trusting a run to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sovereign.corpus.build import SIDES, Corpus
from sovereign.corpus.overlap import covered
from sovereign.corpus.repeats import longest_repeats
from sovereign.corpus.scoring import Ids
from sovereign.corpus.shards import Shards
from sovereign.corpus.split import Side

SEARCHED = 1 << 23  # train tokens that repeats are looked for among: some 1.5 GB of ranks


def figures(corpus: Corpus, repeats: int, samples: int, seed: int) -> dict[str, Any]:
    """Return counts, lengths, bytes a token, the longest repeats of the train side and sample documents, as JSON."""
    used = [one for one in corpus.documents if one.split != "left_out"]
    tokens = sum(one.tokens for one in used)
    return {
        "folder": str(corpus.folder),
        "digest": corpus.digest,
        "tokenizer": corpus.tokenizer_digest,
        "vocabulary": corpus.vocabulary,
        "sides": {side: _side(corpus, side) for side in SIDES},
        "left_out": dict(sorted(Counter(one.reason for one in corpus.documents if one.split == "left_out").items())),
        "clusters": len({one.cluster for one in used}),
        "bytes_per_token": round(sum(one.bytes for one in used) / max(1, tokens), 4),
        "round_trip_errors": sum(one.round_trip == "differs" for one in used),
        "repeats": _repeats(corpus, repeats),
        "repeats_searched": min(SEARCHED, corpus.train.tokens),
        "samples": [
            {"document": document, "text": corpus.decode(ids[:120].tolist())}
            for document, ids in corpus.train_probe(samples, seed)
        ],
    }


def _side(corpus: Corpus, side: Side) -> dict[str, Any]:
    lengths = np.array([one.tokens for one in corpus.documents if one.split == side])
    return {
        "documents": len(lengths),
        "tokens": int(lengths.sum()),
        "bytes": sum(one.bytes for one in corpus.documents if one.split == side),
        "lengths": {f"p{share}": int(np.percentile(lengths, share)) for share in (0, 10, 50, 90, 100)},
        "digest": corpus.side_digest(side),
    }


def _repeats(corpus: Corpus, most: int) -> list[dict[str, Any]]:
    documents: list[tuple[str, Ids]] = []
    total = 0
    for document, ids in corpus.ids("train"):
        if total + len(ids) > SEARCHED:
            break
        documents.append((document, ids))
        total += len(ids)
    if not most or not documents:
        return []
    starts = np.cumsum([0] + [len(ids) for _, ids in documents])
    joined = np.concatenate([ids for _, ids in documents])

    def owner(place: int) -> str:
        return documents[int(np.searchsorted(starts, place, "right")) - 1][0]

    return [
        {
            "tokens": one.length,
            "documents": [owner(one.first), owner(one.second)],
            "text": corpus.decode(joined[one.first : one.first + min(one.length, 40)].tolist()),
        }
        for one in longest_repeats([ids for _, ids in documents], most)
    ]


@dataclass(frozen=True)
class Shared:
    """How much of one side of a corpus stands in the train side of another."""

    side: Side
    documents: int
    identical: int  # documents whose text is one of the other's train documents, byte for byte
    tokens: tuple[int, ...]  # of each document, by the other's tokenizer
    covered_13: tuple[int, ...]
    covered_50: tuple[int, ...]


def shared(trained: Corpus, other: Corpus) -> list[Shared]:
    """Return what each side of `other` shares with what `trained` trains on, in the tokens of `trained`.

    Where two tokenizers differ the texts are made of the ids again, which is exact where they round-trip.
    """
    same = trained.tokenizer_digest == other.tokenizer_digest
    known = set(trained.train.documents)
    return [_shared(trained.train, known, side, other.ids(side), None if same else (trained, other)) for side in SIDES]


def _shared(
    train: Shards, known: set[str], side: Side, documents: Sequence[tuple[str, Ids]], recoded: tuple[Corpus, Corpus] | None
) -> Shared:  # fmt: skip
    ids = [one for _, one in documents]
    if recoded:
        trained, other = recoded
        ids = [np.array(trained.encode(other.decode(one.tolist()))) for one in ids]
    return Shared(
        side=side,
        documents=len(documents),
        identical=sum(document in known for document, _ in documents),
        tokens=tuple(map(len, ids)),
        covered_13=tuple(covered(train, ids, 13).tolist()),
        covered_50=tuple(covered(train, ids, 50).tolist()),
    )
