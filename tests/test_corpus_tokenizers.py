"""Tokenizers that exist already: the one that was meant, whole, and exact over every document; or nothing is trained."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub import hub
from pydantic import ValidationError
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from sovereign.canonical import Malformed
from sovereign.contract.data import (
    Data,
    Expected,
    Folder,
    HubTokenizer,
    ImportedTokenizer,
    ProbeString,
    Split,
    TrainedBpe,
)
from sovereign.corpus import tokens
from sovereign.corpus.build import Corpus, build

A = "a" * 40


def quiet(part: str, done: int, total: int) -> None:
    """Say nothing."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    for number in range(40):
        (tmp_path / f"texts/{number:02d}.txt").write_text(
            " ".join(f"Wört{number}x{at} 漢{number}" for at in range(40)), encoding="utf-8"
        )
    bpe = tokens.train_bpe([(tmp_path / f"texts/{number:02d}.txt").read_text("utf-8") for number in range(40)], 280)
    (tmp_path / "tokenizer.json").write_text(bpe.to_str())
    return tmp_path


def built(root: Path, **section: Any) -> Corpus:
    data = Data(source=Folder(kind="folder", path="texts"), split=Split(validation=0.2, control=0.2))
    return build(data, ImportedTokenizer(kind="file", path="tokenizer.json", **section), root, root / "cache", quiet)


def test_an_imported_tokenizer_makes_the_ids_it_always_made(root: Path) -> None:
    """The file as it stands: same ids as the library gives by itself, same vocabulary, exact over every document."""
    corpus = built(root)
    alone = Tokenizer.from_file(str(root / "tokenizer.json"))
    texts = {one.name: (root / "texts" / one.name).read_text("utf-8") for one in corpus.documents}
    documents = {document: ids.tolist() for side in ("train", "validation", "control") for document, ids in corpus.ids(side)}  # type: ignore[arg-type]  # fmt: skip

    assert {one.document: alone.encode(texts[one.name]).ids for one in corpus.documents} == documents
    assert (280, 0) == (corpus.vocabulary, corpus.end_of_text)
    assert {"exact"} == {one.round_trip for one in corpus.documents}


def test_another_end_of_text_is_found_by_name(root: Path) -> None:
    """A tokenizer whose documents end with </s> is used with it; asked for a token that is not special it is refused."""
    tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    (root / "tokenizer.json").write_text(tokenizer.to_str())
    corpus = built(root, end_of_text="</s>")

    assert (281, 280) == (corpus.vocabulary, corpus.end_of_text)
    assert corpus.decode(corpus.encode("x </s> y")) == "x </s> y"
    assert 280 not in corpus.encode("x </s> y")
    with pytest.raises(Malformed, match="has no <eos> token, which stands between documents; its special tokens: "):
        built(root, end_of_text="<eos>")


def lossy(root: Path) -> None:
    """Lower-case what goes in: a tokenizer whose ids do not hold the text."""
    tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Lowercase()
    (root / "tokenizer.json").write_text(tokenizer.to_str())


def test_documents_that_do_not_come_back_are_counted(root: Path) -> None:
    """Every document is tried, not a sample: the one that survives a lower-casing tokenizer is told from the others."""
    (root / "texts/99.txt").write_text("all of this is small")
    lossy(root)
    corpus = built(root)

    assert {one.name: one.round_trip for one in corpus.documents} == {
        f"{number:02d}.txt": "exact" if number == 99 else "differs" for number in [*range(40), 99]
    }


def test_probe_strings_tell_tokenizers_apart(root: Path) -> None:
    """The same strings for every tokenizer, with their ids: two that differ in anything at all differ there."""
    before = {one.text: one for one in built(root).probes()}
    lossy(root)
    after = {one.text: one for one in built(root).probes()}

    assert before.keys() == after.keys() == set(tokens.PROBES)
    assert all(one.exact for one in before.values())
    assert [text for text in before if before[text].ids != after[text].ids]
    assert not all(one.exact for one in after.values())


