"""CASE-08 New split of a memorized text.

Stage: before step 0
Outcome: `corpus overlap` names what of the new validation side the first phase trained on; an inherited split shares nothing
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sourced import repository, sovereign


def overlap(root: Path, other: str) -> dict[str, Any]:
    found = sovereign(root, "corpus", "overlap", "contracts/toy.yaml", f"contracts/{other}.yaml", "--json")
    assert found.returncode == 0, found.stderr
    return {side["side"]: side for side in json.loads(found.stdout)["sides"]}


def test_a_second_split_of_the_same_text_is_seen(tmp_path: Path) -> None:
    """Plant: two phases over one text, the second split with another salt; most of its validation was trained on."""
    root = repository(tmp_path)
    contract = (root / "contracts/toy.yaml").read_text().replace("contract: toy\n", "contract: second\n")
    (root / "contracts/second.yaml").write_text(contract.replace("control: 0.2}", "control: 0.2, salt: another}"))
    sides = overlap(root, "second")

    assert sides["validation"]["identical"] >= sides["validation"]["documents"] / 3
    assert sides["validation"]["covered_50"] > 0.3


def test_an_inherited_split_shares_nothing(tmp_path: Path) -> None:
    """With the first phase's salt, and more text besides, what is held out then is held out still."""
    root = repository(tmp_path)
    (root / "more").mkdir()
    for file in (root / "data").glob("*.txt"):
        (root / "more" / file.name).write_text(file.read_text())
    for number in range(60, 120):
        (root / f"more/{number}.txt").write_text(" ".join(f"w{number}x{at}" for at in range(60)))
    contract = (root / "contracts/toy.yaml").read_text().replace("contract: toy\n", "contract: second\n")
    (root / "contracts/second.yaml").write_text(contract.replace("path: data", "path: more"))
    sides = overlap(root, "second")

    assert [0, 0] == [sides[side]["identical"] for side in ("validation", "control")]
    assert sides["validation"]["covered_50"] == 0
