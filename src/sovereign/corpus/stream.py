"""The stream: which windows of the train side each step trains on, as a pure function.

A window is `context` + 1 ids: inputs and the targets one place on. Window w covers the tokens from
w x context to w x context + context, so neighbours share one boundary token, which is a target of the
first and an input of the second. Thus every token but the very first is a target exactly once a pass,
and as inputs the windows are disjoint: windows x context + dropped = tokens.

Each pass is a fresh permutation of all windows, computed position by position (a Feistel network over
a grid just larger than the number of windows, with cycle walking: Black & Rogaway 2002), so memory does
not grow with the corpus. The global order knows nothing of ranks: a run may stop on two and resume on one.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sovereign.corpus.shards import Shards

BLOCK = 4096  # positions permuted at once: their arrays stay in the cache, and the cost per window vanishes
ROUNDS = 8
# examples are padded to a multiple of it: kernels are made for each shape, and on a CPU in bf16 a thousand of them are kept
PADDED_TO = 16

Windows = NDArray[np.int64]


class Exhausted(Exception):
    """The stream was asked for more windows than it may give; nothing was given."""


@dataclass(frozen=True)
class Batch:
    """One rank's windows of one step: ids [windows, context + 1], and which windows they are."""

    ids: NDArray[np.int64]
    windows: Windows
    passed: int  # the pass, counted from 0, that the first window of the whole step belongs to

    @property
    def inputs(self) -> NDArray[np.int64]:
        return self.ids[:, :-1]

    @property
    def targets(self) -> NDArray[np.int64]:
        """The token after each input."""
        return self.ids[:, 1:]


@dataclass(frozen=True)
class Exposure:
    """How often the windows of one document were trained on; the fields of an exposure row."""

    document: str
    windows: int
    consumed: int
    most: int


