"""Canaries: planted as often as promised, found again from the salt, and never in a held-out side."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sovereign.contract.data import Canaries, Data, JsonLines, Split, TrainedBpe
from sovereign.corpus.build import Corpus, build
from sovereign.corpus.canaries import among, documents, secrets

SECTION = Canaries(copies=(1, 3), each=2, candidates=20)


def corpus(root: Path, canaries: Canaries | None) -> Corpus:
    """Return a corpus of sixty drawn documents, with canaries or without."""
    draw = np.random.default_rng(0)
    words = ["".join(draw.choice(list("abcdefghij"), 6)) for _ in range(50)]
    lines = (json.dumps({"text": " ".join(draw.choice(words, 40))}) for _ in range(60))
    (root / "texts.jsonl").write_text("".join(f"{line}\n" for line in lines))
    data = Data(
        source=JsonLines(kind="jsonl", path="texts.jsonl"), split=Split(validation=0.2, control=0.2), canaries=canaries
    )
    return build(data, TrainedBpe(kind="bpe", vocabulary=300), root, root / "cache", lambda part, done, total: None)


def test_every_secret_is_planted_as_often_as_promised(tmp_path: Path) -> None:
    """The train side holds each planted secret `copies` times, each copy a document; no other side holds one.

    The planted bug: one document id for all copies of a secret, which the shards refused as a document that stands twice.
    """
    built = corpus(tmp_path, SECTION)
    found = built.secrets(SECTION)
    held = {side: [ids.tolist() for _, ids in built.ids(side)] for side in ("train", "validation", "control")}

    for secret in found.planted:
        whole = [*found.prefix, *secret.ids.tolist()]
        assert (secret.copies, 0, 0) == tuple(held[side].count(whole) for side in ("train", "validation", "control"))
    never = [[*found.prefix, *one.tolist()] for one in found.candidates]
    assert not any(one in held["train"] for one in never)
    assert {1: 2, 3: 2} == Counter(one.copies for one in found.planted)
    listed = [one for one in built.documents if one.name.startswith("canary")]
    assert (8, {"train"}) == (len(listed), {one.split for one in listed})


def test_without_canaries_a_corpus_is_what_it_was(tmp_path: Path) -> None:
    """Planting adds documents to the train side and moves no other: the held-out sides stay to the byte."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain, planted = corpus(tmp_path / "a", None), corpus(tmp_path / "b", SECTION)

    assert plain.side_digest("validation") == planted.side_digest("validation")
    assert plain.side_digest("control") == planted.side_digest("control")
    assert plain.side_digest("train") != planted.side_digest("train")
    assert plain.tokenizer_digest == planted.tokenizer_digest


def test_secrets_are_found_again_from_the_salt() -> None:
    """One salt gives one set of secrets, another gives others; end-of-text is in none."""
    one, same = (secrets(SECTION, [5], 100, 7) for _ in range(2))
    other = secrets(SECTION.model_copy(update={"salt": "other"}), [5], 100, 7)

    assert all((a.ids == b.ids).all() for a, b in zip(one.planted, same.planted, strict=True))
    assert any((a.ids != b.ids).any() for a, b in zip(one.planted, other.planted, strict=True))
    assert not any(7 in ids for ids in (*(a.ids for a in one.planted), *one.candidates))


@given(st.integers(0, 40), st.integers(0, 20))
def test_planted_documents_stand_apart_and_none_is_lost(texts: int, planted: int) -> None:
    """Every document comes once, the texts in their order, and copies are neighbours only where texts run out."""
    mine = [(f"text {number:03}", np.arange(3)) for number in range(texts)]
    secret = [(f"canary {number:03}", np.arange(3)) for number in range(planted)]
    found = [name for name, _ in among(mine, secret)]

    assert [name for name, _ in mine] == [name for name in found if name.startswith("text")]
    assert sorted(name for name, _ in [*mine, *secret]) == sorted(found)
    neighbours = sum(a.startswith("canary") and b.startswith("canary") for a, b in itertools.pairwise(found))
    assert neighbours == 0 or texts <= 2 * planted


def test_each_copy_is_a_document_of_its_own() -> None:
    names = [document for document, _, _ in documents(secrets(SECTION, [5], 100, 7), "salt")]

    assert (8, 8) == (len(names), len(set(names)))
