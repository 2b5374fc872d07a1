"""Verification bites: whatever changes the meaning of evidence is found, and what does not is left alone."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fabric import CONTRACT, FINISHED, NOW, SPEC, edit_json, intent, repository, rows, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from sovereign import verification
from sovereign.canonical import digest, digest_file, pretty, sealed
from sovereign.closing import abandon, close
from sovereign.evidence.intent import Worktree
from sovereign.gate.profile import exit_code
from sovereign.repository import evaluate, open_repository, verified_runs
from sovereign.verification import verify


def statuses(root: Path) -> dict[str, str]:
    return {one.id: one.status for one in evaluate(open_repository(root), NOW)[0].criteria}


def code(root: Path) -> int:
    return int(exit_code(evaluate(open_repository(root), NOW)))


def findings(folder: Path) -> list[str]:
    return [str(one) for one in verify(folder, folder.name).findings]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repository(tmp_path)


def test_a_clean_run_is_verified_and_discharges(root: Path) -> None:
    """The control: a run as runs are written has no findings."""
    folder = write_run(root)

    assert [] == findings(folder)
    assert {"TOY-001": "DISCHARGED", "TOY-002": "DISCHARGED"} == statuses(root)


def first(path: Path, edit: Callable[[dict[str, Any]], None], number: int = 0) -> None:
    lines = path.read_text().splitlines()
    value = json.loads(lines[number])
    edit(value)
    lines[number] = json.dumps(value)
    path.write_text("\n".join(lines) + "\n")


def restate(folder: Path) -> None:
    """Refresh every digest, as someone would who knows how evidence is built."""
    edit_json(folder / "intent.json", lambda value: value.update(sealed(value)))
    promise = json.loads((folder / "intent.json").read_text())

    def refresh(value: dict[str, Any]) -> None:
        value["intent"] = digest(promise)
        for one in value["rows"]:
            one["digest"] = digest_file(folder / one["path"])
        value.update(sealed(value))

    edit_json(folder / "evidence.json", refresh)


def metric(value: dict[str, Any], name: str = "validation/loss") -> dict[str, Any]:
    return next(one for one in value["measurements"] if one["metric"] == name)


TAMPERED: dict[str, tuple[Callable[[Path], None], int]] = {
    "T1 a metric": (lambda f: edit_json(f / "evidence.json", lambda v: metric(v).update(value=1.0, low=0.9, high=1.1)), 4),
    "T1 an interval end": (lambda f: edit_json(f / "evidence.json", lambda v: metric(v).update(high=metric(v)["high"] + 1e-6)), 4),
    "T1 n": (lambda f: edit_json(f / "evidence.json", lambda v: metric(v).update(n=400)), 4),
    "T1 a measurement left out": (lambda f: edit_json(f / "evidence.json", lambda v: v["measurements"].remove(metric(v))), 4),
    "a row": (lambda f: first(f / "rows/evaluation.jsonl", lambda v: v.update(nll=1.0)), 4),
    "a row's step, digests refreshed": (
        lambda f: (first(f / "rows/step.jsonl", lambda v: v.update(step=3)), restate(f))[0], 4),
    "T2 a metric, digests refreshed": (
        lambda f: (edit_json(f / "evidence.json", lambda v: metric(v).update(value=1.0, low=0.9, high=1.1)), restate(f))[0], 4),
    "a row of another run": (
        lambda f: first(f / "rows/step.jsonl", lambda v: v.update(run="20260101T000000Z-other")), 4),
    "a row taken away": (lambda f: (f / "rows/step.jsonl").write_text("".join(
        (f / "rows/step.jsonl").read_text().splitlines(keepends=True)[:-1])) and None, 4),
    "a row file taken away": (lambda f: (f / "rows/step.jsonl").unlink(), 4),
    "a row file cut": (lambda f: (f / "rows/step.jsonl").write_bytes((f / "rows/step.jsonl").read_bytes()[:-5]) and None, 3),
    "an unlisted file": (lambda f: (f / "notes.txt").write_text("x") and None, 4),
    "the intent's seed": (lambda f: edit_json(f / "intent.json", lambda v: v.update(seed=2)), 4),
    "the intent's bound": (
        lambda f: (edit_json(f / "intent.json", lambda v: v["criteria"]["TOY-001"].update(bound=9.0)), None)[1], 4),
    "the intent's promise": (
        lambda f: (edit_json(f / "intent.json", lambda v: v["promise"]["training"].update(clip=9.0)), restate(f))[0], 4),
    "the intent's overrides": (lambda f: edit_json(f / "intent.json", lambda v: v.update(overrides=["seed=1"])), 4),
    "T10 NaN": (lambda f: (f / "evidence.json").write_text((f / "evidence.json").read_text().replace('"steps": 10', '"steps": NaN'))
                and None, 3),
    "T10 duplicate key": (lambda f: (f / "evidence.json").write_text(
        (f / "evidence.json").read_text().replace('"steps": 10', '"steps": 10, "steps": 10')) and None, 3),
    "T10 an unknown key": (lambda f: edit_json(f / "evidence.json", lambda v: v.update(status="DISCHARGED")), 3),
    "T10 a string for a number": (lambda f: edit_json(f / "evidence.json", lambda v: v.update(steps="10")), 3),
    "T10 an unknown row key": (lambda f: (first(f / "rows/step.jsonl", lambda v: v.update(lr=1)), restate(f))[0], 3),
    "the outcome": (lambda f: edit_json(f / "evidence.json", lambda v: v.update(steps=9)), 4),
    "an outcome relabelled, resealed": (
        lambda f: (edit_json(f / "evidence.json", lambda v: v.update(steps=9)), restate(f))[0], 4),
    "finished before it began": (
        lambda f: (edit_json(f / "evidence.json", lambda v: v.update(finished="2025-01-01T00:00:00Z")), restate(f))[0], 4),
    "finished in the future": (
        lambda f: (edit_json(f / "evidence.json", lambda v: v.update(finished="2099-01-01T00:00:00Z")), restate(f))[0], 4),
    "another time to live": (
        lambda f: (edit_json(f / "intent.json", lambda v: v.update(ttl_hours=9999.0)), restate(f))[0], 4),
    "a huge integer": (lambda f: edit_json(f / "evidence.json", lambda v: v.update(steps=10**20)), 3),
    "a bare carriage return": (
        lambda f: (f / "rows/step.jsonl").write_bytes(
            (f / "rows/step.jsonl").read_bytes().replace(b"{", b"{\r", 1)) and None, 4),
    "the intent gone": (lambda f: (f / "intent.json").unlink(), 3),
    "malformed intent": (lambda f: (f / "intent.json").write_text("{") and None, 3),
}  # fmt: skip


@pytest.mark.parametrize("act", TAMPERED)
def test_tampering_is_invalid(root: Path, act: str) -> None:
    """Whatever changes what evidence says is INVALID, and exits 4, or 3 where the file is malformed."""
    tamper, expected = TAMPERED[act]
    folder = write_run(root)
    tamper(folder)

    assert "INVALID" in statuses(root).values(), findings(folder)
    assert expected == code(root)


def test_t9_evidence_copied_as_another_run_is_invalid(root: Path) -> None:
    """A folder under another name is not another run, not even with its documents relabelled."""
    folder = write_run(root)
    copy = folder.with_name("20260101T000000Z-bbbbbb")
    shutil.copytree(folder, copy)
    for document in ("intent.json", "evidence.json"):
        edit_json(copy / document, lambda value: value.update(run=copy.name))
    restate(copy)

    assert any("belongs to run" in one for one in findings(copy))


def test_scripted_twins_are_found(root: Path) -> None:
    """Two seeds with the same losses to the last digit were not two runs (CASE-18)."""
    write_run(root)
    write_run(root, intent("20260101T000000Z-bbbbbb", seed=2), rows(seed=1))

    assert {"TOY-001": "INVALID", "TOY-002": "INVALID"} == statuses(root)


def test_t12_layout_means_nothing(root: Path) -> None:
    """Re-indenting JSON, or giving it Windows line ends, changes no status."""
    folder = write_run(root)
    for name in ("intent.json", "evidence.json"):
        value = json.loads((folder / name).read_text())
        (folder / name).write_bytes(json.dumps(value, indent=7).replace("\n", "\r\n").encode())

    assert [] == findings(folder)
    assert {"TOY-001": "DISCHARGED", "TOY-002": "DISCHARGED"} == statuses(root)


def test_t4_t5_a_loosened_bound_is_stale_or_still_red(root: Path) -> None:
    """Loosening after a pass makes it STALE; after a failure, the failure stands."""
    write_run(root)
    loose = SPEC.replace("bound: 3.0", "bound: 4.0")
    (root / "spec/toy.yaml").write_text(loose)
    passed = statuses(root)["TOY-001"]
    shutil.rmtree(root / "evidence")
    write_run(root, said=rows(loss=3.5))

    assert ("STALE", "FALSIFIED") == (passed, statuses(root)["TOY-001"])


def test_t6_a_deleted_result_leaves_an_unconcluded_run(root: Path) -> None:
    """Taking away the closing statement leaves an intent that never concluded, and nothing discharged."""
    folder = write_run(root, said=rows(loss=3.5))
    (folder / "evidence.json").unlink()
    evaluation = evaluate(open_repository(root), NOW)[0]

    assert ("OPEN", "open") == (evaluation.criteria[0].status, evaluation.runs[0].state)


def test_t8_a_changed_contract_is_stale(root: Path) -> None:
    """The contract's sections are part of the subject: editing them dates the evidence."""
    write_run(root)
    (root / "contracts/toy.yaml").write_text(
        (root / "contracts/toy.yaml").read_text().replace("hidden: 16", "hidden: 32")
    )

    assert {"TOY-001": "STALE", "TOY-002": "STALE"} == statuses(root)


