"""Examples: read strictly, named by content, on their module's side, and given in batches that are a function of the step."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sovereign.canonical import Malformed
from sovereign.contract.data import ChatFile, Data, LabelledFile, LibraryLabels, LibraryPairs, PairsFile, Split
from sovereign.corpus import tokens
from sovereign.corpus.examples import (
    IGNORED,
    Encoded,
    ExampleStream,
    build_examples,
    fell_back,
    padded,
    read_examples,
)
from sovereign.corpus.labels import BagOfWords, majority
from sovereign.corpus.stream import PADDED_TO, Exhausted
from sovereign.training.loop import lengths


def some(count: int) -> list[Encoded]:
    return [Encoded(f"{at:016x}", np.arange(at + 1), np.full(at + 1, at)) for at in range(count)]


@given(st.integers(2, 80), st.integers(1, 6), st.integers(1, 6))
def test_lengths_of_batches_are_those_that_occur(count: int, sequences: int, steps: int) -> None:
    """Counted without padding anything, they are those of the batches that the steps then take; so with micro-batches of one."""
    stream = ExampleStream(some(count), sequences, 0, wrap_around=True, most_passes=99)
    batches = [stream.batch(step) for step in range(1, steps + 1)]
    single = {length for one in batches for length in lengths(one.targets, 1)}

    assert stream.lengths(steps, sequences) == len({-(-one.inputs.shape[1] // PADDED_TO) for one in batches})
    assert stream.lengths(steps, 1) == len({-(-length // PADDED_TO) for length in single})


@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 5))
def test_every_pass_shows_every_example_once(count: int, sequences: int, seed: int) -> None:
    """Over whole passes each example is consumed equally often, whatever the batch; the exposures say so."""
    stream = ExampleStream(some(count), sequences, seed, wrap_around=True, most_passes=sequences)
    steps = count  # count x sequences windows are `sequences` passes
    seen = np.bincount(np.concatenate([stream.windows(step) for step in range(1, steps + 1)]), minlength=count)

    assert set(seen) == {sequences}
    assert {sequences} == {one.consumed for one in stream.exposures(steps)}
    with pytest.raises(Exhausted):
        stream.windows(steps + 1)


@given(st.integers(2, 9), st.integers(0, 30))
def test_batches_of_one_never_repeat(count: int, seed: int) -> None:
    """The last example of a pass does not begin the next: a stream of single examples does not seem to stand still."""
    stream = ExampleStream(some(count), 1, seed, wrap_around=True, most_passes=6)
    order = [int(stream.windows(step)[0]) for step in range(1, 6 * count + 1)]

    assert all(one != other for one, other in itertools.pairwise(order))


@given(st.integers(2, 20), st.sampled_from([2, 4]), st.integers(1, 5))
def test_ranks_share_a_step(count: int, world: int, step: int) -> None:
    """Two ranks, or four, get together what one would, in its order; what carries loss is counted the same."""
    stream = ExampleStream(some(count), 4, 0, wrap_around=True, most_passes=20)
    shared = np.concatenate([stream.windows(step, rank, world) for rank in range(world)])

    assert stream.windows(step).tolist() == shared.tolist()
    batch = stream.batch(step)
    assert int((batch.targets != IGNORED).sum()) == stream.targets(step) - stream.targets(step - 1)


def test_padding_carries_no_loss() -> None:
    """Examples of different lengths stand side by side; beyond an example's own end nothing is a target."""
    inputs, targets = padded(some(4)[1:])

    assert (3, 4) == inputs.shape == targets.shape
    assert [2, 3, 4] == (targets != IGNORED).sum(1).tolist()


def test_examples_are_padded_to_few_lengths() -> None:
    """A batch is as long as the next multiple of PADDED_TO, and never longer than the longest example of all."""
    stream = ExampleStream(some(40), 1, 0)
    found = {stream.batch(step).inputs.shape[1] for step in range(1, 41)}

    assert found == {PADDED_TO, 2 * PADDED_TO, max(len(one.inputs) for one in stream.examples)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"}', "p.jsonl:2:1: the line needs texts in fields 'prompt' and 'answer'; it has prompt"),
        ('{"prompt": "a", "answer": 3}', "the line needs texts"),
        ("[1]", "the line is no object"),
        ("{", "p.jsonl:2"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: str, message: str) -> None:
    """A bad line is refused at its place, with what would be right."""
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "answer": "b"}\n' + line + "\n")

    with pytest.raises(Malformed) as caught:
        read_examples(PairsFile(kind="pairs", path="p.jsonl"), tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "turns",
    [
        '[{"role": "user", "content": "a"}]',
        '[{"role": "robot", "content": "a"}]',
        '[{"role": "assistant"}]',
        "[]",
        '"a"',
    ],
)
def test_a_conversation_without_an_answer_is_named(tmp_path: Path, turns: str) -> None:
    """A chat needs turns of known roles, and one of them the assistant's."""
    (tmp_path / "c.jsonl").write_text(f'{{"messages": {turns}}}\n')

    with pytest.raises(Malformed, match="one of them the assistant's"):
        read_examples(ChatFile(kind="chat", path="c.jsonl"), tmp_path)


