"""The life of a spec: edits are classified, bounds give way only in the open, and the base remembers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fabric import CONTRACT, SPEC, intent, repository, rows, write_run
from hypothesis import given
from hypothesis import strategies as st

from sovereign.canonical import parse_yaml, validate
from sovereign.spec.criterion import Criterion, Spec
from sovereign.spec.diff import bump, classify
from sovereign.spec.lint import trivial


def sovereign(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments, "--root", str(root)],
        capture_output=True, text=True, env=os.environ, check=False,
    )  # fmt: skip


def git(root: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        check=True,
        capture_output=True,
    )


def committed(root: Path) -> Path:
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "base")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose base holds one failing run of the toy contract."""
    write_run(repository(tmp_path), said=rows(loss=3.5))
    return committed(tmp_path)


def edit_spec(root: Path, old: str, new: str, version: str = "0.1.0") -> None:
    (root / "spec/toy.yaml").write_text(SPEC.replace(old, new).replace("version: 0.1.0", f"version: {version}"))


def statuses(root: Path, *more: str) -> dict[str, str]:
    found = json.loads(sovereign(root, "gates", "--json", *more).stdout)
    return {one["id"]: one["status"] for one in found["evaluations"][0]["criteria"]}


@pytest.mark.parametrize(
    ("obligations", "told"),
    [
        ("{least_n: 10, slices: [all, code]}", "asks for slices ['code']; rows are measured whole"),
        ("{least_n: 10, assurance: witnessed}", "asks for witnessed; runs here are reported or recomputed"),
        (
            "{least_n: 10, environments: [cpu]}, environment: exact",
            "is exact about the environment, and asks for 'cpu'",
        ),
    ],
)
def test_lint_names_obligations_that_no_run_can_meet(tmp_path: Path, obligations: str, told: str) -> None:
    """What no run records is a fault of the spec, told with its reason before anybody waits for it."""
    repository(tmp_path, SPEC.replace("{least_n: 10}", obligations))
    found = sovereign(tmp_path, "spec", "lint")

    assert found.returncode == 3
    assert f"TOY-001: {told}" in found.stderr


def test_no_line_of_lint_is_the_specs_own(tmp_path: Path) -> None:
    """A spec that a fork proposes starts no line of the log: what begins with `::` there is a command to the builder.

    Caught: the name of a contract, told as it stood, ended the line and began one with `::stop-commands::`.
    """
    repository(tmp_path, SPEC.replace("contract: toy", 'contract: "toy\\n::stop-commands::x\\e[2J"'))
    found = sovereign(tmp_path, "spec", "lint")

    assert found.returncode == 3
    assert r"toy\n::stop-commands::x\x1b[2J" in found.stderr
    assert not [line for line in (found.stdout + found.stderr).splitlines() if line.startswith("::")]


# ── classification ───────────────────────────────────────────────────────────────────────────────

OLD = validate(Spec, parse_yaml(SPEC.encode(), "spec")).by_id["TOY-001"]


@pytest.mark.parametrize(
    ("update", "change"),
    [
        ({}, "same"),
        ({"title": "Else"}, "editorial"),
        ({"rationale": "Because"}, "editorial"),
        ({"bound": 2.9}, "tighten"),
        ({"op": "<"}, "tighten"),
        ({"bound": 3.1}, "loosen"),
        ({"op": ">="}, "loosen"),
        ({"metric": "training/tokens_missing"}, "loosen"),
        ({"contract": "other"}, "loosen"),
        ({"stage": "draft"}, "loosen"),
        ({"obligations": OLD.obligations.model_copy(update={"least_n": 20})}, "tighten"),
        ({"obligations": OLD.obligations.model_copy(update={"least_n": 5})}, "loosen"),
        ({"obligations": OLD.obligations.model_copy(update={"seeds": (1, 2)})}, "tighten"),
        ({"obligations": OLD.obligations.model_copy(update={"seeds": (2,)})}, "loosen"),
        ({"bound": 2.9, "obligations": OLD.obligations.model_copy(update={"least_n": 5})}, "loosen"),
        ({"max_age_days": 30}, "tighten"),
    ],
)
def test_every_edit_has_a_class(update: dict[str, object], change: str) -> None:
    """What is not strictly harder in every respect is a loosening, whatever its intention."""
    assert change == classify(OLD, OLD.model_copy(update=update))


@given(st.floats(0.1, 9), st.floats(0.1, 9), st.floats(0.1, 9), st.sampled_from(["<=", ">=", "<", ">"]))
def test_what_passes_the_tightened_passes_the_old(old: float, new: float, value: float, op: str) -> None:
    """If an edit is classed as tightening, no value holds after it that did not hold before."""
    before = OLD.model_copy(update={"op": op, "bound": old})
    after = before.model_copy(update={"bound": new})
    if classify(before, after) == "tighten":
        assert not after.holds(value, value) or before.holds(value, value)


