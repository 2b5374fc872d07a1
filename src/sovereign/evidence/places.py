"""How evidence calls a file: by its place in the repository, which is the same in every clone."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterable
from pathlib import Path


def named(path: Path, root: Path) -> str:
    """Return a file's place from the root, in posix form; of one that lies outside of it, the path as it was given."""
    top = root.resolve()
    # as it is spelled first: artifacts/ may be a link to a large disk, and what lies there is still called artifacts/
    spelled = Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow the links)
    same = spelled.resolve() == path.resolve()  # not so where .. stands behind a link
    for file in (spelled, path.resolve()) if same else (path.resolve(),):
        for place in (file, *file.parents):
            if place.resolve() == top:
                return file.relative_to(place).as_posix()
    return str(path)


def retold(words: Iterable[str], root: Path, files: Collection[Path | None] = ()) -> str:
    """Return a command as it would be given at the root: files in the repository by their place in it.

    Absolute paths are told from the root, behind an equals sign too, and so are the words, or values of an option, that `files`
    says are paths, as the person typed them.
    """

    def told(word: str) -> str:
        before, equals, value = word.rpartition("=")
        path, option = Path(value), not equals or before.startswith("--")
        known = path.is_absolute() or (option and bool(value) and path in files)
        return f"{before}{equals}{named(path, root)}" if known else word

    return shlex.join(told(word) for word in words)
