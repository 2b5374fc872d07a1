"""A watchdog: it barks when the loop has been silent for too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType


class Watchdog:
    """Calls `bark(step, seconds)`, on a thread of its own, each time `seconds` pass without a `beat`."""

    def __init__(self, seconds: float, bark: Callable[[int, float], None]):
        self.seconds, self.bark = seconds, bark
        self.step, self.last = 0, time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def beat(self, step: int) -> None:
        """Say that work on `step` goes on."""
        self.step, self.last = step, time.monotonic()

    def _watch(self) -> None:
        while not self._end.wait(min(1.0, self.seconds / 4)):
            silent = time.monotonic() - self.last
            if silent > self.seconds:
                self.last = time.monotonic()
                self.bark(self.step, silent)
