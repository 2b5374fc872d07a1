"""Claims: one function each, from a record read with one seed to a finding.

Coarse tests run beside finer ones, so that taking evidence away never adds a verdict. The procedure holds back
refutations that rest on validation while contamination is open; nothing here knows of that.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from sovereign.diagnosis.bounds import LEAST, shares_to_decide, units_to_decide
from sovereign.diagnosis.findings import LADDER, Check, Claim, Confidence, Finding, Result, Verdict, conclude, settle
from sovereign.diagnosis.reading import Curve, Reading, Rise
from sovereign.diagnosis.record import of_one_batch
from sovereign.metrics.degeneration import signs
from sovereign.metrics.intervals import Floats, Interval, resampled

# losses in nats per token; each is a starting value, checked on small models only
EQUAL = 1e-5  # losses this close, three in a row, are one number
FAST = 0.2  # of the median wall time
PATHS = {"fp32": 1e-5, "bf16": 1e-3, "fp16": 1e-3}  # beyond reduction noise for 1,000 tokens or more
BELOW_UNIGRAM = 0.1  # a model counts as having learned once it is this far below counting single tokens
UNKNOWN_SPREAD = 0.3  # 256 sequences make a scalar uncertain by 0.2; one without documents must clear more
ARTIFACT = 0.05
DROPOUT_ALLOWANCE = 0.5  # nats a train-mode loss may lie above, per unit of dropout; it only makes something likely
POSITION = (8, 0.3, 0.05)  # evaluations, R squared, p
SPIKE = (0.5, 8.0, 0.02)  # nats, MADs, share of steps
STAYS_UP = 0.2
ABOVE_UNIGRAM = 0.5
EXCESS = 0.01  # share of documents, and of passages
EFFECT = 0.02  # about 2 % of perplexity; below it seeds and sampling dominate
SHIFTED = 0.25
CEILING = 0.3
PASSAGES = 300  # none of 300 gives an upper bound of 1.0 %
CANARIES = (16, 0.01, 0.1)  # how many, p that counts, p that clears
RISES = (0.05, 2)  # Prechelt's GL5 with two successive rises
SMALL_GAP, LARGE_GAP = 0.10, 0.30
BEYOND_ARTIFACTS = 1.0  # no lag, dropout or small sample makes a gap like this
MEMORY_LIKE = 3.0
FLAT = 0.01  # nats per tenth of the tokens
MOVES = 0.01  # share of the weights that an update must change before a result counts as one of training
POWER = 0.05
IMPROVED = 0.05
POINTS = 3  # a trend has three


def absent(probe: str, says: str, *needs: str) -> Check:
    """Return a check that did not run, and what would let it."""
    return Check(probe=probe, result="did not run", says=says, needs=needs)


def bounded(
    probe: str, found: Interval, says: str, *, threshold: str, fires: bool, passes: bool, weight: Confidence = "MEDIUM",
    needs: tuple[str, ...] = (), edges: Sequence[float] = (), enough: int | None = None,
) -> Check:  # fmt: skip
    """Return a check of an interval; one that neither fires nor passes is undecided, and says what would help.

    `edges` are the values between which the interval must come to lie, `enough` how many units that takes where the
    interval itself does not tell.
    """
    result: Result = "fires" if fires else "passes" if passes else "undecided"
    open_ = result == "undecided"
    return Check(
        probe=probe, result=result, says=says, value=found.value, low=found.low, high=found.high, n=found.n,
        threshold=threshold, method=found.method, weight=weight, needs=needs if open_ else (),
        enough=(enough or units_to_decide(found, edges)) if open_ else None,
    )  # fmt: skip


def ranged(found: Interval) -> str:
    """Return an interval as people read it."""
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


# ── the record itself ────────────────────────────────────────────────────────────────────────────


def invalid_data(r: Reading) -> Finding:
    """The record contradicts its units or itself."""
    settings, scores = r.record.settings, r.record.validation
    checks = []
    if settings.vocab is None:
        checks.append(absent("units", "the size of the vocabulary is not known", "vocabulary"))
    else:
        stated, due = settings.uniform_nats, math.log(settings.vocab)
        wrong = stated is not None and abs(stated - due) > 0.01
        says = f"ln V is {due:.3f} for V = {settings.vocab:,}" + (f", and {stated:g} is stated" if wrong else "")
        checks.append(
            Check(probe="units", result="fires" if wrong else "passes", says=says, value=stated, weight="MEDIUM")
        )
    faults = list(r.record.invalid)
    last = max((point.step for point in r.record.points if point.step is not None), default=None)
    if last is not None and settings.max_steps is not None and last > settings.max_steps:
        faults.append(f"a row is of step {last}, and the run had {settings.max_steps} at most")
    says = "; ".join(faults) or "steps and settings agree"
    checks.append(Check(probe="steps", result="fires" if faults else "passes", says=says, weight="MEDIUM"))
    if scores is None:
        checks.append(absent("documents", "no losses by document to add up again", "documents"))
    else:
        summed = dict(zip(scores.steps, scores.losses.tolist(), strict=True))
        apart = [
            f"step {point.step} reports {point.val:.4f}, and its documents add up to {summed[point.step]:.4f}"
            for point in r.record.points
            if point.step in summed and point.val is not None and abs(point.val - summed[point.step]) > 1e-3
        ]
        says = "; ".join(apart[:2]) or "documents add up to the reported losses"
        checks.append(Check(probe="documents", result="fires" if apart else "passes", says=says, weight="MEDIUM"))
    if scores is None or len(scores.steps) < 2:
        checks.append(absent("token counts", "no document was scored twice", "evaluations", "documents"))
    else:
        says = "every document has the same token count at each step"
        if scores.retokenized:
            says = "a document has other token counts at another step: another tokenizer, or another text"
        checks.append(
            Check(probe="token counts", result="fires" if scores.retokenized else "passes", says=says, weight="MEDIUM")
        )
    return settle("INVALID_DATA", checks)


# ── instrument ───────────────────────────────────────────────────────────────────────────────────


def broken_loader(r: Reading) -> Finding:
    """The pipeline feeds constant, repeated, placeholder or miscounted batches (P12)."""
    equal = [_equal_losses(train, r) for train in r.trains] or [_equal_losses(r.train, r)]
    return settle("BROKEN_LOADER", [*equal, _wall(r), _repeats(r), _counted(r)])


def _equal_losses(train: Curve, r: Reading) -> Check:
    if len(train) < POINTS:
        return absent("P12 equal losses", f"{len(train)} training losses; three in a row are compared", "step_log")
    change = np.abs(np.diff(train.loss))
    run = longest = at = 0
    for place, same in enumerate(change < EQUAL):
        run = run + 1 if same else 0
        if run > longest:
            longest, at = run, place
    equal = longest + 1 if longest else 0
    moves = change[change >= EQUAL]
    coarse = len(moves) > 0 and float(np.median(moves)) < 10 * _resolution(train.loss)
    if equal >= POINTS and coarse:
        says = f"{equal} equal losses in a row, but they are printed too coarsely to tell"
        return Check(
            probe="P12 equal losses", result="undecided", says=says, value=equal, threshold="< 3", needs=("step_log",)
        )
    fires = equal >= POINTS
    says = (
        f"{equal} training losses in a row are {train.loss[at]:.4g}, up to {train.at[at + 1]:g}: a placeholder, or one batch"
        if fires
        else "no three training losses in a row are equal"
    )
    return Check(
        probe="P12 equal losses", result="fires" if fires else "passes", says=says, value=equal, threshold="< 3",
        weight="LOW" if r.record.steps is None else "MEDIUM",
    )  # fmt: skip


def _resolution(losses: Floats) -> float:
    """Return the smallest step that losses were printed in, in nats or in bits, as a power of ten; at least 1e-5."""
    for decimals in range(5):
        for printed in (losses, losses / math.log(2)):
            if np.allclose(np.round(printed, decimals), printed, rtol=0, atol=EQUAL / 2):
                return float(10.0**-decimals)
    return EQUAL


def _wall(r: Reading) -> Check:
    steps = r.record.steps
    if steps is not None:
        seconds, at = steps.seconds, steps.step
    else:
        timed = [(r._at(number, one), one.wall) for number, one in enumerate(r.rows) if one.wall is not None]
        places, walls = np.array([at for at, _ in timed]), np.array([wall for _, wall in timed], float)
        gaps = np.diff(places)
        seconds, at = np.diff(walls)[gaps > 0] / gaps[gaps > 0], places[1:][gaps > 0] if len(gaps) else places
    if len(seconds) < POINTS:
        return absent("P12 wall time", "wall time is not logged", "step_log")
    median = float(np.median(seconds))
    fast = np.flatnonzero(seconds < FAST * median)
    says = "every step took its time"
    if len(fast):
        says = f"{len(fast)} steps took less than a fifth of the median, first at {at[fast[0]]:g} ({seconds[fast[0]]:.3g} s against {median:.3g} s)"
    return Check(
        probe="P12 wall time", result="fires" if len(fast) else "passes", says=says, value=len(fast), threshold="0",
        n=len(seconds), weight="MEDIUM",
    )  # fmt: skip


def _repeats(r: Reading) -> Check:
    steps, batches = r.record.steps, r.record.batches
    if steps is None:
        return absent("P12 batch hashes", "batches are not hashed", "batch_hashes")
    counted = [(Counter(steps.windows), "window ids")]
    if batches:
        counted.append((Counter(row.content for row in batches), "content"))
    told = []
    for counts, what in counted:
        _, most = counts.most_common(1)[0]
        if most > steps.passes:
            told.append(f"one batch, by its {what}, was consumed {most} times in {steps.passes} passes")
    narrow = [row for row in batches if row.distinct < row.sequences]
    if narrow:
        told.append(f"{len(narrow)} batches hold a sequence twice, first at step {narrow[0].step}")
    says = "; ".join(told) or "no batch was consumed more often than the passes allow"
    return Check(
        probe="P12 batch hashes", result="fires" if told else "passes", says=says, threshold=f"<= {steps.passes}",
        n=len(steps.windows), weight="HIGH",
    )  # fmt: skip


def _counted(r: Reading) -> Check:
    steps, planned = r.record.steps, r.record.tokens_per_step
    if steps is None or planned is None:
        return absent("P12 tokens per step", "counted tokens are not logged", "step_log")
    off = np.flatnonzero(np.abs(steps.tokens - planned) > 0.01 * planned)
    padded = [row for row in r.record.batches if row.padding]
    says = "every step counted the planned tokens"
    if len(off):
        says = f"{len(off)} steps did not count the planned {planned:g} tokens, first step {steps.step[off[0]]:g} with {steps.tokens[off[0]]:g}"
    elif padded:
        says = f"{len(padded)} batches counted padding in the loss, first at step {padded[0].step}"
    bad = bool(len(off) or padded)
    return Check(
        probe="P12 tokens per step", result="fires" if bad else "passes", says=says, value=len(off) or len(padded),
        threshold="0", n=len(steps.tokens), weight="MEDIUM",
    )  # fmt: skip


def eval_path(r: Reading) -> Finding:
    """Evaluation computes another loss than training optimises."""
    paths, margin = r.record.paths, r.permuted_margin
    if paths:
        apart = {row: abs(row.train_nll - row.eval_nll) / row.tokens for row in paths}
        worst = max(paths, key=lambda row: apart[row] / PATHS[row.precision])
        limit = PATHS[worst.precision]
        fires = apart[worst] > limit
        says = f"the two paths differ by {apart[worst]:.2g} nats per token on one batch ({worst.precision})"
        same = Check(
            probe="same batch", result="fires" if fires else "passes", says=says, value=apart[worst],
            threshold=f"<= {limit:g}", n=len(paths), weight="MEDIUM",
        )  # fmt: skip
    else:
        same = absent("same batch", "no batch was put through both paths", "same_batch")
    if margin is None:
        shuffled = absent("permuted validation", "permuted validation was not scored", "permuted")
    else:
        says = f"permuted validation scores {ranged(margin)} from the unigram level"
        shuffled = bounded(
            "permuted validation", margin, says, threshold=f">= -{BELOW_UNIGRAM}", fires=margin.high < -BELOW_UNIGRAM,
            passes=margin.low >= -BELOW_UNIGRAM, needs=("permuted",), edges=(-BELOW_UNIGRAM,),
        )  # fmt: skip
    return settle("EVAL_PATH", [same, shuffled])


def comparability_violated(r: Reading) -> Finding:
    """The reported train and validation numbers differ in mode, checkpoint, reduction, masking or subset."""
    settings, scores = r.record.settings, r.record.validation
    window, fixed, checkpoint = settings.train_window_steps, settings.val_fixed, settings.same_checkpoint
    if (window or 1) > 1 or re.search(r"\bmean (of|since|over)\b|running mean", r.scope, re.IGNORECASE):
        checkpoint = False  # a mean over steps is of as many weights
    if scores is not None and len(scores.steps) > 1 and (fixed is None or not scores.fixed):
        fixed = scores.fixed  # one evaluation alone shows no other draw, and not the same one either
    single = of_one_batch(r.scope)
    respects: tuple[tuple[str, bool | None, str, str], ...] = (
        ("mode", None if r.mode is None else r.mode == "eval", "training is scored in training mode, validation in evaluation mode", "scope"),
        ("checkpoint", checkpoint, f"the training number is {r.scope or f'a mean over {window} steps'}, the validation number is of one checkpoint", "scope"),
        ("reduction", r.same_reduction, r.reductions or "the two are not means over the same unit", "scope"),
        ("masking", settings.same_masking, "other tokens carry the two losses", "scope"),
        ("subset", False if single else fixed, "the training number is one batch" if single else "validation is drawn anew at each evaluation", "validation_set"),
    )  # fmt: skip
    checks = [
        absent(name, f"{name}: not stated", need)
        if same is None
        else Check(
            probe=name, result="passes" if same else "fires", says=f"{name}: equal" if same else f"{name}: {differs}"
        )
        for name, same, differs, need in respects
    ]
    return settle("COMPARABILITY_VIOLATED", checks, notes=_of_the_gap(r))


def _of_the_gap(r: Reading) -> list[str]:
    """Say what a reported gap is worth, where nothing comparable stands beside it."""
    if r.gap is not None or r.online_gap is None or abs(r.online_gap) <= ARTIFACT:
        return []
    gap, train = r.online_gap, r.pairs[-1][1]
    told = f"the gap of {gap:+.3f} nats is a factor of {math.exp(min(gap, 50)):.2f} in perplexity"
    if train > 0:
        told += f"; as {abs(gap) / train:.0%} of a log loss it means nothing"
    notes = [told]
    if abs(gap) < LARGE_GAP:
        notes.append("sequences differ by 1.0 to 1.5 nats, so even 256 of them leave a gap uncertain by 0.2")
    return notes


def metric_artifact(r: Reading) -> Finding:
    """The reported gap misstates the comparable gap by more than 0.05 nats (P4)."""
    found = r.artifact
    if found is None:
        check = absent("P4 online gap", "no train probe was scored in evaluation mode", "train_probe")
        explained, inverted = _explained(r)
        likely = bool(inverted) and 2 * explained > inverted
        note = (
            f"{explained} of {inverted} inverted gaps are no larger than the lag of the training mean and dropout allow: likely an artifact"
            if likely
            else ""
        )
        return settle("METRIC_ARTIFACT", [check], leaning="SUPPORTED" if likely else None, notes=[note])
    says = f"the reported training loss misses the probe's by {ranged(found)}"
    check = bounded(
        "P4 online gap", found, says, threshold=f"within {ARTIFACT}",
        fires=found.low > ARTIFACT or found.high < -ARTIFACT, passes=-ARTIFACT <= found.low and found.high <= ARTIFACT,
        needs=("train_probe",), edges=(-ARTIFACT, ARTIFACT),
    )  # fmt: skip
    return settle("METRIC_ARTIFACT", [check])


def _explained(r: Reading) -> tuple[int, int]:
    """Return how many inverted gaps the lag of a training mean and dropout explain, and how many there are."""
    settings = r.record.settings
    window = settings.train_window_steps
    allowance = DROPOUT_ALLOWANCE * max(settings.dropout or 0.0, settings.lora_dropout or 0.0)
    explained = inverted = 0
    for number, (_, train, val, _) in enumerate(r.pairs):
        if val >= train:
            continue
        inverted += 1
        lag = lag_bound(r, number, window) if window and r.axis == "step" else 0.0
        if lag + allowance >= train - val:
            explained += 1
    return explained, inverted


def lag_bound(r: Reading, number: int, window: int) -> float:
    """Return how far a mean over the last `window` steps lies above the loss at its end: half the window's descent."""
    if len(r.pairs) < 2:
        return 0.0
    one, two = (number - 1, number) if number else (0, 1)
    slope = (r.pairs[two][1] - r.pairs[one][1]) / (r.pairs[two][0] - r.pairs[one][0])
    return abs(slope) * window / 2


