"""Novelty is exact: shares of n-grams and longest runs are those that looking at every place would give."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_corpus_overlap import train_side

from sovereign.corpus.novelty import longest_runs, novelty, shares

DOCUMENTS = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=25), min_size=1, max_size=5)


def arrays(documents):
    return [np.array(ids, dtype=np.int64) for ids in documents]


def grams(ids, length):
    return [tuple(ids[at : at + length]) for at in range(len(ids) - length + 1)]


@settings(deadline=None)
@given(train=DOCUMENTS, texts=DOCUMENTS, length=st.integers(1, 6))
def test_shares_are_those_of_looking_everywhere(tmp_path_factory, train, texts, length):
    """The share of a text's n-grams in the train side, repeated ones counted as often as they stand.

    The planted bug: looking for distinct n-grams only made ten copies of one known n-gram count as one.
    """
    side = train_side(tmp_path_factory.mktemp("train"), train)
    known = {gram for ids in train for gram in grams(ids, length)}
    expected = [np.mean([gram in known for gram in grams(ids, length)] or [0]) for ids in texts]

    assert np.allclose(expected, shares(side, arrays(texts), length))


@settings(deadline=None)
@given(train=DOCUMENTS, texts=DOCUMENTS)
def test_longest_runs_are_those_of_looking_everywhere(tmp_path_factory, train, texts):
    """The longest run of a text that stands inside one train document; none crosses a boundary."""
    side = train_side(tmp_path_factory.mktemp("train"), train)
    expected = [
        max(
            [n for n in range(1, len(ids) + 1) for known in train if set(grams(ids, n)) & set(grams(known, n))],
            default=0,
        )
        for ids in texts
    ]

    assert expected == longest_runs(side, arrays(texts)).tolist()


def test_a_copy_is_seen_whole_and_a_stranger_not_at_all(tmp_path):
    draw = np.random.default_rng(0)
    known, other = draw.integers(1, 900, 60).tolist(), draw.integers(900, 1000, 60).tolist()
    copied, strange = novelty(train_side(tmp_path, [known]), arrays([known[10:50], other]))

    assert (40, 1.0, 1.0, 40) == (copied.tokens, copied.seen_4, copied.seen_10, copied.longest)
    assert (60, 0.0, 0.0, 0) == (strange.tokens, strange.seen_4, strange.seen_10, strange.longest)
