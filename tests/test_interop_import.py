"""An imported run says what its log said, is marked as reported, and can discharge nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fabric import CONTRACT, NOW, SPEC, edit_json, intent, repository, rows, write_run
from pydantic import ValidationError

from sovereign.canonical import Malformed, digest, digest_file, parse_yaml, sealed, validate
from sovereign.closing import close, seal
from sovereign.contract.contract import Contract
from sovereign.evidence.folder import read_folder
from sovereign.evidence.intent import Intent, Subjects
from sovereign.evidence.rows import KINDS, NoticeRow, ReportedRow, line
from sovereign.gate.admission import Current, VerifiedRun, current_is, moved
from sovereign.gate.evaluation import CriterionStatus
from sovereign.interop.logs import read_log
from sovereign.interop.reported import import_series
from sovereign.repository import evaluate, open_repository, verified_runs
from sovereign.spec.criterion import Spec
from sovereign.subjects import files_digest
from sovereign.verification import verify

REPORTED = SPEC.replace("criteria:\n", """\
  reported/validation_loss: {title: As printed, unit: nats/token, better: lower, rows: [reported], range: [0, null]}
criteria:
  - {id: TOY-003, title: It is said to learn, category: TOY, contract: toy, metric: reported/validation_loss, op: "<=", bound: 3.0}
  - {id: TOY-004, title: It is said, category: TOY, contract: toy, metric: reported/validation_loss, op: "<=", bound: 3.0,
     obligations: {assurance: reported}}
""")  # fmt: skip
CLAIMING = CONTRACT.replace("TOY-002]", "TOY-002, TOY-003, TOY-004]").replace("[1, 2, 3]", "[1]")
LOG = "step,train_loss,val_loss,lr\n0,,5.7,\n5,4.5,4.0,1e-3\n10,2.9,2.5,1e-3\n"


def sovereign(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments],
        capture_output=True, text=True, cwd=root, env=dict(os.environ), check=False,
    )  # fmt: skip


def imported(root: Path, log: str = LOG, name: str = "log.csv", contract: str = CLAIMING, **changes: Any) -> Path:
    (root / name).write_text(log)
    promise = validate(Contract, parse_yaml(contract.encode(), "contracts/toy.yaml"))
    spec = Spec.load(root / "spec/toy.yaml")
    return import_series(read_log(root / name), root / name, promise, spec, root, NOW, **changes)[0]


def statuses(root: Path) -> dict[str, CriterionStatus]:
    return {one.id: one for one in evaluate(open_repository(root), NOW)[0].criteria}


def observed(folder: Path, kind: type[ReportedRow] | type[NoticeRow]) -> list[Any]:
    return list(read_folder(folder, "x").rows[kind.model_fields["kind"].default])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repository(tmp_path, REPORTED, CLAIMING)


def test_an_imported_log_is_a_verified_run_that_discharges_nothing(root: Path) -> None:
    """A log far inside every bound leaves each criterion OPEN, those that ask only for `reported` too: it is exploratory."""
    imported(root)
    run = verified_runs(root)[0]
    found = statuses(root)

    assert ((), "reported", False) == (run.findings, run.assurance, run.intent is not None and run.intent.confirmatory)
    assert dict.fromkeys(found, ("OPEN", 1)) == {id_: (one.status, one.exploratory) for id_, one in found.items()}
    assert [("reported/validation_loss", 2.5, 1)] == [(one.metric, one.value, one.n) for one in run.measurements]


def test_a_failing_log_falsifies_nothing(root: Path) -> None:
    """Nor does a log beyond every bound: nobody promised anything before it."""
    imported(root, LOG.replace("2.5", "9.5"))

    assert {"OPEN"} == {one.status for one in statuses(root).values()}


def test_a_log_beside_a_real_run_changes_no_status(root: Path) -> None:
    """Where a real run has discharged or falsified, an import is one exploratory run more."""
    promise = intent(spec=REPORTED, contract=CLAIMING)
    write_run(root, promise, rows())
    before = statuses(root)
    imported(root, LOG.replace("2.5", "9.5"))
    after = statuses(root)

    assert "DISCHARGED" == before["TOY-001"].status
    assert {id_: (one.status, one.exploratory + 1) for id_, one in before.items()} == {
        id_: (one.status, one.exploratory) for id_, one in after.items()
    }  # fmt: skip


def test_a_reported_run_withholds_recomputed_even_where_it_is_confirmatory(root: Path) -> None:
    """Promised before step 0 and passing, a reported run discharges what asks for `reported`, and no more."""
    folder = imported(root)
    (root / "train.py").write_text("train()\n")
    code = files_digest(root, ["train.py"])
    edit_json(folder / "intent.json", lambda value: value.update(origin="callback", scripts=["train.py"]))
    edit_json(folder / "intent.json", lambda value: value["subjects"].update(code=code))
    restate(folder)
    found = statuses(root)

    assert ("OPEN", "ASSURANCE") == (found["TOY-003"].status, found["TOY-003"].reasons[0].code)
    assert "DISCHARGED" == found["TOY-004"].status


def test_a_changed_script_dates_a_reported_result(root: Path) -> None:
    """A callback's code is its script: editing it, or taking it away, makes the result STALE(CODE)."""
    test_a_reported_run_withholds_recomputed_even_where_it_is_confirmatory(root)
    codes = []
    for act in (lambda: (root / "train.py").write_text("train(more=True)\n"), lambda: (root / "train.py").unlink()):
        act()
        found = statuses(root)["TOY-004"]
        codes.append((found.status, found.reasons[0].code))

    assert [("STALE", "CODE")] * 2 == codes


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