def position_artifact(r: Reading) -> Finding:
    """The gap follows the position in the data, or the phase of its wrap (P13)."""
    logged = [(row.position, val - train) for _, train, val, row in r.pairs if row.position is not None]
    derived = [(near, val - train) for at, train, val, _ in r.pairs if (near := near_the_head(r, at)) is not None]
    if max(len(logged), len(derived)) < POSITION[0]:
        says = f"{max(len(logged), len(derived))} evaluations with their position in the data; {POSITION[0]} are needed"
        needs = () if r.record.settings.shuffled else ("position", "evaluations")
        return settle("POSITION_ARTIFACT", [absent("P13 position", says, *needs)])
    return settle(
        "POSITION_ARTIFACT", [_follows(r, np.array(one)) for one in (logged, derived) if len(one) >= POSITION[0]]
    )


def _follows(r: Reading, placed: Floats) -> Check:
    """Return whether a gap follows a position, shape [evaluations, 2], by R squared and a permutation test."""
    _, enough, alpha = POSITION
    x, gap = placed[:, 0], placed[:, 1]
    if x.std() == 0 or gap.std() == 0:
        return absent("P13 position", "position, or gap, never changes", "position")
    r2 = float(np.corrcoef(x, gap)[0, 1] ** 2)
    permuted = ((x - x.mean()) @ gap[_permutations(len(gap), r.seed)].T / len(gap) / x.std() / gap.std()) ** 2
    p = (1 + int((permuted >= r2 - 1e-12).sum())) / (len(permuted) + 1)
    result: Result = "fires" if r2 > enough and p < alpha else "passes" if r2 <= enough else "undecided"
    return Check(
        probe="P13 position", result=result, value=r2, n=len(gap), threshold=f"<= {enough}",
        says=f"position explains {r2:.0%} of the gap over {len(gap)} evaluations (p = {p:.4f})",
        method=f"permutation test, {len(permuted)} permutations, seed {r.seed}",
        needs=("evaluations",) if result == "undecided" else (),
    )  # fmt: skip


