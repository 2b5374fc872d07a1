"""`sovereign parity` as a process: exit codes, the JSON, what is refused, and what stays unshown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fabric import holding
from gguf_edit import rewritten
from trained import source, trained

from sovereign.evidence.rows import read_rows
from sovereign.parity.llamacpp import Missing, library
from sovereign.shipping.export import export_folder, export_gguf

try:
    library()
    ENGINE = True
except Missing:
    ENGINE = False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold a Hugging Face folder, a sound and a faulty GGUF file of one decoder, and 40 prompts."""
    made = tmp_path_factory.mktemp("models")
    (made / "spec").mkdir()
    export_folder(trained(), made / "hf", "f32", b"# card\n")
    export_gguf(trained(), made / "sound.gguf", "q4_k", {"general.name": "a"})
    rewritten(made / "sound.gguf", made / "faulty.gguf", tensors={"blk.1.attn_norm.weight": lambda one: one * 1.02})
    lines = [line for text in source() for line in text.splitlines(keepends=True)]
    texts = ["".join(lines[at : at + 30]) for at in range(0, 40 * 100, 100)]
    (made / "prompts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    return made


def sovereign(folder: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    call = [
        sys.executable,
        "-c",
        "from sovereign.cli.main import main; main()",
        "parity",
        *arguments,
        "--root",
        str(folder),
    ]
    where = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{path}{os.pathsep}{where}" if path else where}
    return subprocess.run(call, capture_output=True, text=True, env=environment, cwd=folder, check=False)


def asked(folder: Path, candidate: str, *more: str, path: str = "") -> subprocess.CompletedProcess[str]:
    return sovereign(folder, "hf", candidate, "--prompts", "prompts.jsonl", "--tokens", "24", *more, path=path)


def test_a_sound_file_passes_and_leaves_its_rows(folder: Path, tmp_path: Path) -> None:
    """Alike is exit 0 (6 where llama.cpp is missing), every question is answered within its bound, and the rows read back.

    They name the file from the root, however it was given. Planted: the path as it was given is found in the rows.
    """
    said = asked(folder, str(folder / "sound.gguf"), "--json", "--rows", str(tmp_path / "rows"))
    told = json.loads(said.stdout)

    assert said.returncode == (0 if ENGINE else 6), said.stderr
    assert ("hf", "sound.gguf", []) == (told["reference"], told["candidate"], holding(tmp_path / "rows", folder))
    assert (40, True) == (told["prompts"], all(one["holds"] for one in told["verdict"]))
    assert ("llama.cpp" in told["engine"]) == ENGINE
    assert {"parity", "parity_place", "parity_tensor"} <= {file.stem for file in (tmp_path / "rows").iterdir()}
    assert all(read_rows(file, file.name, "parity") for file in (tmp_path / "rows").iterdir())


def test_a_faulty_file_fails_and_is_named(folder: Path) -> None:
    """A norm that is 2 % too large is exit 1, with layer, tensor and factor."""
    said = asked(folder, "faulty.gguf")

    assert said.returncode == 1, said.stderr
    assert "layer 1 attn_norm (model.layers.1.input_layernorm.weight) parts first" in said.stdout
    assert "factor of 1.02" in said.stdout


def test_a_missing_engine_is_never_a_pass(folder: Path, tmp_path: Path) -> None:
    """Without llama.cpp, or with torch asked for, a sound GGUF file is exit 6 and the obligation is named."""
    for name in ("llama_cpp", "xllamacpp"):  # stand-ins that bring no library hide the installed ones
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    hidden = asked(folder, "sound.gguf", path=str(tmp_path))
    asked_for = asked(folder, "sound.gguf", "--engine", "torch")

    assert (6, 6) == (hidden.returncode, asked_for.returncode), hidden.stderr
    assert (
        "not shown: sound.gguf in llama.cpp: llama.cpp is not installed: pip install 'sovereign[llama]'"
        in hidden.stdout
    )
    assert "not shown: sound.gguf in llama.cpp: torch was asked for" in asked_for.stdout


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused(folder: Path, tmp_path: Path) -> None:
    """Too few prompts, a malformed prompt, another policy of special tokens and a broken file: each its exit code."""
    (tmp_path / "few.jsonl").write_text('"one"\n{"text": "two"}\n')
    (tmp_path / "bad.jsonl").write_text('"one"\n{"words": 2}\n')
    rewritten(folder / "sound.gguf", tmp_path / "policy.gguf", metadata={"tokenizer.ggml.add_bos_token": False})
    (tmp_path / "cut.gguf").write_bytes((folder / "sound.gguf").read_bytes()[:-5000])
    few = sovereign(folder, "hf", "hf", "--prompts", str(tmp_path / "few.jsonl"))
    bad = sovereign(folder, "hf", "hf", "--prompts", str(tmp_path / "bad.jsonl"))
    policy, cut = (asked(folder, str(tmp_path / name)) for name in ("policy.gguf", "cut.gguf"))

    assert (few.returncode, "2 prompts, where at least 32" in few.stderr) == (7, True), few.stderr
    assert (bad.returncode, "bad.jsonl:2" in bad.stderr) == (3, True), bad.stderr
    assert (policy.returncode, "special tokens" in policy.stderr) == (7, True), policy.stderr
    assert (cut.returncode, "cut off" in cut.stderr) == (3, True), cut.stderr
