"""Quantizing a model to Q4_K beside llama.cpp, and dequantizing it beside a copy of its memory.

    python benchmarks/quantization.py [--quick] [--rounds N] [--threads N]

The claim: the search that decides every byte as llama.cpp does takes no more than twice its time on the same cores. The
peer is `ggml_quantize_chunk` from whichever of llama-cpp-python and xllamacpp is installed, one call a thread on equal
shares of the rows. Dequantizing has two peers: `dequantize_row_q4_K` of the same library, and `copy_` of as many
float32 weights, against which bandwidths are compared: bytes read and written a second, 4.56 a weight for us and
8 for the copy, into memory that is there already. The claim of half the copy's bandwidth is for the kernel that torch compiles
(`compiled`, half a minute the first time, not counted); what torch does by itself is shown beside it. All take turns; what is reported is the ratio of a round, its median and extremes, once in seconds
and once in processor seconds, which other work on the machine disturbs less. Bytes are compared first.

Left out: reading the model and writing the file.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from sovereign.quantization import q4k

LIBRARIES = {"llama_cpp": "lib/libggml-base.so", "xllamacpp": "xllamacpp.abi3.so"}
Q4_K = 12  # of ggml_type


def ggml() -> tuple[str, ctypes.CDLL]:
    """Return the name of the package with llama.cpp in it, and its library."""
    for package, file in LIBRARIES.items():
        found = importlib.util.find_spec(package)
        for place in (found and found.submodule_search_locations) or ():
            if (Path(place) / file).exists():
                return package, ctypes.CDLL(str(Path(place) / file))
    raise SystemExit(f"needs one of {', '.join(LIBRARIES)} to compare with")


def matrices(weights: int) -> list[Tensor]:
    """Return matrices of a decoder of hidden size 768, about so many weights in all."""
    draw = torch.Generator().manual_seed(0)
    layer = [(768, 768)] * 4 + [(2048, 768)] * 2 + [(768, 2048)]
    found: list[Tensor] = []
    while (left := weights - sum(each.numel() for each in found)) > 0:
        found += [torch.randn(shape, generator=draw) * 0.02 for shape in layer[: 1 + left // (768 * 768)]]
    return found


def shares(rows: int, threads: int) -> list[tuple[int, int]]:
    """Return first row and number of rows of each thread's share."""
    cuts = [rows * at // threads for at in range(threads + 1)]
    return [(first, last - first) for first, last in pairwise(cuts)]


class Peer:
    """llama.cpp's quantizer and dequantizer, run by so many threads."""

    def __init__(self, library: ctypes.CDLL, threads: int):
        self.library, self.threads = library, threads
        self.pool = ThreadPoolExecutor(threads)
        library.ggml_quantize_chunk.restype = ctypes.c_size_t

    def quantize(self, weights: Tensor) -> Tensor:
        rows, k = weights.shape
        packed = torch.empty(rows, k // 256 * 144, dtype=torch.uint8)

        def one(share: tuple[int, int]) -> None:
            numbers = (ctypes.c_int64(each) for each in (share[0] * k, share[1], k))
            pointers = (ctypes.c_void_p(each.data_ptr()) for each in (weights, packed))
            self.library.ggml_quantize_chunk(Q4_K, *pointers, *numbers, None)

        list(self.pool.map(one, shares(rows, self.threads)))
        return packed

    def dequantize(self, packed: Tensor, weights: Tensor) -> Tensor:
        def one(share: tuple[int, int]) -> None:
            pointers = (ctypes.c_void_p(each[share[0] :].data_ptr()) for each in (packed, weights))
            self.library.dequantize_row_q4_K(*pointers, ctypes.c_int64(share[1] * weights.shape[1]))

        list(self.pool.map(one, shares(len(packed), self.threads)))
        return weights


def compare(turns: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Return seconds and processor seconds of every round of each, which take turns."""
    for turn in turns.values():
        turn()  # whoever is first would pay for pages and caches
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in turns}
    for index in range(rounds):
        names = list(turns)
        for name in names[index % len(names) :] + names[: index % len(names)]:
            began = time.perf_counter(), time.process_time()
            turns[name]()
            for taken, clock, start in zip(times[name], (time.perf_counter, time.process_time), began, strict=True):
                taken.append(clock() - start)
    return times


def ratio(numerators: list[float], denominators: list[float], factor: float = 1.0) -> str:
    """Return the median ratio of a round, and its extremes."""
    ratios = [factor * mine / peer for mine, peer in zip(numerators, denominators, strict=True)]
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 million weights and fewer rounds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, help="of each side; what torch takes by itself if not given")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    threads, rounds = torch.get_num_threads(), asked.rounds or (5 if asked.quick else 7)
    package, library = ggml()
    peer = Peer(library, threads)
    weights = matrices(10_000_000 if asked.quick else 100_000_000)
    count = sum(each.numel() for each in weights)
    packed = [q4k.quantize(each) for each in weights]
    same = sum(
        int((mine == theirs).view(-1, 144).all(1).sum())
        for mine, theirs in zip(packed, (peer.quantize(each) for each in weights), strict=True)
    )
    print(
        f"{count / 1e6:.0f}M weights, {threads} threads, llama.cpp of {package}; identical {same} of {count // 256} blocks"
    )

    times = compare(
        {
            "ours": lambda: [q4k.quantize(each) for each in weights],
            "llama.cpp": lambda: [peer.quantize(each) for each in weights],
        },
        rounds,
    )
    (mine, mine_cpu), (theirs, theirs_cpu) = times["ours"], times["llama.cpp"]
    rates = [count / statistics.median(each) / 1e6 for each in (mine, theirs)]
    print(f"quantize    ours {rates[0]:.1f}M/s, llama.cpp {rates[1]:.1f}M/s")
    print(
        f"  time ours / llama.cpp            {ratio(mine, theirs)}, in processor seconds {ratio(mine_cpu, theirs_cpu)}"
    )

    whole = torch.cat([each.view(-1, 144) for each in packed])
    values, room = torch.randn(len(whole), 256), torch.empty(len(whole), 256)
    began = time.perf_counter()
    assert torch.equal(q4k.dequantize(whole, out=room, compiled=True), q4k.dequantize(whole))
    print(f"dequantize  compiled in {time.perf_counter() - began:.0f} s, the same bits as by itself")
    times = compare(
        {
            "compiled": lambda: q4k.dequantize(whole, out=room, compiled=True),
            "by itself": lambda: q4k.dequantize(whole, out=room),
            "llama.cpp": lambda: peer.dequantize(whole, room),
            "copy": lambda: room.copy_(values),
        },
        rounds,
    )
    moved = (4 + 144 / 256) / 8
    copied, copied_cpu = times.pop("copy")
    print(f"  copy {8 * count / statistics.median(copied) / 1e9:.1f} GB/s; bandwidth as a share of it:")
    for name, (taken, taken_cpu) in times.items():
        print(
            f"  {name:<10} {count / statistics.median(taken) / 1e6:5.0f}M/s   {ratio(copied, taken, moved)}, "
            f"in processor seconds {ratio(copied_cpu, taken_cpu, moved)}"
        )


if __name__ == "__main__":
    main()