def near_the_head(r: Reading, at: float) -> float | None:
    """Return the share of the steps behind a logged mean that lay at the head of an unshuffled, wrapping stream.

    Validation cut off the head of a stream resembles what follows it there; the head is as long as one logged mean.
    """
    settings = r.record.settings
    batch = settings.effective_batch or settings.batch
    if settings.shuffled is not False or not (settings.corpus_tokens and batch and settings.seq_len):
        return None
    around = settings.corpus_tokens / (batch * settings.seq_len)
    if r.axis == "epoch" and settings.steps_per_epoch:
        window = settings.steps_per_epoch
        first = at * window
    elif r.axis == "step" and settings.train_window_steps:
        window = settings.train_window_steps
        first = max(0.0, at - window)
    else:
        return None
    if window >= around:
        return None
    phase = (first + np.arange(window)) % around
    return float((phase < window).mean())


def _permutations(n: int, seed: int) -> np.ndarray:
    """Return permutations, shape [RESAMPLES, n], from the resampling stream that every machine has."""
    keys = (resampled(n, 10 * seed) * n + resampled(n, 10 * seed + 1)) * n + resampled(n, 10 * seed + 2)
    return np.argsort(keys, axis=1, kind="stable")


# ── optimisation ─────────────────────────────────────────────────────────────────────────────────


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