def test_code_that_was_not_seen_is_never_fresh_and_never_another(root: Path) -> None:
    """Where nobody knows what trained (a notebook), a pass is STALE(CODE), and a failure is not outlived by new code."""
    whole = intent(spec=REPORTED, contract=CLAIMING)
    unseen = whole.subjects.model_copy(update={"code": None, "data": None, "tokenizer": None})
    run = VerifiedRun("toy", whole.run, seal(Intent, **{**dict(whole), "origin": "callback", "subjects": unseen}))
    current = Current(code="sha256:" + "1" * 64, model=whole.subjects.model, evaluator="")

    later = replace(run, scripts="sha256:" + "2" * 64)  # a script that stands there now, and did not then

    assert [(("CODE",), True)] * 2 == [
        (moved(one, whole.criteria["TOY-004"], current, NOW), current_is(one, current)) for one in (run, later)
    ]


def test_the_last_loss_counts_not_the_best(root: Path) -> None:
    """What is measured of a log is where it ended, though an earlier evaluation was lower."""
    run = verify(imported(root, LOG.replace("4.0", "2.0")), "x")

    assert [2.5] == [one.value for one in run.measurements]


def test_what_the_log_does_not_say_is_not_written(root: Path) -> None:
    """Windows, passes, code, data, device: an import leaves out what nobody told it, and names the log by digest."""
    folder = read_folder(imported(root), "x")
    assert folder.intent is not None
    assert folder.statement is not None
    subjects, planned, place = folder.intent.subjects, folder.intent.planned, folder.intent.environment

    assert (None, None, None, None) == (subjects.code, subjects.data, subjects.source, subjects.tokenizer)
    assert (10, 320, None, None, 300) == (
        planned.steps,
        planned.tokens,
        planned.windows,
        planned.passes,
        planned.vocabulary,
    )
    assert ("unknown", "unknown", None) == (place.device, place.precision, place.threads)
    assert [("log: log.csv", len(LOG))] == [(one.name, one.bytes) for one in folder.statement.artifacts]


def test_rows_say_what_the_log_said(root: Path) -> None:
    """Each row holds a line's numbers and its line; remarks and the format that was read stand beside them."""
    folder = imported(root)
    rows = observed(folder, ReportedRow)

    assert [(0, None, 5.7, 2), (5, 4.5, 4.0, 3), (10, 2.9, 2.5, 4)] == [
        (r.step, r.train_loss, r.val_loss, r.entry) for r in rows
    ]
    assert {"format", "remark"} == {row.name for row in observed(folder, NoticeRow)}