def test_t15_too_few_documents_are_partial(root: Path) -> None:
    """Fewer units than were declared withhold DISCHARGED, and the remainder is named."""
    write_run(root, said=rows(documents=5))
    found = evaluate(open_repository(root), NOW)[0].criteria[0]

    assert ("PARTIAL", "n=5 of 10") == (found.status, found.reasons[0].text)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: [(k, v | {"loss": 1.0} if k == "step" else v) for k, v in r], "every step has the loss 1.0"),
        (
            lambda r: [(k, v | {"clock": 1.0 / v["step"]} if k == "step" else v) for k, v in r],
            "the clock runs backwards",
        ),
        (lambda r: [(k, v | {"seconds": 0.0} if k == "step" else v) for k, v in r], "a step took no time"),
        (lambda r: [(k, v | {"tokens": 10**15} if k == "step" else v) for k, v in r], "is more than any device does"),
        (lambda r: r[1:], "step rows are not 1 to 10"),
        (lambda r: r[:-1], "are not those of the first evaluation"),
        (lambda r: [*r, r[-1]], "is scored twice at step 10"),
    ],
)
def test_what_no_run_shows_is_found(root: Path, edit: Any, message: str) -> None:
    """Rows that were never observed give themselves away (CASE-15, 18, 21)."""
    folder = write_run(root, said=edit(rows()))

    assert any(message in one for one in findings(folder)), findings(folder)