# ── is validation valid? ─────────────────────────────────────────────────────────────────────────


def contaminated(r: Reading) -> Finding:
    """Validation content is in what was trained on, in this run or in an ancestor (O1 to O4)."""
    identity, settings = r.record.identity, r.record.settings
    share, says, complete, because = None, "", settings.lineage_complete, ""
    if identity is not None:
        share = len(identity.shared) / len(identity.validation)
        says = f"{len(identity.shared)} of {len(identity.validation)} validation documents were trained on"
        complete, because = identity.complete and complete is not False, identity.incomplete_because
    if settings.val_in_train is not None and (share is None or settings.val_in_train > share):
        share = settings.val_in_train
        says = f"{share:.0%} of validation was trained on: {settings.val_in_train_from}"
    if share is None:
        checks = [absent("O1 identities", "validation was never joined with what was trained on", "hashes")]
    elif share > 0:
        checks = [Check(probe="O1 identities", result="fires", says=says, value=share, threshold="0", weight="HIGH")]
    elif complete:
        checks = [Check(probe="O1 identities", result="passes", says=says, value=share, threshold="0", weight="HIGH")]
    else:
        told = f"{says}, but {because or 'the lineage is not known to be complete'}"
        checks = [
            Check(probe="O1 identities", result="undecided", says=told, value=share, threshold="0", needs=("lineage",))
        ]
    for probe, found, sides, what, need, fires in (
        ("O3 50-token matches", r.overlap_excess, r.record.covered, "lie mostly inside 50-token matches with the train side", "overlap", True),
        ("O4 near-duplicates", r.near_excess, r.record.near, "have a near-duplicate on the train side", "near", False),
    ):  # fmt: skip
        if found is None:
            checks.append(absent(probe, f"{probe[3:]} with the train side were not counted against a control", need))
            continue
        checks.append(bounded(
            probe, found, f"{ranged(found)} more of validation than of the control {what}", threshold=f"< {EXCESS}",
            fires=fires and found.low > EXCESS, passes=found.high < EXCESS, weight="HIGH", needs=("more_documents",),
            enough=shares_to_decide(sides.validation, sides.control, EXCESS) if sides else None,
        ))  # fmt: skip
    return settle("CONTAMINATED", checks, notes=[_material(r), _inverted(r)])


