"""The main job on a small corpus: a run from contract to evidence, killed, resumed, refused, and gated."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fabric import CONTRACT, SPEC

TIMED = {"seconds", "clock", "peak_bytes"}

FULL_SPEC = SPEC.replace(
    "criteria:\n",
    """\
  data/shared_documents: {title: Shared, unit: documents, better: lower, rows: [exposure], range: [0, null]}
  training/rate_error: {title: Rate, unit: share, better: lower, rows: [step], range: [0, null]}
  training/replay_mismatches: {title: Replay, unit: steps, better: lower, rows: [replay], range: [0, null]}
  validation/step0_distance: {title: Step 0, unit: nats/token, better: lower, rows: [evaluation], range: [0, null]}
criteria:
  - {id: TOY-003, title: Disjoint, category: TOY, contract: toy, metric: data/shared_documents, op: "==", bound: 0}
  - {id: TOY-004, title: Rate, category: TOY, contract: toy, metric: training/rate_error, op: "<=", bound: 1.0e-9}
  - {id: TOY-005, title: Replay, category: TOY, contract: toy, metric: training/replay_mismatches, op: "==", bound: 0}
  - {id: TOY-006, title: Knows nothing, category: TOY, contract: toy, metric: validation/step0_distance, op: "<=", bound: 0.5}
""",
).replace("bound: 3.0", "bound: 6.0")
FULL_CONTRACT = (
    CONTRACT.replace("[TOY-001, TOY-002]", "[TOY-001, TOY-002, TOY-003, TOY-004, TOY-005, TOY-006]")
    .replace('include: ["*.txt"]', 'include: ["*.py"]')
    .replace("context: 16", "context: 32")
    .replace("samples: {prompts: 0, tokens: 4}", "samples: {prompts: 3, tokens: 6}")
)  # fmt: skip


def text(number: int) -> str:
    words = [f"{letter}{(number * 7 + at) % 13}" for at, letter in enumerate("abcdefghij")]
    lines = [f"    {word} = {words[at - 1]} + {at * number}" for at, word in enumerate(words)]
    return (
        f"def compute_{number}(value):\n"
        + "\n".join(lines)
        + f"\n    return {words[number % 10]}\n\n\nTABLE = {list(range(number, number + 20))}\n"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in {"spec/toy.yaml": FULL_SPEC, "contracts/toy.yaml": FULL_CONTRACT}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "data").mkdir()
    for number in range(60):
        (tmp_path / f"data/{number:03d}.py").write_text(text(number))
    return tmp_path


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments, "--root", str(root)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def sovereign(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(root, *arguments), capture_output=True, text=True, env=environment(), check=False)


def start(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return sovereign(root, "run", "--contract", str(root / "contracts/toy.yaml"), "--device", "cpu", *more)


def only_run(root: Path) -> Path:
    (folder,) = (root / "evidence/toy").iterdir()
    return folder


def rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return a run's rows without clocks and without its name: what two runs must share."""
    found = {}
    for path in sorted((folder / "rows").glob("*.jsonl")):
        if path.stem != "cost":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            found[path.stem] = [
                {key: value for key, value in line.items() if key not in TIMED | {"run"}} for line in lines
            ]
    return found


def weights(folder: Path) -> str:
    statement = json.loads((folder / "evidence.json").read_text())
    return next(
        one["digest"]
        for one in statement["artifacts"]
        if "model.safetensors" in one["name"] and "000010" in one["name"]
    )


def test_a_run_leaves_evidence_that_the_gate_believes(root: Path) -> None:
    """From a contract to a verdict: intent, rows, statement, statuses; every criterion has a measured value."""
    ran = start(root)
    assert ran.returncode == 0, ran.stderr
    gated = sovereign(root, "gates", "--json")
    found = {one["id"]: one for one in json.loads(gated.stdout)["evaluations"][0]["criteria"]}

    assert dict.fromkeys(found, "DISCHARGED") == {id_: one["status"] for id_, one in found.items()}, gated.stdout
    assert gated.returncode == 0
    assert all("measured" in one for one in found.values())
    assert sovereign(root, "verify").returncode == 0


