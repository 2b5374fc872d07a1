"""CASE-36 Validation identity drifts.

Stage: before step 0
Outcome: validation is chosen by document hash: more data moves no document, and a side that did change has another digest
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sovereign.contract.data import Data, Folder, ImportedTokenizer, Split, TrainedBpe
from sovereign.corpus.build import Corpus, build


def grown(root: Path, count: int) -> Corpus:
    """Return the corpus of the first `count` documents, with a tokenizer that does not change."""
    (root / "texts").mkdir(exist_ok=True)
    for number in range(count):
        (root / f"texts/{number:03d}.txt").write_text(" ".join(f"w{number}x{at}" for at in range(40)))
    data = Data(source=Folder(kind="folder", path="texts"), split=Split(validation=0.2, control=0.2))
    if not (root / "tokenizer.json").exists():
        made = build(data, TrainedBpe(kind="bpe", vocabulary=280), root, root / "cache", lambda *told: None)
        (root / "tokenizer.json").write_bytes(made.tokenizer_path.read_bytes())
    section = ImportedTokenizer(kind="file", path="tokenizer.json")
    return build(data, section, root, root / "cache", lambda *told: None)


@pytest.mark.parametrize("side", ["train", "validation", "control"])
def test_more_data_moves_no_document(tmp_path: Path, side: str) -> None:
    """Plant: a shard more of documents. What was on a side is on it still, and the side's digest says that it grew."""
    before, after = grown(tmp_path, 60), grown(tmp_path, 120)
    old, new = ({document for document, _ in one.ids(side)} for one in (before, after))  # type: ignore[arg-type]

    assert old < new
    assert before.side_digest(side) != after.side_digest(side)  # type: ignore[arg-type]


def test_the_same_side_has_the_same_digest_wherever_it_stands(tmp_path: Path) -> None:
    """Documents on other sides, names and order do not enter it: a train document more leaves validation what it was."""
    before = grown(tmp_path, 60)
    held = [one.name for one in before.documents if one.split == "train"]
    (tmp_path / "texts" / held[0]).unlink()
    data = Data(source=Folder(kind="folder", path="texts"), split=Split(validation=0.2, control=0.2))
    section = ImportedTokenizer(kind="file", path="tokenizer.json")
    after = build(data, section, tmp_path, tmp_path / "cache", lambda *told: None)

    assert before.side_digest("validation") == after.side_digest("validation")
    assert before.side_digest("train") != after.side_digest("train")
    assert before.digest != after.digest