def test_version_steps() -> None:
    """A step is named by the first number that grew; backwards is none."""
    assert [1, 2, 3, 0, -1] == [
        bump("1.2.3", later) for later in ("1.2.4", "1.3.0", "2.0.0", "1.2.3", "1.2.2")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "bound", "told"),
    [("<=", 0.5, ""), (">=", 0.5, ""), (">=", 0, "cannot fail"), ("<=", 1, "cannot fail"), (">", 1, "cannot pass"),
     ("<", 0, "cannot pass"), ("==", 2, "cannot pass"), ("==", 0, "")],
)  # fmt: skip
def test_bounds_at_the_trivial_end_are_told(op: str, bound: float, told: str) -> None:
    """A criterion that holds for every value of its metric, or for none, says nothing."""
    spec = validate(Spec, parse_yaml(SPEC.replace("range: [0, null]", "range: [0, 1]").encode(), "spec"))
    criterion: Criterion = OLD.model_copy(update={"op": op, "bound": bound})
    found = trivial(criterion, spec)

    assert (told == "") == (found == "")
    assert told in found


# ── commands ─────────────────────────────────────────────────────────────────────────────────────


def test_lint_names_line_and_fault(root: Path) -> None:
    """Each fault of a spec is one line with its place; a sound spec has none."""
    clean = sovereign(root, "spec", "lint")
    edit_spec(root, "bound: 3.0", "bound: -1.0")
    (root / "contracts/toy.yaml").write_text(CONTRACT.replace("[TOY-001, TOY-002]", "[TOY-001]"))
    faulty = sovereign(root, "spec", "lint")

    assert (0, 3) == (clean.returncode, faulty.returncode), clean.stderr
    assert (
        "spec/toy.yaml:10:1: TOY-001: validation/loss <= -1.0 holds for no value from 0 on: it cannot pass"
        in faulty.stderr
    )
    assert "TOY-002: contract toy does not claim it" in faulty.stderr


def test_a_status_cannot_be_written_into_a_spec(root: Path) -> None:
    """A status is derived; a spec that carries one is refused, at its line."""
    edit_spec(root, "title: It learns", "title: It learns, status: DISCHARGED")
    found = sovereign(root, "gates")

    assert (found.returncode, "criteria[0].status: unknown key" in found.stderr) == (3, True), found.stderr


def test_t4_with_a_base_loosening_is_invalid_until_amended(root: Path) -> None:
    """T4, T5 with a base: loosening needs an amendment that lists what had been seen, and leaves its mark."""
    edit_spec(root, "bound: 3.0", "bound: 4.0", "1.0.0")
    quiet = (statuses(root, "--base", "main")["TOY-001"], sovereign(root, "spec", "diff", "--base", "main").returncode)
    written = sovereign(
        root, "spec", "amend", "TOY-001", "--base", "main", "--reason", "too strict", "--author", "a", "--approver", "b"
    )
    (amendment,) = (root / "spec/amendments").iterdir()
    honest = statuses(root, "--base", "main")["TOY-001"]
    told = sovereign(root, "gates", "--base", "main").stdout

    assert quiet == ("INVALID", 4)
    assert written.returncode == 0, written.stderr
    assert len(json.loads(amendment.read_text())["results_seen"]) == 1
    assert honest == "OPEN"
    assert "amended after results ×1" in told
    assert "was FALSIFIED @" in told
    assert sovereign(root, "spec", "diff", "--base", "main").returncode == 0


def test_a_version_step_that_is_too_small_is_told(root: Path) -> None:
    """Loosening is a major step, adding a minor one, prose a patch."""
    edit_spec(root, "title: It learns", "title: It learns something", "0.1.0")
    still = sovereign(root, "spec", "diff", "--base", "main")
    edit_spec(root, "title: It learns", "title: It learns something", "0.1.1")

    assert (4, 0) == (still.returncode, sovereign(root, "spec", "diff", "--base", "main").returncode)
    assert "need a patch step" in still.stderr


def test_an_amendment_that_hides_results_is_invalid(root: Path) -> None:
    """`results_seen` is computed; a list that was shortened by hand is found."""
    edit_spec(root, "bound: 3.0", "bound: 4.0", "1.0.0")
    sovereign(root, "spec", "amend", "TOY-001", "--base", "main", "--reason", "r", "--author", "a", "--approver", "b")
    (path,) = (root / "spec/amendments").iterdir()
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"results_seen": []}))

    assert statuses(root)["TOY-001"] == "INVALID"