def test_labels_come_from_tsv_and_jsonl(tmp_path: Path) -> None:
    """Both forms give the same examples; quotes in a TSV are text."""
    (tmp_path / "l.tsv").write_text('sentence\tlabel\na "good film \t1\nbad\t0\n')
    (tmp_path / "l.jsonl").write_text('{"sentence": "a \\"good film", "label": 1}\n{"sentence": "bad", "label": 0}\n')
    found = [read_examples(LabelledFile(kind="labelled", path=f"l.{kind}"), tmp_path) for kind in ("tsv", "jsonl")]

    assert [('a "good film', "1"), ("bad", "0")] == [(one.text, one.label) for one in found[0]]
    assert [one.document for one in found[0]] == [one.document for one in found[1]]


def test_a_declared_substitute_stands_in_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file is not there, what `otherwise` declares is used; without it the absence is an error."""
    monkeypatch.delenv("NOWHERE_AT_ALL", raising=False)
    alone = LabelledFile(kind="labelled", path="$NOWHERE_AT_ALL/x.tsv")
    declared = alone.model_copy(update={"otherwise": LibraryLabels(kind="stdlib_labels")})

    assert fell_back(declared, tmp_path)
    assert not fell_back(alone, tmp_path)
    with pytest.raises(Malformed, match="the environment names no such folder"):
        read_examples(alone, tmp_path)


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    path.write_text(tokens.train_bpe(["some words and more of the same words"] * 5, 270).to_str())
    return path


@pytest.mark.slow
def test_the_library_s_pairs_stand_on_their_module_s_side(bpe: Path) -> None:
    """Inherited: a pair stands where an ancestor put its module; no held-out pair resembles one of the train side."""
    source = LibraryPairs(kind="stdlib_pairs", train=40)
    known = {}
    for one in read_examples(source, Path()):
        known.setdefault(one.origin, ("train", "validation", "control")[int(one.origin[:2], 16) % 3])
    data = Data(source=source, split=Split(inherit=True))
    found = build_examples(data, Path(), bpe, tokens.END_OF_TEXT, 64, known, lambda *told: None)
    reasons = {one.reason for one in found.documents}

    assert 40 == len(found.sides["train"])
    assert all(known[found.examples[one.document].origin] == side for side, some in found.sides.items() for one in some)
    assert {"", "exact_duplicate", "near_duplicate", "not_drawn"} == reasons
    clusters = {
        side: {row.cluster for row in found.documents if row.split == side}
        for side in ("train", "validation", "control")
    }
    assert set() == clusters["train"] & (clusters["validation"] | clusters["control"])


def test_fewer_pairs_are_drawn_from_more(tmp_path: Path, bpe: Path) -> None:
    """The few are among the many, and both are measured on the same held-out pairs: runs of either can be compared."""
    lines = [f'{{"prompt": "what is {at}", "answer": "it is number {at} of them"}}' for at in range(200)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines) + "\n")
    few, many = (
        build_examples(
            Data(source=PairsFile(kind="pairs", path="p.jsonl", train=count)), tmp_path, bpe, tokens.END_OF_TEXT, 64, {},
            lambda *told: None,
        )
        for count in (15, 120)
    )  # fmt: skip

    assert {one.document for one in few.sides["train"]} < {one.document for one in many.sides["train"]}
    assert few.held_out == many.held_out
    assert few.digest != many.digest


def test_floors_of_labels() -> None:
    """The most frequent label, of equals the first by name; words tell labels apart, and unknown ones fall to the prior."""
    texts, labels = ["good film", "bad film", "good plot", "fine", "bad"], ["up", "down", "up", "up", "down"]
    words = BagOfWords(texts, labels)

    assert ("up", "a") == (majority(labels), majority(["b", "a"]))
    assert ["up", "down", "up"] == [words.label(text) for text in ("a good one", "bad bad", "unheard of")]