def _material(r: Reading) -> str:
    effect, everything, rest = r.overlap_effect, r.level(), r.level(r.clean)
    if effect is None or everything is None or rest is None:
        return ""
    moved = rest.value - everything.value
    if effect.high < 0 and abs(moved) > EFFECT:
        return f"MATERIAL: without the overlapping documents validation is {rest.value:.3f}, and not {everything.value:.3f}"
    return f"without the overlapping documents validation moves by {moved:+.3f}"


def _inverted(r: Reading) -> str:
    if r.online_gap is None or r.online_gap >= 0:
        return ""
    return "validation below training shows that the two are not comparable; it shows neither a leak nor its absence"


def shift(r: Reading, contaminated: Finding, clean: np.ndarray | None) -> Finding:
    """Validation is harder or easier than the control for reasons other than a leak."""
    found, everything = r.against_control(clean), r.against_control()
    if found is None or everything is None:
        needs = ("control",) if r.record.control is None else ("more_documents",)
        return settle("SHIFT", [absent("validation against control", "no control to compare with", *needs)])
    harder = max(found.low, everything.low) > SHIFTED
    easier = found.high < -SHIFTED and contaminated.refuted
    says = f"validation lies {ranged(found)} from the control"
    check = bounded(
        "validation against control", found, says, threshold=f"within {SHIFTED}", fires=harder or easier,
        passes=-SHIFTED <= found.low and found.high <= SHIFTED and everything.high <= SHIFTED, needs=("more_documents",),
        edges=(-SHIFTED, SHIFTED),
    )  # fmt: skip
    return settle("SHIFT", [check])


