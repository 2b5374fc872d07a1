"""Sources and cleaning: every way to documents gives the same documents, and whatever is left out is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import hub
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sovereign.canonical import Malformed
from sovereign.contract.data import (
    Data,
    Folder,
    HubDataset,
    JsonLines,
    Mixture,
    NearDuplicates,
    Parquet,
    Part,
    Split,
    StandardLibrary,
    TextFile,
    TrainedBpe,
)
from sovereign.corpus.build import Corpus, build
from sovereign.corpus.documents import Found, Text, clean, gather, to_shares

LIBRARY = StandardLibrary(kind="stdlib")
A, B, C = "a" * 40, "b" * 40, "c" * 40


def quiet(part: str, done: int, total: int) -> None:
    """Say nothing."""


def words(number: int, count: int = 60) -> str:
    return " ".join(f"w{number}x{at}" for at in range(count))


# ── sources ──────────────────────────────────────────────────────────────────────────────────────


def test_every_source_gives_the_same_documents(tmp_path: Path) -> None:
    """A folder, a text file, JSON lines and Parquet files of the same texts hold the same bytes, in one order."""
    texts = [words(number) for number in range(12)]
    (tmp_path / "folder").mkdir()
    for number, content in enumerate(texts):
        (tmp_path / f"folder/{number:02d}.txt").write_text(content)
    (tmp_path / "all.txt").write_text("\n\n".join(texts))
    (tmp_path / "all.jsonl").write_text("".join(json.dumps({"body": one}) + "\n" for one in texts))
    (tmp_path / "parts").mkdir()
    for number, part in enumerate((texts[:5], texts[5:])):
        pq.write_table(pa.table({"body": part, "other": [1] * len(part)}), tmp_path / f"parts/{number}.parquet", row_group_size=2)  # fmt: skip
    sources = [
        Folder(kind="folder", path="folder"),
        TextFile(kind="text", path="all.txt"),
        JsonLines(kind="jsonl", path="all.jsonl", field="body"),
        Parquet(kind="parquet", path="parts", field="body"),
    ]
    found = [list(gather(source, tmp_path)) for source in sources]

    assert [[one.data.decode() for one in some] for some in found] == [texts] * 4
    assert [some[5].name for some in found] == ["05.txt", "all.txt#0000005", "all.jsonl#0000006", "1.parquet#0000000"]


def test_the_prose_of_the_library_is_its_docstrings() -> None:
    """Docstrings of modules, classes and functions, a document a module; code is not among them."""
    found = {one.name: one.data.decode() for one in gather(StandardLibrary(kind="stdlib", part="docstrings"), Path())}

    assert json.JSONDecoder.__doc__ is not None
    assert json.JSONDecoder.__doc__.strip().splitlines()[0] in found["json/decoder.py"]
    assert "def __init__" not in found["json/decoder.py"]
    assert len(found) > 300


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", None]}, "no text in field 'text'; row 1 has text"),
        ({"text": [1, 2]}, "no text in field 'text'; row 0 has text"),
        ({"body": ["a"], "id": [1]}, "no column 'text'; the file has body, id"),
    ],
)
def test_a_parquet_file_without_the_text_is_named(
    tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    """A missing column, a null and a number are errors with the file and the row, never a smaller corpus."""
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(Malformed, match=r"x\.parquet") as caught:
        list(gather(Parquet(kind="parquet", path="x.parquet"), tmp_path))

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.write_bytes(b"PAR1 and no more"), "not a Parquet file"),
        (lambda path: path.mkdir(), "no *.parquet file stands below it"),
    ],
)
def test_a_parquet_file_that_is_none_is_named(tmp_path: Path, write: object, message: str) -> None:
    """Missing, cut off, or an empty folder: an error that says so."""
    write(tmp_path / "x.parquet")  # type: ignore[operator]
    with pytest.raises(Malformed) as caught:
        list(gather(Parquet(kind="parquet", path="x.parquet"), tmp_path))

    assert message in str(caught.value)


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("revision", ["main", "v1.0", "a" * 39, "A" * 40, "g" * 40, ""])
def test_a_revision_that_may_move_is_refused(revision: str) -> None:
    """Only a whole commit names a data set that is the same tomorrow."""
    with pytest.raises(ValidationError, match="pin a commit, 40 hex digits"):
        HubDataset(kind="hub", dataset="someone/texts", revision=revision)


LINES = [json.dumps({"text": words(number), "licence": "MIT"}).encode() + b"\n" for number in range(9)]
READ = """
import json, sys
from pathlib import Path
from sovereign.canonical import Malformed
from sovereign.contract.data import HubDataset
from sovereign.corpus.documents import gather
try:
    for one in gather(HubDataset(kind="hub", dataset=sys.argv[1], revision=sys.argv[2], licence="licence"), Path()):
        print(json.dumps([one.name, one.data.decode(), one.licence]))
