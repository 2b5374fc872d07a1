"""CASE-02 Contract lines no parser reads.

Stage: contract load
Outcome: refused (exit 3): every key is consumed or unknown, at any level; a spec without a criterion evaluates to exit 5
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from fabric import CONTRACT, SPEC
from sourced import repository, sovereign

from sovereign.canonical import Document, Malformed, parse_yaml, validate
from sovereign.contract.contract import Contract
from sovereign.spec.criterion import Spec

BLOCKS = [
    (Contract, CONTRACT, ("data", "split")),
    (Contract, CONTRACT, ("training", "schedule")),
    (Contract, CONTRACT, ("evaluation", "samples")),
    (Spec, SPEC, ("criteria", 0, "obligations")),
]


@pytest.mark.parametrize(("kind", "text", "keys"), BLOCKS, ids=lambda one: str(one) if isinstance(one, tuple) else "")
def test_a_block_that_moved_up_a_level_is_refused(kind: type, text: str, keys: tuple[str | int, ...]) -> None:
    """Plant: a block stands one mapping higher than where it is read; it is named there, and not dropped."""
    document = parse_yaml(text.encode(), "file.yaml")
    value = copy.deepcopy(document.value)
    holder = value
    for key in keys[:-1]:
        holder = holder[key]
    value[keys[-1]] = holder.pop(keys[-1])

    with pytest.raises(Malformed, match=f"{keys[-1]}: unknown key"):
        validate(kind, Document("file.yaml", value, document.place))


@pytest.mark.parametrize("block", ["invariants", "gates", "falsification"])
def test_blocks_of_another_schema_are_refused(block: str) -> None:
    """Plant: the blocks that vanished in the case, at the top of a contract and of a spec."""
    for kind, text in ((Contract, CONTRACT), (Spec, SPEC)):
        document = parse_yaml(f"{text}{block}: [{{rule: loss falls}}]\n".encode(), "file.yaml")

        with pytest.raises(Malformed, match=f"{block}: unknown key"):
            validate(kind, document)


def test_no_check_at_all_is_no_pass(tmp_path: Path) -> None:
    """Plant: a spec whose criteria are gone, and a contract that claims none: nothing was evaluated, and it says so."""
    root = repository(tmp_path, ("[TOY-001, TOY-002]", "[]"))
    (root / "spec/toy.yaml").write_text(SPEC.split("criteria:")[0] + "criteria: []\n")
    found = sovereign(root, "gates")

    assert found.returncode == 5, found.stdout + found.stderr


def test_a_criterion_that_no_contract_claims_is_a_fault(tmp_path: Path) -> None:
    """Plant: one of the two claims is dropped; lint names the criterion that no run would be held to."""
    root = repository(tmp_path, ("[TOY-001, TOY-002]", "[TOY-001]"))
    found = sovereign(root, "spec", "lint")

    assert found.returncode == 3
    assert "TOY-002: contract toy does not claim it: no run would be held to it" in found.stderr