def test_a_run_of_ours_may_leave_nothing_out() -> None:
    """Only other trainers' intents may lack what a run can know: no run becomes reported, or unbound, by omission."""
    whole = intent()
    lacking: list[dict[str, Any]] = [
        {"subjects": whole.subjects.model_copy(update={name: None})} for name in ("code", "data", "tokenizer")
    ]
    lacking += [
        {"planned": whole.planned.model_copy(update={name: None})}
        for name in ("windows", "passes", "parameters", "vocabulary")
    ]
    lacking += [
        {"environment": whole.environment.model_copy(update=one)} for one in ({"threads": None}, {"device": "unknown"})
    ]
    for changes in lacking:
        with pytest.raises(ValidationError, match=r"a run's intent gives|no run of ours"):
            intent(**changes)
        found = seal(Intent, **{**dict(whole), **changes, "origin": "callback"})
        assert found.origin == "callback"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: append(f, "step", {"step": 1, "loss": 5.0, "tokens": 32, "learning_rate": 1e-3, "grad_norm": 1.0, "seconds": 0.1,
                                      "clock": 0.1, "windows": "0" * 16, "passed": 0}), "holds step rows, which nobody observed"),
        (lambda f: append(f, "evaluation", {"step": 10, "split": "validation", "document": "0" * 16, "nll": 1.0, "tokens": 10}),
         "holds evaluation rows, which nobody observed"),
        (lambda f: (edit_json(f / "intent.json", lambda v: v.update(origin="run")), restate(f)), "a run's intent gives subjects.code"),
        (lambda f: edit_json(f / "evidence.json", lambda v: v.update(sealed({**v, "steps": 9}))), "is not the last one reported"),
    ],
)  # fmt: skip
def test_a_reported_run_that_pretends_to_more_is_invalid(root: Path, edit: Any, message: str) -> None:
    """Rows that only an observed run has, the word `run`, another last step: each is found."""
    folder = imported(root)
    edit(folder)
    found = [str(one) for one in verify(folder, folder.name).findings]

    assert any(message in one for one in found), found


def append(folder: Path, kind: str, values: dict[str, Any]) -> None:
    """Add a row file, and state it as a forger would."""
    (folder / f"rows/{kind}.jsonl").write_bytes(line(KINDS[kind](run=folder.name, **values)))
    close(folder, "x", "completed", "", NOW)


def test_reported_rows_in_a_run_of_ours_are_found(root: Path) -> None:
    """A run that observes has no hearsay in it."""
    said = [*rows(), ("reported", {"step": 10, "val_loss": 1.0})]
    folder = write_run(root, intent(spec=REPORTED, contract=CLAIMING), said)

    assert any("holds reported rows" in str(one) for one in verify(folder, folder.name).findings)


def test_a_constant_log_is_a_placeholder(root: Path) -> None:
    """A loss that never moves was not measured (CASE-18)."""
    folder = imported(root, "step,train_loss\n1,2.5\n5,2.5\n10,2.5\n")

    assert any("every reported loss is 2.5" in str(one) for one in verify(folder, folder.name).findings)


def test_a_log_is_one_run(root: Path) -> None:
    """The same log is not imported twice, not under another contract either: an old score is no new model's (CASE-37)."""
    folder = imported(root)
    other = CLAIMING.replace("contract: toy", "contract: other").replace("TOY-001, TOY-002, TOY-003, TOY-004", "")
    for contract in (CLAIMING, other):
        with pytest.raises(Malformed, match=f"imported already, as toy/{folder.name}"):
            imported(root, name="copy.csv", contract=contract)

    assert [folder] == list((root / "evidence").glob("*/*"))


def test_two_seeds_of_one_log_are_twins(root: Path) -> None:
    """A log with one byte changed, imported under another seed, is found by its losses (CASE-18)."""
    contract = CLAIMING.replace("seeds: [1]", "seeds: [1, 2]")
    imported(root, contract=contract, seed=1)
    imported(root, LOG.replace("1e-3", "0.001"), contract=contract, seed=2)

    assert any("had another seed" in str(finding) for run in verified_runs(root) for finding in run.findings)


@pytest.mark.parametrize(
    ("log", "changes", "message"),
    [
        (
            LOG + "20,2.8,2.4,1e-3\n",
            {},
            "log:5:1: runs to step 20, and contract toy promises 10: it is another run's log",
        ),
        (
            '{"vocab_size": 65, "series": [{"step": 10, "val_loss": 2.5}]}',
            {},
            "a vocabulary of 65, where contract toy promises 300",
        ),
        (LOG, {"seed": 7}, "seed 7 is not one of contract toy's seeds [1]"),
        (LOG, {"contract": CLAIMING.replace("seeds: [1]", "seeds: [1, 2]")}, "give --seed"),
    ],
)
def test_the_log_of_another_run_is_refused(root: Path, log: str, changes: dict[str, Any], message: str) -> None:
    """Where the log and the contract cannot be of one run, nothing is written."""
    with pytest.raises(Malformed) as caught:
        imported(root, log, "log", **changes)

    assert message in str(caught.value)
    assert not (root / "evidence").exists()