except Malformed as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the environment of a process whose hub is this machine's, with two commits of one data set."""
    repository = {A: {"data/train.jsonl": b"".join(LINES[:4])}, B: {"data/train.jsonl": b"".join(LINES)}}
    with hub({"someone/texts": repository}, {}) as address:
        yield {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path_factory.mktemp("hf"))}


def read_hub(environment: dict[str, str], dataset: str, revision: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", READ, dataset, revision], env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_hub_dataset_is_read_at_its_commit(served: dict[str, str]) -> None:
    """`datasets` itself, against a hub: each commit gives its own rows, by name, text and licence."""
    first, second = (read_hub(served, "someone/texts", commit) for commit in (A, B))
    rows = [json.loads(line) for line in first.stdout.splitlines()]

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert rows == [[f"someone/texts@{A[:12]}#{at:07d}", words(at), "MIT"] for at in range(4)]
    assert len(second.stdout.splitlines()) == 9


@pytest.mark.slow
def test_another_revision_is_never_taken_instead(served: dict[str, str]) -> None:
    """CASE-09: without a connection `datasets` gives the revision it kept last; that is an error, not the data asked for."""
    assert read_hub(served, "someone/texts", B).returncode == 0
    offline = {**served, "HF_HUB_OFFLINE": "1"}
    kept, other, unknown = (read_hub(offline, "someone/texts", commit) for commit in (B, A, C))

    assert (kept.returncode, other.returncode, unknown.returncode) == (0, 1, 1), kept.stderr
    assert f"revision {B} was loaded instead" in other.stderr
    assert not other.stdout


@pytest.mark.parametrize(("dataset", "revision"), [("someone/texts", C), ("someone/gone", A)])
def test_a_dataset_that_is_not_there_is_an_error(served: dict[str, str], dataset: str, revision: str) -> None:
    """CASE-09: an unknown repository or commit ends the build with its name."""
    found = read_hub(served, dataset, revision)

    assert found.returncode == 1
    assert f"{dataset}@{revision[:12]}:1:1: cannot be loaded" in found.stderr


# ── cleaning ─────────────────────────────────────────────────────────────────────────────────────


def test_only_listed_licences_are_used() -> None:
    """A document under another licence, or under none, is left out, and says why."""
    found = [
        Found("a", b"one", "MIT"),
        Found("b", b"two", "GPL-3.0"),
        Found("c", b"three"),
        Found("d", b"one", "GPL-3.0"),
    ]
    data = Data(source=JsonLines(kind="jsonl", path="x", licence="licence"), licences=("MIT", "Apache-2.0"))
    used, left_out = clean(found, data)

    assert [one.name for one in used] == ["a"]
    assert {one.name: one.reason for one in left_out} == {"b": "licence", "c": "licence", "d": "licence"}


def test_a_licence_that_nobody_states_cannot_be_asked_for() -> None:
    """An allow-list over a source without a licence field is refused: it would leave out everything, or nothing."""
    with pytest.raises(ValidationError, match="the stdlib source names no field of them"):
        Data(source=LIBRARY, licences=("MIT",))


def test_undecodable_documents_are_counted_or_refused() -> None:
    """By default a document that is no UTF-8 is left out and counted; where the contract says so it ends the build."""
    found = [Found("a", b"text"), Found("b", b"x\xff")]
    _, left_out = clean(found, Data(source=LIBRARY))

    assert [(one.name, one.reason) for one in left_out] == [("b", "not_utf8")]
    with pytest.raises(Malformed, match="b:1:1: no UTF-8: invalid start byte at byte 1"):
        clean(found, Data(source=LIBRARY, undecodable="refuse"))


def families(root: Path) -> Data:
    (root / "texts").mkdir()
    for family in range(30):
        for copy in range(3):
            (root / f"texts/{family:02d}-{copy}.txt").write_text(f"{words(family, 120)} copy{copy}")
    return Data(source=Folder(kind="folder", path="texts"), split=Split(validation=0.2, control=0.2))


def built(data: Data, root: Path) -> Corpus:
    return build(data, TrainedBpe(kind="bpe", vocabulary=300), root, root / "cache", quiet)


def reasons(corpus: Corpus) -> dict[str, int]:
    found = [one.reason for one in corpus.documents if one.split == "left_out"]
    return {reason: found.count(reason) for reason in set(found)}


def test_near_duplicates_are_kept_together_or_left_out(tmp_path: Path) -> None:
    """By default a family stands on one side, whole; with `keep: first` one of it stays and the others are counted."""
    data = families(tmp_path)
    whole = built(data, tmp_path)
    first = built(data.model_copy(update={"near_duplicates": NearDuplicates(keep="first")}), tmp_path)

    assert reasons(whole) == {}
    assert reasons(first) == {"near_duplicate": 60}
    assert len(first.documents) == 90
    assert len({one.cluster for one in first.documents if one.split != "left_out"}) == 30


@given(
    st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), st.integers(1, 400)), min_size=30, max_size=90),
    st.tuples(*[st.floats(0.1, 10)] * 3),
)
def test_a_mixture_has_the_shares_of_its_weights(sizes: list[tuple[str, int]], weights: tuple[float, ...]) -> None:
    """Nothing is lost or repeated, some part is whole, and each part's bytes are within a document of its share."""
    texts = [Text(f"{at:016x}", f"{part}/{at}", "", size) for at, (part, size) in enumerate(sizes)]
    parts = [Part(name=name, source=LIBRARY, weight=weight) for name, weight in zip(("one", "two", "three"), weights, strict=True)]  # fmt: skip
    given_ = {part.name: sum(size for name, size in sizes if name == part.name) for part in parts}
    if not all(given_.values()):
        with pytest.raises(ValueError, match="has no document that may be used"):
            to_shares(texts, parts)
        return
    kept, beyond = to_shares(texts, parts)
    used = {part.name: sum(one.bytes for one in kept if one.name.startswith(f"{part.name}/")) for part in parts}
    whole = min(given_[part.name] / part.weight for part in parts)

    assert sorted([one.document for one in kept] + [one.document for one in beyond]) == [one.document for one in texts]
    assert any(used[part.name] == given_[part.name] for part in parts)
    for part in parts:
        assert used[part.name] <= whole * part.weight * (1 + 1e-6)
        assert used[part.name] == given_[part.name] or used[part.name] > whole * part.weight - 400


