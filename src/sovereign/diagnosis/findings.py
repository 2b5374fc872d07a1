"""Findings: a claim, its verdict, the checks it rests on, and what would overturn it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from pydantic import Field

from sovereign.canonical import Record

Claim = Literal[
    "INVALID_DATA", "BROKEN_LOADER", "EVAL_PATH", "COMPARABILITY_VIOLATED", "METRIC_ARTIFACT", "POSITION_ARTIFACT",
    "DIVERGED", "CONTAMINATED", "NOT_LEARNED", "MEMORIZED", "OVERFIT", "SHIFT", "IMPLAUSIBLE", "PLATEAU", "HEALTHY",
]  # fmt: skip
CLAIMS: tuple[Claim, ...] = get_args(Claim)
Verdict = Literal["SUPPORTED", "REFUTED", "INCONCLUSIVE"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Result = Literal["fires", "passes", "undecided", "did not run"]
Confidence = Literal["LOW", "MEDIUM", "HIGH", "VERY HIGH"]
LADDER: tuple[Confidence, ...] = get_args(Confidence)

MEANING: dict[Claim, str] = {
    "INVALID_DATA": "the record contradicts its schema, its units or itself",
    "BROKEN_LOADER": "the data pipeline feeds constant, repeated, placeholder or miscounted batches",
    "EVAL_PATH": "evaluation does not compute the loss that training optimises",
    "COMPARABILITY_VIOLATED": "the reported losses are measured differently, so their gap must not be read",
    "METRIC_ARTIFACT": "the reported gap misstates the comparable one by more than 0.05",
    "POSITION_ARTIFACT": "the gap follows the position in the data",
    "DIVERGED": "a loss is not finite, or rises and stays up",
    "CONTAMINATED": "validation content is in what was trained on, ancestors included",
    "NOT_LEARNED": "no better than counting single tokens, after enough of them",
    "MEMORIZED": "train text is recalled word for word, beyond a control",
    "OVERFIT": "validation rises while training falls",
    "SHIFT": "validation is harder or easier than the control, for reasons other than a leak",
    "IMPLAUSIBLE": "validation is lower than an honest model should reach",
    "PLATEAU": "validation and training are shown to be flat",
    "HEALTHY": "comparable, clean, learning, not overfitting: all shown",
}

# which confidence a tier of evidence allows at most, by the kind of claim
DATA: frozenset[Claim] = frozenset({"INVALID_DATA", "BROKEN_LOADER", "POSITION_ARTIFACT", "CONTAMINATED"})
MEMORY: frozenset[Claim] = frozenset({"MEMORIZED"})


def cap(claim: Claim, tier: int) -> Confidence:
    """Return the most that may be said of a claim at a tier; a re-run (tier 4) is no property of one run."""
    if (claim in DATA and tier >= 2) or (claim in MEMORY and tier >= 3):
        return "HIGH"
    return "MEDIUM"


class Check(Record):
    """One test of a claim: what it found, against what, and what it would need where it could not run."""

    probe: str = Field(description="its name in docs/diagnosis.md")
    result: Result
    says: str = Field(description="one sentence, in plain English")
    value: float | None = None
    low: float | None = Field(default=None, description="one-sided 95 % end")
    high: float | None = Field(default=None, description="one-sided 95 % end")
    n: int | None = None
    threshold: str = ""
    method: str = ""
    weight: Confidence = Field(default="LOW", description="the most that this check supports by itself")
    needs: tuple[str, ...] = Field(default=(), description="experiments that would let it run, or decide")
    enough: int | None = Field(
        default=None, ge=1, description="units that would decide it, if its value stays as it is"
    )


class Finding(Record):
    """What is said of one claim."""

    claim: Claim
    verdict: Verdict
    confidence: Confidence | None = None
    leaning: Verdict | None = Field(default=None, description="where the figures tend, without being able to show it")
    because: str
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    overturned_by: str = ""

    @property
    def supported(self) -> bool:
        return self.verdict == "SUPPORTED"

    @property
    def refuted(self) -> bool:
        return self.verdict == "REFUTED"

    @property
    def open(self) -> bool:
        return self.verdict == "INCONCLUSIVE"

    def held_open(self, because: str) -> Finding:
        """Return the finding as inconclusive, for a reason that lies outside its own checks."""
        return self.model_copy(update={"verdict": "INCONCLUSIVE", "confidence": None, "because": because})


def settle(
    claim: Claim, checks: Sequence[Check], *, leaning: Verdict | None = None, notes: Iterable[str] = (), refutable: bool = True,
) -> Finding:  # fmt: skip
    """Return the finding that a claim's checks give, by the one rule that combines all tests.

    SUPPORTED if any fires; REFUTED only if every one ran and passed; INCONCLUSIVE otherwise.
    """
    fired = [one for one in checks if one.result == "fires"]
    told = tuple(note for note in notes if note)
    if fired:
        confidence = max((one.weight for one in fired), key=LADDER.index)
        if confidence == "LOW" and len({one.probe for one in fired}) > 1:
            confidence = "MEDIUM"  # two series that agree
        return conclude(claim, "SUPPORTED", checks, said(fired), told, confidence)
    if refutable and checks and all(one.result == "passes" for one in checks):
        confidence = min((one.weight for one in checks), key=LADDER.index)
        return conclude(claim, "REFUTED", checks, said(checks), told, confidence)
    pending = [one for one in checks if one.result == "undecided"] + [
        one for one in checks if one.result == "did not run"
    ]
    because = said(pending) or "no test of this claim could refute it"
    return conclude(claim, "INCONCLUSIVE", checks, because, told, None, leaning)


def said(checks: Iterable[Check]) -> str:
    """Return what checks say, each sentence once."""
    return "; ".join(dict.fromkeys(one.says for one in checks))


def conclude(
    claim: Claim, verdict: Verdict, checks: Sequence[Check], because: str, notes: Iterable[str] = (),
    confidence: Confidence | None = None, leaning: Verdict | None = None,
) -> Finding:  # fmt: skip
    """Return a finding with what would overturn its verdict."""
    return Finding(
        claim=claim, verdict=verdict, confidence=confidence, leaning=leaning, because=because, checks=tuple(checks),
        notes=tuple(notes), overturned_by=OVERTURNED[claim][verdict],
    )  # fmt: skip


def overturns(supported: str, refuted: str, inconclusive: str) -> dict[Verdict, str]:
    return {"SUPPORTED": supported, "REFUTED": refuted, "INCONCLUSIVE": inconclusive}


OVERTURNED: dict[Claim, dict[Verdict, str]] = {
    "INVALID_DATA": overturns(
        "a corrected record in which the two statements agree",
        "a second source of the same numbers that disagrees",
        "the fields that the checks compare",
    ),
    "BROKEN_LOADER": overturns(
        "batch hashes that differ at the steps named, and token counts as planned",
        "a repeated batch hash beyond the declared passes",
        "a log of every step with wall time, token counts and batch hashes",
    ),
    "EVAL_PATH": overturns(
        "one batch that both paths score alike, and permuted text that scores no better than counting",
        "one batch on which the two paths differ",
        "one train batch through both paths, and one permuted validation batch",
    ),
    "COMPARABILITY_VIOLATED": overturns(
        "both losses in evaluation mode, at one checkpoint, over fixed documents",
        "a mode, checkpoint, reduction, mask or subset that differs after all",
        "the mode, checkpoint, reduction, mask and subset of both numbers",
    ),
    "METRIC_ARTIFACT": overturns(
        "a train probe in evaluation mode whose loss equals the reported one",
        "a larger train probe whose loss differs by more than 0.05",
        "a train probe in evaluation mode at the same checkpoint",
    ),
    "POSITION_ARTIFACT": overturns(
        "a shuffled run whose gap moves the same way",
        "more evaluations in which the gap follows the position",
        "eight evaluations with their position in the data",
    ),
    "DIVERGED": overturns(
        "a longer log in which the loss comes down again", "a later step that rises and stays up", "the loss of every step"
    ),
    "CONTAMINATED": overturns(
        "hashes that show the shared sequences were never consumed",
        "an ancestor, or a document, that was left out of the join",
        "the hashes of validation joined with everything consumed, ancestors included",
    ),
    "NOT_LEARNED": overturns(
        "a unigram count on the same tokens that lies above the validation loss",
        "validation documents that share nothing with training, scored above the unigram",
        "the unigram loss of the same tokens, and how many were trained on",
    ),
    "MEMORIZED": overturns(
        "the same excess in passages that were never trained on",
        "prompts from the most repeated passages that are continued word for word",
        "extraction on at least 300 prompts beside a clean control",
    ),
    "OVERFIT": overturns(
        "per-document losses on more documents that show no rise, or a training loss that does not fall",
        "later checkpoints, or more documents, that show a rise of more than 0.02",
        "per-document losses at every kept checkpoint",
    ),
    "SHIFT": overturns(
        "a control drawn again that validation does not differ from",
        "a larger control that it does differ from",
        "a control of the same distribution that was never trained on",
    ),
    "IMPLAUSIBLE": overturns(
        "a reference without access to the text that scores as low",
        "a stronger reference",
        "what a stronger model, or the parent, scores on the same text without having seen it",
    ),
    "PLATEAU": overturns("a longer run that moves again", "a longer run that stays flat", "more evaluations in the last fifth"),
    "HEALTHY": overturns(
        "any one of its conditions failing on more evidence",
        "the contradicting claim being overturned",
        "the evidence that its conditions lack",
    ),
}  # fmt: skip
