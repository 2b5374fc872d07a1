"""`sovereign export` on a real run: files, digests, card, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fabric import CONTRACT, repository

from sovereign.canonical import digest_file
from sovereign.shipping.gguf_model import read_gguf_model
from sovereign.shipping.runs import open_model

SPDX = "Apache-2.0"


def sovereign(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments, "--root", str(root)]
    return subprocess.run(call, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one concluded run of the toy contract."""
    made = repository(
        tmp_path_factory.mktemp("root"), contract=CONTRACT.replace("title: A toy", 'title: "A <toy> | [x](y)"')
    )
    (made / "data").mkdir()
    names = [
        "alpha",
        "bravo",
        "charlie",
        "delta",
        "echo",
        "foxtrot",
        "golf",
        "hotel",
        "india",
        "juliett",
        "kilo",
        "lima",
    ]
    for number in range(60):
        lines = [f"{names[(number + at) % 12]} = {names[(number * 5 + at) % 12]} + {at * number}" for at in range(12)]
        (made / f"data/{number:03d}.txt").write_text("\n".join(lines) + "\n")
    ran = sovereign(made, "run", "--contract", str(made / "contracts/toy.yaml"), "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    return made


def run_of(root: Path) -> str:
    (folder,) = (root / "evidence/toy").iterdir()
    return f"toy/{folder.name}"


def test_a_gguf_file_is_written_with_its_provenance(root: Path, tmp_path: Path) -> None:
    """The digest printed is the file's; the run, its weights and the licence stand inside; the weights are the best checkpoint's."""
    said = sovereign(
        root, "export", run_of(root), "--to", "gguf", "--out", str(tmp_path / "a.gguf"), "--license", SPDX, "--json"
    )
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    found = read_gguf_model(tmp_path / "a.gguf")
    ours = open_model(run_of(root), root)

    assert told["files"]["a.gguf"]["digest"] == digest_file(tmp_path / "a.gguf")
    assert (told["run"], set(told["types"].values())) == (run_of(root), {"F32"})
    assert all(found.tensor(name).equal(ours.tensor(name)) for name in ours.stored)
    held = (tmp_path / "a.gguf").read_bytes()
    assert all(one.encode() in held for one in (run_of(root), told["weights"], SPDX))


def test_a_folder_carries_a_card_with_the_evidence(root: Path) -> None:
    """The card lists every claim with its status and every measurement, names run, data and licence, and escapes what it quotes."""
    said = sovereign(root, "export", run_of(root), "--to", "hf", "--json")
    assert said.returncode == 0, said.stderr
    folder = Path(json.loads(said.stdout)["path"])
    card = (folder / "README.md").read_text()
    statement = json.loads((root / "evidence" / run_of(root) / "evidence.json").read_text())

    assert folder.is_relative_to(root / "artifacts" / run_of(root) / "export")
    assert re.search(r"DISCHARGED|FALSIFIED|PARTIAL|STALE", card)
    assert all(one in card for one in ("TOY-001", "TOY-002", run_of(root), 'license: "unknown"', "not declared"))
    assert all(f"<code>{one['metric'].replace('_', '&#95;')}</code>" in card for one in statement["measurements"])
    assert "<toy>" not in card
    assert "](y)" not in card


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nothing", "--to", "gguf"), 3, "no run under evidence"),
        (("RUN", "--to", "hf", "--quantize", "q4_k", "--out", "elsewhere"), 7, "needs --to gguf"),
        (("RUN", "--to", "gguf", "--quantize", "q8_0", "--out", "elsewhere"), 7, "cannot be q8_0"),
        (("RUN", "--to", "gguf", "--checkpoint", "3"), 3, "no whole checkpoint of step 3"),
        (("RUN", "--to", "onnx"), 2, "onnx"),
    ],
)
def test_what_cannot_be_exported_is_said(
    root: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """Each refusal has its exit code and names the value; nothing is written."""
    given = [run_of(root) if one == "RUN" else str(tmp_path / one) if one == "elsewhere" else one for one in arguments]
    told = sovereign(root, "export", *given)

    assert (told.returncode, said in told.stderr) == (code, True), told.stderr
    assert [] == list(tmp_path.iterdir())


def test_weights_that_are_not_the_statements_are_refused(root: Path, tmp_path: Path) -> None:
    """A checkpoint edited after the run closed, its own marker mended with it, is not exported under the run's name."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (checkpoint,) = list((copy / "artifacts" / run_of(copy) / "checkpoints").glob("step-*"))[-1:]
    file = checkpoint / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    marker = json.loads((checkpoint / "COMPLETE").read_text())
    marker["model.safetensors"]["sha256"] = digest_file(file)
    (checkpoint / "COMPLETE").write_text(json.dumps(marker))
    told = sovereign(copy, "export", run_of(copy), "--to", "gguf", "--out", str(tmp_path / "a.gguf"))

    assert (told.returncode, "not the file that the run's statement lists" in told.stderr) == (3, True), told.stderr
