"""CASE-01 Misspelled key dropped.

Stage: contract load
Outcome: refused (exit 3) at its line, with the key that was probably meant, whichever key of a contract or spec it is
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabric import CONTRACT, SPEC
from sourced import repository, sovereign
from tuned import PAIRS, tuned

from sovereign.canonical import Document, Malformed, parse_yaml, validate
from sovereign.contract.contract import Contract
from sovereign.spec.criterion import Spec

FILES = {
    "contract": (Contract, CONTRACT),
    "tuning contract": (Contract, tuned("toy", PAIRS, "lora")),
    "spec": (Spec, SPEC),
}


def places(value: Any, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every key that a schema names; metrics are named by their authors."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        if isinstance(value, dict) and keys != ("metrics",):
            yield (*keys, key)
        yield from places(one, (*keys, key))


def swapped(document: Document, keys: tuple[str | int, ...]) -> tuple[Document, str]:
    """Plant: the last two letters of one key change places."""
    value = copy.deepcopy(document.value)
    holder = value
    for key in keys[:-1]:
        holder = holder[key]
    right = str(keys[-1])
    wrong = right[:-2] + right[:-3:-1] if right[-1] != right[-2] else right[:-1] + "x"
    renamed = {wrong if key == right else key: one for key, one in holder.items()}
    holder.clear()
    holder.update(renamed)
    return Document(document.path, value, document.place), wrong


@pytest.mark.parametrize("name", FILES)
def test_every_key_is_named_where_it_is_misspelt(name: str) -> None:
    """One variant a key, at every depth: each is refused as unknown, and the key that was meant is named."""
    kind, text = FILES[name]
    document = parse_yaml(text.encode(), "file.yaml")
    found = list(places(document.value))
    for keys in found:
        planted, wrong = swapped(document, keys)
        with pytest.raises(Malformed) as refused:
            validate(kind, planted)

        assert f"{wrong}: unknown key; did you mean {keys[-1]}?" in str(refused.value)
    assert len(found) > 20


def test_it_ends_the_command(tmp_path: Path) -> None:
    """Plant: `sequence_length`, of another trainer, where this one has `sequences`; nothing is trained or written."""
    root = repository(tmp_path, ("sequences: 2", "sequence_length: 2"))
    found = sovereign(root, "run", "--contract", "contracts/toy.yaml", "--device", "cpu")

    assert found.returncode == 3
    assert "contracts/toy.yaml:15:3: training.sequence_length: unknown key; did you mean sequences?" in found.stderr
    assert not (root / "evidence").exists()
