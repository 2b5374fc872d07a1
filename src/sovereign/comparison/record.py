"""What a comparison found, as one record that the terminal, Markdown, pictures and programs read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sovereign.canonical import Record
from sovereign.evidence.statement import Outcome
from sovereign.spec.criterion import Assurance

Value = bool | int | float | str | None
Verdict = Literal["LOWER", "HIGHER", "SAME", "INCONCLUSIVE", "VOID", "DESCRIPTIVE"]
Kind = Literal["launched", "applied", "data", "tokenizer", "code", "environment", "seed"]


class Compared(Record):
    """One of the runs: a column of the table."""

    run: str
    contract: str
    title: str
    seed: int
    outcome: Outcome | Literal["open"]
    assurance: Assurance
    repeats: int = Field(ge=1, description="seeds of the same recipe whose loss is known, this one included")
    validation: tuple[tuple[int, float], ...] = Field(default=(), description="step and loss in nats per token")
    deviates: str = Field(default="", description="how what was applied differs from what this run promised")


class Difference(Record):
    """Something that is not the same in all runs; null where a run does not say."""

    kind: Kind
    name: str
    values: tuple[Value, ...]


class Estimate(Record):
    """A number with its interval; without ends where there is too little to give any."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = Field(ge=0)
    method: str = ""
    detectable: float | None = Field(
        default=None, ge=0, description="smallest difference found in 80 % of such comparisons (2.8 SD / sqrt n)"
    )


class Line(Record):
    """One line of the table that a person would otherwise have typed."""

    name: str
    unit: str = ""
    cells: tuple[Estimate | None, ...]
    void: str = Field(default="", description="why the cells say nothing about each other; empty where they do")


class LossDifference(Record):
    """Second minus first validation loss, paired by document, in nats per token."""

    at: Literal["last", "best", "last common"]
    steps: tuple[int, int]
    losses: tuple[float, float]
    difference: Estimate


class Offered(Record):
    """A comparison that is still possible where the losses as such are not comparable."""

    name: str
    unit: str
    values: tuple[float, float]
    difference: Estimate
    remark: str


class Told(Record):
    """Why a verdict is what it is: a code that programs read, and a sentence."""

    code: str
    text: str


class Pair(Record):
    """A run against the first one. The losses of LOWER are lower than the first run's."""

    first: str
    second: str
    checkpoints: Verdict = Field(description="of these two sets of weights, on these documents")
    recipes: Verdict = Field(description="of the two contracts, against the noise of their seeds")
    reasons: tuple[Told, ...] = ()
    settings: tuple[str, ...] = Field(default=(), description="what differed and may have made the difference")
    attributed: str = Field(default="", description="the one setting that the effect can be ascribed to")
    losses: tuple[LossDifference, ...] = ()
    noise: Estimate | None = Field(default=None, description="second minus first mean over seeds, with its band")
    offered: tuple[Offered, ...] = ()


class Written(Record):
    """What one run wrote after a prompt, and the signs of a text that has collapsed."""

    run: int = Field(ge=0, description="place of the run, counted from 0")
    by: Literal["run", "base"] = Field(default="run", description="the run's model, or the base that it began from")
    step: int
    seed: int
    text: str
    repeated: float = Field(description="share of 4-grams that repeat an earlier one")
    ratio: float = Field(description="compression ratio")
    longest: int = Field(description="longest run of one piece of text")
    degenerate: bool


class SideBySide(Record):
    """One prompt, and what each run made of it."""

    prompt: str
    written: tuple[Written, ...]


class Comparison(Record):
    """Runs beside each other. The `sovereign/comparison/v1` JSON document."""

    schema_: Literal["sovereign/comparison/v1"] = Field(default="sovereign/comparison/v1", alias="schema")
    runs: tuple[Compared, ...]
    differences: tuple[Difference, ...]
    table: tuple[Line, ...]
    pairs: tuple[Pair, ...]
    samples: tuple[SideBySide, ...] = ()
    prompts: int = Field(default=0, description="prompts that every run continued")

    @property
    def compared(self) -> bool:
        """Whether any pair could be compared at all."""
        return any(pair.checkpoints != "VOID" for pair in self.pairs)
