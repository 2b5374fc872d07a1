"""Which side a document stands on: decided by hash, near-duplicates together, before anything is tokenized."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sovereign.contract.data import NearDuplicates, Split
from sovereign.corpus.documents import Text

Side = Literal["train", "validation", "control"]

WORD = re.compile(r"\w+")
MISSED = 1e-3  # chance that banding misses a pair just at the threshold
SKETCH_SEED = 1  # fixed: the seed of a run must not move its split


def clusters(texts: Sequence[Text], near: NearDuplicates) -> dict[str, str]:
    """Return for each document the smallest document id of its near-duplicate cluster, often its own.

    Two documents are joined when the Jaccard similarity of their word shingles reaches the threshold,
    and so are theirs in turn. MinHash bands only propose pairs; each is decided on the whole sets.
    """
    shingled = [_shingles(text.text, near.shingle) for text in texts]
    leader = list(range(len(texts)))

    def root(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for one, other in _proposed(shingled, near):
        first, second = root(one), root(other)
        if first != second and _jaccard(shingled[one], shingled[other]) >= near.jaccard:
            leader[second] = first
    smallest: dict[int, str] = {}
    for index, text in enumerate(texts):
        group = root(index)
        smallest[group] = min(text.document, smallest.get(group, text.document))
    return {text.document: smallest[root(index)] for index, text in enumerate(texts)}


def _shingles(text: str, size: int) -> NDArray[np.uint64]:
    """Return the distinct hashes of all runs of `size` words, sorted; of a shorter text, of all its words."""
    words = WORD.findall(text)
    if not words:
        return np.empty(0, dtype=np.uint64)
    named: dict[str, int] = {}
    hashes = np.fromiter((_word_hash(word, named) for word in words), dtype=np.uint64, count=len(words))
    size = min(size, len(words))
    runs = np.zeros(len(words) - size + 1, dtype=np.uint64)
    for place in range(size):
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + hashes[place : place + len(runs)]
    return np.unique(runs)


def _word_hash(word: str, named: dict[str, int]) -> int:
    value = named.get(word)
    if value is None:
        value = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        named[word] = value
    return value


def _jaccard(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    shared = np.intersect1d(one, other, assume_unique=True).size
    return float(shared / (one.size + other.size - shared))


def _proposed(shingled: Sequence[NDArray[np.uint64]], near: NearDuplicates) -> Iterator[tuple[int, int]]:
    """Yield the pairs of indices whose MinHash sketches agree in a whole band (Leskovec et al., ch. 3)."""
    import rensa  # only building a corpus needs it; the bare install does without

    present = [index for index, hashes in enumerate(shingled) if hashes.size]
    if not present:
        return
    flat = np.concatenate([shingled[index] for index in present])
    offsets = np.cumsum([0] + [shingled[index].size for index in present], dtype=np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, near.permutations, SKETCH_SEED)
    sketches = np.array(matrix.to_rows(), dtype=np.uint64)
    rows = _band_rows(near)
    proposed: set[tuple[int, int]] = set()
    for start in range(0, near.permutations - rows + 1, rows):
        for members in _buckets(sketches[:, start : start + rows]):
            for at, one in enumerate(members):
                for other in members[at + 1 :]:
                    pair = (present[one], present[other])
                    if pair not in proposed:
                        proposed.add(pair)
                        yield pair


def _band_rows(near: NearDuplicates) -> int:
    """Return the most rows a band may have and still miss hardly any pair that just reaches the threshold."""
    for rows in range(near.permutations, 1, -1):
        if (1 - near.jaccard**rows) ** (near.permutations // rows) <= MISSED:
            return rows
    return 1


def _buckets(band: NDArray[Any]) -> Iterator[list[int]]:
    """Yield the indices of equal rows, where there are at least two."""
    groups: dict[bytes, list[int]] = {}
    for index, row in enumerate(np.ascontiguousarray(band)):
        groups.setdefault(row.tobytes(), []).append(index)
    yield from (members for members in groups.values() if len(members) > 1)


def split(texts: Sequence[Text], clusters: Mapping[str, str], shares: Split) -> dict[str, Side]:
    """Return the side of each document, by a hash of the salt and its cluster's smallest document id.

    A document's side depends on nothing but its own cluster: adding an unrelated one moves no other.
    Raises ValueError with the counts when a side is empty.
    """
    sides = {text.document: _side(clusters[text.document], shares) for text in texts}
    counts: dict[Side, int] = {"train": 0, "validation": 0, "control": 0}
    for side in sides.values():
        counts[side] += 1
    if not all(counts.values()):
        shown = ", ".join(f"{side} {count}" for side, count in counts.items())
        raise ValueError(
            f"{len(texts)} documents in {len(set(clusters.values()))} clusters leave a side of the split empty "
            f"({shown}); use more documents, larger shares, or another salt"
        )
    return sides


def _side(cluster: str, shares: Split) -> Side:
    drawn = int.from_bytes(hashlib.sha256(f"{shares.salt}\n{cluster}".encode()).digest()[:8], "big") / 2**64
    if drawn < shares.validation:
        return "validation"
    if drawn < shares.validation + shares.control:
        return "control"
    return "train"
