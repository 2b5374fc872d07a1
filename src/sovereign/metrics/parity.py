"""Parity: how far what ships is from what was trained, and whether that is no more than it must be."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import (
    ExportRow,
    ParityGreedyRow,
    ParityLayerRow,
    ParityPlaceRow,
    ParityPlantedRow,
    ParityRow,
    ParityTensorRow,
)
from sovereign.metrics.intervals import Floats, Interval, Unmeasurable, exact, ratio, wilson

CLEAR = 1e-3  # nats between the two highest logits; below it, which of them is higher is rounding's choice
SAME = 1e-6  # relative L2 of two implementations that round alike
SIGNIFICANCE = 0.05  # of each of the two one-sided tests


def by_llamacpp(observed: Observed) -> Observed:
    """Return the rows of what llama.cpp carried out; those of our own forward in its place are left out."""
    rows = {
        kind: tuple(row for row in found if getattr(row, "engine", "").startswith("llama.cpp"))
        for kind, found in observed.rows.items()
        if kind.startswith("parity") or kind == "export"
    }
    # what random errors do is the reference's own, whoever carries the candidate out
    noise = tuple(row for row in observed.of(ParityRow) if row.comparison == "noise")
    return Observed(observed.intent, {**rows, "parity": (*rows.get("parity", ()), *noise)})


def _rows(observed: Observed, comparison: str) -> tuple[ParityRow, ...]:
    found = tuple(row for row in observed.of(ParityRow) if row.comparison == comparison)
    if not found:
        raise Unmeasurable(f"no parity rows of the comparison {comparison}")
    return found


def mean_distance(comparison: str, observed: Observed) -> Interval:
    """Return the mean relative L2 of the logits over all positions, in clusters of prompts."""
    rows = _rows(observed, comparison)
    sums, counts = [sum(row.relative_l2) for row in rows], [len(row.relative_l2) for row in rows]
    return ratio(np.array(sums), np.array(counts, dtype=np.float64))


def largest_distance(comparison: str, observed: Observed) -> Interval:
    """Return the relative L2 of the logits at the worst position: what a mean dilutes."""
    rows = _rows(observed, comparison)
    return exact(max(max(row.relative_l2) for row in rows), len(rows), "largest over positions")


def mean_divergence(comparison: str, observed: Observed) -> Interval:
    """Return the mean KL(reference || candidate) over all positions, in nats."""
    rows = _rows(observed, comparison)
    return ratio(np.array([sum(row.kl) for row in rows]), np.array([len(row.kl) for row in rows], dtype=np.float64))


def same_choice(comparison: str, observed: Observed) -> Interval:
    """Return the share of positions with the same most likely token, of those where the reference's choice is clear."""
    rows = _rows(observed, comparison)
    clear = [[agree for agree, margin in zip(row.agree, row.margin, strict=True) if margin > CLEAR] for row in rows]
    if not any(clear):
        raise Unmeasurable(f"no position has its two highest logits further than {CLEAR} apart")
    kept = [one for one in clear if one]
    found = ratio(np.array([float(sum(one)) for one in kept]), np.array([len(one) for one in kept], dtype=np.float64))
    return Interval(found.value, max(0.0, found.low), min(1.0, found.high), found.n, found.method)


def _losses(observed: Observed, comparison: str) -> tuple[Floats, Floats]:
    rows = [row for row in _rows(observed, comparison) if row.targets]
    if len(rows) < 2:
        raise Unmeasurable("fewer than two prompts have a token to predict")
    differences = np.array([row.candidate_nll - row.reference_nll for row in rows])
    return differences, np.array([row.targets for row in rows], dtype=np.float64)


def loss_distance(comparison: str, observed: Observed) -> Interval:
    """Return |loss of the candidate - loss of the reference| in nats per token, paired by prompt.

    The upper end is the far end of the 90 % interval of the difference, so that `<= margin` is held by it exactly when
    two one-sided tests at 5 % find the two equivalent within the margin (TOST; Schuirmann 1987).
    """
    from scipy.special import stdtrit  # here: it loads slowly

    differences, targets = _losses(observed, comparison)
    value = float(differences.sum() / targets.sum())
    influence = (differences - value * targets) / targets.mean()
    spread = math.sqrt(float(np.var(influence, ddof=1)) / len(influence))
    reach = float(stdtrit(len(influence) - 1, 1 - SIGNIFICANCE)) * spread
    low = 0.0 if abs(value) <= reach else abs(value) - reach
    return Interval(abs(value), low, abs(value) + reach, len(influence), "TOST over prompts, 90 % interval")


def perplexity_ratio(comparison: str, observed: Observed) -> Interval:
    """Return the candidate's perplexity over the reference's on the same tokens."""
    found = ratio(*_losses(observed, comparison))
    return Interval(math.exp(found.value), math.exp(found.low), math.exp(found.high), found.n, found.method)