def implausible(r: Reading) -> Finding:
    """Validation is lower than any honest model should reach (P2); always over the full validation set."""
    if r.ceiling is None or not len(r.val):
        says = "the ceiling was not checked: no score of a model without access to the text"
        return settle("IMPLAUSIBLE", [absent("P2 ceiling", says, "reference")])
    last = float(r.val.loss[-1])
    away = last - r.ceiling
    parent = r.record.settings.parent
    who = "the parent phase" if parent is not None and parent.val_loss == r.ceiling else "the reference"
    says = f"validation is {last:.3f}, {away:+.2f} from what {who} scores on the same text ({r.ceiling:.2f})"
    check = Check(
        probe="P2 ceiling", result="fires" if away < -CEILING else "passes", says=says, value=away, threshold=f">= -{CEILING}",
        weight="MEDIUM",
    )  # fmt: skip
    note = f"a loss of {last:.3f} is a perplexity of {math.exp(min(last, 50)):.2f}"
    return settle("IMPLAUSIBLE", [check], notes=[note])


# ── memorization ─────────────────────────────────────────────────────────────────────────────────


def memorized(r: Reading) -> Finding:
    """Train text is recalled word for word, in excess of a control (E1, E3)."""
    found = r.extraction_excess
    notes = [_repetition(r)]
    if found is None:
        checks = [absent("E1 extraction", "nothing was extracted beside a control", "extraction")]
    elif found.n < PASSAGES:
        says = f"{found.n} passages a side; {PASSAGES} are needed"
        few = Check(probe="E1 extraction", result="did not run", says=says, needs=("extraction",), enough=PASSAGES)
        checks = [few]
    else:
        says = f"{ranged(found)} more train passages than control passages are continued word for word"
        checks = [bounded(
            "E1 extraction", found, says, threshold=f"<= {EXCESS}", fires=found.low >= EXCESS, passes=found.high <= EXCESS,
            weight="HIGH", needs=("extraction",), enough=shares_to_decide(*r.extracted, EXCESS),
        )]  # fmt: skip
    if r.canary_p is None:
        checks.append(absent("E3 canaries", "no canary was planted", "canaries"))
    else:
        p, n = r.canary_p
        least, counts, clears = CANARIES
        clear = p > clears and n >= least
        says = f"{n} canaries planted once rank as they do by luck with p = {p:.3g}"
        checks.append(Check(
            probe="E3 canaries", result="passes" if clear else "undecided", says=says, value=p, n=n, threshold=f"> {clears}",
            method="rank-sum", weight="HIGH", needs=() if clear else ("extraction", "canaries"),
        ))  # fmt: skip
        if p < counts:
            notes.append("planted outliers are recalled; by itself this does not show that ordinary text is")
    likely = (r.online_gap or 0) >= MEMORY_LIKE
    if likely:
        notes.append("a gap this wide makes it likely, and only extraction can show it")
    return settle("MEMORIZED", checks, leaning="SUPPORTED" if likely else None, notes=notes)


def _repetition(r: Reading) -> str:
    epochs = r.effective_epochs
    if epochs is None or epochs <= 4:
        return ""
    return f"{epochs:.3g} passes over the text: repetition is a reason to look, and never evidence"


# ── generalisation ───────────────────────────────────────────────────────────────────────────────


def overfit(r: Reading, clean: np.ndarray | None = None) -> Finding:
    """Validation rises on fixed documents while training falls (P7; P3 to refute)."""
    checks = [_logged_rise(r)]
    for keep in (None, clean) if clean is not None else (None,):
        checks.append(_paired_rise(r, r.rise(keep), "over all documents" if keep is None else "over clean documents"))
    gap = r.gap
    if gap is None:
        checks.append(absent("P3 gap", "no comparable gap", "train_probe"))
    else:
        small = gap.high < SMALL_GAP
        says = f"the comparable gap is {ranged(gap)}"
        checks.append(bounded(
            "P3 gap", gap, says, threshold=f"< {SMALL_GAP}", fires=False, passes=small, needs=("more_documents",), edges=(SMALL_GAP,)
        ))  # fmt: skip
    notes = []
    stated = r.record.settings.val_trend == "rising" and (r.online_gap or 0) > BEYOND_ARTIFACTS
    if stated:
        says = f"validation is said to have risen, and the gap of {r.online_gap:.2f} exceeds any artifact"
        checks.append(Check(probe="stated rise", result="fires", says=says, value=r.online_gap, weight="MEDIUM"))
    if len(r.val) > 1:
        best = int(np.argmin(r.val.loss))
        if best == 0 and r.val.at[0] > 0:
            notes.append(
                f"the best evaluation is the first, at {r.axis} {r.val.at[0]:g}: what was before it is not known"
            )
    if r.tied and len(r.tied) > 1:
        notes.append(f"{len(r.tied)} checkpoints cannot be told from the best: steps {r.tied[0]} to {r.tied[-1]}")
    notes.append(_small(r))
    return settle("OVERFIT", checks, leaning=_overfit_leaning(r), notes=notes)


