"""A review says what a reviewer must know, and an honest change is quiet."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from fabric import SPEC, intent, repository, rows, write_run
from test_spec_life import committed, edit_spec, git, sovereign


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_run(repository(tmp_path), said=rows(loss=2.5))
    return committed(tmp_path)


def review(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return sovereign(root, "review", "--base", "main", *more)


def test_nothing_changed_is_said(root: Path) -> None:
    """A change that touches no promise, result or waiver has a review of two lines."""
    found = review(root)

    assert found.returncode == 0, found.stderr
    assert "Nothing that was promised, shown or waived differs" in found.stdout
    assert found.stdout.startswith("<!-- sovereign-review:toy:pr -->\n")


def test_a_new_failure_is_first(root: Path) -> None:
    """A criterion that turned red stands in the review with its value, bound and reason, and the gate's exit code."""
    write_run(root, intent("20260102T000000Z-bbbbbb"), rows(loss=3.5, seed=5))
    found = review(root)

    assert found.returncode == 1
    assert "| <code>TOY-001</code> | DISCHARGED | **FALSIFIED** | 3.5" in found.stdout
    assert "### New evidence" in found.stdout
    assert "20260102T000000Z-bbbbbb" in found.stdout


def test_gone_evidence_and_quiet_edits_are_named(root: Path) -> None:
    """Deleted runs and loosened bounds are named with what would mend them."""
    (folder,) = (root / "evidence/toy").iterdir()
    shutil.rmtree(folder)
    edit_spec(root, "bound: 3.0", "bound: 4.0", "1.0.0")
    found = review(root)

    assert found.returncode == 4
    assert "### What is not so" in found.stdout
    assert "stood at the base and was removed" in found.stdout
    assert "### Criteria that may not stand as they do" in found.stdout


def test_amendments_show_what_had_been_seen(root: Path) -> None:
    """An amendment's line says how many results its author had seen."""
    edit_spec(root, "bound: 3.0", "bound: 4.0", "1.0.0")
    made = sovereign(
        root, "spec", "amend", "TOY-001", "--base", "main", "--reason", "why | <b>", "--author", "a", "--approver", "b"
    )
    found = review(root)

    assert made.returncode == 0, made.stderr
    assert "**after 1 results had been seen**" in found.stdout
    assert "<b>" not in found.stdout


def test_a_review_keeps_to_its_limit(root: Path, tmp_path: Path) -> None:
    """What does not fit into a comment is left out, and that is said."""
    for number in range(30):
        write_run(root, intent(f"20260102T000000Z-{number:06d}"), rows(loss=2.5, seed=10 + number))
    file = tmp_path / "review.md"
    found = review(root, "--limit", "2000", "--output", str(file))
    text = file.read_bytes()

    assert found.returncode == 0, found.stderr
    assert len(text) <= 2000
    assert b"did not fit into" in text


def test_the_action_and_hooks_are_sound() -> None:
    """action.yml, the workflow and the hooks parse; no input reaches a shell as script text, no fork gets a token."""
    from ruamel.yaml import YAML

    top = Path(__file__).parent.parent
    action = YAML(typ="safe").load(top / "action.yml")
    workflow = YAML(typ="safe").load(top / ".github/workflows/check.yml")
    hooks = YAML(typ="safe").load(top / ".pre-commit-hooks.yaml")
    scripts = [step["run"] for step in action["runs"]["steps"] if "run" in step]

    assert [] == [script for script in scripts if "${{" in script]
    assert all(step.get("shell") == "bash" for step in action["runs"]["steps"] if "run" in step)
    assert "pull_request_target" not in json.dumps(workflow)
    assert workflow["permissions"] == {"contents": "read"}
    for hook in hooks:
        words = [word for word in hook["entry"].split()[1:] if not word.startswith(("--", "@"))]
        assert sovereign(top, *words, "--help").returncode == 0, hook["entry"]


def test_history_of_another_branch_is_compared_with_the_merge(root: Path) -> None:
    """A branch that adds a run and nothing else is a review of one new run."""
    git(root, "checkout", "-qb", "work")
    write_run(root, intent("20260102T000000Z-bbbbbb"), rows(loss=2.4, seed=5))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "a run")
    found = review(root)

    assert found.returncode == 0, found.stderr
    assert found.stdout.count("| completed |") == 1
    assert SPEC in (root / "spec/toy.yaml").read_text()


def test_the_comment_names_its_head(root: Path) -> None:
    """A reader of the comment sees which commit it speaks of: the one checked out, or the one that CI says."""
    git(root, "commit", "-qm", "more", "--allow-empty")
    commit = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()

    assert f"Head <code>{commit}</code> against <code>main</code>" in review(root).stdout
    assert "Head <code>cafe</code>" in review(root, "--head", "cafe").stdout
    assert f"at <code>{commit}</code>" in sovereign(root, "report", "--format", "markdown").stdout
