"""Differences of loss: paired by document, against the noise of seeds, and in bits per byte where tokens differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sovereign.comparison.record import Estimate, LossDifference, Offered, Verdict
from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import CorpusRow, EvaluationRow
from sovereign.metrics.intervals import Floats, Interval, ratio

Scored = dict[str, tuple[float, int]]  # document -> nll in nats, target tokens
LEAST = 10  # documents below which no interval is given
POWER = 2.8  # z for two-sided 5 % plus z for 80 % power


def validations(observed: Observed) -> dict[int, Scored]:
    """Return step -> document -> (nll, tokens) of the validation documents."""
    found: dict[int, Scored] = {}
    for row in observed.of(EvaluationRow):
        if row.split == "validation":
            found.setdefault(row.step, {})[row.document] = (row.nll, row.tokens)
    return found


def paired(first: Scored, second: Scored) -> Estimate:
    """Return second minus first loss in nats per token over the documents of both, which have the same tokens.

    Below ten documents there is no interval; below a hundred it is Student's t, above a cluster bootstrap. Swapping
    the two turns the sign and nothing else.
    """
    documents = sorted(first.keys() & second.keys())
    tokens = np.array([first[key][1] for key in documents], dtype=np.float64)
    differences = np.array([second[key][0] - first[key][0] for key in documents], dtype=np.float64)
    return _difference(differences, tokens)


def _difference(differences: Floats, weights: Floats) -> Estimate:
    """Return the sum of the differences over the sum of the weights, resampling documents.

    The sign is taken out first: in floats, the percentiles of the mirror image are not the mirrored percentiles.
    """
    value = float(differences.sum() / weights.sum())
    sign = -1.0 if value < 0 else 1.0
    n = len(differences)
    if n < LEAST:
        return Estimate(value=value, n=n, method=f"{n} documents: too few for an interval")
    influence = (differences - value * weights) / weights.mean()
    detectable = POWER * float(np.std(influence, ddof=1)) / math.sqrt(n)
    found = ratio(sign * differences, weights)
    low, high = sorted((sign * found.low, sign * found.high))
    return Estimate(value=value, low=low, high=high, n=n, method=f"paired, {found.method}", detectable=detectable)


def verdict(estimate: Estimate) -> Verdict:
    """Return what an interval says of second minus first; one that covers zero, or does not exist, says nothing."""
    if estimate.low is None or estimate.high is None:
        return "INCONCLUSIVE"
    return "LOWER" if estimate.high < 0 else "HIGHER" if estimate.low > 0 else "INCONCLUSIVE"


def loss(scored: Scored) -> float:
    return sum(nll for nll, _ in scored.values()) / sum(tokens for _, tokens in scored.values())


def differences(first: Mapping[int, Scored], second: Mapping[int, Scored]) -> tuple[LossDifference, ...]:
    """Return the paired differences at the last evaluation of each, at the best of each, and at the last both made.

    The best is chosen on one half of the documents and measured on the other, since the least of many noisy losses
    is too low.
    """
    last = (max(first), max(second))
    found = [_at("last", last, first, second)]
    halves = _halves(first[last[0]])
    best = (best_step(first, halves[0]), best_step(second, halves[0]))
    if all(halves) and best[0] is not None and best[1] is not None:
        rest = [
            {step: {key: one[step][key] for key in halves[1] if key in one[step]} for step in one}
            for one in (first, second)
        ]
        found.append(_at("best", (best[0], best[1]), *rest))
    common = max((step for step in first.keys() & second.keys() if step), default=0)
    if common and (common, common) != last:
        found.append(_at("last common", (common, common), first, second))
    return tuple(found)


def _at(at: str, steps: tuple[int, int], first: Mapping[int, Scored], second: Mapping[int, Scored]) -> LossDifference:
    one, two = first[steps[0]], second[steps[1]]
    return LossDifference(at=at, steps=steps, losses=(loss(one), loss(two)), difference=paired(one, two))  # type: ignore[arg-type]


def _halves(scored: Scored) -> tuple[list[str], list[str]]:
    """Return the documents in two halves by their own hash, so that neither order nor number decides."""
    halves: tuple[list[str], list[str]] = ([], [])
    for document in sorted(scored):
        halves[int(document, 16) & 1].append(document)
    return halves


def best_step(evaluations: Mapping[int, Scored], half: Sequence[str]) -> int | None:
    """Return the step with the least loss on some documents; step 0 is no checkpoint of a training."""
    losses = {
        step: loss({key: scored[key] for key in half if key in scored})
        for step, scored in evaluations.items()
        if step and any(key in scored for key in half)
    }
    return min(sorted(losses), key=lambda step: losses[step], default=None)


# ── seeds ────────────────────────────────────────────────────────────────────────────────────────


def seed_noise(first: Sequence[float], second: Sequence[float]) -> Estimate | None:
    """Return the difference of the means over seeds with its band (pooled SD, t), or None without any repeat.

    One recipe with repeats lends its spread to another without; how far seeds scatter is then an assumption that
    both scatter alike.
    """
    freedom = len(first) + len(second) - 2
    if freedom < 1:
        return None
    from scipy.special import stdtrit  # here: it loads slowly, and most comparisons have no repeats

    one, two = np.array(first), np.array(second)
    squares = float(((one - one.mean()) ** 2).sum() + ((two - two.mean()) ** 2).sum())
    error = math.sqrt(squares / freedom * (1 / len(one) + 1 / len(two)))
    value = float(two.mean() - one.mean())
    reach = float(stdtrit(freedom, 0.975)) * error
    return Estimate(
        value=value, low=value - reach, high=value + reach, n=len(one) + len(two),
        method=f"t over seeds ({len(one)} and {len(two)}), pooled SD", detectable=POWER * error,
    )  # fmt: skip


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────


def bits_per_byte(first: tuple[Observed, Scored], second: tuple[Observed, Scored]) -> Offered | None:
    """Return second minus first in bits per byte over the documents that both scored to their end, or None.

    A document that was cut after some tokens was cut at another byte by another tokenizer, and does not count.
    """
    sizes = [_whole(*one) for one in (first, second)]
    shared = sorted(sizes[0].keys() & sizes[1].keys())
    if not shared:
        return None
    bytes_ = np.array([sizes[0][key] for key in shared], dtype=np.float64)
    bits = [np.array([one[key][0] for key in shared], dtype=np.float64) / math.log(2) for _, one in (first, second)]
    of = len(first[1].keys() | second[1].keys())
    return Offered(
        name="bits per byte", unit="bits/byte",
        values=(float(bits[0].sum() / bytes_.sum()), float(bits[1].sum() / bytes_.sum())),
        difference=_difference(bits[1] - bits[0], bytes_),
        remark=f"over the {len(shared)} of {of} documents that both scored to their end; the others were cut",
    )  # fmt: skip


def _whole(observed: Observed, scored: Scored) -> dict[str, int]:
    """Return document -> bytes of those scored to their end: their tokens, and the end-of-text behind them."""
    corpus = {row.document: row for row in observed.of(CorpusRow)}
    return {
        key: corpus[key].bytes
        for key, (_, tokens) in scored.items()
        if key in corpus and corpus[key].bytes and tokens == corpus[key].tokens + 1
    }


def shared_documents(first: Scored, second: Scored) -> Offered | None:
    """Return second minus first loss over the documents that both held out, where the sets are not the same."""
    documents = [key for key in first.keys() & second.keys() if first[key][1] == second[key][1]]
    if not documents:
        return None
    one, two = ({key: scored[key] for key in documents} for scored in (first, second))
    return Offered(
        name="documents of both", unit="nats/token", values=(loss(one), loss(two)), difference=paired(one, two),
        remark=f"over the {len(documents)} documents that both hold out, of {len(first)} and {len(second)}",
    )  # fmt: skip


def interval(found: Interval) -> Estimate:
    """Return a measurement as an estimate."""
    return Estimate(value=found.value, low=found.low, high=found.high, n=found.n, method=found.method)
