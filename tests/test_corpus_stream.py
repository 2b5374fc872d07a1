"""The stream gives every window of the train side once a pass, to any number of ranks, and never one too many."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sovereign.corpus.shards import Shards, write_shards
from sovereign.corpus.stream import BLOCK, Consumption, Exhausted, Exposure, Stream, permuted

END = 0
few = settings(deadline=None, max_examples=40)  # each example writes shards, and waits for the disk


def stream_over(folder, lengths, context=4, sequences=4, seed=0, shard_tokens=1 << 20, **settings):
    """Return a stream over documents of these lengths; the ids are their own global offsets, ends aside."""
    documents, at = [], 0
    for index, length in enumerate(lengths):
        documents.append((f"{index:016x}", np.arange(at, at + length) + 1))
        at += length + 1
    manifest = write_shards(
        folder, documents, vocabulary=70_000, end_of_text=END, tokenizer="sha256:" + "0" * 64, shard_tokens=shard_tokens
    )
    return Stream(Shards(folder, manifest), context, sequences, seed, **settings)


def consumed(stream, steps, world=1):
    """Return the windows of all ranks of the first steps, in the global order."""
    return [
        window for step in range(1, steps + 1) for rank in range(world) for window in stream.windows(step, rank, world)
    ]


STREAMS = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.integers(0, 30), min_size=1, max_size=12),
        "context": st.integers(1, 9),
        "sequences": st.sampled_from([4, 8, 12]),
        "seed": st.integers(0, 5),
        "shard_tokens": st.integers(1, 60),
    }
)


def endless(folder, drawn):
    return stream_over(folder, **drawn, wrap_around=True, most_passes=100)


# ── the order ────────────────────────────────────────────────────────────────────────────────────


@few
@given(drawn=STREAMS, step=st.integers(1, 20))
def test_a_batch_is_a_function_of_its_arguments(tmp_path_factory, drawn, step):
    """What a step gives does not depend on what was asked before, nor on the object that is asked."""
    folder = tmp_path_factory.mktemp("train")
    stream, fresh = endless(folder, drawn), endless(folder, drawn)
    assume(not stream.refusal(20))
    for earlier in (20, 1, step):
        stream.batch(earlier)
    again, first = stream.batch(step), fresh.batch(step)

    assert first.windows.tolist() == again.windows.tolist()
    assert first.ids.tolist() == again.ids.tolist()
    assert first.passed == again.passed


@few
@given(drawn=STREAMS, step=st.integers(1, 20))
def test_ranks_share_one_global_order(tmp_path_factory, drawn, step):
    """Two or four ranks, one after the other, give the windows and ids that one rank gives."""
    stream = endless(tmp_path_factory.mktemp("train"), drawn)
    assume(not stream.refusal(step))
    alone = stream.batch(step)
    for world in (2, 4):
        together = [stream.batch(step, rank, world) for rank in range(world)]

        assert alone.windows.tolist() == np.concatenate([one.windows for one in together]).tolist()
        assert alone.ids.tolist() == np.concatenate([one.ids for one in together]).tolist()
        assert [alone.passed] * world == [one.passed for one in together]


@few
@given(drawn=STREAMS)
def test_every_pass_holds_every_window_once(tmp_path_factory, drawn):
    """Cut where the passes end, the windows consumed are one permutation after another."""
    stream = endless(tmp_path_factory.mktemp("train"), drawn)
    steps = 3 * stream.per_pass // stream.sequences
    windows = consumed(stream, steps)
    whole = len(windows) // stream.per_pass if stream.per_pass else 0
    passes = [sorted(windows[at * stream.per_pass : (at + 1) * stream.per_pass]) for at in range(whole)]

    assert [list(range(stream.per_pass))] * whole == passes
    assert [step * stream.sequences // stream.per_pass for step in range(steps)] == [
        stream.batch(step).passed for step in range(1, steps + 1)
    ]


def test_every_pass_and_seed_has_its_own_order(tmp_path):
    """No two passes, and no two seeds, read the windows in the same order, nor in that of the files."""
    orders = []
    for seed in range(4):
        stream = stream_over(tmp_path, [400], 4, 20, seed, wrap_around=True, most_passes=4)
        windows = consumed(stream, 20)
        orders += [tuple(windows[at : at + stream.per_pass]) for at in range(0, 400, stream.per_pass)]

    assert 16 == len(set(orders))
    assert tuple(range(100)) not in orders


@settings(deadline=None)
@given(size=st.integers(1, 3000), key=st.text(max_size=5))
def test_permuted_is_a_permutation(size, key):
    """Each position goes to a place of its own, the same one whoever asks beside it."""
    positions = np.arange(size, dtype=np.uint64)
    found = permuted(positions, size, key)

    assert list(range(size)) == sorted(found.tolist())
    assert found[::-7].tolist() == permuted(positions[::-7].copy(), size, key).tolist()


def test_a_permutation_of_a_trillion_costs_no_more_than_its_positions():
    """Positions far apart in a corpus of any size go to distinct places inside it, spread over all of it."""
    size = 10**12 + 39
    found = permuted(np.arange(0, size, size // 5000, dtype=np.uint64), size, "key")
    quarters = np.bincount(found * 4 // size, minlength=4) / len(found)

    assert len(found) == len(set(found.tolist()))
    assert 0 <= found.min() <= found.max() < size
    assert [0.25] * 4 == pytest.approx(quarters.tolist(), abs=0.03)


# ── conservation ─────────────────────────────────────────────────────────────────────────────────


@few
@given(drawn=STREAMS)
def test_a_pass_loses_no_token(tmp_path_factory, drawn):
    """Inputs are disjoint and, with those dropped, all there is; every token after the first is a target once."""
    stream = endless(tmp_path_factory.mktemp("train"), {**drawn, "sequences": 1})
    run = stream.shards.read(0, stream.shards.tokens).tolist()
    batches = [stream.batch(step) for step in range(1, stream.per_pass + 1)]
    inputs, targets = Counter(), Counter()
    for batch in batches:
        first = int(batch.windows[0]) * stream.context
        inputs.update(range(first, first + stream.context))
        targets.update(range(first + 1, first + stream.context + 1))

        assert run[first : first + stream.context + 1] == batch.ids[0].tolist()
    covered = stream.per_pass * stream.context  # the remainder, at most a window, waits for nobody

    assert stream.shards.tokens == covered + stream.dropped
    assert 1 <= stream.dropped <= stream.context
    assert Counter(range(covered)) == inputs
    assert Counter(range(1, covered + 1)) == targets


def test_a_window_reads_across_shards(tmp_path):
    """A batch is the ids that were written, also where a window lies in three files."""
    stream = stream_over(tmp_path, [3, 3, 3, 3, 3], context=9, sequences=1, shard_tokens=1)
    batch = stream.batch(1)

    first = int(batch.windows[0]) * 9
    run = [1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19, 0]

    assert 5 == len(stream.shards.manifest.shards)
    assert [run[first : first + 10]] == batch.ids.tolist()


# ── limits ───────────────────────────────────────────────────────────────────────────────────────


@few
@given(drawn=STREAMS, passes=st.sampled_from([None, 0.5, 1.0, 1.5, 2.0]), world=st.sampled_from([1, 2, 4]))
def test_nothing_is_given_of_a_step_that_is_not_there_whole(tmp_path_factory, drawn, passes, world):
    """The last step that fits is given to all ranks; the next to none, though the share of a first rank would fit."""
    wrap = passes is not None and passes > 1
    stream = stream_over(tmp_path_factory.mktemp("train"), **drawn, wrap_around=wrap, most_passes=passes)
    last = int(stream.per_pass * (passes or 1)) // stream.sequences

    assert last * stream.sequences == len(consumed(stream, last, world))
    assert stream.refusal(last) is None
    for rank in range(world):
        with pytest.raises(Exhausted) as caught:
            stream.batch(last + 1, rank, world)
        assert stream.refusal(last + 1) == str(caught.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "but the train side holds 25 and wrap_around is false"),
        ({"most_passes": 0.5}, "but the train side holds 25 and wrap_around is false and most_passes 0.5 allows 12"),
        ({"wrap_around": True, "most_passes": 1.5}, "but the train side holds 25 and most_passes 1.5 allows 37"),
    ],
)
def test_a_refusal_shows_its_arithmetic(tmp_path, settings, told):
    """Steps, sequences, windows wanted and windows allowed are all in the message."""
    stream = stream_over(tmp_path, [100], context=4, sequences=4, **settings)

    assert f"10 steps x 4 sequences = 40 windows, {told}" == stream.refusal(10)


def test_a_held_out_document_never_opens(tmp_path):
    """A stream over shards that hold a document of another side is refused with its name."""
    with pytest.raises(ValueError) as caught:
        stream_over(tmp_path, [5, 5, 5], held_out=frozenset({f"{2:016x}", f"{1:016x}", "f" * 16}))

    assert (
        "2 held-out documents stand in the train shards, 0000000000000001 the first; "
        "a document is trained on or evaluated, never both"
    ) == str(caught.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"wrap_around": True}, "wrap_around needs most_passes"),
        ({"most_passes": 2.0}, "most_passes 2 needs wrap_around: true"),
        ({"context": 0}, "context 0 and sequences 4 must be at least 1"),
        ({"sequences": 0}, "context 4 and sequences 0 must be at least 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, settings, told):
    """A stream that could not say how often it may repeat, or give a window, does not open."""
    with pytest.raises(ValueError, match=told):
        stream_over(tmp_path, [100], **settings)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ((0,), "step 0: steps count from 1"),
        ((1, 2, 2), "rank 2 of 2 cannot share 4 sequences evenly"),
        ((1, 0, 3), "rank 0 of 3 cannot share 4 sequences evenly"),
        ((1, -1, 2), "rank -1 of 2 cannot share 4 sequences evenly"),
    ],
)
def test_a_share_that_does_not_exist_is_refused(tmp_path, asked, told):
    """Step 0, a rank outside the world, and a world that leaves a remainder raise instead of guessing."""
    stream = stream_over(tmp_path, [100])

    with pytest.raises(ValueError, match=told):
        stream.windows(*asked)


# ── exposure ─────────────────────────────────────────────────────────────────────────────────────


@few
@given(drawn=STREAMS, steps=st.integers(0, 12))
def test_exposure_is_what_the_windows_show(tmp_path_factory, drawn, steps):
    """Recounted by asking of each token of each window consumed whose it is, every document has the same exposure."""
    stream = endless(tmp_path_factory.mktemp("train"), drawn)
    assume(not stream.refusal(steps))
    visits = Counter(consumed(stream, steps))
    context, shards = stream.context, stream.shards
    holding = {document: set() for document in shards.documents}
    for window in range(stream.per_pass):
        for offset in range(window * context, window * context + context + 1):
            holding[shards.document_at(offset)].add(window)

    assert [
        Exposure(
            document,
            len(windows),
            sum(visits[window] for window in windows),
            max((visits[window] for window in windows), default=0),
        )
        for document, windows in holding.items()
    ] == stream.exposures(steps)


def test_consumption_need_not_be_recorded(tmp_path):
    """Counted as steps go by or recomputed afterwards, also over passes, it is the same; passes is their share."""
    stream = stream_over(tmp_path, [100], sequences=10, wrap_around=True, most_passes=4)
    counted = Consumption(stream)
    for step in range(1, 9):
        counted.add(stream.windows(step))
    # 10 sequences over 25 windows: step 3 spans two passes
    recomputed = Consumption.after(stream, 8)

    assert counted.visits.tolist() == recomputed.visits.tolist()
    assert 80 == counted.visits.sum()
    assert 80 / 25 == counted.passes


def test_a_window_that_stands_twice_in_a_step_counts_twice(tmp_path):
    """A step larger than a pass consumes some windows twice, and says so."""
    stream = stream_over(tmp_path, [12], context=4, sequences=4, wrap_around=True, most_passes=2)
    windows = stream.windows(1)
    counted = Consumption(stream)
    counted.add(windows)

    assert 3 == stream.per_pass
    assert [1, 1, 2] == sorted(counted.visits.tolist())


def test_windows_are_digested_in_order():
    """Sixteen hex digits of the sha256 over little-endian int64 ids; another order is another digest."""
    expected = hashlib.sha256(bytes([3] + [0] * 7 + [1] + [0] * 7)).hexdigest()[:16]

    assert expected == Consumption.digest16(np.array([3, 1], dtype=np.int32))
    assert expected != Consumption.digest16(np.array([1, 3]))


def test_a_pass_longer_than_a_block_is_one_permutation(tmp_path):
    """Windows are permuted a block at a time; a step that spans two blocks shows no seam."""
    stream = stream_over(tmp_path, [2 * BLOCK + 10], context=1, sequences=BLOCK - 3, wrap_around=True, most_passes=2)
    windows = consumed(stream, 2 * stream.per_pass // stream.sequences)

    assert list(range(stream.per_pass)) == sorted(windows[: stream.per_pass])


# ── conservation, and size ───────────────────────────────────────────────────────────────────────


@few
@given(drawn=STREAMS, passes=st.integers(1, 4), worlds=st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=6))
def test_tokens_yielded_and_dropped_are_the_tokens_of_all_passes(tmp_path_factory, drawn, passes, worlds):
    """Read by whatever number of ranks from step to step: inputs yielded + dropped = tokens x passes, none another's."""
    stream = endless(tmp_path_factory.mktemp("train"), drawn)
    assume(stream.per_pass)
    steps = -(-passes * stream.per_pass // stream.sequences)
    assume(not stream.refusal(steps))
    inputs = []
    for step in range(1, steps + 1):
        world = worlds[step % len(worlds)]  # as if the run stopped and went on elsewhere
        for rank in range(world):
            inputs += stream.batch(step, rank, world).ids[:, :-1].tolist()
    yielded = [token for window in inputs[: passes * stream.per_pass] for token in window]
    written = stream.shards.read(0, stream.per_pass * stream.context).tolist()

    assert len(yielded) + passes * stream.dropped == passes * stream.shards.tokens
    assert Counter(written * passes) == Counter(yielded)
    assert stream.packing * stream.shards.tokens == pytest.approx(stream.shards.tokens - stream.dropped)


MEASURE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from stream import anonymous, sparse
from sovereign.corpus.stream import Stream
size = int(sys.argv[2])
shards = sparse(Path(sys.argv[1]) / "shards", size, 1 << 22)
before = anonymous()
stream = Stream(shards, 1024, 64, seed=0, wrap_around=True, most_passes=2.0)
for step in range(1, 200):
    stream.batch(step * 7)
print(json.dumps({"held": anonymous() - before, "windows": stream.per_pass}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Two hundred batches from all over 100 GB of shards (sparse files) hold what those from 1 GB hold.

    Were a permutation kept, 100 GB would take 400 MB for it: the bound is a hundredth of that.
    """
    benchmarks = Path(__file__).parent.parent / "benchmarks"
    found = []
    for name, size in (("small", 1 << 30), ("large", 100 << 30)):
        (tmp_path / name).mkdir()
        told = subprocess.run(
            [sys.executable, "-c", MEASURE, str(tmp_path / name), str(size), str(benchmarks)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found.append(json.loads(told.stdout))

    assert [524_287, 52_428_799] == [one["windows"] for one in found]
    assert abs(found[1]["held"] - found[0]["held"]) < 4 << 20
