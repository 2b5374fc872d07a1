"""Optimisation: whether training holds together, and whether it has learned more than to count tokens."""

from __future__ import annotations

import numpy as np

from sovereign.diagnosis.bounds import units_to_decide
from sovereign.diagnosis.checks import absent, ranged
from sovereign.diagnosis.findings import Check, Confidence, Finding, Result, settle
from sovereign.diagnosis.reading import Curve, Reading
from sovereign.diagnosis.thresholds import ABOVE_UNIGRAM, BELOW_UNIGRAM, EFFECT, POINTS, SPIKE, STAYS_UP, UNKNOWN_SPREAD
from sovereign.metrics.intervals import Floats


def smoothed(losses: Floats) -> Floats:
    """Return an exponential mean over a fiftieth of the points; a short table is its own."""
    weight = 2 / (max(1, len(losses) // 50) + 1)
    found, mean = np.empty_like(losses), losses[0]
    for at, loss in enumerate(losses):
        mean += weight * (loss - mean)
        found[at] = mean
    return found


def diverged(r: Reading) -> Finding:
    """A loss that is not finite, or that rises and stays up; a spike that recovers is only a note (P11)."""
    if r.record.broke:
        finite = Check(probe="finite", result="fires", says=f"not finite: {r.record.broke}", weight="MEDIUM")
    elif not len(r.train) + len(r.val):
        finite = absent("finite", "no loss is logged", "step_log")
    else:
        finite = Check(probe="finite", result="passes", says="every logged loss is finite", weight="MEDIUM")
    if len(r.train) < POINTS:
        told = absent("P11 divergence", f"{len(r.train)} training losses; a trend has three", "evaluations", "step_log")
        return settle("DIVERGED", [finite, told])
    checks, notes = [finite], []
    weight: Confidence = "LOW" if r.record.steps is None else "MEDIUM"
    for train in r.trains:
        mean = smoothed(train.loss)
        mad = float(np.median(np.abs(train.loss - mean)))
        margin = max(SPIKE[0], SPIKE[1] * mad)
        up = mean - np.minimum.accumulate(mean)
        away = bool((up > margin).mean() > SPIKE[2] and up[-1] > margin)
        says = f"the smoothed training loss ends {up[-1]:.2f} above its lowest" + (
            "" if away else f", within {margin:.2f}"
        )
        checks.append(Check(
            probe="P11 divergence", result="fires" if away else "passes", says=says, value=float(up[-1]),
            threshold=f"<= {margin:.2f}", n=len(train), weight=weight,
        ))  # fmt: skip
        worse = float(mean[-1] - train.loss[0])
        checks.append(Check(
            probe="end against start", result="fires" if worse > STAYS_UP else "passes", value=worse, n=len(train),
            threshold=f"<= {STAYS_UP}", says=f"the training loss ends {worse:+.2f} from where it began", weight=weight,
        ))  # fmt: skip
        checks.append(_rises_above_counting(r, train, mean, weight))
        if (up > margin).any() and not away:
            notes.append(f"SPIKE: the loss rose by {up.max():.2f} near {train.at[int(np.argmax(up))]:g} and came back")
    return settle("DIVERGED", checks, notes=notes[:1])


def _rises_above_counting(r: Reading, train: Curve, mean: Floats, weight: Confidence) -> Check:
    probe = "above counting, and rising"
    if r.unigram is None:
        return absent(probe, "the unigram loss is not known", "unigram")
    above = float(mean[-1] - r.unigram - ABOVE_UNIGRAM)
    half = train.loss[len(train) // 2 :]
    rising = above > 0 and _rising(half)
    says = f"training ends {mean[-1] - r.unigram:+.2f} from the unigram level" + (
        " and rises" if rising else ", and is not rising"
    )
    return Check(
        probe=probe, result="fires" if rising else "passes", says=says, value=above, threshold=f"<= +{ABOVE_UNIGRAM}, or not rising",
        weight=weight,
    )  # fmt: skip


def _rising(losses: Floats) -> bool:
    """Say whether losses rise beyond doubt: Kendall's tau, one-sided 5 %, and by more than 2 % of perplexity."""
    from scipy.stats import kendalltau  # here: it loads slowly, and most runs end below the unigram level

    if len(losses) < 5:
        return False
    losses = losses[:: max(1, len(losses) // 200)]
    found = kendalltau(np.arange(len(losses)), losses, alternative="greater")
    third = max(1, len(losses) // 3)
    return bool(found.pvalue < 0.05 and losses[-third:].mean() - losses[:third].mean() > EFFECT)


def not_learned(r: Reading, clean: np.ndarray | None = None) -> Finding:
    """Validation is no better than a context-free unigram model, after enough tokens (P1)."""
    if not len(r.val):
        return settle("NOT_LEARNED", [absent("P1 unigram", "no validation loss", "evaluations")])
    last = float(r.val.loss[-1])
    notes = []
    if r.uniform is not None:
        notes.append(f"knowing nothing scores ln V = {r.uniform:.2f}; validation is at {last:.2f}")
    budget = None if r.consumed is None or r.enough_tokens is None else r.consumed > r.enough_tokens
    needs = ("vocabulary",) if r.enough_tokens is None else ("budget",)
    if r.unigram is None:
        checks = [absent("P1 unigram", "what counting single tokens scores is not known", "unigram")]
    else:
        away = last - r.unigram
        notes.append(f"counting single tokens scores {r.unigram:.2f}")
        checks = [_after(
            "P1 unigram", away > UNKNOWN_SPREAD - BELOW_UNIGRAM, budget, away, f"<= +{UNKNOWN_SPREAD - BELOW_UNIGRAM:.1f}",
            f"validation is {last:.3f}, {away:+.2f} from a model that only counts single tokens", needs,
        )]  # fmt: skip
        for keep, name in ((None, "all documents"), (clean, "clean documents")):
            if name == "clean documents" and clean is None:
                continue
            paired = r.above_unigram(keep)
            if paired is None:
                checks.append(absent("P1 unigram by document", "no losses by document", "documents"))
                continue
            fires, passes = paired.low > -BELOW_UNIGRAM, paired.high < -BELOW_UNIGRAM
            result: Result = "passes" if passes else "undecided" if not fires else "fires" if budget else "undecided"
            checks.append(Check(
                probe="P1 unigram by document", result=result, value=paired.value, low=paired.low, high=paired.high, n=paired.n,
                says=f"validation lies {ranged(paired)} from the unigram level, over {name}", method=paired.method,
                threshold=f"< -{BELOW_UNIGRAM}", weight="MEDIUM", needs=("longer",) if budget is False else ("more_documents",),
                enough=None if budget is False or result != "undecided" else units_to_decide(paired, (-BELOW_UNIGRAM,)),
            ))  # fmt: skip
    if r.uniform is not None and r.record.settings.text in ("natural", "code"):
        near = last - (r.uniform - 0.5)
        checks.append(_after(
            "P1 uniform", near > 0, budget, near, "<= ln V - 0.5",
            f"validation is {r.uniform - last:.2f} below knowing nothing (ln V = {r.uniform:.2f})", needs,
        ))  # fmt: skip
    return settle("NOT_LEARNED", checks, notes=notes)


def _after(
    probe: str, fires: bool, budget: bool | None, value: float, threshold: str, says: str, needs: tuple[str, ...]
) -> Check:
    """Return a check of a level that counts only once enough tokens were trained on."""
    if not fires:
        return Check(probe=probe, result="passes", says=says, value=value, threshold=threshold, weight="MEDIUM")
    if budget is None:
        told = f"{says}, but how many tokens were trained on is not known"
        return Check(probe=probe, result="undecided", says=told, value=value, threshold=threshold, needs=needs)
    if not budget:
        told = f"{says}, but too few tokens were trained on to tell"
        return Check(probe=probe, result="undecided", says=told, value=value, threshold=threshold, needs=("longer",))
    return Check(probe=probe, result="fires", says=says, value=value, threshold=threshold, weight="MEDIUM")
