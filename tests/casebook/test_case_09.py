"""CASE-09 Asked for, absent, carried on.

Stage: before step 0
Outcome: a device, shard, file, data set or revision that is not there ends the command (7, 3) by name; nothing is trained
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sourced import repository, sovereign

TOY = ("--contract", "contracts/toy.yaml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("asked", ["by the command", "by the contract"])
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, asked: str) -> None:
    """Plant: `cuda` on a CPU machine, asked for on the command line or by the contract itself."""
    by_contract = asked == "by the contract"
    root = repository(tmp_path, *([("  precision: fp32", "  precision: fp32\n  device: cuda")] if by_contract else []))
    found = sovereign(root, "run", *TOY, *([] if by_contract else ["--device", "cuda"]))

    assert found.returncode == 7
    assert "device 'cuda': no GPU is visible" in found.stderr
    assert not (root / "evidence").exists()


def test_another_device_than_the_contracts_is_refused(tmp_path: Path) -> None:
    """A contract that insists on a GPU is not planned for a CPU, even where one asks for that."""
    root = repository(tmp_path, ("  precision: fp32", "  precision: fp32\n  device: cuda"))
    found = sovereign(root, "plan", *TOY, "--device", "cpu")

    assert found.returncode == 7
    assert "device 'cpu': the contract is to run on cuda (training.device)" in found.stderr


@pytest.mark.slow
def test_a_missing_shard_ends_it(tmp_path: Path) -> None:
    """Plant: one listed shard is gone; it is named, and no intent is written."""
    root = repository(tmp_path)
    assert sovereign(root, "plan", *TOY).returncode == 0
    (shard,) = (root / "artifacts/corpus").glob("*/train/*.bin")
    shard.unlink()
    found = sovereign(root, "run", *TOY, "--device", "cpu")

    assert found.returncode == 3
    assert "shard-00000.bin:1:1: cannot be read: No such file or directory; the manifest lists it" in found.stderr
    assert not (root / "evidence").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{kind: folder, path: gone}", "gone:1:1: no such folder"),
        ("{kind: jsonl, path: gone.jsonl}", "gone.jsonl:1:1: cannot be read"),
        ("{kind: parquet, path: gone.parquet}", "gone.parquet:1:1: cannot be read"),
        ("{kind: hub, dataset: a/b, revision: main}", "'main' may move; pin a commit"),
    ],
)
def test_a_source_that_is_not_there_ends_it(tmp_path: Path, source: str, told: str) -> None:
    """A missing folder or file, and a data set without a commit, exit 3 with their name."""
    root = repository(tmp_path, ('{kind: folder, path: data, include: ["*.txt"]}', source))
    found = sovereign(root, "run", *TOY, "--device", "cpu")

    assert found.returncode == 3, found.stderr
    assert told in found.stderr
    assert not (root / "evidence").exists()
