"""The journal: rows as they are written, one append-only file a kind, cut back to a checkpoint on resume."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sovereign.canonical import sync_directory
from sovereign.evidence.rows import KINDS, line


class Journal:
    """The row files of one run, open for appending. Every row is validated before it is written."""

    def __init__(self, folder: Path, run: str, keep: Mapping[str, int] | None = None):
        """Open `folder`, cut back to the bytes of each kind in `keep`; without it, to nothing."""
        self.folder, self.run = folder, run
        self._files: dict[str, BinaryIO] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.jsonl"):
            kept = (keep or {}).get(file.stem, 0)
            if kept:
                os.truncate(file, kept)
            else:
                file.unlink()
        sync_directory(folder)

    def log(self, kind: str, **values: Any) -> None:
        """Append one row; it survives the process from here on, and the machine after `sync`."""
        row = KINDS[kind](run=self.run, **values)
        file = self._files.get(kind)
        if file is None:
            file = self._files[kind] = (self.folder / f"{kind}.jsonl").open("ab")
        file.write(line(row))
        file.flush()

    def sync(self) -> dict[str, int]:
        """Make every row durable and return the bytes of each kind: what a checkpoint keeps."""
        for file in self._files.values():
            os.fsync(file.fileno())
        sync_directory(self.folder)
        return {path.stem: path.stat().st_size for path in sorted(self.folder.glob("*.jsonl"))}

    def close(self) -> None:
        self.sync()
        for file in self._files.values():
            file.close()
        self._files.clear()