def over_noise(observed: Observed) -> Interval:
    """Return the distance that quantized weights make over that of random errors of the size they should have."""
    draws: dict[str, list[float]] = {}
    for row in _rows(observed, "noise"):
        draws.setdefault(row.document, []).append(sum(row.relative_l2))
    noise = {name: sum(found) / len(found) for name, found in draws.items()}
    rows = [row for row in _rows(observed, "weights") if row.document in noise]
    if len(rows) < 2 or not all(noise[row.document] > 0 for row in rows):
        raise Unmeasurable("fewer than two prompts have both a noise floor and the weights' distance")
    return ratio(np.array([sum(row.relative_l2) for row in rows]), np.array([noise[row.document] for row in rows]))


def largest_before_a_tie(observed: Observed) -> Interval:
    """Return the largest distance between our forward and the engine before each prompt's first rounding tie."""
    rows = _rows(observed, "implementation")
    before = [value for row in rows for value in row.relative_l2[: row.first_tie]]
    if not before:
        raise Unmeasurable("every prompt has a rounding tie at its first position")
    return exact(max(before), len(before), "largest over positions before a tie")


def alike_share(observed: Observed) -> Interval:
    """Return the share of positions at which our forward and the engine agree to a relative 1e-6, end to end."""
    rows = _rows(observed, "implementation")
    near = sum(value <= SAME for row in rows for value in row.relative_l2)
    return wilson(near, sum(len(row.relative_l2) for row in rows))


def _layers(observed: Observed) -> tuple[ParityLayerRow, ...]:
    rows = observed.of(ParityLayerRow)
    if not rows:
        raise Unmeasurable("no parity_layer rows: no engine showed its layers")
    return rows


def tied_positions(row: ParityLayerRow) -> frozenset[int]:
    """Return the positions at which some product of a layer meets a tie."""
    return frozenset(int(one.partition(":")[0]) for one in row.ties)


def largest_of_a_layer(observed: Observed) -> Interval:
    """Return the largest distance of a layer from the engine's on the same input, at positions without a tie."""
    rows = [(row, tied_positions(row)) for row in _layers(observed)]
    free = [value for row, tied in rows for at, value in enumerate(row.relative_l2) if at not in tied]
    if not free:
        raise Unmeasurable("no position of any layer is free of ties")
    return exact(max(free), len(free), "largest over layers and positions without a tie")


def untied_share(observed: Observed) -> Interval:
    """Return the share of (layer, position) pairs in which no activation may round either way."""
    rows = _layers(observed)
    pairs = sum(len(row.relative_l2) for row in rows)
    return wilson(pairs - sum(len(tied_positions(row)) for row in rows), pairs)


def accused(observed: Observed) -> Interval:
    """Return how many operations part from the reference on the same input."""
    rows = observed.of(ParityPlaceRow)
    if not rows:
        raise Unmeasurable("no parity_place rows: no operation was looked at")
    return exact(sum(row.worst > row.allowed for row in rows), len(rows))


def foreign_blocks(observed: Observed) -> Interval:
    """Return how many blocks of all tensors are not, byte for byte, the reference's in the same type."""
    rows = observed.of(ParityTensorRow)
    if not rows:
        raise Unmeasurable("no parity_tensor rows: no tensor was looked at")
    return exact(sum(row.differing for row in rows), sum(row.blocks for row in rows))


def error_over_expected(observed: Observed) -> Interval:
    """Return the largest quantization error of a tensor over the one its blocks should make."""
    rows = [row for row in observed.of(ParityTensorRow) if row.expected_error > 0]
    if not rows:
        raise Unmeasurable("no tensor of the candidate is quantized")
    return exact(max(row.relative_error / row.expected_error for row in rows), len(rows), "largest over tensors")


def untied_products(observed: Observed) -> Interval:
    """Return the share of (layer, position, product) triples in which no activation may round either way."""
    rows = [row for row in _layers(observed) if row.products]
    if not rows:
        raise Unmeasurable("no layer says how many of its products round their input")
    count = sum(len(row.relative_l2) * row.products for row in rows)
    return wilson(count - sum(len(row.ties) for row in rows), count)


def _far(observed: Observed) -> tuple[list[float], int]:
    rows = [row for row in _layers(observed) if row.window is not None]
    if not rows:
        raise Unmeasurable("no layer's row has a window: none was taken from float32's own error")
    marked = [(row, {int(one.partition(":")[0]) for one in row.near}) for row in rows]
    far = [value for row, near in marked for at, value in enumerate(row.relative_l2) if at not in near]
    return far, sum(len(row.relative_l2) for row in rows)


def far_share(observed: Observed) -> Interval:
    """Return the share of (layer, position) pairs whose every quotient is further from a half than float32 errs."""
    far, pairs = _far(observed)
    return wilson(len(far), pairs)


def largest_far(observed: Observed) -> Interval:
    """Return the largest distance of a layer from the engine's on the same input, where every quotient is that far."""
    far, _ = _far(observed)
    if not far:
        raise Unmeasurable("no position of any layer is further from a half than float32 errs")
    return exact(max(far), len(far), "largest over layers and positions")