def test_a_mixture_is_built_and_says_what_was_too_much(tmp_path: Path) -> None:
    """Two folders with weights 1 and 3: the scarcer is whole, the other cut, and every document accounted for."""
    for name, count in (("poems", 80), ("code", 60)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number:02d}.txt").write_text(words(1000 * len(name) + number))
    parts = tuple(
        Part(name=name, source=Folder(kind="folder", path=name), weight=weight) for name, weight in (("poems", 1.0), ("code", 3.0))
    )  # fmt: skip
    corpus = built(
        Data(source=Mixture(kind="mixture", parts=parts), split=Split(validation=0.2, control=0.2)), tmp_path
    )
    used = [one for one in corpus.documents if one.split != "left_out"]
    sizes = [sum(one.bytes for one in used if one.name.startswith(name)) for name in ("poems/", "code/")]

    assert len(corpus.documents) == 140
    assert set(reasons(corpus)) == {"over_share"}
    assert sum(one.name.startswith("code/") for one in used) == 60
    assert sizes[1] / sizes[0] == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([("one", 1.0)], "at least 2 items"),
        ([("one", 1.0), ("one", 1.0)], "two parts have one name"),
        ([("one", 1.0), ("two", 0.0)], "greater than 0"),
    ],
)
def test_a_mixture_that_is_none_is_refused(parts: list[tuple[str, float]], message: str) -> None:
    """One part, two of one name, and a weight of nothing are errors of the contract."""
    with pytest.raises(ValidationError, match=message):
        Mixture(kind="mixture", parts=tuple(Part(name=name, source=LIBRARY, weight=weight) for name, weight in parts))