def test_an_uncommitted_or_overridden_run_decides_nothing(root: Path) -> None:
    """A run from a dirty worktree is exploratory: shown, counted, and without a say."""
    write_run(root, intent(worktree=Worktree(state="dirty", changed=("contracts/toy.yaml",))), rows(loss=9.0))
    found = evaluate(open_repository(root), NOW)[0].criteria[0]

    assert ("OPEN", 1) == (found.status, found.exploratory)


def test_an_abandoned_run_is_kept_and_decides_nothing(root: Path) -> None:
    """A run that died is closed with its reason; the row that the crash cut off is dropped, the rest stays."""
    folder = write_run(root, said=[row for row in rows(loss=9.0) if row[1]["step"] < 8], outcome=None)
    with (folder / "rows/step.jsonl").open("ab") as file:
        file.write(b'{"run": "20')
    abandon(root, folder.name, "the machine went away", FINISHED)
    evaluation = evaluate(open_repository(root), NOW)[0]

    assert [] == findings(folder)
    assert ("OPEN", "abandoned", "the machine went away") == (
        evaluation.criteria[0].status, evaluation.runs[0].state, evaluation.runs[0].reason,
    )  # fmt: skip


def test_another_evaluator_that_agrees_leaves_evidence_fresh(root: Path) -> None:
    """Evidence from an earlier evaluator is measured again: equal numbers stand, others are STALE(EVALUATOR)."""
    older = intent().subjects.model_copy(update={"evaluator": digest("older")})
    folder = write_run(root, intent(subjects=older))
    agreeing = statuses(root)["TOY-001"]
    edit_json(folder / "evidence.json", lambda value: metric(value).update(value=2.0, low=1.9, high=2.1))
    restate(folder)

    assert ("DISCHARGED", "STALE") == (agreeing, statuses(root)["TOY-001"])


