"""What a run lists of its documents one by one, and what it counts: most of a large source may be left out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sovereign.canonical import digest
from sovereign.corpus.build import Listed


def listed(documents: Sequence[Listed], scored: Collection[str]) -> list[Listed]:
    """Return the documents that get a row each: those of the train side, and those held out that are scored."""
    return [
        one if one.cluster != one.document else one.model_copy(update={"cluster": ""})
        for one in documents
        if one.split == "train" or (one.split != "left_out" and one.document in scored)
    ]


def unlisted(documents: Sequence[Listed], scored: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield the fields of an unlisted row for each side, reason and origin of the documents that get no row of their own."""
    grouped: dict[tuple[str, str, str], list[Listed]] = {}
    for one in documents:
        if one.split == "left_out":
            grouped.setdefault((one.split, one.reason, ""), []).append(one)
        elif one.split != "train" and one.document not in scored:
            grouped.setdefault((one.split, "not_scored", one.origin), []).append(one)
    for (split, reason, origin), some in sorted(grouped.items()):
        ids = sorted(one.document for one in some)
        yield {
            "split": split, "reason": reason, "origin": origin, "documents": len(some), "ids": digest(ids),
            "bytes": sum(one.bytes for one in some), "tokens": sum(one.tokens for one in some),
            "members": () if split == "left_out" else tuple(ids),
        }  # fmt: skip
