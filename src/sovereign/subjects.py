"""Subjects: what a result speaks about, as content digests, so that a squash or a rebase moves nothing.

The code subject is the import closure of a run; the evaluator is the closure of what computes
measurements. Both are read from the source files, without importing them (torch stays out).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from sovereign.canonical import digest, digest_bytes, digest_file
from sovereign.contract.contract import Contract
from sovereign.contract.data import ChatFile, Folder, JsonLines, LabelledFile, PairsFile, Parquet, TextFile
from sovereign.evidence.intent import Worktree

PACKAGE = Path(__file__).parent
RUN = ("sovereign.run",)
EVALUATOR = ("sovereign.measurable",)
# rooms that state and judge but do not train: criteria, rows and metrics are bound by digests of their own
NOT_RUN = tuple(
    f"sovereign.{room}"
    for room in ("spec", "evidence", "metrics", "diagnosis", "measurable", "gate", "subjects", "closing")
)


def code_files() -> tuple[Path, ...]:
    """Return the source files that a run imports, in order."""
    return closure(RUN, NOT_RUN)


@cache
def code_digest() -> str:
    return _digest_of(code_files())


@cache
def evaluator_digest() -> str:
    return _digest_of(closure(EVALUATOR, ("sovereign.spec", "sovereign.evidence", "sovereign.contract")))


def _digest_of(files: Iterable[Path]) -> str:
    # line endings are git's business, not a change of code
    return digest({str(file.relative_to(PACKAGE).as_posix()): _text_digest(file) for file in files})


def files_digest(root: Path, names: Iterable[str]) -> str | None:
    """Return the digest of files named from the root, or None where there are none, or one of them is gone."""
    files = {name: root / name for name in names}
    if not files or not all(file.is_file() for file in files.values()):
        return None
    return digest({name: _text_digest(file) for name, file in files.items()})


def _text_digest(file: Path) -> str:
    return digest_bytes(file.read_bytes().replace(b"\r\n", b"\n"))


@cache
def closure(roots: tuple[str, ...], leave_out: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the files of every `sovereign` module that the roots import, directly or not, inside functions too."""
    found: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        file = _file(module)
        if file is None or module in found or any(module == one or module.startswith(one + ".") for one in leave_out):
            continue
        found[module] = file
        waiting += _imports(file, module)
    return tuple(sorted(found.values()))


def _file(module: str) -> Path | None:
    place = PACKAGE.joinpath(*module.split(".")[1:])
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


# a syntax tree says the same (a test holds the two equal), and takes ten times as long on every command
IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+(sovereign[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)|import[ \t]+(sovereign[^\n]*))",
    re.MULTILINE,
)


def _imports(file: Path, module: str) -> list[str]:
    names: list[str] = []
    for origin, given, plain in IMPORT.findall(file.read_bytes()):
        listed = re.sub(rb"#[^\n]*", b"", given or plain).strip(b"() \t\n").split(b",")
        aliases = [words[0].decode() for one in listed if (words := one.split())]
        names += aliases if plain else [origin.decode(), *(f"{origin.decode()}.{alias}" for alias in aliases)]
    return [name for name in names if name.startswith("sovereign.") and name != module]


def source_digest(contract: Contract, root: Path) -> str | None:
    """Return the digest of the files a contract's data comes from, or None where they lie outside the repository.

    The standard library is such a source: another interpreter is another environment, never stale data.
    """
    files = source_files(contract, root)
    return digest({str(file.relative_to(root).as_posix()): digest_file(file) for file in files}) if files else None


def source_files(contract: Contract, root: Path) -> tuple[Path, ...]:
    """Return the files inside the repository that a contract's data comes from."""
    files: set[Path] = set()
    for source in contract.data.sources:
        if isinstance(source, Folder):
            place = root / source.path
            files |= {file for pattern in source.include for file in place.glob(pattern) if file.is_file()}
        elif isinstance(source, Parquet) and (root / source.path).is_dir():
            files |= set((root / source.path).rglob("*.parquet"))
        elif isinstance(source, JsonLines | TextFile | Parquet | PairsFile | ChatFile | LabelledFile):
            files.add(root / source.path)  # one below a folder that the environment names is no file here
    inside = root.resolve()
    return tuple(sorted(file for file in files if file.is_file() and file.resolve().is_relative_to(inside)))


def worktree(root: Path, paths: Iterable[Path]) -> Worktree:
    """Return whether the given paths stand as committed; paths outside the repository do not count."""
    inside = [path.resolve() for path in paths if path.resolve().is_relative_to(root.resolve())]
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        changed = (
            _git(root, "status", "--porcelain", "--untracked-files=all", "--", *map(str, inside)) if inside else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return Worktree(state="unversioned")
    names = tuple(sorted(line[3:] for line in changed.splitlines()))
    return Worktree(state="dirty" if names else "clean", commit=commit, changed=names)


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout
