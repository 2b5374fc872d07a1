"""`sovereign diagnose` as its users call it: on logs of other trainers, and on runs; with exit codes that programs read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fabric import CONTRACT, SPEC, intent, repository, write_run
from simulated import Plan, observed, simulated
from test_interop_logs import LOGS

from sovereign.canonical import validate
from sovereign.cli.diagnose import FORMATS as OFFERED
from sovereign.diagnosis.findings import CLAIMS
from sovereign.diagnosis.procedure import Diagnosis
from sovereign.interop.logs import FORMATS

RUN3 = "epoch,train_loss,val_loss\n1,2.874492,3.220853\n2,1.60702,3.343305\n3,0.834745,3.59082\n"


def sovereign(*arguments: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command as a process, and hold it to its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", "from sovereign.cli.main import main; main()", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done


def written(tmp_path: Path, text: str, name: str = "log.csv") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_the_owner_is_told_something_within_one_screen(tmp_path: Path) -> None:
    """A table of three epochs: what it shows, what nobody said, and what to do next, in 40 lines of 100 columns."""
    shown = sovereign("diagnose", written(tmp_path, RUN3), cwd=tmp_path).stdout

    assert "OVERFIT: validation rises while training falls (LOW confidence)" in shown
    assert "the best evaluation is the first, at epoch 1: what was before it is not known" in shown
    assert "a factor of 15.74 in perplexity" in shown
    assert "validate before the first step" in sovereign("diagnose", "log.csv", "--json", cwd=tmp_path).stdout
    assert len(shown.splitlines()) <= 40
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("fmt", sorted(LOGS))
def test_every_known_log_is_diagnosed(tmp_path: Path, fmt: str) -> None:
    """Each format by its content and by its name; the JSON is a document of a published schema."""
    written(tmp_path, LOGS[fmt], "log")  # type: ignore[index]
    by_content = json.loads(sovereign("diagnose", "log", "--json", cwd=tmp_path).stdout)
    by_name = json.loads(sovereign("diagnose", "log", "--format", fmt, "--json", cwd=tmp_path).stdout)

    from jsonschema import Draft202012Validator

    from sovereign.canonical import Document
    from sovereign.published import schema

    assert by_content == by_name
    assert by_content["source"] == fmt
    assert validate(Diagnosis, Document("diagnosis", by_content)).plain() == by_content
    assert list(Draft202012Validator(schema("diagnosis")).iter_errors(by_content)) == []
    assert [finding["claim"] for finding in by_content["findings"]] == list(CLAIMS)


def test_the_command_offers_every_format() -> None:
    """The list in the command is spelt out, so that --help loads nothing; it is the readers' list."""
    assert OFFERED == FORMATS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("step,trian_loss,val_loss\n1,2,3\n", "trian_loss: unknown column; did you mean train_loss?"),
        ('{"series": [{"step": 1, "val_loss": "x"}]}', 'val_loss: "x" is not a number'),
        ('{"series": [{"step": 1, "val_loss": 3}], "meta": {"voacb": 5}}', "voacb: unknown key; did you mean vocab?"),
        ("", "an empty log"),
        ("hello\n", "no row of any known log"),
    ],
)
def test_a_malformed_log_exits_3_at_its_place(tmp_path: Path, text: str, says: str) -> None:
    """What cannot be read is named with its place, its value and what would be right."""
    done = sovereign("diagnose", written(tmp_path, text, "log"), cwd=tmp_path, code=3)

    assert says in done.stderr
    assert done.stdout == ""


def test_a_run_that_broke_down_is_diverged(tmp_path: Path) -> None:
    """CASE-20: a NaN is a finding here, not a malformed file."""
    shown = sovereign(
        "diagnose", written(tmp_path, "step,train_loss\n1,5.0\n2,4.0\n3,nan\n"), "--require", "DIVERGED=SUPPORTED", cwd=tmp_path
    )  # fmt: skip

    assert "not finite: train_loss: nan in line 4" in shown.stdout


def test_a_program_may_require_a_verdict(tmp_path: Path) -> None:
    """0 where it is so, 1 where the opposite is, 6 where it is open, 2 where there is no such claim."""
    written(tmp_path, RUN3)

    sovereign("diagnose", "log.csv", "--require", "OVERFIT=SUPPORTED", cwd=tmp_path)
    told = sovereign("diagnose", "log.csv", "--require", "OVERFIT=REFUTED", cwd=tmp_path, code=1).stderr
    sovereign("diagnose", "log.csv", "--require", "CONTAMINATED=REFUTED", cwd=tmp_path, code=6)
    sovereign("diagnose", "log.csv", "--require", "OVERFITTED=REFUTED", cwd=tmp_path, code=2)
    sovereign("diagnose", "nothing.csv", cwd=tmp_path, code=2)

    assert "OVERFIT is SUPPORTED, and REFUTED was required" in told


