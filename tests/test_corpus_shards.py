"""Shards come back as they were written, or are refused by name."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sovereign.canonical import Malformed
from sovereign.corpus.shards import MANIFEST, UnreadableShard, open_shards, sealed, write_shards

END = 2
TOKENIZER = "sha256:" + "0" * 64


def written(folder, documents, vocabulary=100, shard_tokens=1 << 20):
    """Write documents given as lists of ids, and return the shards as they are opened again."""
    named = [(f"{index:016x}", np.array(ids, dtype=np.int64)) for index, ids in enumerate(documents)]
    write_shards(folder, named, vocabulary=vocabulary, end_of_text=END, tokenizer=TOKENIZER, shard_tokens=shard_tokens)
    return open_shards(folder)


def three_shards(folder):
    """Write three shards of one document each, of the same length, and return their folder."""
    written(folder, [[10, 11, 12], [20, 21, 22], [30, 31, 32]], shard_tokens=1)
    return folder


def resealed(folder, change):
    """Change a manifest and seal it again, as someone would who knows how."""
    values = json.loads((folder / MANIFEST).read_bytes())
    del values["digest"]
    change(values)
    (folder / MANIFEST).write_bytes(sealed(values))


def refusal(folder, kind=Malformed):
    with pytest.raises(kind) as caught:
        open_shards(folder)
    return str(caught.value)


@st.composite
def corpora(draw):
    vocabulary = draw(st.sampled_from([4, 300, 65536, 65537, 1_000_000]))
    ids = st.integers(0, vocabulary - 1).filter(lambda one: one != END)
    documents = draw(st.lists(st.lists(ids, max_size=12), max_size=8))
    return vocabulary, documents, draw(st.integers(1, 40))


@settings(deadline=None, max_examples=60)
@given(corpora(), st.data())
def test_what_is_read_is_what_was_written(tmp_path_factory, corpus, data):
    """Every document, every run of ids, and who owns them come back, wherever the shards were cut."""
    vocabulary, documents, shard_tokens = corpus
    run = [token for ids in documents for token in [*ids, END]]
    owners = [f"{index:016x}" for index, ids in enumerate(documents) for _ in [*ids, END]]
    shards = written(tmp_path_factory.mktemp("shards"), documents, vocabulary, shard_tokens)
    start = data.draw(st.integers(0, len(run)))
    stop = data.draw(st.integers(start, len(run)))
    begins = np.arange(max(0, len(run) - 4))

    assert documents == [shards.ids(document).tolist() for document in shards.documents]
    assert run[start:stop] == shards.read(start, stop).tolist()
    assert [run[at : at + 5] for at in begins] == shards.gather(begins, 5).tolist()
    assert owners == [shards.document_at(offset) for offset in range(shards.tokens)]


@pytest.mark.parametrize(("vocabulary", "dtype"), [(65535, "uint16"), (65536, "uint16"), (65537, "uint32")])
def test_ids_take_two_bytes_as_long_as_they_fit(tmp_path, vocabulary, dtype):
    """Up to 65536 entries are stored as uint16, more as uint32; the largest id survives either way."""
    shards = written(tmp_path, [[vocabulary - 1, 0]], vocabulary)

    assert dtype == shards.manifest.dtype
    assert [vocabulary - 1, 0, END] == shards.read(0, 3).tolist()
    assert 3 * np.dtype(dtype).itemsize == (tmp_path / "shard-00000.bin").stat().st_size


def test_no_document_is_cut_between_shards(tmp_path):
    """A shard ends with the document that fills it; the next document opens the next."""
    shards = written(tmp_path, [[5] * 3, [6] * 9, [7], [8]], shard_tokens=10)

    assert [14, 4] == [shard.tokens for shard in shards.manifest.shards]
    assert [2, 2] == [len(shard.documents) for shard in shards.manifest.shards]


def test_the_same_documents_make_the_same_bytes(tmp_path):
    """Two folders of the same documents have one digest, another document another."""
    one = written(tmp_path / "one", [[5, 6], [7]]).manifest.digest
    again = written(tmp_path / "again", [[5, 6], [7]]).manifest.digest
    other = written(tmp_path / "other", [[5, 6], [8]]).manifest.digest

    assert one == again
    assert one != other


# ── damage ───────────────────────────────────────────────────────────────────────────────────────


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-1])


def grown(path):
    path.write_bytes(path.read_bytes() + b"\0\0")


def bit_flipped(path):
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def replaced(path):
    shutil.copy(path.with_name("shard-00002.bin"), path)


def removed(path):
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut_off, "is 7 bytes, cut off from 8"),
        (grown, "is 10 bytes, grown beyond 8"),
        (bit_flipped, "its content changed: sha256:"),
        (replaced, "holds what the manifest says of shard-00002.bin; the two were swapped or copied"),
        (removed, "cannot be read: No such file or directory; the manifest lists it"),
    ],
)
def test_a_damaged_shard_is_named(tmp_path, damage, told):
    """Whatever happened to one shard, opening names that shard alone, and says what."""
    folder = three_shards(tmp_path)
    damage(folder / "shard-00001.bin")
    said = refusal(folder, UnreadableShard)

    assert said.startswith(f"{folder}/shard-00001.bin:1:1: {told}"), said
    assert 1 == len(said.splitlines())


def test_swapped_shards_are_both_named(tmp_path):
    """Two shards that changed places are told apart from changed ones."""
    folder = three_shards(tmp_path)
    (folder / "shard-00000.bin").rename(folder / "kept")
    (folder / "shard-00002.bin").rename(folder / "shard-00000.bin")
    (folder / "kept").rename(folder / "shard-00002.bin")

    assert [
        f"{folder}/{one}:1:1: holds what the manifest says of {other}; the two were swapped or copied"
        for one, other in [("shard-00000.bin", "shard-00002.bin"), ("shard-00002.bin", "shard-00000.bin")]
    ] == refusal(folder, UnreadableShard).splitlines()


@pytest.mark.parametrize(
    ("old", "other"),
    [
        (b'"vocabulary":100', b'"vocabulary":101'),
        (b'"end_of_text":2', b'"end_of_text":3'),
        (b'["0000000000000000",3]', b'["000000000000000f",3]'),
        (TOKENIZER.encode(), b"sha256:" + b"1" * 64),
    ],
)
def test_an_edited_manifest_is_refused(tmp_path, old, other):
    """No value of a manifest can be changed by hand, not even one that every shard would agree with."""
    folder = three_shards(tmp_path)
    data = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(data.replace(old, other))
    said = refusal(folder)

    assert 1 == data.count(old)
    assert said.startswith(f"{folder}/{MANIFEST}:1:"), said
    assert said.endswith(": digest: does not match the rest of the file; something was changed"), said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda it: it.update(dtype="uint32"), "dtype uint32 is not the one for a vocabulary of 100"),
        (lambda it: it.update(end_of_text=100), "end_of_text 100 is outside the vocabulary of 100"),
        (lambda it: it["shards"][1].update(tokens=5), "00001.bin: its documents and their ends are 4 tokens, not 5"),
        (lambda it: it["shards"][1].update(bytes=9), "00001.bin: 4 uint16 tokens are not 9 bytes"),
        (lambda it: it["shards"].append(it["shards"][0]), "a document is listed twice"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path, change, told):
    """A manifest sealed anew, but true of no shards, is refused with the arithmetic."""
    folder = three_shards(tmp_path)
    resealed(folder, change)

    assert told in refusal(folder)


def test_a_folder_without_a_manifest_holds_no_shards(tmp_path):
    """The manifest is written last: shards whose writing was broken off cannot be opened."""
    with pytest.raises(ValueError, match="given twice"):
        write_shards(
            tmp_path, [("a", np.array([5])), ("a", np.array([6]))], vocabulary=100, end_of_text=END, tokenizer=TOKENIZER
        )

    assert f"{tmp_path}/{MANIFEST}:1:1: cannot be read: No such file or directory" == refusal(tmp_path)


# ── what may not be written, or asked for ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ([5, END, 6], "document a holds the end-of-text id 2 inside its text"),
        ([5, 100], "document a holds ids 5 to 100; the vocabulary has 100"),
        ([-1, 5], "document a holds ids -1 to 5; the vocabulary has 100"),
    ],
)
def test_a_document_that_would_be_read_otherwise_is_refused(tmp_path, ids, told):
    """A document with an end inside it, or ids that do not fit, is named and not written."""
    with pytest.raises(ValueError) as caught:
        write_shards(tmp_path, [("a", np.array(ids))], vocabulary=100, end_of_text=END, tokenizer=TOKENIZER)

    assert told == str(caught.value)


def test_what_is_not_there_is_not_read(tmp_path):
    """Offsets outside the run raise, and so does a document that is not in the shards."""
    shards = written(tmp_path, [[5, 6, 7]])

    for outside in [(-1, 2), (3, 2), (0, 5)]:
        with pytest.raises(IndexError, match="outside the 4 there are"):
            shards.read(*outside)
    with pytest.raises(IndexError, match="offset 4 is outside the 4 tokens"):
        shards.document_at(4)
    with pytest.raises(KeyError):
        shards.ids("another")