@pytest.mark.parametrize(
    "act",
    [
        "T6 a deleted result", "T7 a deleted run", "T3 rows, digests and statement rewritten", "a deleted intent",
    ],
)  # fmt: skip
def test_with_a_base_nothing_that_stood_there_may_go(root: Path, act: str) -> None:
    """T3, T5, T6, T7: what no evaluator can see alone, the base remembers: INVALID, and exit 4."""
    (folder,) = (root / "evidence/toy").iterdir()
    if act.startswith("T6"):
        (folder / "evidence.json").unlink()
    elif act.startswith("T7"):
        shutil.rmtree(folder)
    elif act.startswith("T3"):
        shutil.rmtree(folder)
        write_run(root, said=rows(loss=2.5))
    else:
        (folder / "intent.json").unlink()
    alone, against = statuses(root), statuses(root, "--base", "main")

    assert {"TOY-001": "INVALID", "TOY-002": "INVALID"} == against
    assert alone != against or act == "a deleted intent"
    assert sovereign(root, "gates", "--base", "main").returncode == 4
    assert sovereign(root, "verify", "--base", "main").returncode == 4


def test_with_a_base_only_new_red_blocks(root: Path) -> None:
    """What was FALSIFIED at the base does not block a pull request; a new failure does."""
    old = sovereign(root, "gates", "--base", "main").returncode
    write_run(root, intent("20260101T000000Z-bbbbbb", seed=2), rows(loss=2.5, tokens=31, seed=2))
    second_seed = SPEC.replace('op: "==", bound: 0}', 'op: "==", bound: 0, obligations: {seeds: [1, 2]}}')
    (root / "spec/toy.yaml").write_text(second_seed.replace("version: 0.1.0", "version: 0.2.0"))

    assert (old, sovereign(root, "gates", "--base", "main").returncode) == (0, 1)


def test_an_unresolvable_base_is_4(root: Path, tmp_path: Path) -> None:
    """A shallow clone, or a typo in the ref, disables nothing: exit 4, for every command that takes a base."""
    outside = tmp_path / "outside"
    repository(outside)

    for arguments in (["gates"], ["scoreboard"], ["verify"], ["spec", "diff"]):
        assert sovereign(root, *arguments, "--base", "nowhere").returncode == 4
    assert "nothing can be compared with it" in sovereign(root, "gates", "--base", "nowhere").stderr


def test_waivers_are_written_for_a_while_by_two_people(root: Path) -> None:
    """A waiver covers what is red today; owner and approver differ; a release may then pass over it."""
    one = ["waive", "TOY-001", "--reason", "r", "--owner", "ann"]
    alone = sovereign(root, *one, "--approver", "Ann")
    written = sovereign(root, *one, "--approver", "bob")
    released = sovereign(root, "gates", "--profile", "release")

    assert (alone.returncode, written.returncode) == (2, 0), written.stderr
    assert "someone else must approve" in alone.stderr
    assert "WAIVED(FALSIFIED)" in released.stdout
    assert released.returncode == 0
    assert sovereign(root, *one, "--approver", "bob").returncode == 2  # append-only


def test_attributes_hide_nothing_from_the_base(root: Path) -> None:
    """`export-ignore` and line-end attributes change what archives hold, not what stood at the base."""
    (root / ".gitattributes").write_text("evidence export-ignore\n*.jsonl text eol=crlf\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "attributes")
    untouched = sovereign(root, "verify", "--base", "HEAD").returncode
    (folder,) = (root / "evidence/toy").iterdir()
    shutil.rmtree(folder)

    assert (untouched, sovereign(root, "verify", "--base", "HEAD").returncode) == (0, 4)


def test_an_empty_base_compares_nothing_and_says_so(root: Path) -> None:
    """An unset variable in CI is an unresolvable base, exit 4, and never a check that is off."""
    assert {sovereign(root, command, "--base", "").returncode for command in ("gates", "verify", "scoreboard")} == {4}


def test_an_open_run_stands_before_an_amendment(root: Path) -> None:
    """Amending while a run is open would leave its result out for ever: it is refused."""
    write_run(root, intent("20260101T000000Z-bbbbbb"), outcome=None)
    edit_spec(root, "bound: 3.0", "bound: 4.0", "1.0.0")
    refused = sovereign(
        root, "spec", "amend", "TOY-001", "--base", "main", "--reason", "r", "--author", "a", "--approver", "b"
    )

    assert refused.returncode == 2
    assert "resume or abandon it" in refused.stderr


def test_an_amendment_has_another_approver(root: Path) -> None:
    """Nobody approves their own amendment: not when it is written, and not in a file."""
    edit_spec(root, "bound: 3.0", "bound: 4.0", "1.0.0")
    given = ("spec", "amend", "TOY-001", "--base", "main", "--reason", "r", "--author", "Ann", "--approver")
    alone, written = sovereign(root, *given, " ann"), sovereign(root, *given, "bob")
    (file,) = (root / "spec/amendments").glob("*.yaml")
    file.write_text(file.read_text().replace('"bob"', '"ann"'))

    assert (alone.returncode, written.returncode) == (2, 0), alone.stderr
    assert "author and approver are both 'Ann'; someone else must approve" in alone.stderr
    for command in (("verify",), ("spec", "lint"), ("gates",)):
        found = sovereign(root, *command)
        assert found.returncode == 3, command
        assert "someone else must approve" in found.stderr + found.stdout
