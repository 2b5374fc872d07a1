"""A contract with a shipping section: the run exports, compares, and closes with the rows; without one nothing changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fabric import CONTRACT, holding, repository

from sovereign.canonical import digest_file, parse_yaml, validate
from sovereign.contract.contract import Contract
from sovereign.parity.llamacpp import Missing, library

SHIPS = "shipping: {quantize: f32, tokens: 8}\n"

try:
    library()
    ENGINE = True
except Missing:
    ENGINE = False


def sovereign(root: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments, "--root", str(root)]
    where = os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": where}
    return subprocess.run(call, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = repository(tmp_path / "root", contract=CONTRACT + SHIPS)
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
    return made


def concluded(root: Path, path: str = "") -> tuple[Path, dict[str, object]]:
    ran = sovereign(root, "run", "--contract", str(root / "contracts/toy.yaml"), "--device", "cpu", path=path)
    assert ran.returncode == 0, ran.stderr
    (folder,) = (root / "evidence/toy").iterdir()
    return folder, json.loads((folder / "evidence.json").read_text())


def test_a_run_ships_and_shows_its_parity(root: Path) -> None:
    """The export is an artifact by digest, its rows and measurements stand in the evidence, and verify finds it so.

    Files are named from the root. Planted: the export's whole path in the rows, and the contract's in the command, are found.
    """
    folder, statement = concluded(root)
    measured = {one["metric"]: one for one in statement["measurements"]}  # type: ignore[index,union-attr]
    (shipped,) = [one for one in statement["artifacts"] if one["name"].startswith("export: ")]  # type: ignore[union-attr]
    rows = [json.loads(line) for line in (folder / "rows/parity.jsonl").read_text().splitlines()]

    assert shipped["digest"] == digest_file(root / shipped["name"].partition(": ")[2])
    assert (measured["parity/accused"]["value"], measured["parity/foreign_blocks"]["value"]) == (0, 0)
    assert measured["parity/whole_l2"]["high"] < 1e-5
    assert len({row["document"] for row in rows}) == 32
    assert [] == holding(folder, root)
    assert f"{shipped['name'].removeprefix('export: ')}, dequantized, float64" in {row["candidate"] for row in rows}
    assert (("parity/layer_untied_l2" in measured), (folder / "rows/notice.jsonl").exists()) == (ENGINE, not ENGINE)
    assert sovereign(root, "verify").returncode == 0


def test_a_run_without_llama_cpp_says_so(root: Path, tmp_path: Path) -> None:
    """Without the engine the run completes with a notice, and what only the engine shows is not measured: no pass."""
    for name in ("llama_cpp", "xllamacpp"):
        (tmp_path / "hidden" / name).mkdir(parents=True)
        (tmp_path / "hidden" / name / "__init__.py").write_text("")
    folder, statement = concluded(root, str(tmp_path / "hidden"))
    metrics = {one["metric"] for one in statement["measurements"]}  # type: ignore[index,union-attr]
    notices = [json.loads(line) for line in (folder / "rows/notice.jsonl").read_text().splitlines()]

    assert [("engine", "llama.cpp")] == [(one["name"], one["asked"]) for one in notices if one["name"] == "engine"]
    assert "parity/whole_l2" in metrics
    assert not {"parity/implementation_l2", "parity/layer_untied_l2"} & metrics


def test_a_contract_that_ships_nothing_is_what_it_was() -> None:
    """Without the section no digest changes, and with it the model's subject does."""
    plain, ships = (validate(Contract, parse_yaml(text.encode(), "a")) for text in (CONTRACT, CONTRACT + SHIPS))

    assert "shipping" not in plain.meaning()
    assert "shipping" not in plain.plain()
    assert plain.subject != ships.subject
