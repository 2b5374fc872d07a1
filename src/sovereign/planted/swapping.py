"""One function of the run put in the place of another, for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def swapped(place: Any, name: str, wrong: Any) -> Iterator[None]:
    """Put `wrong` where a module or class holds `name`, for as long as the block lasts."""
    right = getattr(place, name)
    setattr(place, name, wrong)
    try:
        yield
    finally:
        setattr(place, name, right)
