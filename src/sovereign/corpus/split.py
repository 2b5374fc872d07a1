"""The split: by document hash, near-duplicates on one side, so that a document never changes sides by accident."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from sovereign.contract.data import NearDuplicates, Split
from sovereign.corpus.documents import Text

Side = Literal["train", "validation", "control"]


def near_duplicates(texts: Sequence[Text], settings: NearDuplicates) -> dict[str, str]:
    """Return document -> the smallest document id of its cluster; a document alone is its own cluster.

    Candidates come from MinHash signatures cut into bands (Broder 1997; locality-sensitive hashing), and each
    is verified by the true Jaccard similarity of its word shingles before two documents are joined.
    """
    from rensa import RMinHash  # here: only building a corpus needs it

    shingles = {one.document: _shingles(one.text, settings.shingle) for one in texts}
    bands, rows = _bands(settings.permutations, settings.jaccard)
    buckets: dict[tuple[int, tuple[int, ...]], list[str]] = defaultdict(list)
    for one in texts:
        if not shingles[one.document]:
            continue
        signature = RMinHash(num_perm=settings.permutations, seed=0)
        signature.update([" ".join(words) for words in sorted(shingles[one.document])])
        digest = signature.digest()
        for band in range(bands):
            buckets[band, tuple(digest[band * rows : (band + 1) * rows])].append(one.document)

    parent = {one.document: one.document for one in texts}

    def head(document: str) -> str:
        while parent[document] != document:
            parent[document] = parent[parent[document]]
            document = parent[document]
        return document

    for candidates in buckets.values():
        # each with the one before it and with the first: linear, and a chance neighbour seldom parts a true pair
        for before, document in itertools.pairwise(candidates):
            for other in {before, candidates[0]}:
                first, second = sorted((head(document), head(other)))
                if first != second and _jaccard(shingles[document], shingles[other]) >= settings.jaccard:
                    parent[second] = first
    return {document: head(document) for document in parent}


def _shingles(text: str, words: int) -> frozenset[tuple[str, ...]]:
    split = text.split()
    return frozenset(tuple(split[at : at + words]) for at in range(max(0, len(split) - words + 1)))


def _jaccard(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    return len(one & other) / max(1, len(one | other))


def _bands(permutations: int, jaccard: float) -> tuple[int, int]:
    """Return bands x rows with the most rows whose threshold (1/bands)^(1/rows) still lies below the similarity.

    Bands that ask too little only cost comparisons, since every candidate is verified.
    """
    rows = max(
        (rows for rows in range(1, permutations + 1) if (rows / permutations) ** (1 / rows) <= jaccard * 0.9), default=1
    )
    return permutations // rows, rows


def sides(clusters: Mapping[str, str], split: Split) -> dict[str, Side]:
    """Return document -> side, by a hash of the salt and the cluster: whole clusters, and no document moves another.

    Raises ValueError, with the counts, when a side is empty.
    """
    found = {document: _side(cluster, split) for document, cluster in clusters.items()}
    counts = {side: sum(1 for one in found.values() if one == side) for side in ("train", "validation", "control")}
    if not all(counts.values()):
        told = ", ".join(f"{count} {side}" for side, count in counts.items())
        raise ValueError(
            f"{len(found)} documents in {len(set(clusters.values()))} clusters split into {told}; "
            "every side needs one: give more documents, larger shares, or another salt"
        )
    return found


def _side(cluster: str, split: Split) -> Side:
    drawn = int.from_bytes(hashlib.sha256(f"{split.salt}/{cluster}".encode()).digest()[:8], "big") / 2**64
    if drawn < split.validation:
        return "validation"
    return "control" if drawn < split.validation + split.control else "train"


class Contaminated(ValueError):
    """A split that would hold out what an ancestor was trained on, or train on what it held out (CASE-08)."""


def inherited(drawn: Mapping[str, Side], known: Mapping[str, Side], inherit: bool) -> dict[str, Side]:
    """Return document -> side, the side that an ancestor put it on first, where the contract inherits.

    Raises Contaminated, with the counts, where it does not and the two differ.
    """
    if inherit:
        return {document: known.get(document, side) for document, side in drawn.items()}
    differing = [document for document, side in drawn.items() if known.get(document, side) != side]
    leaked = [document for document in differing if known[document] == "train"]
    found = [document for document in differing if drawn[document] == "train"]
    if leaked or found:
        raise Contaminated(
            f"lineage contamination: this split holds out {len(leaked)} documents that an ancestor trained on, and trains "
            f"on {len(found)} that it held out; set data.split.inherit: true to keep the ancestors' sides"
        )
    return dict(drawn)