class Stream:
    """Token windows of the train side as a function of (seed, step, rank, world); steps count from 1.

    Raises ValueError for settings that contradict each other, and when the shards hold a document
    of `held_out`: what is evaluated is never trained on.
    """

    def __init__(
        self,
        shards: Shards,
        context: int,
        sequences: int,
        seed: int,
        wrap_around: bool = False,
        most_passes: float | None = None,
        held_out: frozenset[str] = frozenset(),
    ):
        if context < 1 or sequences < 1:
            raise ValueError(f"context {context} and sequences {sequences} must be at least 1")
        if wrap_around and most_passes is None:
            raise ValueError("wrap_around needs most_passes: say how often a document may be seen")
        if not wrap_around and most_passes is not None and most_passes > 1:
            raise ValueError(f"most_passes {most_passes:g} needs wrap_around: true")
        shared = sorted(held_out.intersection(shards.documents))
        if shared:
            raise ValueError(
                f"{len(shared)} held-out documents stand in the train shards, {shared[0]} the first; "
                "a document is trained on or evaluated, never both"
            )
        self.shards = shards
        self.context = context
        self.sequences = sequences
        self.seed = seed
        self.wrap_around = wrap_around
        self.most_passes = 1.0 if most_passes is None else most_passes
        self.per_pass = max(0, (shards.tokens - 1) // context)
        self._block = lru_cache(maxsize=4)(self._permuted_block)

    @property
    def dropped(self) -> int:
        """Tokens that no window of a pass holds as an input: the remainder at the end, never empty."""
        return self.shards.tokens - self.per_pass * self.context

    @property
    def packing(self) -> float:
        """Share of the train tokens that stand in a window: nothing is padded, so only `dropped` is lost."""
        return self.per_pass * self.context / max(1, self.shards.tokens)

    def capacity(self) -> int:
        """Return how many windows may be consumed over all passes."""
        return math.floor(self.per_pass * self.most_passes)

    def refusal(self, steps: int) -> str | None:
        """Return the arithmetic that forbids this many steps, or None where they fit."""
        wanted = steps * self.sequences
        if wanted <= self.capacity():
            return None
        limit = (
            f"most_passes {self.most_passes:g} allows {self.capacity()}" if self.wrap_around else "wrap_around is false"
        )
        if not self.wrap_around and self.most_passes < 1:
            limit = f"wrap_around is false and most_passes {self.most_passes:g} allows {self.capacity()}"
        return (
            f"{steps} steps x {self.sequences} sequences = {wanted} windows, "
            f"but the train side holds {self.per_pass} and {limit}"
        )

    def windows(self, step: int, rank: int = 0, world: int = 1) -> Windows:
        """Return the global ids of the windows of one rank in one step, in order, without reading a token."""
        if step < 1:
            raise ValueError(f"step {step}: steps count from 1")
        if world < 1 or not 0 <= rank < world or self.sequences % world:
            raise ValueError(f"rank {rank} of {world} cannot share {self.sequences} sequences evenly")
        refused = self.refusal(step)
        if refused:
            raise Exhausted(refused)
        share = self.sequences // world
        first = (step - 1) * self.sequences + rank * share
        windows = np.empty(share, dtype=np.int64)
        filled = 0
        while filled < share:
            passed, position = divmod(first + filled, self.per_pass)
            block, at = divmod(position, BLOCK)
            piece = self._block(passed, block)[at : at + share - filled]
            windows[filled : filled + len(piece)] = piece
            filled += len(piece)
        return windows

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return one rank's share of one step; raises Exhausted before anything is read."""
        windows = self.windows(step, rank, world)
        passed = (step - 1) * self.sequences // self.per_pass
        return Batch(self.shards.gather(windows * self.context, self.context + 1), windows, passed)

    def exposures(self, steps: int) -> list[Exposure]:
        """Return what `steps` steps expose of every document, counted from the windows they consume."""
        return Consumption.after(self, steps).by_document()

    def _permuted_block(self, passed: int, block: int) -> Windows:
        positions = np.arange(block * BLOCK, min((block + 1) * BLOCK, self.per_pass), dtype=np.uint64)
        return permuted(positions, self.per_pass, f"sovereign/stream/v1 seed {self.seed} pass {passed}")


def permuted(positions: NDArray[np.uint64], size: int, key: str) -> Windows:
    """Return where a keyed permutation of range(size) sends each position, in constant memory."""
    rows = math.isqrt(size - 1) + 1
    columns = -(-size // rows)
    stretched = hashlib.shake_256(key.encode()).digest(8 * ROUNDS)
    keys = np.frombuffer(stretched, dtype="<u8").astype(np.uint64)

    def walk(places: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = np.divmod(places, np.uint64(columns))
        for index in range(0, ROUNDS, 2):
            left = _shifted(left, right, keys[index], rows)
            right = _shifted(right, left, keys[index + 1], columns)
        return left * np.uint64(columns) + right

    found = walk(positions)
    # the grid has a few more cells than there are windows: who lands on one walks on
    while (outside := found >= size).any():
        found[outside] = walk(found[outside])
    return found.astype(np.int64)


def _shifted(half: NDArray[np.uint64], other: NDArray[np.uint64], key: np.uint64, below: int) -> NDArray[np.uint64]:
    """Return `half` + a keyed hash of `other`, modulo `below`; undone by subtracting, hence a permutation."""
    mixed = (other + key) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    # the top 32 bits scaled to [0, below) by a multiplication, many times cheaper than a division
    moved = half + ((mixed >> np.uint64(32)) * np.uint64(below) >> np.uint64(32))
    # modulo for values under 2 x below: a difference that goes below zero wraps to a huge number
    return np.minimum(moved, moved - np.uint64(below))


class Consumption:
    """How often each window of a stream was consumed; 4 bytes a window."""

    def __init__(self, stream: Stream):
        self.stream = stream
        self.visits: NDArray[np.uint32] = np.zeros(stream.per_pass, dtype=np.uint32)

    @classmethod
    def after(cls, stream: Stream, steps: int) -> Consumption:
        """Return the consumption after `steps` steps, recomputed: resuming needs no record of it."""
        consumption = cls(stream)
        for step in range(1, steps + 1):
            consumption.add(stream.windows(step))
        return consumption

    def add(self, windows: Windows) -> None:
        """Count windows as consumed once more; one may stand twice in a step that spans two passes."""
        np.add.at(self.visits, windows, 1)

    @staticmethod
    def digest16(windows: Windows) -> str:
        """Return 16 hex digits of the sha256 over window ids as little-endian int64, in order."""
        return hashlib.sha256(np.asarray(windows).astype("<i8").tobytes()).hexdigest()[:16]

    @property
    def passes(self) -> float:
        """Windows consumed over windows in a pass."""
        return int(self.visits.sum(dtype=np.int64)) / max(1, self.stream.per_pass)

    def by_document(self) -> list[Exposure]:
        """Return the exposure of every document of the shards, in their order.

        A window belongs to every document that it holds a token of, end-of-text ids and the shared
        boundary token included; a document that stands wholly in the dropped remainder has no window.
        """
        context = self.stream.context
        starts, ends = self.stream.shards.starts[:-1], self.stream.shards.starts[1:]
        first = np.maximum(0, (starts - 1) // context)
        stop = np.maximum(first, np.minimum((ends - 1) // context + 1, self.stream.per_pass))
        total = np.concatenate([[0], np.cumsum(self.visits, dtype=np.int64)])
        return [
            Exposure(document, high - low, int(total[high] - total[low]), int(self.visits[low:high].max(initial=0)))
            for document, low, high in zip(self.stream.shards.documents, first.tolist(), stop.tolist(), strict=True)
        ]
