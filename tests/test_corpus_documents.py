"""Documents, split and tokenizer: the same everywhere, nothing lost unsaid, and no text on two sides."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sovereign.canonical import Malformed
from sovereign.contract.data import (
    Data,
    Folder,
    JsonLines,
    NearDuplicates,
    Split,
    StandardLibrary,
    TextFile,
    TrainedBpe,
)
from sovereign.corpus import tokens
from sovereign.corpus.build import build, open_corpus
from sovereign.corpus.documents import Found, Text, clean, gather
from sovereign.corpus.split import near_duplicates, sides

LIBRARY = StandardLibrary(kind="stdlib")


def text(content: str) -> Text:
    return Text(hashlib.sha256(content.encode()).hexdigest()[:16], content[:10], content, len(content.encode()))


def quiet(part: str, done: int, total: int) -> None:
    """Say nothing."""


# ── sources ──────────────────────────────────────────────────────────────────────────────────────


def test_the_library_has_no_tests_and_no_packages_in_it() -> None:
    """What distributions add or leave out is not in the corpus: tests, idlelib, site-packages."""
    names = [found.name for found in gather(LIBRARY, Path())]
    parts = {part for name in names for part in name.split("/")}

    assert len(names) > 400
    assert names == sorted(names)
    assert not parts & {"test", "tests", "idlelib", "lib2to3", "ensurepip", "site-packages", "__pycache__"}


def test_each_source_names_its_documents(tmp_path: Path) -> None:
    """A folder, a text file and JSON lines give their documents in a fixed order."""
    (tmp_path / "texts/b").mkdir(parents=True)
    for name, content in {"texts/b/two.txt": "two", "texts/one.txt": "one", "texts/no.bin": "no"}.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "all.txt").write_text("one\n\ntwo")
    (tmp_path / "all.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')

    assert list(gather(Folder(kind="folder", path="texts"), tmp_path)) == [
        Found("b/two.txt", b"two"),
        Found("one.txt", b"one"),
    ]
    assert [one.data for one in gather(TextFile(kind="text", path="all.txt"), tmp_path)] == [b"one", b"two"]
    assert [one.data for one in gather(JsonLines(kind="jsonl", path="all.jsonl"), tmp_path)] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        (Folder(kind="folder", path="gone"), None, "gone:1:1: no such folder"),
        (Folder(kind="folder", path="."), None, "no file matches"),
        (TextFile(kind="text", path="gone.txt"), None, "gone.txt:1:1: cannot be read"),
        (
            JsonLines(kind="jsonl", path="x.jsonl"),
            '{"text": "a"}\n{"text": 1}\n',
            "x.jsonl:2:1: no text in field 'text'",
        ),
        (JsonLines(kind="jsonl", path="x.jsonl"), '{"text": "a"}\n{"body": "b"}\n', "the line has body"),
        (JsonLines(kind="jsonl", path="x.jsonl"), '{"text": "a"}\n{"text": \n', "x.jsonl:2:"),
        (JsonLines(kind="jsonl", path="x.jsonl"), '{"text": "a", "text": "b"}\n', "key given twice"),
    ],
)
def test_what_cannot_be_read_is_named_by_place(
    tmp_path: Path, source: object, content: str | None, message: str
) -> None:
    """A missing, empty or malformed source is an error with its line, never a smaller corpus."""
    if content is not None:
        (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(Malformed) as caught:
        list(gather(source, tmp_path))  # type: ignore[arg-type]

    assert message in str(caught.value)


def test_what_is_left_out_is_counted_with_its_reason() -> None:
    """Every document found is used or left out, and says why."""
    found = [Found("a", b"text"), Found("b", b""), Found("c", b"\xff"), Found("d", b"text"), Found("e", b"x" * 99)]
    used, left_out = clean(found, Data(source=LIBRARY, most_bytes=50))

    assert [one.name for one in used] == ["a"]
    assert {one.name: one.reason for one in left_out} == {
        "b": "too_short", "c": "not_utf8", "d": "exact_duplicate", "e": "too_long",
    }  # fmt: skip


# ── split ────────────────────────────────────────────────────────────────────────────────────────

WORDS = [f"word{number}" for number in range(400)]


def test_an_edited_copy_joins_its_original() -> None:
    """A document with one word in fifty changed is a near-duplicate; an unrelated one is not."""
    original = text(" ".join(WORDS[:200]))
    edited = text(" ".join("changed" if at % 50 == 7 else word for at, word in enumerate(WORDS[:200])))
    other = text(" ".join(WORDS[200:]))
    found = near_duplicates([original, edited, other], NearDuplicates(jaccard=0.6))

    assert found[original.document] == found[edited.document] == min(original.document, edited.document)
    assert found[other.document] == other.document


def test_families_stand_on_one_side() -> None:
    """However the hashes fall, a cluster is never parted: forty families of five copies, each on one side."""
    texts = []
    for family in range(40):
        words = [f"f{family}w{number}" for number in range(120)]
        texts += [text(" ".join([*words, f"copy{copy}"])) for copy in range(5)]
    clusters = near_duplicates(texts, NearDuplicates())
    found = sides(clusters, Split(validation=0.2, control=0.2))
    families = [{found[one.document] for one in texts[at : at + 5]} for at in range(0, 200, 5)]

    assert len(set(clusters.values())) == 40
    assert all(len(side) == 1 for side in families)


@given(st.sets(st.text(alphabet="0123456789abcdef", min_size=16, max_size=16), min_size=60, max_size=120), st.data())
def test_a_document_moves_no_other(documents: set[str], data: st.DataObject) -> None:
    """Adding or removing an unrelated document changes the side of no other one."""
    split = Split(validation=0.3, control=0.3)
    gone = data.draw(st.sampled_from(sorted(documents)))
    try:
        whole = sides({one: one for one in documents}, split)
        less = sides({one: one for one in documents - {gone}}, split)
    except ValueError:
        return

    assert less == {one: side for one, side in whole.items() if one != gone}


def test_a_side_without_documents_is_refused_with_the_counts() -> None:
    """Three documents cannot be split by hash and stand on every side by luck alone."""
    with pytest.raises(ValueError, match="1 documents in 1 clusters split into"):
        sides({"a": "a"}, Split())


# ── tokenizer ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tokenizer() -> object:
    texts = [one.data.decode("utf-8", "replace") for one in list(gather(LIBRARY, Path()))[::40]]
    return tokens.train_bpe(texts, 600)


@given(st.text())
def test_every_text_comes_back_from_its_ids(tokenizer: object, content: str) -> None:
    """Byte-level: any text, any script, and special tokens written out in it, round-trip exactly."""
    texts = [content, content + tokens.END_OF_TEXT + content]

    assert tokens.round_trip_errors(tokenizer, texts) == 0  # type: ignore[arg-type]
    assert all(0 not in ids for ids in tokens.encode(tokenizer, texts))  # type: ignore[arg-type]


def test_the_vocabulary_is_exact_or_refused(tokenizer: object) -> None:
    """Asking for more entries than the text has merges is an error, not a smaller vocabulary."""
    assert tokenizer.get_vocab_size() == 600  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="not 4096; ask for fewer, or add text"):
        tokens.train_bpe(["a b c"], 4096)


def test_the_tokenizers_split_is_that_of_gpt2(tokenizer: object, tmp_path: Path) -> None:
    """`transformers` reads the file as a GPT-2 tokenizer and gives the same ids."""
    from transformers import PreTrainedTokenizerFast

    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str())  # type: ignore[attr-defined]
    other = PreTrainedTokenizerFast(tokenizer_file=str(path))
    samples = ["def f(x):\n    return x + 1\n", "  two  spaces\t\ttabs", "naïve café 漢字 🙂", "don't we'll"]

    assert [one.tolist() for one in tokens.encode(tokenizer, samples)] == [  # type: ignore[arg-type]
        other.encode(sample, add_special_tokens=False) for sample in samples
    ]  # fmt: skip


# ── corpus ───────────────────────────────────────────────────────────────────────────────────────


def small(root: Path) -> Data:
    (root / "texts").mkdir(exist_ok=True)
    for number in range(40):
        words = " ".join(f"w{number}x{at}" for at in range(60))
        (root / f"texts/{number}.txt").write_text(words)
    return Data(source=Folder(kind="folder", path="texts"), split=Split(validation=0.2, control=0.2))


def test_a_corpus_is_built_once_and_found_again(tmp_path: Path) -> None:
    """The same data gives the same corpus and digest; another file, another corpus."""
    data, section = small(tmp_path), TrainedBpe(kind="bpe", vocabulary=300)
    one = build(data, section, tmp_path, tmp_path / "cache", quiet)
    again = build(data, section, tmp_path, tmp_path / "cache", quiet)
    elsewhere = build(data, section, tmp_path, tmp_path / "other", quiet)
    (tmp_path / "texts/new.txt").write_text("another text altogether")
    other = build(data, section, tmp_path, tmp_path / "cache", quiet)

    assert one.folder == again.folder != other.folder
    assert one.digest == elsewhere.digest != other.digest
    assert not list((tmp_path / "cache").glob(".*"))


def test_sides_share_no_document_and_lose_none(tmp_path: Path) -> None:
    """Every document stands on exactly one side, with the tokens that its listing says."""
    corpus = build(small(tmp_path), TrainedBpe(kind="bpe", vocabulary=300), tmp_path, tmp_path / "cache", quiet)
    listed = {one.document: one.tokens for one in corpus.documents}
    found = [(document, len(ids)) for side in ("train", "validation", "control") for document, ids in corpus.ids(side)]  # type: ignore[arg-type]

    assert dict(found) == listed
    assert len(found) == len(listed)
    assert corpus.held_out.isdisjoint(corpus.train.documents)
    assert {document for document, _ in corpus.train_probe(5, seed=1)} <= set(corpus.train.documents)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "texts.jsonl", "corpus.json", "train/manifest.json", "control/shard-00000.bin"]
)
def test_a_damaged_corpus_is_not_opened(tmp_path: Path, name: str) -> None:
    """Each file of a corpus is checked when it is opened; the damaged one is named."""
    corpus = build(small(tmp_path), TrainedBpe(kind="bpe", vocabulary=300), tmp_path, tmp_path / "cache", quiet)
    path = corpus.folder / name
    data = path.read_bytes()
    if name == "tokenizer.json":
        value = json.loads(data)
        value["model"]["vocab"]["zzz"] = value["model"]["vocab"].pop(
            max(value["model"]["vocab"], key=value["model"]["vocab"].get)
        )
        path.write_text(json.dumps(value))
    else:
        path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
    with pytest.raises(Malformed) as caught:
        open_corpus(corpus.folder)

    assert Path(name).name in str(caught.value)