def _overfit_leaning(r: Reading) -> Verdict | None:
    if len(r.val) > 1 and r.pairs:
        lowest = min(r.pairs, key=lambda pair: pair[2])
        last = r.pairs[-1]
        if last[2] - lowest[2] > EFFECT and last[1] < lowest[1] - EFFECT:
            return "SUPPORTED"
    return "SUPPORTED" if (r.online_gap or 0) > BEYOND_ARTIFACTS else None


def _small(r: Reading) -> str:
    """Say what a logged rise would take to be significant, where the documents were counted and not scored."""
    n = r.record.settings.n_val_docs
    if n is None or r.record.validation is not None or len(r.val) < 2:
        return ""
    if n < LEAST:
        return f"{n} validation documents allow no interval at all"
    rise = float(r.val.loss[-1] - r.val.loss.min())
    spread = rise * math.sqrt(n) / 1.8
    return f"with {n} documents the rise is significant only if documents differ in it by less than {spread:.2f}"


def _logged_rise(r: Reading) -> Check:
    share, least = RISES
    if len(r.val) < POINTS:
        told = f"{len(r.val)} evaluation{'s' * (len(r.val) != 1)}; a trend has three"
        return absent("P7 logged rise", told, "evaluations", "documents")
    streak = _streak(r.val.loss)
    rise = _relative_rise(r.val.loss)
    falling = _falling(r, float(r.val.at[int(np.argmin(r.val.loss))]))
    says = f"validation ends {rise:.1%} above its lowest, after {streak} successive rises"
    fires = rise > share and streak >= least and falling
    result: Result = "fires" if fires else "passes" if rise <= share else "undecided"
    if fires and _both_halves(r.val.loss):
        says += ", in both halves of the log"
    blind = fires and int(np.argmin(r.val.loss)) == 0 and r.val.at[0] > 0
    return Check(
        probe="P7 logged rise", result=result, says=says + (", while training falls" if fires else ""), value=rise,
        n=len(r.val), threshold=f"<= {share:.0%}, or {least} rises", method="Prechelt GL5 with UP2",
        weight="MEDIUM" if result == "passes" or _both_halves(r.val.loss) else "LOW",
        needs=("documents", *(("step0",) if blind else ())) if result != "passes" else (),
    )  # fmt: skip


def _relative_rise(losses: Floats) -> float:
    return float(losses[-1] / losses.min() - 1)


def _streak(losses: Floats) -> int:
    """Return the most successive rises after the lowest loss."""
    longest = run = 0
    for change in np.diff(losses[int(np.argmin(losses)) :]):
        run = run + 1 if change > 0 else 0
        longest = max(longest, run)
    return longest


def _both_halves(losses: Floats) -> bool:
    """Say whether each half of the evaluations shows the rise by itself: two series that agree."""
    middle = len(losses) // 2
    return all(
        len(half) >= POINTS and _relative_rise(half) > RISES[0] and _streak(half) >= RISES[1]
        for half in (losses[: middle + 1], losses[middle:])
    )


def _falling(r: Reading, since: float) -> bool:
    """Say whether training is lower at the end than at a place, by the probe or by the logged losses."""
    probe = r.record.train_probe
    found = []
    if probe is not None and r.axis == "step" and since in probe.steps:
        found.append(bool(probe.losses[-1] < probe.losses[probe.steps.index(int(since))] - EFFECT))
    then = [train for at, train, _, _ in r.pairs if at <= since]
    if then:
        found.append(r.pairs[-1][1] < then[-1] - EFFECT)
    return any(found)


def _paired_rise(r: Reading, rise: Rise | None, over: str) -> Check:
    probe = "P7 paired rise"
    if rise is None:
        return absent(probe, "no per-document losses at three checkpoints", "documents")
    falling = _falling(r, float(rise.best))
    found = rise.interval
    says = f"since step {rise.best} validation moved {ranged(found)} {over} (detectable: {rise.detectable:.3f})"
    if found.low > EFFECT and falling:
        says += ", while training falls"
    weak = found.high < EFFECT and rise.detectable > POWER
    return bounded(
        probe, found, f"underpowered: {says}" if weak else says, threshold=f"< {EFFECT}",
        fires=found.low > EFFECT and falling, passes=found.high < EFFECT and not weak, needs=("more_documents",), edges=(EFFECT,),
        enough=units_to_decide(Interval(0.0, -rise.detectable, rise.detectable, found.n, ""), (-POWER, POWER)) if weak else None,
    )  # fmt: skip


