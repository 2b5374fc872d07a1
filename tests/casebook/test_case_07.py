"""CASE-07 Validation inside a looping stream.

Stage: before step 0
Outcome: the stream does not open while a held-out document stands in its shards; through all passes none is consumed
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sovereign.contract.data import Data, Folder, Split, TrainedBpe
from sovereign.corpus.build import build
from sovereign.corpus.shards import open_shards, write_shards
from sovereign.corpus.stream import Exhausted, Stream


def test_validation_by_position_does_not_open(tmp_path: Path) -> None:
    """Plant: 200 batches, validation is the first 8 of them, and the reader loops ten times."""
    draw = np.random.default_rng(0)
    documents = [(f"{at:016x}", draw.integers(1, 90, 63)) for at in range(200)]
    write_shards(tmp_path / "all", documents, vocabulary=97, end_of_text=0, tokenizer="sha256:" + "0" * 64)
    first = frozenset(name for name, _ in documents[:8])

    with pytest.raises(ValueError, match="8 held-out documents stand in the train shards"):
        Stream(open_shards(tmp_path / "all"), 64, 1, 0, wrap_around=True, most_passes=10, held_out=first)


def test_no_pass_reaches_a_held_out_document(tmp_path: Path) -> None:
    """Over ten passes of a corpus split by document hash, every document consumed is a train document."""
    (tmp_path / "texts").mkdir()
    for number in range(60):
        (tmp_path / f"texts/{number}.txt").write_text(" ".join(f"w{number}x{at}" for at in range(40)))
    data = Data(source=Folder(kind="folder", path="texts"), split=Split(validation=0.2, control=0.2))
    corpus = build(data, TrainedBpe(kind="bpe", vocabulary=280), tmp_path, tmp_path / "cache", lambda *told: None)
    stream = Stream(corpus.train, 16, 4, 1, wrap_around=True, most_passes=10, held_out=corpus.held_out)
    steps = stream.capacity() // 4
    consumed = {one.document for one in stream.exposures(steps) if one.consumed}

    assert min(one.consumed / one.windows for one in stream.exposures(steps)) > 9
    assert consumed
    assert consumed.isdisjoint(corpus.held_out)
    with pytest.raises(Exhausted, match="windows, but the train side holds"):
        stream.batch(steps + 1)