def first_token_distance(comparison: str, observed: Observed) -> Interval:
    """Return the largest difference in the probability of the token that is most likely after a prompt."""
    rows = _rows(observed, comparison)
    apart = max(abs(row.reference_first - row.candidate_first) for row in rows)
    return exact(apart, len(rows), "largest over prompts")


def greedy_departures(observed: Observed) -> Interval:
    """Return how many prompts the candidate goes on from otherwise than the reference, while the latter's choice is clear.

    A choice is clear where the two highest logits are further apart than twice what random errors of the predicted size
    did to any logit (and than CLEAR): an error that moved both by less cannot exchange them. Each continuation counts up to its
    first choice that is not clear; a prompt whose very first is not is no trial.
    """
    rows = observed.of(ParityGreedyRow)
    if not rows:
        raise Unmeasurable("no parity_greedy rows: nothing was continued")
    noise = [max(row.max_difference) for row in observed.of(ParityRow) if row.comparison == "noise"]
    clear = max(CLEAR, 2 * max(noise, default=0.0))
    lengths = [next((at for at, one in enumerate(row.margin) if one <= clear), len(row.margin)) for row in rows]
    tried = [(row, length) for row, length in zip(rows, lengths, strict=True) if length]
    if not tried:
        raise Unmeasurable(f"no prompt has a first choice clearer than {clear:.3g}")
    departed = sum(row.reference[:length] != row.candidate[:length] for row, length in tried)
    return exact(departed, len(tried), f"choices clearer than {clear:.3g}, {sum(one for _, one in tried)} in all")


def _planted(observed: Observed) -> tuple[ParityPlantedRow, ...]:
    rows = observed.of(ParityPlantedRow)
    if not rows:
        raise Unmeasurable("no parity_planted rows: no fault was planted")
    return rows


def planted_unseen(observed: Observed) -> Interval:
    """Return how many of the faults planted in copies of the export the check let pass."""
    rows = _planted(observed)
    return exact(sum(not row.seen for row in rows), len(rows))


def planted_named(observed: Observed) -> Interval:
    """Return the share of planted faults whose place was named first; a list that is fixed, so it is not a sample."""
    rows = _planted(observed)
    return exact(sum(row.right for row in rows) / len(rows), len(rows))


def _export(observed: Observed) -> ExportRow:
    rows = observed.of(ExportRow)
    if not rows:
        raise Unmeasurable("no export row: nothing was shipped")
    return rows[-1]


def texts_otherwise(observed: Observed) -> Interval:
    """Return how many held-out texts are other token ids to the file's reader: all of them, where it refuses the file."""
    row = _export(observed)
    return exact(row.texts if row.refused else row.otherwise, row.texts)


def size_share(observed: Observed) -> Interval:
    """Return the size of the exported file, over that of its weights in float32."""
    row = _export(observed)
    return exact(row.bytes / (4 * row.weights), 1)


METRICS: dict[str, Callable[[Observed], Interval]] = {
    **{f"parity/{one}_l2": partial(mean_distance, one) for one in ("golden", "noise", "weights", "implementation", "whole", "decode")},
    **{f"parity/{one}_l2_max": partial(largest_distance, one) for one in ("golden", "weights", "implementation", "whole", "decode")},
    **{f"parity/{one}_kl": partial(mean_divergence, one) for one in ("weights", "implementation", "whole")},
    **{f"parity/{one}_top1": partial(same_choice, one) for one in ("weights", "implementation", "whole", "decode")},
    **{f"parity/{one}_loss_distance": partial(loss_distance, one) for one in ("weights", "implementation", "whole")},
    **{f"parity/{one}_perplexity_ratio": partial(perplexity_ratio, one) for one in ("weights", "whole")},
    "parity/whole_first_token": partial(first_token_distance, "whole"),
    "parity/weights_over_noise": over_noise,
    "parity/implementation_untied_l2": largest_before_a_tie,
    "parity/implementation_alike": alike_share,
    "parity/layer_untied_l2": largest_of_a_layer,
    "parity/untied_share": untied_share,
    "parity/accused": accused,
    "parity/foreign_blocks": foreign_blocks,
    "parity/error_over_expected": error_over_expected,
    "parity/untied_products": untied_products,
    "parity/far_share": far_share,
    "parity/far_l2": largest_far,
    "parity/greedy_departures": greedy_departures,
    "parity/planted_unseen": planted_unseen,
    "parity/planted_named": planted_named,
    "shipping/texts_otherwise": texts_otherwise,
    "shipping/size_share": size_share,
}  # fmt: skip
# what the engine can show by itself: measured of its rows alone, too
OF_THE_ENGINE = frozenset(
    name for name in METRICS
    if name.startswith(("parity/implementation", "parity/whole", "parity/decode", "parity/planted", "parity/far", "parity/untied"))
) | {"parity/accused", "parity/greedy_departures", "parity/layer_untied_l2", "shipping/texts_otherwise"}  # fmt: skip