def meaning(folder: Path) -> Any:
    """Return what a folder says, whatever its layout: parsed documents, and raw rows."""
    try:
        return [
            (path.name, json.loads(path.read_bytes()) if path.suffix == ".json" else path.read_bytes())
            for path in sorted(folder.rglob("*")) if path.is_file()
        ]  # fmt: skip
    except ValueError:
        return None


@pytest.mark.parametrize("part", range(4))
def test_no_single_byte_leaves_another_meaning_unnoticed(root: Path, part: int) -> None:
    """500 random one-byte edits a part: each is found, or changed nothing that the documents say."""
    folder = write_run(root)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    original = meaning(folder)
    drawn = random.Random(part)
    unnoticed = []
    for _ in range(500):
        path = drawn.choice(files)
        data = path.read_bytes()
        at = drawn.randrange(len(data))
        edited = data[:at] + bytes([data[at] ^ (1 << drawn.randrange(8))]) + data[at + 1 :]
        path.write_bytes(edited)
        if not verify(folder, folder.name).findings and meaning(folder) != original:
            unnoticed.append((path.name, at, edited[max(0, at - 20) : at + 20]))
        path.write_bytes(data)

    assert [] == unnoticed


def test_a_row_of_another_run_is_found(root: Path) -> None:
    """Rows carry their run's id, so that none is moved from one folder to another."""
    folder = write_run(root)
    first(folder / "rows/step.jsonl", lambda value: value.update(run="20260101T000000Z-other"))
    (folder / "evidence.json").unlink()
    with pytest.raises(Exception, match="belongs to run 20260101T000000Z-other"):
        close(folder, "evidence/toy/x", "completed", "", FINISHED)

    assert not (folder / "evidence.json").exists()


def test_verified_runs_do_not_depend_on_where_they_lie(root: Path, tmp_path: Path) -> None:
    """The same evidence in another checkout verifies to the same values."""
    write_run(root)
    other = tmp_path / "elsewhere"
    shutil.copytree(root / "evidence", other / "evidence")
    first_run, second_run = verified_runs(root)[0], verified_runs(other)[0]

    assert first_run == replace(second_run)
    assert pretty([one.plain() for one in first_run.measurements]) == pretty(
        [one.plain() for one in second_run.measurements]
    )


def test_giving_up_a_finished_run_hides_nothing(root: Path) -> None:
    """A failing run whose training was done stays FALSIFIED, relabelled `abandoned` and resealed or not."""
    folder = write_run(root, said=rows(loss=9.0))
    edit_json(folder / "evidence.json", lambda value: value.update(outcome="abandoned", reason="power cut"))
    restate(folder)

    assert statuses(root)["TOY-001"] == "FALSIFIED"


def test_a_linked_run_is_no_run(root: Path, tmp_path: Path) -> None:
    """A folder that leads elsewhere is not evidence of this repository."""
    folder = write_run(root)
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)

    assert {"TOY-001": "INVALID", "TOY-002": "INVALID"} == statuses(root)


def test_too_few_exposures_are_found(root: Path) -> None:
    """Exposures count every window that the steps consume."""
    listed = ("exposure", {"document": "0" * 16, "windows": 1, "consumed": 19, "most": 2})
    folder = write_run(root, said=[*rows(), listed])

    assert any("exposures add up to fewer than the 20 windows" in one for one in findings(folder))


def test_a_completed_run_took_all_its_steps(root: Path) -> None:
    """`completed` with fewer steps than planned is not so, though rows and statement agree (CASE-27)."""
    folder = write_run(root, said=[row for row in rows() if row[0] != "step" or row[1]["step"] < 10])

    assert any("completed with 9 of 10 planned steps" in one for one in findings(folder))