def test_text_from_a_log_commands_no_terminal(tmp_path: Path) -> None:
    """A scope, a source and a file name are untrusted: control characters and bidirectional marks are replaced."""
    evil = "mean of \x1b[2J steps \u202etxet"
    log = {
        "meta": {"train_scope": evil, "val_in_train": 0.5, "val_in_train_from": evil},
        "series": [{"step": 1, "train_loss": 2, "val_loss": 1}],
    }
    done = sovereign("diagnose", written(tmp_path, json.dumps(log), "a\x1b[31m.json"), cwd=tmp_path)

    assert "0.5" in str(log)
    assert not {"\x1b", "\u202e"} & set(done.stdout + done.stderr)
    assert "CONTAMINATED" in done.stdout


def test_a_run_of_ours_is_diagnosed_by_name_and_by_folder(tmp_path: Path) -> None:
    """contract/run, the run's id, and its folder are the same run; an unknown one is a usage error."""
    root = repository(tmp_path)
    folder = write_run(root)
    named = [
        json.loads(sovereign("diagnose", what, "--json", cwd=root).stdout)
        for what in (f"toy/{folder.name}", folder.name, folder, f"evidence/toy/{folder.name}/")
    ]

    assert all(one == named[0] for one in named)
    assert (named[0]["run"], named[0]["source"]) == (f"toy/{folder.name}", "rows")
    assert "neither a file, nor a run" in sovereign("diagnose", "toy/nothing", cwd=root, code=2).stderr


def test_a_run_without_a_loss_exits_5(tmp_path: Path) -> None:
    """Nothing was diagnosed, and that is no success."""
    folder = write_run(repository(tmp_path), said=[("notice", {"step": 0, "name": "x", "message": "x"})], outcome=None)

    assert "nothing was diagnosed" in sovereign("diagnose", folder, cwd=tmp_path, code=5).stderr


def test_a_changed_run_exits_4(tmp_path: Path) -> None:
    """A diagnosis of files that were changed after they were written is shown, and not trusted."""
    folder = write_run(repository(tmp_path))
    text = (folder / "intent.json").read_text()
    (folder / "intent.json").write_text(text.replace('"seed": 1', '"seed": 2'))

    assert "does not fit the rest" in sovereign("diagnose", folder, cwd=tmp_path, code=4).stderr


DEMANDING = SPEC.replace(
    "criteria:\n",
    "  diagnosis/BROKEN_LOADER: {title: Loader, unit: verdict, better: lower, rows: [step], words: [SUPPORTED, REFUTED, INCONCLUSIVE]}\n"
    "  diagnosis/CONTAMINATED: {title: Leak, unit: verdict, better: lower, rows: [exposure], words: [SUPPORTED, REFUTED, INCONCLUSIVE]}\n"
    "  memorization/extraction_excess: {title: Recall, unit: share, better: lower, rows: [extraction], range: [-1, 1]}\n"
    "criteria:\n"
    '  - {id: TOY-003, title: It is clean, category: TOY, contract: toy, metric: diagnosis/CONTAMINATED, op: "==", bound: REFUTED}\n'
    '  - {id: TOY-004, title: It is fed, category: TOY, contract: toy, metric: diagnosis/BROKEN_LOADER, op: "==", bound: REFUTED}\n'
    '  - {id: TOY-005, title: It recites nothing, category: TOY, contract: toy, metric: memorization/extraction_excess, op: "<=", bound: 0.03}\n',
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "statuses"),
    [
        ({}, {"TOY-003": "DISCHARGED", "TOY-004": "DISCHARGED", "TOY-005": "DISCHARGED"}),
        ({"leak": 0.03}, {"TOY-003": "FALSIFIED", "TOY-004": "DISCHARGED", "TOY-005": "DISCHARGED"}),
        ({"constant": True}, {"TOY-003": "DISCHARGED", "TOY-004": "FALSIFIED", "TOY-005": "DISCHARGED"}),
        ({"memory": 0.2}, {"TOY-003": "DISCHARGED", "TOY-004": "DISCHARGED", "TOY-005": "FALSIFIED"}),
    ],
)
def test_a_spec_may_demand_a_claim(tmp_path: Path, changes: dict[str, object], statuses: dict[str, str]) -> None:
    """`diagnosis/CONTAMINATED == REFUTED` is a criterion: a planted leak turns it red, and its clean twin green."""
    plan = Plan(steps=10, every=5, documents=400, speed=4.0, **changes)  # type: ignore[arg-type]
    contract = CONTRACT.replace("[TOY-001, TOY-002]", "[TOY-003, TOY-004, TOY-005]")
    root = repository(tmp_path, DEMANDING, contract)
    planned = observed({}, plan).intent.planned
    promise = intent(spec=DEMANDING, contract=contract, planned=planned)
    said = [
        (kind, row.model_dump(exclude={"kind", "run"}, exclude_none=True))
        for kind, rows in simulated(plan).items()
        for row in rows
    ]
    write_run(root, promise, said)
    gates = json.loads(sovereign("gates", "--json", cwd=root, code=1 if changes else 0).stdout)
    found = {one["id"]: one["status"] for spec in gates["evaluations"] for one in spec["criteria"]}

    assert statuses == {key: found[key] for key in statuses}