def non_ascii_lost(root: Path) -> None:
    """CASE-13's plant: a byte an id, and every byte beyond ASCII is id 0."""
    letters = [*"Ġ", *map(chr, range(33, 127))]
    vocabulary = {"[LOST]": 0, **{letter: at + 1 for at, letter in enumerate(letters)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[LOST]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            pre_tokenizers.Split(Regex("."), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(tokens.END_OF_TEXT, special=True)])
    (root / "tokenizer.json").write_text(tokenizer.to_str())


def test_bytes_mapped_to_one_id_are_seen_before_training(root: Path) -> None:
    """CASE-13: the text no longer comes back, bytes per token fall, and the probe strings' ids differ."""
    good = built(root)
    probe = ProbeString(text="Wört", ids=tuple(good.encode("Wört")))
    non_ascii_lost(root)
    ratio = [sum(one.bytes for one in corpus.documents) / sum(one.tokens for one in corpus.documents) for corpus in (good, built(root))]  # fmt: skip

    assert ratio[1] < ratio[0]
    assert {"differs"} == {one.round_trip for one in built(root).documents}
    with pytest.raises(ValueError) as caught:
        built(root, expect=Expected(strings=(probe,), special={tokens.END_OF_TEXT: 0}, least_bytes_per_token=2.0))
    said = str(caught.value).splitlines()

    assert len(said) == 3
    assert said[0].startswith("tokenizer: <|endoftext|> has id 96, where the contract expects 0")
    assert said[1].startswith("tokenizer: 'Wört' gives the ids [")
    assert said[2].startswith("tokenizer: 1.")


def test_a_tokenizer_that_is_as_expected_is_used(root: Path) -> None:
    """Special ids, probe strings and bytes per token that hold change nothing about the corpus but its key."""
    plain = built(root)
    ratio = sum(one.bytes for one in plain.documents) / sum(one.tokens for one in plain.documents)
    expected = Expected(
        special={tokens.END_OF_TEXT: 0},
        strings=(ProbeString(text="Wört1", ids=tuple(plain.encode("Wört1"))),),
        least_bytes_per_token=ratio - 0.01,
        most_bytes_per_token=ratio + 0.01,
    )

    assert plain.digest == built(root, expect=expected).digest


def test_gaps_below_the_largest_id_need_rows(root: Path) -> None:
    """The embedding must hold the largest id, however few entries lie below it."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 7, tokens.END_OF_TEXT: 9}, "a"))

    assert 3 == tokenizer.get_vocab_size()
    assert 10 == tokens.size(tokenizer)


@pytest.mark.parametrize(
    ("vocabulary", "rows", "pretrained", "told"),
    [
        (400, 400, False, None),
        (400, 512, True, None),
        (400, 400, True, None),
        (400, 512, False, "the tokenizer has 400 entries, where the contract asks for 512"),
        (513, 512, True, "ids would fall outside it"),
        (513, 512, False, "ids would fall outside it"),
    ],
)
def test_the_vocabulary_fits_the_embedding(vocabulary: int, rows: int, pretrained: bool, told: str | None) -> None:
    """From scratch equal; with a pretrained model at most, since many have rows to spare."""
    said = tokens.misfit(vocabulary, rows, pretrained)

    assert said is None if told is None else told in str(said)


def test_a_hub_tokenizer_is_pinned_and_fetched(root: Path, tmp_path: Path) -> None:
    """The file of a hub model at its commit builds the same corpus as the file itself; a moving revision is refused."""
    content = (root / "tokenizer.json").read_bytes()
    code = """
import sys
from pathlib import Path
from sovereign.contract.data import Data, Folder, HubTokenizer, Split
from sovereign.corpus.build import build
from sovereign.canonical import Malformed
data = Data(source=Folder(kind="folder", path="texts"), split=Split(validation=0.2, control=0.2))
section = HubTokenizer(kind="hub", repository="someone/model", revision=sys.argv[1])
try:
    print(build(data, section, Path("."), Path("hub-cache"), lambda *told: None).digest)
except Malformed as error:
    sys.exit(str(error))
"""
    with hub({}, {"someone/model": {A: {"tokenizer.json": content}}}) as address:
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf")}
        fetched, gone = (
            subprocess.run([sys.executable, "-c", code, commit], env=environment, cwd=root, capture_output=True, text=True)
            for commit in (A, "b" * 40)
        )  # fmt: skip

    assert fetched.returncode == 0, fetched.stderr
    assert built(root).digest == fetched.stdout.strip()
    assert gone.returncode == 1
    assert "someone/model@bbbbbbbbbbbb/tokenizer.json:1:1: cannot be fetched" in gone.stderr
    with pytest.raises(ValidationError, match="pin a commit"):
        HubTokenizer(kind="hub", repository="someone/model", revision="main")


def test_a_missing_tokenizer_is_an_error(root: Path) -> None:
    """CASE-09: a file that is not there ends the build with its name."""
    (root / "tokenizer.json").unlink()
    with pytest.raises(Malformed, match=r"tokenizer\.json:1:1: cannot be read: No such file"):
        built(root)


def test_a_trained_tokenizer_says_the_same_of_itself(root: Path) -> None:
    """A tokenizer that we train is tried on every document, too."""
    data = Data(source=Folder(kind="folder", path="texts"), split=Split(validation=0.2, control=0.2))
    corpus = build(data, TrainedBpe(kind="bpe", vocabulary=280), root, root / "cache", quiet)

    assert {"exact"} == {one.round_trip for one in corpus.documents}
    assert [one.text for one in corpus.probes()] == list(tokens.PROBES)
    assert all(np.array(one.ids).max() < 280 for one in corpus.probes())
