"""Inspection: what a person is told of a corpus is what a slow count finds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fabric import CONTRACT, SPEC
from hypothesis import given
from hypothesis import strategies as st

from sovereign.canonical import shown
from sovereign.corpus.repeats import longest_repeats

DOCUMENTS = st.lists(st.lists(st.integers(0, 3), max_size=25), min_size=1, max_size=5)


def common(one: list[int], other: list[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def slow_longest(documents: list[list[int]]) -> int:
    """Return the length of the longest run that stands twice, by comparing every place with every other."""
    suffixes = [ids[at:] for ids in documents for at in range(len(ids))]
    return max(
        (common(suffixes[i], suffixes[j]) for i in range(len(suffixes)) for j in range(i)),
        default=0,
    )


@given(DOCUMENTS)
def test_the_longest_repeat_is_the_longest(documents: list[list[int]]) -> None:
    """Its length is that of a search through all pairs of places; each one told really stands at both its places."""
    found = longest_repeats([np.array(ids, dtype=np.uint16) for ids in documents], 3)
    joined = [token for ids in documents for token in ids]
    ends = np.cumsum([len(ids) for ids in documents])

    assert slow_longest(documents) == (found[0].length if found else 0)
    assert [one.length for one in found] == sorted((one.length for one in found), reverse=True)
    for one in found:
        assert joined[one.first : one.first + one.length] == joined[one.second : one.second + one.length]
        assert one.first != one.second
        for place in (one.first, one.second):
            assert np.searchsorted(ends, place, "right") == np.searchsorted(ends, place + one.length - 1, "right")


def test_a_planted_passage_is_found_first() -> None:
    """Eighty tokens copied from one document into another lead the list, with both places."""
    draw = np.random.default_rng(0)
    documents = [draw.integers(0, 1000, 2000) for _ in range(4)]
    documents[3][500:580] = documents[1][100:180]
    first = longest_repeats(documents, 1)[0]

    assert (80, 2100, 6500) == (first.length, first.first, first.second)


# ── the commands ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in {"spec/toy.yaml": SPEC, "contracts/toy.yaml": CONTRACT}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "data").mkdir()
    for number in range(60):
        (tmp_path / f"data/{number:02d}.txt").write_text(" ".join(f"w{number}x{at}" for at in range(60)))
    (tmp_path / "data/twin.txt").write_text((tmp_path / "data/00.txt").read_text())
    (tmp_path / "data/broken.txt").write_bytes(b"\xff")
    return tmp_path


def corpus(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from sovereign.cli.main import main; main()", "corpus", *arguments, "--root", "."]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


def test_build_inspect_and_overlap_by_hand(root: Path) -> None:
    """The three commands agree with each other, count what was left out, and find a re-split text in its own train side."""
    (root / "contracts/again.yaml").write_text(
        CONTRACT.replace("contract: toy", "contract: again").replace(
            "split: {validation: 0.2, control: 0.2}", "split: {validation: 0.2, control: 0.2, salt: another}"
        )
    )
    made = corpus(root, "build", "--contract", "contracts/toy.yaml", "--json")
    assert made.returncode == 0, made.stderr
    folder = json.loads(made.stdout)["folder"]
    seen = json.loads(corpus(root, "inspect", folder, "--json").stdout)
    by_contract = json.loads(corpus(root, "inspect", "contracts/toy.yaml", "--json").stdout)
    apart = json.loads(corpus(root, "overlap", folder, folder, "--json").stdout)
    resplit = json.loads(corpus(root, "overlap", folder, "contracts/again.yaml", "--json").stdout)
    sides = {side["side"]: side for side in resplit["sides"]}

    assert seen == by_contract
    assert {"exact_duplicate": 1, "not_utf8": 1} == seen["left_out"]
    assert 60 == sum(side["documents"] for side in seen["sides"].values())
    assert 3 == len(seen["samples"])
    assert [0, 0] == [side["identical"] for side in apart["sides"] if side["side"] != "train"]
    # CASE-08: split again with another salt, most of what is held out was trained on before
    assert sides["validation"]["identical"] > 0
    assert sides["validation"]["covered_50"] > 0.3


def test_the_commands_speak_to_people(root: Path) -> None:
    """Without --json: counts, reasons and repeats in words; a contract that leaves a side empty is refused with 7."""
    seen = corpus(root, "inspect", "contracts/toy.yaml")
    lapped = corpus(root, "overlap", "contracts/toy.yaml", "contracts/toy.yaml")
    (root / "contracts/toy.yaml").write_text(
        CONTRACT.replace("validation: 0.2, control: 0.2", "validation: 1.0e-6, control: 0.2")
    )
    refused = corpus(root, "build", "--contract", "contracts/toy.yaml")

    assert "left out: 1 exact_duplicate" in seen.stdout
    assert "longest repeats among" in seen.stdout
    assert "validation above control, 50 tokens: +0.00%" in lapped.stdout
    assert 7 == refused.returncode
    assert "refused: 60 documents in 60 clusters split into" in refused.stderr


def test_a_document_does_not_steer_the_terminal() -> None:
    """Escapes and control characters of a text are shown, not obeyed."""
    assert shown("a\x1b[31mred\r\n\u202eb") == r"a\x1b[31mred\r\n\u202eb"
    assert shown("a\nb", lines=True) == "a\nb"
