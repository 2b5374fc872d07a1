"""Windows a second of `Stream.batch` beside a bare gather of the same windows, and the memory it holds.

    python benchmarks/stream.py [--quick] [--rounds N]

The claim: knowing the order of a run as a function of (seed, step, rank) costs little beside reading the ids at all,
and memory does not grow with the corpus. There are two peers. `memmap` is the loop that nanoGPT's `get_batch` is: slice
a `numpy.memmap`, widen to int64, stack. `array` is the least that this can be: the same file as a plain array (slices
of the memmap class are slow), copied into rows made beforehand. Both are told which windows to read, so that what
we pay for the permutation, the shards and the limits is all on our side. All three run every round, in turn first;
what is reported is the ratio of a round, its median and extremes. Every page is read before it is timed: a disk is
not measured.

For memory, shards are sparse files of up to 200 GB. What is reported is anonymous memory, which is ours; pages of
the files that the kernel keeps mapped while it has room are not counted. Documents are of a million ids there,
since the index of documents does grow with them (it is most of what is seen here): what each costs is reported apart.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sovereign.corpus.shards import Manifest, Shard, Shards, write_shards
from sovereign.corpus.stream import Stream

VOCABULARY = 4096
UNKNOWN = "sha256:" + "0" * 64  # of files that are never verified here


def from_memmap(ids: np.memmap, windows: np.ndarray, context: int) -> np.ndarray:
    """Return the windows as nanoGPT reads them."""
    return np.stack([ids[window * context : window * context + context + 1].astype(np.int64) for window in windows])


def from_array(ids: np.ndarray, windows: np.ndarray, context: int) -> np.ndarray:
    """Return the windows with nothing done but to copy them."""
    found = np.empty((len(windows), context + 1), dtype=np.int64)
    for row, at in enumerate((windows * context).tolist()):
        found[row] = ids[at : at + context + 1]
    return found


def speed(folder: Path, tokens: int, rounds: int) -> None:
    """Print windows a second of all three, for batches as a laptop and as a large device takes them."""
    rng = np.random.default_rng(0)
    documents = ((f"{at:016x}", rng.integers(1, VOCABULARY, 9_999)) for at in range(tokens // 10_000))
    manifest = write_shards(folder, documents, vocabulary=VOCABULARY, end_of_text=0, tokenizer=UNKNOWN)
    shards = Shards(folder, manifest)
    mapped = np.memmap(folder / manifest.shards[0].file, dtype=manifest.item, mode="r")
    plain = np.asarray(mapped)
    int(plain.sum())  # whoever reads a page first would pay for it
    print(f"{'context':>7} {'sequences':>9} {'windows/s':>11}   {'ours / memmap':20} {'ours / array':20}")
    for context, sequences in [(256, 8), (256, 64), (1024, 32), (1024, 512)]:
        steps = 20_000_000 // (context * sequences)
        rates: dict[str, list[float]] = {"ours": [], "memmap": [], "array": []}
        for index in range(rounds):
            # made anew each round, and twice, so that no permuted block is remembered
            stream, asked = (Stream(shards, context, sequences, index, True, most_passes=100) for _ in range(2))
            known = [asked.windows(step) for step in range(1, steps + 1)]
            turns: dict[str, Callable[[int], np.ndarray]] = {
                "ours": lambda step, stream=stream: stream.batch(step + 1).ids,
                "memmap": lambda step, known=known, context=context: from_memmap(mapped, known[step], context),
                "array": lambda step, known=known, context=context: from_array(plain, known[step], context),
            }
            order = list(turns)[index % 3 :] + list(turns)[: index % 3]
            for name in order:
                began = time.perf_counter()
                for step in range(steps):
                    turns[name](step)
                rates[name].append(steps * sequences / (time.perf_counter() - began))
        against = [ratio(rates["ours"], rates[peer]) for peer in ("memmap", "array")]
        print(f"{context:7} {sequences:9} {statistics.median(rates['ours']):11,.0f}   {against[0]:20} {against[1]:20}")


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Return the median ratio of a round, and its extremes."""
    ratios = [mine / peer for mine, peer in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def sparse(folder: Path, size: int, document: int) -> Shards:
    """Return shards of `size` bytes that take no room on a disk, in documents of `document` ids."""
    folder.mkdir()
    each = 1 << 28
    count = size // 2 // each
    shards = []
    for number in range(count):
        path = folder / f"shard-{number:05d}.bin"
        with path.open("wb") as file:
            file.truncate(each * 2)
        held = tuple((f"{number:08x}{at:08x}", document - 1) for at in range(each // document))
        shards.append(Shard(file=path.name, sha256=UNKNOWN, bytes=each * 2, tokens=each, documents=held))
    manifest = Manifest(
        format="sovereign/shards/v1",
        dtype="uint16",
        vocabulary=VOCABULARY,
        end_of_text=0,
        tokenizer=UNKNOWN,
        shards=tuple(shards),
        digest=UNKNOWN,
    )
    return Shards(folder, manifest)


def memory(folder: Path, sizes: list[int]) -> None:
    """Print how much anonymous memory opening a stream and reading from all over it takes."""
    print(f"{'corpus':>8} {'windows':>13} {'memory':>9}  anonymous memory held after 10 batches of 64 x 1024")
    for size in sizes:
        before = anonymous()
        stream = Stream(sparse(folder / f"{size}", size << 30, 1 << 20), 1024, 64, seed=0)
        for step in range(1, 11):
            stream.batch(step)
        print(f"{size:5} GB {stream.per_pass:13,} {(anonymous() - before) / 2**20:5.1f} MiB")
    before = anonymous()
    shards = sparse(folder / "documents", 1 << 30, 1 << 10)
    count = len(shards.documents)
    print(f"each document in the index: {(anonymous() - before) / count:.0f} bytes, its part of the manifest included")


def anonymous() -> int:
    """Return the bytes this process holds that are no file's (Linux)."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller corpus and fewer rounds")
    parser.add_argument("--rounds", type=int)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        speed(
            Path(name) / "speed", 10_000_000 if asked.quick else 100_000_000, asked.rounds or (5 if asked.quick else 15)
        )
        if Path("/proc/self/status").exists():
            memory(Path(name), [1, 20] if asked.quick else [1, 20, 200])


if __name__ == "__main__":
    main()
