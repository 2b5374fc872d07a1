"""Preferences beside a base: how likely it finds the chosen answers, how likely the rejected ones, and how long both are.

A preference loss pulls two log-probabilities apart. Where the base finds one side all but impossible, or the sides differ
in length above all, it explodes or learns lengths; both are seen before a step is paid for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from sovereign.contract.contract import Contract
from sovereign.contract.data import Preferences, Template
from sovereign.corpus import tokens
from sovereign.corpus.examples import Encoded, Example, encoded, read_preferences
from sovereign.training.device import Precision
from sovereign.training.evaluation import evaluate_examples
from sovereign.tuning import Tuning

LEAST = 10  # pairs; fewer say nothing of a data set
ENDLESS = 2**31  # tokens: to count an answer whole


@dataclass(frozen=True)
class Preferred:
    """What a base makes of pairs of answers: mean log-probabilities in nats an answer, and tokens of each side."""

    asked: Preferences
    pairs: int
    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int
    cut: int  # answers that reach beyond the context

    @property
    def gap(self) -> float:
        return self.chosen - self.rejected

    @property
    def length_ratio(self) -> float:
        return self.chosen_tokens / self.rejected_tokens

    @property
    def refusals(self) -> list[str]:
        """Why these pairs are no goal for this base."""
        found = []
        if self.pairs < LEAST:
            found.append(f"{self.asked.path} holds {self.pairs} pairs; {LEAST} are the least that say anything")
        (low, high), (short, long) = self.asked.gap, self.asked.length_ratio
        if not low <= self.gap <= high:
            found.append(
                f"the base gives chosen answers {self.chosen:.1f} nats and rejected ones {self.rejected:.1f}: a gap of {self.gap:+.1f}, "
                f"where data.preferences.gap allows {low:g} to {high:g}"
            )
        if not short <= self.length_ratio <= long:
            found.append(
                f"chosen answers have {self.length_ratio:.2f} times the tokens of rejected ones ({self.chosen_tokens} to "
                f"{self.rejected_tokens}), where data.preferences.length_ratio allows {short:g} to {long:g}"
            )
        if self.cut:
            found.append(
                f"{self.cut} of {2 * self.pairs} answers reach beyond the context, and were scored in part; raise method.context"
            )
        return found

    def figures(self) -> dict[str, str | int | float]:
        return {
            "preference pairs scored": self.pairs,
            "base log-probability of chosen / rejected, nats an answer": f"{self.chosen:.2f} / {self.rejected:.2f}",
            "gap, nats an answer": round(self.gap, 2),
            "tokens of chosen over rejected": round(self.length_ratio, 3),
        }


def preferred(
    contract: Contract, asked: Preferences, tuning: Tuning, root: Path, device: torch.device, precision: Precision
) -> Preferred:
    """Return what the base of a contract makes of its preference pairs, drawn by hash where there are more than asked for."""
    bpe = tokens.load(tuning.tokenizer, tuning.end)
    template, context = contract.data.template or Template(), contract.context
    pairs = sorted(read_preferences(asked, root), key=lambda pair: hashlib.sha256(pair[0].document.encode()).digest())

    def made(example: Example, most: int) -> Encoded:
        return encoded(example, lambda text: tokens.encode(bpe, [text])[0].tolist(), tuning.end_of_text, most, template)

    drawn = pairs[: asked.pairs]
    sides = [[made(pair[side], context) for pair in drawn] for side in (0, 1)]
    whole = [sum(made(pair[side], ENDLESS).counted for pair in drawn) for side in (0, 1)]
    base = tuning.base().to(device)
    means = []
    for side in sides:
        scored = evaluate_examples(
            base, side, batch=contract.evaluation.batch, context=context, precision=precision, device=device
        )
        means.append(-sum(nll for _, nll, _ in scored) / max(1, len(scored)))
    cut = sum(one.cut > 0 for side in sides for one in side)
    return Preferred(asked, len(drawn), means[0], means[1], whole[0], max(1, whole[1]), cut)
