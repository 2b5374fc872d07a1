"""Evidence names a file by its place in the repository, and a file outside of it as the person did."""

from __future__ import annotations

from pathlib import Path

import pytest

from sovereign.evidence.places import named, retold


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "clone/contracts").mkdir(parents=True)
    (tmp_path / "disk").mkdir()
    (tmp_path / "clone/artifacts").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(tmp_path / "clone")
    return tmp_path / "clone"


def test_a_file_is_named_from_the_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is reached: absolute, upwards, through a link to the clone, or in a folder that is a link to another disk."""
    monkeypatch.chdir(root / "contracts")
    above = root.parent
    told = {
        root / "contracts/a.yaml": "contracts/a.yaml",
        Path("a.yaml"): "contracts/a.yaml",
        Path("../data"): "data",
        above / "link/contracts/a.yaml": "contracts/a.yaml",
        root / "artifacts/a.gguf": "artifacts/a.gguf",
        root: ".",
    }

    assert told == {path: named(path, root) for path in told}
    assert told == {path: named(path, above / "link") for path in told}


def test_a_file_outside_stays_as_it_was_given(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made of a path that the repository does not hold, also where its name begins alike."""
    monkeypatch.chdir(root)
    given = [Path("../disk/a.gguf"), root.parent / "disk/a.gguf", Path(f"{root}-2/a.gguf")]

    assert [str(path) for path in given] == [named(path, root) for path in given]


def test_a_command_is_retold_as_it_would_be_given_at_the_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute paths and those named as paths are told from the root; every other word stays, quoted where it must be."""
    monkeypatch.chdir(root.parent)
    words = [
        "sovereign",
        "run",
        "--contract",
        "./clone/contracts/a.yaml",
        f"--root={root}",
        "--set",
        "title=a b",
        "clone",
    ]
    outside = ["sovereign", "import", str(root.parent / "log"), "--seed", "1", ""]

    assert "sovereign run --contract contracts/a.yaml --root=. --set 'title=a b' clone" == retold(
        words, root, (Path("clone/contracts/a.yaml"), None)
    )
    assert f"sovereign import {root.parent}/log --seed 1 ''" == retold(outside, root)

    monkeypatch.chdir(root)
    here = ["sovereign", "run", "--root", ".", "--json", "--set", f"data.path={root}/a", "", "--device=cpu"]
    assert "sovereign run --root . --json --set data.path=a '' --device=cpu" == retold(here, root, (Path(), None))


def test_what_stands_above_a_link_is_not_what_is_written_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system follows a link before it goes up: artifacts/../a.gguf is not the root's own a.gguf."""
    monkeypatch.chdir(root)
    for place in (root, root.parent):
        (place / "a.gguf").touch()

    assert named(Path("artifacts/../a.gguf"), root) == "artifacts/../a.gguf"
