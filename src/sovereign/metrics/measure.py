"""The metrics that exist, by name, and the one function that computes measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from sovereign.evidence.folder import Observed
from sovereign.evidence.statement import Measurement
from sovereign.metrics import (
    data,
    degeneration,
    loss,
    memorization,
    parity,
    positions,
    reported,
    suite,
    text,
    training,
    tuning,
)
from sovereign.metrics.intervals import Interval, Unmeasurable, Word

Measured = Callable[[Observed], Interval | Word]
METRICS: dict[str, Measured] = {
    "validation/loss": loss.validation_loss,
    "validation/below_unigram": loss.below_unigram,
    "validation/below_bigram": loss.below_bigram,
    "validation/gap": loss.gap,
    "validation/step0_distance": loss.step0_distance,
    "data/shared_documents": data.shared_documents,
    "data/shared_with_ancestors": data.shared_with_ancestors,
    "data/overlap_excess": data.overlap_excess,
    "data/phrase_overlap_excess": data.phrase_overlap_excess,
    "data/round_trip_errors": data.round_trip_errors,
    "data/bytes_per_token": data.bytes_per_token,
    "context/late_gain": positions.late_gain,
    "context/beyond_rise": positions.beyond_rise,
    "training/rate_error": training.rate_error,
    "training/tokens_missing": training.tokens_missing,
    "training/replay_mismatches": training.replay_mismatches,
    "training/tokens_per_second": training.tokens_per_second,
    "training/mfu": training.mfu,
    "training/memory_error": training.memory_error,
    "training/off_device": training.off_device,
    "training/step_seconds": training.step_seconds,
    "training/replay_error": training.replay_error,
    "training/settled_mfu": training.settled_mfu,
    "training/overfit_loss": training.overfit_loss,
    "samples/function_rate": text.function_rate,
    "samples/function_excess": text.function_excess,
    "samples/newline_rate": text.newline_rate,
    "memorization/extraction_excess": memorization.extraction_excess,
    "memorization/exposure": memorization.exposure,
    "memorization/membership": memorization.membership,
    "evaluation/path_error": loss.path_error,
    "samples/degenerate_rate": degeneration.degenerate_rate,
    "samples/repeated_4grams": degeneration.repeated_4grams,
    "samples/compression_ratio": degeneration.compression_ratio,
    "samples/longest_run": degeneration.longest_run,
    "samples/length": degeneration.sample_length,
    "tuning/mismatches": tuning.mismatches,
    "tuning/not_loaded": tuning.not_loaded,
    "tuning/base_distance": tuning.base_distance,
    "tuning/trainable_difference": tuning.trainable_difference,
    "tuning/frozen_changed": tuning.frozen_changed,
    "tuning/rows_changed": tuning.rows_changed,
    "tuning/improvement": tuning.improvement,
    "tuning/learned_share": tuning.learned_share,
    "classification/accuracy": tuning.accuracy,
    "classification/above_majority": tuning.above_majority,
    "classification/above_bag_of_words": tuning.above_bag_of_words,
    "classification/above_prompted": tuning.above_prompted,
    "classification/least_recall": tuning.least_recall,
    "generation/chrf_gain": tuning.chrf_gain,
    "generation/copied_rate": tuning.copied_rate,
    "reported/validation_loss": reported.validation_loss,
    **parity.METRICS,
    **suite.METRICS,
}
# slice -> the part of the rows that it is; a metric is measured of a slice where those rows suffice
SLICES: dict[str, Callable[[Observed], Observed]] = {"llama.cpp": parity.by_llamacpp}
SLICED = {"llama.cpp": parity.OF_THE_ENGINE}  # slice -> the metrics that it suffices for


def measure(
    observed: Observed, metrics: Iterable[str], known: Mapping[str, Measured] = METRICS
) -> tuple[tuple[Measurement, ...], dict[str, str]]:
    """Return the measurements that the rows allow, and for every other metric why it could not be computed.

    What a part of the rows shows by itself (SLICES) is a measurement of its own, behind that of all of them.
    """
    measured: list[Measurement] = []
    missing: dict[str, str] = {}
    parts = {name: of(observed) for name, of in SLICES.items()}
    for name in sorted(set(metrics)):
        compute = known.get(name)
        if compute is None:
            missing[name] = f"{name} is not a metric this version computes"
            continue
        try:
            measured.append(_measurement(name, compute(observed)))
        except Unmeasurable as reason:
            missing[name] = str(reason)
            continue
        for part, rows in parts.items():
            if name not in SLICED[part]:
                continue
            with suppress(Unmeasurable):
                measured.append(_measurement(name, compute(rows), part))
    return tuple(measured), missing


def _measurement(name: str, found: Interval | Word, part: str = "all") -> Measurement:
    return Measurement(
        metric=name, slice=part, value=found.value, low=found.low, high=found.high, n=found.n, method=found.method
    )
