"""Floors are what the formula says, a distribution, and the same one that is sampled from."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sovereign.corpus.floors import BigramModel, Floor, floors
from sovereign.corpus.shards import Shards, write_shards

END = 0
VOCABULARY = 7
DOCUMENTS = st.lists(st.lists(st.integers(1, VOCABULARY - 1), max_size=20), min_size=1, max_size=6)


def train_side(folder, documents, shard_tokens=1 << 20):
    """Return shards of documents given as lists of ids."""
    named = [(f"{index:016x}", np.array(ids, dtype=np.int64)) for index, ids in enumerate(documents)]
    manifest = write_shards(
        folder, named, vocabulary=VOCABULARY, end_of_text=END, tokenizer="sha256:" + "0" * 64, shard_tokens=shard_tokens
    )
    return Shards(folder, manifest)


def counted_by_hand(documents, sequence):
    """Return unigram and bigram nats of a scored sequence, from dictionaries and the formula as it is written."""
    run = [token for ids in documents for token in [*ids, END]]
    singles, pairs = Counter(run), Counter(pairwise(run))
    unigram = {w: (singles[w] + 1) / (len(run) + VOCABULARY) for w in range(VOCABULARY)}
    single_nll = pair_nll = 0.0
    for h, w in pairwise(sequence):
        c = sum(times for (one, _), times in pairs.items() if one == h)
        distinct = sum(one == h for one, _ in pairs)
        weight = c / (c + distinct) if c else 0.0
        p = weight * (pairs[h, w] / c if c else 0.0) + (1 - weight) * unigram[w]
        single_nll -= math.log(unigram[w])
        pair_nll -= math.log(p)
    return single_nll, pair_nll


@settings(deadline=None, max_examples=60)
@given(
    documents=DOCUMENTS,
    body=st.lists(st.integers(1, VOCABULARY - 1), max_size=20),
    block=st.integers(1, 30),
    shard_tokens=st.integers(1, 30),
)
def test_floors_are_what_the_formula_says(tmp_path_factory, documents, body, block, shard_tokens):
    """Both floors equal a float64 dictionary reference, whatever the blocks and shards the counts came in."""
    model = BigramModel.count(train_side(tmp_path_factory.mktemp("train"), documents, shard_tokens), block)
    sequence = np.array([END, *body, END])

    assert counted_by_hand(documents, sequence.tolist()) == pytest.approx(
        (model.unigram_nll(sequence), model.nll(sequence)), rel=1e-12
    )


@settings(deadline=None, max_examples=60)
@given(documents=DOCUMENTS)
def test_every_history_has_a_whole_distribution(tmp_path_factory, documents):
    """After any id, seen or not, the probabilities of all ids are positive and sum to 1."""
    model = BigramModel.count(train_side(tmp_path_factory.mktemp("train"), documents))
    everything = np.arange(VOCABULARY)
    table = np.array([model.probability(np.full(VOCABULARY, h), everything) for h in everything])

    assert [1.0] * VOCABULARY == pytest.approx(table.sum(axis=1).tolist(), rel=1e-12)
    assert bool((table > 0).all())


def test_a_floor_worked_out_on_paper(tmp_path):
    """Of the run 1 2 1 3 END: p(1) = 3/12, and after 1, seen twice before two ids, p(2) = (1 + 2 x 2/12) / (2 + 2)."""
    shards = train_side(tmp_path, [[1, 2, 1, 3]])
    found = floors(shards, [("a" * 16, np.array([END, 1, 2]))])
    unigram = -math.log(3 / 12) - math.log(2 / 12)
    bigram = -math.log(3 / 12) - math.log((1 + 2 * 2 / 12) / 4)  # END ends the run: nothing follows it

    assert [Floor("a" * 16, 2, pytest.approx(unigram), pytest.approx(bigram))] == found


def test_floors_keep_order_and_count_targets(tmp_path):
    """A floor stands for each document in the order given; its tokens are the targets, one less than the sequence."""
    shards = train_side(tmp_path, [[1, 2, 3]])
    found = floors(shards, [("b" * 16, np.array([END, 1, 2, END])), ("a" * 16, np.array([END, 3]))])

    assert [("b" * 16, 3), ("a" * 16, 1)] == [(floor.document, floor.tokens) for floor in found]


def test_samples_follow_the_distribution(tmp_path):
    """In a long chain, each id is followed by every other about as often as the model says, unseen pairs included."""
    shards = train_side(tmp_path, [[1, 2, 1, 2, 3, 3, 1], [2, 2, 1, 5], [5, 5, 4, 3]])
    model = BigramModel.count(shards)
    chain = [END, *model.sample(END, 60_000, np.random.default_rng(0))]
    steps = np.zeros((VOCABULARY, VOCABULARY))
    np.add.at(steps, (chain[:-1], chain[1:]), 1)
    visits = steps.sum(axis=1, keepdims=True)
    expected = np.array([model.probability(np.full(VOCABULARY, h), np.arange(VOCABULARY)) for h in range(VOCABULARY)])
    # 5 standard deviations of a frequency
    allowed = 5 * np.sqrt(expected * (1 - expected) / visits)

    assert visits.min() > 500
    assert bool((np.abs(steps / visits - expected) <= allowed).all())


def test_samples_are_those_of_their_seed(tmp_path):
    """The same generator state gives the same ids, another seed others; 0 ids are none."""
    model = BigramModel.count(train_side(tmp_path, [[1, 2, 3, 4, 5, 6, 1, 3, 5]]))

    def drawn(seed, n=40):
        return model.sample(1, n, np.random.default_rng(seed))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert [] == drawn(1, 0)


def test_without_a_train_side_every_id_is_as_likely(tmp_path):
    """Counts of nothing leave the uniform distribution, in nats and in samples."""
    model = BigramModel.count(train_side(tmp_path, []))

    assert math.log(VOCABULARY) == pytest.approx(model.nll(np.array([END, 3])))
    assert set(range(VOCABULARY)) == set(model.sample(END, 300, np.random.default_rng(0)))
