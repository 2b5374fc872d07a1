"""What observing a corpus costs: `encode` beside the bare tokenizer, and `overlap` beside a set of n-grams.

    python benchmarks/corpus.py [--quick] [--rounds N]

The claims: our `encode` adds nothing to what `tokenizers` takes by itself, and the overlap of two sides of 100 MB of
text takes well under a minute and under 2 GB. Peers run in this process, alternating; what is reported is the ratio of
a round, its median and extremes. The texts are the standard library; the bare tokenizer is `encode_batch` on
all texts at once, as its documentation shows. The peer of `overlap` is the plain one: a Python set of the n-grams of
the train side, as bytes; it is compared at a size that it can hold.

Large sides are generated: ids as unevenly frequent as words are (Zipf), in documents of 2,000. Two sides that share
nothing are the common case, two equal sides the worst, where every n-gram is compared token for token. Their time and
peak memory are taken in a process of their own. Reading the files is not measured: they are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sovereign.contract.data import StandardLibrary
from sovereign.corpus.documents import gather
from sovereign.corpus.overlap import covered, overlap
from sovereign.corpus.shards import Shards, write_shards
from sovereign.corpus.tokens import encode, train_bpe

VOCABULARY = 4096
DOCUMENT = 2_000


def compare(what: str, ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> None:
    """Print the time of both over alternating rounds, and the ratio peer / ours: above 1, we are faster."""
    times: dict[Callable[[], object], list[float]] = {ours: [], peer: []}
    for index in range(rounds):
        for one in (ours, peer) if index % 2 == 0 else (peer, ours):
            began = time.perf_counter()
            one()
            times[one].append(time.perf_counter() - began)
    ratios = [theirs / mine for mine, theirs in zip(times[ours], times[peer], strict=True)]
    medians = f"{statistics.median(times[ours]):6.2f} s {statistics.median(times[peer]):6.2f} s"
    print(f"{what:44} {medians}  {statistics.median(ratios):6.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")


def generated(folder: Path, tokens: int, seed: int) -> tuple[Shards, list[np.ndarray]]:
    """Return a side as shards and as arrays."""
    weights = 1 / np.arange(1, VOCABULARY)
    drawn = np.random.default_rng(seed).choice(VOCABULARY - 1, tokens, p=weights / weights.sum())
    ids = (drawn + 1).astype(np.uint16)
    documents = [ids[at : at + DOCUMENT] for at in range(0, tokens, DOCUMENT)]
    named = ((f"{index:016x}", one) for index, one in enumerate(documents))
    manifest = write_shards(folder, named, vocabulary=VOCABULARY, end_of_text=0, tokenizer="sha256:" + "0" * 64)
    return Shards(folder, manifest), documents


def in_a_set(train: Shards, documents: list[np.ndarray], length: int) -> list[int]:
    """Return what `covered` returns, from a Python set of every n-gram of the train side."""
    width = train.manifest.item.itemsize
    known = set()
    for document in train.documents:
        data = train.ids(document).tobytes()
        known.update(data[at : at + length * width] for at in range(0, len(data) - length * width + 1, width))
    counts = []
    for ids in documents:
        data = ids.astype(train.manifest.item).tobytes()
        inside = np.zeros(len(ids), dtype=bool)
        for at in range(len(ids) - length + 1):
            if data[at * width : (at + length) * width] in known:
                inside[at : at + length] = True
        counts.append(int(inside.sum()))
    return counts


def alone(tokens: int, equal: bool) -> None:
    """Print, as JSON, the time and the peak memory of the overlap of two sides, in this process."""
    with tempfile.TemporaryDirectory() as name:
        train, documents = generated(Path(name), tokens, seed=0)
        held_out = documents if equal else generated(Path(name) / "other", tokens, seed=1)[1]
        before = peak_bytes()
        began = time.perf_counter()
        found = overlap(train, [(f"{index:016x}", "validation", ids) for index, ids in enumerate(held_out)])
        seconds = time.perf_counter() - began
    share = sum(one.covered_50 for one in found) / tokens
    print(json.dumps({"seconds": seconds, "peak": peak_bytes(), "before": before, "covered": share}))


def peak_bytes() -> int:
    """Return the most memory this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory at the fork as ours
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sides and fewer rounds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--alone", choices=["apart", "equal"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    tokens = 3_000_000 if asked.quick else 25_000_000
    if asked.alone:
        return alone(tokens, asked.alone == "equal")

    rounds = asked.rounds or (3 if asked.quick else 9)
    texts = [one.data.decode("utf-8", "replace") for one in gather(StandardLibrary(kind="stdlib"), Path())]
    texts = texts[: 100 if asked.quick else None]
    tokenizer = train_bpe(texts[::4], 1024)
    size = sum(map(len, texts)) / 1e6
    print(f"{'':44} {'ours':>8} {'peer':>8}  peer / ours, median [extremes]")
    compare(
        f"encode {len(texts)} documents, {size:.1f} MB, beside bare",
        lambda: encode(tokenizer, texts),
        lambda: [one.ids for one in tokenizer.encode_batch(texts, add_special_tokens=False)],
        rounds,
    )
    with tempfile.TemporaryDirectory() as name:
        train, _ = generated(Path(name), 500_000, seed=0)
        _, held_out = generated(Path(name) / "other", 500_000, seed=1)
        assert in_a_set(train, held_out[:20], 13) == covered(train, held_out[:20], 13).tolist()
        compare(
            "13-grams of 0.5 M tokens in 0.5 M, beside a set",
            lambda: covered(train, held_out, 13),
            lambda: in_a_set(train, held_out, 13),
            min(rounds, 3),
        )
    for sides in ("apart", "equal"):
        command = [sys.executable, str(Path(__file__)), "--alone", sides, *(["--quick"] if asked.quick else [])]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"overlap of {tokens / 1e6:g} M tokens with {tokens / 1e6:g} M, {sides}: {told['seconds']:.1f} s, "
            f"peak memory {told['peak'] / 1e6:,.0f} MB ({told['before'] / 1e6:,.0f} before it), "
            f"{told['covered']:.0%} covered"
        )
    return None


if __name__ == "__main__":
    main()