def test_a_log_that_ends_early_is_abandoned(root: Path) -> None:
    """A log short of the planned steps is no completed run, whatever its last loss (CASE-27, CASE-30)."""
    folder = read_folder(imported(root, LOG[: LOG.index("10,")]), "x")
    assert folder.statement is not None

    assert ("abandoned", "the log ends at step 5 of 10 planned", 5) == (
        folder.statement.outcome, folder.statement.reason, folder.statement.steps,
    )  # fmt: skip


def test_training_may_reach_further_than_its_log(root: Path) -> None:
    """A trainer_state.json whose last logged step is 8 of 10 is a completed run; the loss stays that of step 8 (CASE-30)."""
    state = {"global_step": 10, "max_steps": 10, "log_history": [{"step": 8, "loss": 3.0, "epoch": 0.8}]}
    folder = imported(root, json.dumps(state), "trainer_state.json")
    rows = observed(folder, ReportedRow)

    assert [] == list(verify(folder, folder.name).findings)
    assert [(8, 3.0), (10, None)] == [(row.step, row.train_loss) for row in rows]
    assert any("the last logged loss, 3.0, is of step 8" in row.message for row in observed(folder, NoticeRow))


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def test_import_by_command(root: Path) -> None:
    """The command says which format it read, where the run lies, and that it is exploratory; every status stays OPEN."""
    (root / "train.log").write_text(
        "Iter 5: Val loss 4.000, Val took 1.2s\nIter 10: Train loss 2.900, Tokens/sec 9.9\n"
    )
    found = sovereign(root, "import", "train.log", "--contract", "contracts/toy.yaml")
    gates = json.loads(sovereign(root, "gates", "--json").stdout)["evaluations"][0]
    again = sovereign(root, "import", "train.log", "--contract", "contracts/toy.yaml")

    assert (found.returncode, "Traceback" in found.stderr) == (0, False), found.stderr
    assert "read as mlx-lm: 2 points, to step 10" in found.stdout
    assert "(reported, exploratory)" in found.stdout
    assert "N-1 updates" in found.stderr
    assert {"OPEN"} == {one["status"] for one in gates["criteria"]}
    assert [("import", "imported from a log: its intent was not frozen before step 0")] == [
        (one["origin"], one["exploratory"]) for one in gates["runs"]
    ]  # fmt: skip
    assert (0, 3) == (sovereign(root, "verify").returncode, again.returncode)


@pytest.mark.parametrize(
    ("log", "arguments", "code", "said"),
    [
        (LOG, ["--json"], 0, '"format": "csv"'),
        (LOG[: LOG.index("10,")], [], 8, "the log ends at step 5 of 10 planned"),
        (LOG.replace("2.5", "nan"), [], 3, "log:4:1: val_loss: nan is no number"),
        (LOG, ["--format", "mlx-lm"], 3, "no loss in it: read as mlx-lm"),
        (LOG, ["--format", "wandb"], 2, "wandb"),
        (LOG, ["--seed", "9"], 3, "seed 9 is not one of contract toy's seeds"),
        ("", [], 3, "an empty log"),
        (None, [], 3, "cannot be read"),
    ],
)
def test_exit_codes_of_import(root: Path, log: str | None, arguments: list[str], code: int, said: str) -> None:
    """Malformed logs exit 3 with their place, usage 2, a log that ends early 8; never a traceback."""
    if log is not None:
        (root / "log").write_text(log)
    found = sovereign(root, "import", "log", "--contract", "contracts/toy.yaml", *arguments)

    assert (found.returncode, "Traceback" in found.stderr) == (code, False), found.stderr
    assert said in found.stdout + found.stderr


def test_another_trainers_run_is_not_resumed_by_us(root: Path) -> None:
    """`run --resume` says whose run it is, and the gates name the command that closes it."""
    whole = intent(spec=REPORTED, contract=CLAIMING)
    left = seal(Intent, **{**dict(whole), "origin": "callback", "subjects": replace_none(whole.subjects)})
    write_run(root, left, [("reported", {"step": 5, "train_loss": 4.0})], outcome=None)
    resumed = sovereign(root, "run", "--resume", left.run)

    assert (2, True) == (resumed.returncode, "another trainer's run" in resumed.stderr), resumed.stderr
    assert f"sovereign abandon toy/{left.run}" in sovereign(root, "gates").stdout
    assert 0 == sovereign(root, "abandon", left.run, "--reason", "the machine went away").returncode


def replace_none(subjects: Subjects) -> Subjects:
    return subjects.model_copy(update={"code": None, "data": None, "tokenizer": None})