def test_only_a_rise_ends_a_run_early(root: Path) -> None:
    """A run that may stop early, and says that it did, is believed where its evaluations rose, and nowhere else."""
    contract = CONTRACT.replace(
        "checkpoint_every: 4", "checkpoint_every: 5\n  early_stopping: {patience: 1, rise: 0.02}"
    )
    short = [row for row in rows() if row[0] == "step" and row[1]["step"] < 6]
    scored = [row for row in rows() if row[0] == "evaluation"]

    def stopped(rise: float) -> list[str]:
        shutil.rmtree(root / "evidence", ignore_errors=True)
        last = [
            (kind, row | ({"step": 5, "nll": row["nll"] + 10 * rise} if row["step"] else {})) for kind, row in scored
        ]
        promised = intent(contract=contract)
        return findings(write_run(root, promised, [*short, *last], reason="stopped early at step 5"))

    assert not [one for one in stopped(2.0) if "planned steps" in one]
    assert [one for one in stopped(0.0) if "completed with 5 of 10 planned steps" in one]


def test_renaming_the_spec_forgets_nothing(root: Path) -> None:
    """T11: evidence that was held to a spec which is gone under that name is an integrity finding."""
    write_run(root)
    (root / "spec/toy.yaml").write_text(SPEC.replace("spec: toy", "spec: other"))

    assert code(root) == 4


def test_a_name_means_one_file(root: Path) -> None:
    """Two specs, or two contracts, of one name are a fault: the last one read would decide."""
    write_run(root)
    (root / "spec/zz.yaml").write_text(SPEC)
    (root / "contracts/toy.yml").write_text((root / "contracts/toy.yaml").read_text())
    told = [str(one) for one in open_repository(root).problems]

    assert ["spec/zz.yaml:2:1: spec: toy is what spec/toy.yaml is called; a name means one file",
            "contracts/toy.yml:2:1: contract: toy is what contracts/toy.yaml is called; a name means one file"] == told  # fmt: skip
    assert code(root) == 3


VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    ["", "x", "step", "sha256:" + "0" * 64, "2026-01-01T00:00:00Z", "\u00e9", [], {}, ["all"], 1.0, 2.0**53]
)  # fmt: skip


@cache
def documents() -> dict[str, list[Any]]:
    """Return real documents and rows of every kind that a toy run writes, by the name of their schema."""
    with tempfile.TemporaryDirectory() as place:
        folder = write_run(repository(Path(place)))
        found = {name: [json.loads((folder / f"{name}.json").read_text())] for name in ("intent", "evidence")}
        for file in folder.glob("rows/*.jsonl"):
            found[f"row-{file.stem}"] = [json.loads(line) for line in file.read_text().splitlines()[:3]]
        return found


@settings(max_examples=300)
@given(st.data())
def test_the_two_readers_of_the_schemas_agree(data: st.DataObject) -> None:
    """What the compiled reader lets pass or refuses, `jsonschema` does: a document with any one value replaced, or a key more.

    Caught: the compiled reader handed a laxer schema, open to more keys.
    """
    name = data.draw(st.sampled_from(sorted(documents())))
    value = json.loads(json.dumps(data.draw(st.sampled_from(documents()[name]))))
    part = value
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(part[key], dict | list) and part[key] and data.draw(st.booleans()):
            part = part[key]
            continue
        change = data.draw(st.sampled_from(["keep", "replace", "remove", "add"]))
        if change == "replace":
            part[key] = data.draw(VALUES)
        elif change == "remove":
            del part[key]
        elif change == "add" and isinstance(part, dict):
            part[data.draw(st.sampled_from(["more", "schema", "kind", ""]))] = data.draw(VALUES)
        break

    assert verification._explainer(name).is_valid(value) == verification._reader(name).is_valid(value)


def test_what_the_readers_object_to_is_told_with_its_place(root: Path) -> None:
    """An objection names the path within the document, and a document that both take has none."""
    folder = write_run(root)
    value = json.loads((folder / "evidence.json").read_text())
    value["rows"][0]["count"] = -1

    assert [] == list(verification._objections("intent", json.loads((folder / "intent.json").read_text()), "x"))
    assert ["x: $.rows[0].count: -1 is less than the minimum of 0"] == [
        str(one) for one in verification._objections("evidence", value, "x")
    ]
