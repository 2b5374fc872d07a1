"""Overlap is exact: what stands in the train side counts, what only looks like it does not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sovereign.corpus.overlap import BASE, Overlapped, covered, overlap, rolling
from sovereign.corpus.shards import Shards, write_shards

END = 0
DOCUMENTS = st.lists(st.lists(st.integers(1, 3), max_size=25), max_size=5)
RNG = np.random.default_rng(0)


def train_side(folder, documents, shard_tokens=1 << 20):
    """Return shards of documents given as lists of ids, over a vocabulary of 1,000."""
    named = [(f"{index:016x}", np.array(ids, dtype=np.int64)) for index, ids in enumerate(documents)]
    manifest = write_shards(
        folder, named, vocabulary=1000, end_of_text=END, tokenizer="sha256:" + "0" * 64, shard_tokens=shard_tokens
    )
    return Shards(folder, manifest)


def arrays(documents):
    return [np.array(ids, dtype=np.int64) for ids in documents]


def text(length):
    """Return ids that occur nowhere else by chance."""
    return RNG.integers(1, 1000, length).tolist()


def brute_force(train, held_out, length):
    """Return what the definition says, n-gram by n-gram."""
    known = {tuple(ids[at : at + length]) for ids in train for at in range(len(ids) - length + 1)}
    found = []
    for ids in held_out:
        inside = set()
        for at in range(len(ids) - length + 1):
            if tuple(ids[at : at + length]) in known:
                inside.update(range(at, at + length))
        found.append(len(inside))
    return found


@settings(deadline=None)
@given(
    train=DOCUMENTS,
    held_out=DOCUMENTS,
    length=st.integers(1, 7),
    # 1 hashes an n-gram to the sum of its ids and 0 to its first: collisions everywhere
    base=st.sampled_from([BASE, 1, 0]),
    block=st.integers(1, 40),
    shard_tokens=st.integers(1, 40),
)
def test_coverage_is_what_the_definition_says(tmp_path_factory, train, held_out, length, base, block, shard_tokens):
    """Counts equal brute force for every length, block and shard size, and however weak the hash is."""
    shards = train_side(tmp_path_factory.mktemp("train"), train, shard_tokens)

    assert brute_force(train, held_out, length) == covered(shards, arrays(held_out), length, base, block).tolist()


def test_a_hash_collision_never_counts(tmp_path):
    """An n-gram with the hash of a train n-gram, but other tokens, is not covered; the true one beside it is."""
    shards = train_side(tmp_path, [[5, 1, 3, 2, 7]])
    held_out = arrays([[3, 2, 1], [1, 3, 2], [2, 3, 1]])
    hashes = [int(rolling(ids.astype(np.uint32), 3, base=1)[0]) for ids in held_out]
    found = covered(shards, held_out, 3, base=1).tolist()

    assert [6, 6, 6] == hashes
    assert [0, 3, 0] == found


def test_rows_count_phrases_of_13_and_passages_of_50(tmp_path):
    """A copy of 12 tokens covers nothing, 13 cover themselves, 49 no passage, 50 both; the text around them not."""
    source = text(200)
    shards = train_side(tmp_path, [text(30), source, text(30)])
    copies = [(length, text(20) + source[40 : 40 + length] + text(20)) for length in (12, 13, 49, 50)]
    found = overlap(shards, [(f"{length:016x}", "validation", np.array(ids)) for length, ids in copies])

    assert [
        Overlapped(f"{12:016x}", "validation", 52, 0, 0),
        Overlapped(f"{13:016x}", "validation", 53, 13, 0),
        Overlapped(f"{49:016x}", "validation", 89, 49, 0),
        Overlapped(f"{50:016x}", "validation", 90, 50, 50),
    ] == found


def test_no_ngram_crosses_a_document_boundary(tmp_path):
    """What two documents hold between them where they meet is in neither, be they train or held-out."""
    one, two = text(10), text(10)
    apart = train_side(tmp_path / "apart", [one, two])
    together = train_side(tmp_path / "together", [one + two])

    assert [0] == covered(apart, arrays([one + two]), 13).tolist()
    assert [0, 0] == covered(together, arrays([one, two]), 13).tolist()
    # were an end-of-text ever given inside a held-out document, it would still match no boundary
    assert [0] == covered(apart, arrays([[*one, END, *two]]), 13).tolist()


@pytest.mark.parametrize("ids", [[], [1], list(range(1, 13))])
def test_a_document_shorter_than_the_ngram_has_none(tmp_path, ids):
    """Fewer than 13 tokens are never covered, even where the same document stands in the train side."""
    shards = train_side(tmp_path, [ids])

    assert [Overlapped("f" * 16, "control", len(ids), 0, 0)] == overlap(shards, [("f" * 16, "control", np.array(ids))])


def test_a_copied_document_is_covered_whole(tmp_path):
    """Every token of a document that was trained on is covered, beside a document that was not."""
    copied, other = text(500), text(500)
    shards = train_side(tmp_path, [text(100), copied], shard_tokens=64)

    assert [500, 0] == covered(shards, arrays([copied, other]), 50, block=97).tolist()
