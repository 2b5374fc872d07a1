"""How long a diagnosis takes: 1,000 validation documents, 100 evaluations, without torch; the target is 2 seconds.

Peer: the same bounds as the measurements compute them, by gathering resampled documents, alternated in one process. A
diagnosis instead counts how often each document is drawn, once, and every bound is then one matrix product. Times are
of the processor, with one thread, so that a busy machine tells the same.

    python benchmarks/diagnosis_speed.py [--documents N] [--evaluations N] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from simulated import Plan, observed, simulated

from sovereign.diagnosis import bounds
from sovereign.diagnosis.procedure import diagnose
from sovereign.diagnosis.record import from_run
from sovereign.metrics import intervals

TARGET = 2.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    plan = Plan(documents=given.documents, steps=10 * (given.evaluations - 1), every=10, speed=200.0)
    run = observed(simulated(plan), plan)
    rows = sum(map(len, run.rows.values()))
    print(
        f"{given.documents} documents a side, {given.evaluations} evaluations, {rows} rows; medians of {given.rounds} rounds"
    )

    reading, deciding = [], []
    for _ in range(given.rounds):
        bounds._times.cache_clear()
        intervals.resampled.cache_clear()
        began = time.process_time()
        record = from_run(run)
        read = time.process_time()
        found = diagnose(record)
        reading.append(read - began)
        deciding.append(time.process_time() - read)
    total = statistics.median(one + other for one, other in zip(reading, deciding, strict=True))
    print(f"rows to record  {statistics.median(reading):7.3f} s")
    print(f"record to claims{statistics.median(deciding):7.3f} s   ({found.headline}, tier {found.tier}, two seeds)")
    print(f"together        {total:7.3f} s   target {TARGET} s: {'met' if total < TARGET else 'MISSED'}")
    print(f"torch imported: {'torch' in sys.modules}")

    drawn = np.random.default_rng(0)
    tokens = drawn.integers(50, 500, given.documents).astype(float)
    sums = tokens * drawn.lognormal(1, 0.3, given.documents)
    ours, peer = [], []
    for _ in range(given.rounds):
        bounds.ratio_bounds((sums, tokens), 1)  # both warm: indices are cached in either
        intervals.ratio(sums, tokens)
        began = time.process_time()
        bounds.ratio_bounds((sums, tokens), 1)
        between = time.process_time()
        intervals.ratio(sums, tokens)
        ours.append(between - began)
        peer.append(time.process_time() - between)
    ratios = [one / other for one, other in zip(peer, ours, strict=True)]
    print(
        f"one bound: gathering takes {statistics.median(ratios):.1f} times as long ({min(ratios):.1f} to {max(ratios):.1f})"
    )
    sys.exit(0 if total < TARGET and "torch" not in sys.modules else 1)


if __name__ == "__main__":
    main()