def test_an_overridden_run_is_exploratory(root: Path) -> None:
    """`--set` is validated like the file, recorded in the intent, and takes the run's say away."""
    ran = start(root, "--set", "training.steps=6", "--set", "training.schedule.peak=1e-2")
    assert ran.returncode == 0, ran.stderr
    intent = json.loads((only_run(root) / "intent.json").read_text())
    gated = sovereign(root, "gates")

    assert intent["overrides"] == ["training.steps=6", "training.schedule.peak=1e-2"]
    assert intent["promise"]["training"]["schedule"]["peak"] == 0.01
    assert gated.returncode == 5
    assert "1 exploratory run(s), not counted" in gated.stdout


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--set", "training.stpes=6"], 3, "--set training.stpes=6:1:1: unknown key; did you mean steps?"),
        (["--set", "training.steps=six"], 3, "should be a valid integer"),
        (["--set", "training.schedule.peak=.nan"], 3, ".nan is not a finite number"),
        (["--set", "nonsense"], 3, "write key.path=value"),
        (["--set", "claims=[TOY-99]"], 3, "holds no criterion TOY-99"),
        (["--set", "spec=spec/none.yaml"], 3, "no readable spec at spec/none.yaml"),
        (["--set", "data.source.path=nowhere"], 3, "nowhere:1:1: no such folder"),
        (["--set", "training.steps=100000"], 7, "wrap_around is false"),
        (["--device", "cuda:7"], 7, "refused: device 'cuda:7'"),
        (["--device", "tpu"], 7, "refused: device 'tpu'"),
        (["--seed", "9"], 7, "seed 9 is not one of the contract's seeds [1, 2, 3]"),
        (["--nonsense"], 2, "No such option"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_before_anything_is_written(
    root: Path, more: list[str], code: int, message: str
) -> None:
    """A fault is one line with its place, no traceback, the documented exit code, and no evidence."""
    refused = start(root, *more)

    assert (code, False, False) == (refused.returncode, "Traceback" in refused.stderr, (root / "evidence").exists()), (
        refused.stderr
    )
    assert message in refused.stderr


def test_two_passes_without_wrap_around_are_refused_with_the_arithmetic(root: Path) -> None:
    """A corpus that would be seen twice is refused by `plan` too, and allowed where the contract says how often."""
    windows = json.loads(sovereign(root, "plan", "--contract", str(root / "contracts/toy.yaml"), "--json").stdout)[
        "train windows"
    ]
    steps = windows * 2 // 2
    asked = ["plan", "--contract", str(root / "contracts/toy.yaml"), "--set", f"training.steps={steps}"]
    refused = sovereign(root, *asked)
    allowed = sovereign(root, *asked, "--set", "training.wrap_around=true", "--set", "training.most_passes=2.0")

    assert (refused.returncode, allowed.returncode) == (7, 0), allowed.stderr
    assert f"{steps} steps x 2 sequences = {steps * 2} windows, but the train side holds {windows}" in refused.stderr


def killed_at(root: Path, moment: Any) -> Path:
    """Start a run, kill it without warning when `moment(folder)` says so, and return its folder."""
    process = subprocess.Popen(
        command(root, "run", "--contract", str(root / "contracts/toy.yaml"), "--device", "cpu"),
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        folders = list((root / "evidence/toy").glob("*")) if (root / "evidence/toy").exists() else []
        if folders and moment(folders[0]):
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return only_run(root)


def steps_written(count: int) -> Any:
    return lambda folder: (
        (folder / "rows/step.jsonl").exists() and (folder / "rows/step.jsonl").read_bytes().count(b"\n") >= count
    )


MOMENTS = {
    "as the intent stands": lambda folder: (folder / "intent.json").exists(),
    "before a checkpoint": steps_written(2),
    "after a checkpoint": steps_written(7),
    "at the last step": steps_written(10),
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    root = tmp_path_factory.mktemp("straight")
    for name, content in {"spec/toy.yaml": FULL_SPEC, "contracts/toy.yaml": FULL_CONTRACT}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "data").mkdir()
    for number in range(60):
        (root / f"data/{number:03d}.py").write_text(text(number))
    assert start(root).returncode == 0
    return rows(only_run(root)), weights(only_run(root))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_resumes_to_the_same_weights_and_rows(
    root: Path, moment: str, straight: tuple[dict[str, Any], str]
) -> None:
    """SIGKILL at any moment: the run shows as open, resumes, and ends in the same bits, each row once (CASE-23)."""
    folder = killed_at(root, MOMENTS[moment])
    if not (folder / "evidence.json").exists():  # it may have been quicker than the kill
        assert "is open" in sovereign(root, "gates").stdout
        resumed = sovereign(root, "run", "--resume", f"toy/{folder.name}", "--device", "cpu")
        assert resumed.returncode == 0, resumed.stderr

    assert straight == (rows(folder), weights(folder))
    assert sovereign(root, "verify").returncode == 0


def test_a_run_whose_code_or_data_moved_is_not_resumed(root: Path) -> None:
    """Resuming on other data would be another run: it is refused with the way out."""
    folder = killed_at(root, steps_written(2))
    (root / "data/000.py").write_text("changed = 1\n" * 30)
    resumed = sovereign(root, "run", "--resume", folder.name, "--device", "cpu")
    abandoned = sovereign(root, "abandon", folder.name, "--reason", "the data changed")

    assert (resumed.returncode, abandoned.returncode) == (7, 0), resumed.stderr
    assert "data, tokenizer: not what the intent" in resumed.stderr
    assert sovereign(root, "gates").returncode == 5


def test_a_dirty_worktree_makes_a_run_exploratory(root: Path) -> None:
    """What is not committed cannot be what was promised: the intent says which files, and the run decides nothing."""
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *arguments], check=True)
    contract = root / "contracts/toy.yaml"
    contract.write_text(contract.read_text() + "# a remark\n")
    assert start(root).returncode == 0
    intent = json.loads((only_run(root) / "intent.json").read_text())

    assert ("dirty", ["contracts/toy.yaml"]) == (intent["worktree"]["state"], intent["worktree"]["changed"])
    assert sovereign(root, "gates").returncode == 5


def test_a_damaged_corpus_is_named_and_nothing_is_trained(root: Path) -> None:
    """A flipped bit in a shard is found at open; the shard is named, and no intent is written."""
    assert sovereign(root, "plan", "--contract", str(root / "contracts/toy.yaml")).returncode == 0
    (shard,) = (root / "artifacts/corpus").glob("*/train/*.bin")
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(bytes(data))
    refused = start(root)

    assert refused.returncode == 3
    assert "shard-00000.bin" in refused.stderr
    assert not (root / "evidence").exists()


def test_two_runs_at_once_do_not_touch_each_other(root: Path) -> None:
    """Two processes start one contract together: both conclude, with the same losses and their own folders."""
    processes = [
        subprocess.Popen(
            command(root, "run", "--contract", str(root / "contracts/toy.yaml"), "--device", "cpu"),
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment(),
        )
        for _ in range(2)
    ]  # fmt: skip
    codes = [(process.communicate()[1], process.returncode)[1] for process in processes]
    one, other = sorted((root / "evidence/toy").iterdir())

    assert codes == [0, 0]
    assert rows(one) == rows(other)
    assert not list((root / "artifacts/corpus").glob(".*partial"))
    shutil.rmtree(root / "artifacts")