def plateau(r: Reading, contaminated: Finding) -> Finding:
    """Validation and training are flat, shown by an equivalence test (P10)."""
    val, train = r.drift(r.record.validation), r.drift(r.record.train_probe)
    if val is None or train is None:
        says = "too few evaluations by document in the last fifth of the run"
        return settle("PLATEAU", [absent("P10 equivalence", says, "documents", "train_probe", "late_evaluations")])
    flat = [-FLAT < one.low and one.high < FLAT for one in (val, train)]
    moved = None if r.record.steps is None else r.record.steps.changed
    says = f"over the last fifth validation moves {ranged(val)} and training {ranged(train)} per tenth of the run"
    if all(flat) and contaminated.open:
        says += "; whether validation is clean is not known"
    needs = ["more_documents", "late_evaluations"]
    if all(flat) and moved is None:
        says += "; whether updates moved the weights at all was not measured"
        needs = ["movement"]
    elif all(flat) and moved is not None and moved < MOVES:  # weights that cannot move show nothing (CASE-26)
        says += f"; but an update changed {moved:.2%} of the weights: nothing was tried"
        needs = ["larger_updates"]
    fires = all(flat) and not contaminated.open and moved is not None and moved >= MOVES
    check = bounded(
        "P10 equivalence", val, says, threshold=f"within {FLAT}", fires=fires,
        passes=any(one.high < -FLAT or one.low > FLAT for one in (val, train)), needs=tuple(needs),
    )  # fmt: skip
    return settle("PLATEAU", [check])


# ── health ───────────────────────────────────────────────────────────────────────────────────────

SICK: tuple[Claim, ...] = ("BROKEN_LOADER", "EVAL_PATH", "DIVERGED", "CONTAMINATED", "NOT_LEARNED", "OVERFIT")


def healthy(r: Reading, findings: Iterable[Finding], clean: np.ndarray | None) -> Finding:
    """Comparable, clean, learning, not overfitting: every condition shown, none assumed.

    A condition that is shown passes; one that is contradicted fires against health, and refutes it.
    """
    by_claim = {finding.claim: finding for finding in findings}
    checks = []
    for name in SICK:
        finding = by_claim[name]
        result: Result = "passes" if finding.refuted else "fires" if finding.supported else "undecided"
        word = {"passes": "refuted", "fires": "supported", "undecided": "open"}[result]
        checks.append(Check(probe=name, result=result, says=f"{name} is {word}", weight=finding.confidence or "LOW"))
    contradicted = [one for one in checks if one.result == "fires"]
    checks += [_comparable(r), _improved(r, clean), _small_gap(r)]
    if by_claim["IMPLAUSIBLE"].supported:
        checks.append(Check(probe="IMPLAUSIBLE", result="undecided", says="validation is lower than is plausible"))
    notes = ["ceiling not checked"] if r.ceiling is None else []
    last = max((row.step for row in r.record.samples if row.sampler == "model"), default=None)
    written = [row.text for row in r.record.samples if row.sampler == "model" and row.step == last]
    fallen = sum(signs(text).degenerate for text in written)
    if 2 * fallen > len(written):
        says = f"{fallen} of {len(written)} samples repeat themselves: a loss does not see it"
        checks.append(Check(probe="samples", result="undecided", says=says, value=fallen, n=len(written)))
    if not written:
        notes.append("output not checked")
    if contradicted:
        because, confidence = "; ".join(one.says for one in contradicted), max(_weights(contradicted))
        return conclude("HEALTHY", "REFUTED", checks, because, notes, LADDER[confidence])
    if all(one.result == "passes" for one in checks):
        return conclude(
            "HEALTHY", "SUPPORTED", checks, "every condition is shown", notes, LADDER[min(_weights(checks))]
        )
    because = "; ".join(one.says for one in checks if one.result != "passes")
    return conclude("HEALTHY", "INCONCLUSIVE", checks, because, notes)


def _weights(checks: Iterable[Check]) -> list[int]:
    return [LADDER.index(one.weight) for one in checks]


def _comparable(r: Reading) -> Check:
    scores = r.record.validation
    if r.gap is None or not r.record.settings.same_reduction or scores is None or not scores.fixed:
        return absent(
            "comparable", "no train probe of equal reduction beside fixed validation documents", "train_probe"
        )
    says = "validation and a train probe are scored alike, on fixed documents"
    return Check(probe="comparable", result="passes", says=says, weight="MEDIUM")


def _improved(r: Reading, clean: np.ndarray | None) -> Check:
    found = r.improvement(clean)
    if found is None:
        return absent("improvement", "improvement by document was not shown", "documents", "step0")
    says = f"validation moved {ranged(found)} since the first evaluation"
    return bounded("improvement", found, says, threshold=f"< -{IMPROVED}", fires=False, passes=found.high < -IMPROVED,
                   needs=("more_documents",), edges=(-IMPROVED,))  # fmt: skip


def _small_gap(r: Reading) -> Check:
    if r.gap is None:
        return absent("P3 gap", "no comparable gap", "train_probe")
    says = f"the comparable gap is {ranged(r.gap)}"
    return bounded(
        "P3 gap", r.gap, says, threshold=f"<= {SMALL_GAP}", fires=False, passes=r.gap.high <= SMALL_GAP, needs=("more_documents",),
        edges=(SMALL_GAP,),
    )  # fmt: skip
