"""Subjects: the code that trains is in its digest, the code that judges is not."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest
from fabric import CONTRACT, NOW, intent, repository, write_run

from sovereign import subjects
from sovereign.canonical import parse_yaml, validate
from sovereign.contract.contract import Contract
from sovereign.gate.status import CriterionStatus
from sovereign.repository import evaluate
from sovereign.repository import open_repository as opened
from sovereign.subjects import PACKAGE, code_files, evaluator_digest, source_digest, worktree

NAMES = {file.relative_to(PACKAGE).as_posix() for file in code_files()}


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_imports_are_those_of_the_syntax_tree(file: Path) -> None:
    """The quick reader of imports finds what Python's own parser finds, in every file there is."""
    expected = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            expected |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            expected |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}

    assert {name for name in expected if name.startswith("sovereign.")} == set(subjects._imports(file, ""))


@pytest.mark.parametrize(
    "name",
    ["run.py", "plan.py", "training/loop.py", "training/guards.py", "model/decoder.py", "corpus/stream.py", "corpus/split.py",
     "contract/training.py", "training/checkpoint.py"],
)  # fmt: skip
def test_what_trains_is_in_the_code_subject(name: str) -> None:
    """Editing what decides the weights dates the evidence."""
    assert name in NAMES


@pytest.mark.parametrize(
    "room", ["cli/", "report/", "gate/", "verification", "repository", "review", "history", "metrics/", "interop/"]
)
def test_what_judges_is_not(room: str) -> None:
    """Editing the command line, a report or the gate makes nothing stale."""
    assert [] == [name for name in NAMES if name.startswith(room)]


def test_the_evaluator_is_bound_apart() -> None:
    """What measures has a digest of its own."""
    assert evaluator_digest() != subjects.code_digest()


def test_line_ends_are_no_change_of_code(tmp_path: Path) -> None:
    """A checkout with Windows line ends is the same code; another character is not."""
    (tmp_path / "a.py").write_bytes(b"x = 1\ny = 2\n")
    (tmp_path / "b.py").write_bytes(b"x = 1\r\ny = 2\r\n")
    (tmp_path / "c.py").write_bytes(b"x = 1\ny = 3\n")
    one, same, other = (subjects._text_digest(tmp_path / f"{name}.py") for name in "abc")

    assert one == same != other


def test_the_worktree_says_what_is_not_committed(tmp_path: Path) -> None:
    """Clean, dirty with names, or unversioned: the intent records which."""
    file = tmp_path / "contracts.yaml"
    file.write_text("a")
    unversioned = worktree(tmp_path, [file]).state
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *arguments], check=True)
    clean = worktree(tmp_path, [file]).state
    (tmp_path / "other").write_text("b")
    elsewhere = worktree(tmp_path, [file]).state
    file.write_text("b")
    dirty = worktree(tmp_path, [file])

    assert ("unversioned", "clean", "clean") == (unversioned, clean, elsewhere)
    assert ("dirty", ("contracts.yaml",)) == (dirty.state, dirty.changed)


TEXTS = '{kind: folder, path: data, include: ["*.txt"]}'
GENERATES = "tokenizer: {kind: bpe, vocabulary: 300}\nmodel: {hidden: 16, layers: 1, heads: 2, kv_heads: 1, ffn: 32, context: 16}\n"
TUNES = "method: {kind: %s, base: {folder: base}, context: 32}\n"


@pytest.mark.parametrize(
    ("source", "method"),
    [
        ("{kind: pairs, path: data/some.jsonl}", "full"),
        ("{kind: chat, path: data/some.jsonl}", "full"),
        ("{kind: labelled, path: data/some.jsonl}", "classification"),
        ("{kind: jsonl, path: data/some.jsonl}", ""),
        ("{kind: text, path: data/some.jsonl}", ""),
        (TEXTS.replace("*.txt", "*.jsonl"), ""),
    ],
)
def test_an_edited_file_of_data_dates_the_evidence(tmp_path: Path, source: str, method: str) -> None:
    """Text, pairs, chats and labelled text: another byte in the file that a run was trained on, and it is STALE(DATA).

    Planted: without the kinds of examples among the sources, a run on pairs stays DISCHARGED whatever becomes of them.
    """
    contract = CONTRACT.replace(TEXTS, source)
    if method:
        contract = contract.replace(GENERATES, TUNES % method).replace(", samples: {prompts: 0, tokens: 4}", "")
    root = repository(tmp_path, contract=contract)
    (root / "data").mkdir()
    file = root / "data/some.jsonl"
    file.write_text('{"text": "as it was"}\n')
    promised = validate(Contract, parse_yaml(contract.encode(), "contract"))
    seen = intent(contract=contract).subjects.model_copy(update={"source": source_digest(promised, root)})
    write_run(root, intent(contract=contract, subjects=seen))
    fresh = first(root)
    file.write_text('{"text": "as it became"}\n')
    stale = first(root)

    assert ("DISCHARGED", "STALE") == (fresh.status, stale.status)
    assert "DATA" in {one.code for one in stale.reasons}


def first(root: Path) -> CriterionStatus:
    return evaluate(opened(root), NOW)[0].criteria[0]
