"""A run of a decoder with every option: trained, replayed, sampled and read by position, as a plain one is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sourced import repository, sovereign

EVERY = "context: 16, window: 8, sinks: true, within_documents: true, experts: {count: 3, active: 2}}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the evidence of one run with all options, some samples, and loss by position."""
    root = repository(
        tmp_path_factory.mktemp("options"),
        ("context: 16}", EVERY),
        ("replay: 2}", "replay: 2, long_context: {tokens: 48, documents: 10}}"),
    )
    ran = sovereign(root, "run", "--contract", "contracts/toy.yaml", "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    assert sovereign(root, "verify").returncode == 0
    (found,) = (root / "evidence/toy").iterdir()
    return found


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows" / f"{kind}.jsonl").read_text().splitlines()]


def test_resuming_is_exact_with_every_option(folder: Path) -> None:
    """Steps repeated from a checkpoint lead to the same weights, experts and sinks among them."""
    found = rows(folder, "replay")

    assert len(found) == 2
    assert all(one["straight"] == one["replayed"] and one["straight_loss"] == one["replayed_loss"] for one in found)


def test_the_loss_is_read_by_position(folder: Path) -> None:
    """Every run of positions up to the tokens asked for, within the trained length of 16 and beyond it."""
    found = rows(folder, "position")
    documents = {one["document"] for one in found}

    assert {(0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 48)} == {
        (one["start"], one["stop"]) for one in found
    }
    assert 2 <= len(documents) <= 10
    assert len(found) == 7 * len(documents)


def test_every_document_and_probe_of_the_tokenizer_is_a_row(folder: Path) -> None:
    """Round trips are recorded for each document used, and the probe strings once."""
    assert {"exact"} == {one["round_trip"] for one in rows(folder, "corpus") if one["split"] != "left_out"}
    assert 10 == len(rows(folder, "tokenizer"))


def test_what_cannot_be_exported_says_so(folder: Path) -> None:
    """An export or a comparison that would compute without the options is refused by their names, never written."""
    root = folder.parents[2]
    found = sovereign(root, "export", f"toy/{folder.name}", "--to", "hf", "--out", "out")

    assert found.returncode == 3, found.stderr
    assert "a decoder with window, sinks, experts is no Llama" in found.stderr
    assert not (root / "out").exists()
