"""Typed numbers and method words against evidence: what a report says about a run, held to the run's rows (CASE-40, 42).

The grammar is small, and whatever stands outside it is not judged:

- the run: `<!-- sovereign run: NAME -->`, or a run id anywhere in a line, holds from there on;
- a table with a `step` column and any of `train loss`, `val loss`, `learning rate`;
- `step 800: 1.7153/6.9641` and `step 800: train 1.7153, val 6.9641`;
- a number before `<!-- sovereign METRIC -->` or `<!-- sovereign METRIC@STEP -->`;
- a table of settings, `| optimizer | adamw |`, and the same said in words: `cosine decay`, `rank 8`, `3 epochs`;
- `doubling from 0.35 to 0.70`, which is arithmetic.

A loss equals evidence that rounds to it with as many decimals as were typed; a setting is within half a percent of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sovereign.comparison.settings import launched
from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import ReportedRow, StepRow
from sovereign.foresight import until
from sovereign.metrics.loss import by_step
from sovereign.metrics.measure import METRICS, measure

Column = Literal["train loss", "val loss", "learning rate"]
State = Literal["AGREES", "CONTRADICTED", "NO_EVIDENCE"]
NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?%?"
MOST_PLACES = 3  # steps named at which a typed number really occurs


@dataclass(frozen=True)
class Statement:
    """One thing that a text says of a run, where it says it, and what the evidence says."""

    path: str
    line: int
    column: int
    state: State
    typed: str
    said: str  # what the typed value was said to be
    evidence: str = ""

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}"
        if self.state == "AGREES":
            return f"{place}: {self.said} is {self.typed}"
        return f"{place}: {self.said} is typed as {self.typed}; {self.evidence}"


@dataclass(frozen=True)
class Known:
    """What a text about one run can be held to; every value beside what it is."""

    name: str
    observed: Observed
    columns: Mapping[Column, Mapping[int, tuple[tuple[float, str], ...]]] = field(default_factory=dict)
    settings: Mapping[str, tuple[object, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, observed: Observed) -> Known:
        return cls(name, observed, _columns(observed), _settings(observed))


@dataclass(frozen=True)
class Checked:
    """Every statement that was recognised, and how many tables of losses no run was named for."""

    statements: tuple[Statement, ...]
    without_run: int = 0

    @property
    def faults(self) -> tuple[Statement, ...]:
        return tuple(one for one in self.statements if one.state != "AGREES")


# ── evidence ─────────────────────────────────────────────────────────────────────────────────────


def _columns(observed: Observed) -> dict[Column, dict[int, tuple[tuple[float, str], ...]]]:
    """Return column -> step -> every value that may rightly be called so, and what it is."""
    found: dict[Column, dict[int, list[tuple[float, str]]]] = {"train loss": {}, "val loss": {}, "learning rate": {}}

    def put(column: Column, step: int, value: float | None, what: str) -> None:
        if value is not None:
            found[column].setdefault(step, []).append((value, what))

    for row in observed.of(StepRow):
        put("train loss", row.step, row.loss, "of the update's own batch")
        put("learning rate", row.step, row.learning_rate, "as applied")
    for told in observed.of(ReportedRow):
        put("train loss", told.step, told.train_loss, "as reported")
        put("val loss", told.step, told.val_loss, "as reported")
        put("learning rate", told.step, told.learning_rate, "as reported")
    sides: tuple[tuple[str, Column, str], ...] = (
        ("train_probe", "train loss", "of the train probe"), ("validation", "val loss", "in evaluation mode"),
    )  # fmt: skip
    for split, column, what in sides:
        for step, documents in by_step(observed, split).items():
            loss = sum(nll for nll, _ in documents.values()) / sum(tokens for _, tokens in documents.values())
            put(column, step, loss, what)
    return {column: {step: tuple(values) for step, values in steps.items()} for column, steps in found.items()}


def _settings(observed: Observed) -> dict[str, tuple[object, ...]]:
    """Return what people call a setting -> every value under which it was launched or, better, applied."""
    intent = observed.intent
    contract = launched(intent)
    training, planned = intent.promise.training, intent.planned
    rates = [row.learning_rate for row in sorted(observed.of(StepRow), key=lambda row: row.step)]

    def of(*endings: str) -> tuple[object, ...]:
        return tuple(value for key, value in contract.items() if key.endswith(endings) and value is not None)

    found: dict[str, tuple[object, ...]] = {
        "schedule": (shape(rates),) if rates else (training.schedule.kind,),
        "learning rate": (max(rates),) if rates else (training.schedule.peak,),
        "optimizer": of("optimizer.kind", "optimizer.name"),
        "weight decay": of(".weight_decay"),
        "warmup": of("schedule.warmup"),
        "batch": of("training.sequences"),
        "seed": (intent.seed,),
        "steps": (len(rates) or planned.steps,),
        "epochs": (planned.passes,) if planned.passes is not None else (),
        "parameters": (planned.parameters,) if planned.parameters is not None else (),
        "vocabulary": (planned.vocabulary,) if planned.vocabulary is not None else (),
        "context": of("model.context"),
        "layers": of("model.layers"),
        "hidden": of("model.hidden"),
        "rank": of(".rank"),
        "precision": () if intent.environment.precision == "unknown" else (intent.environment.precision,),
    }
    return found


def shape(rates: list[float]) -> str:
    """Return what a sequence of applied learning rates is: constant, cosine, linear, wsd, or none of these.

    A warm-up to the peak belongs to any of them.
    """
    peak = max(rates)
    after = rates[rates.index(peak) :]
    if len(after) < 3 or all(math.isclose(rate, peak, rel_tol=1e-6) for rate in after):
        return "constant"
    floor, n = after[-1], len(after) - 1
    around = 2e-3 * peak
    # without a warm-up, the first update is one step down the curve already
    if any(_cosine(after, floor, begun, around) for begun in (0, 1)):
        return "cosine"
    held = sum(math.isclose(rate, peak, rel_tol=1e-6) for rate in after) - 1
    falls = [peak - (peak - floor) * (at - held) / (n - held) for at in range(held, n + 1)]
    if all(abs(rate - fall) <= around for rate, fall in zip(after[held:], falls, strict=True)):
        return "wsd" if held > 1 else "linear"
    return "neither constant nor cosine, linear or wsd"


def _cosine(rates: list[float], floor: float, begun: int, around: float) -> bool:
    """Say whether rates fall to the floor by half a cosine, of which so many steps lay before the first."""
    falls = [0.5 * (1 + math.cos(math.pi * (at + begun) / (len(rates) - 1 + begun))) for at in range(len(rates))]
    height = (rates[0] - floor) / falls[0]
    return all(abs(rate - floor - height * fall) <= around for rate, fall in zip(rates, falls, strict=True))


# ── reading ──────────────────────────────────────────────────────────────────────────────────────

RUN = re.compile(r"<!--\s*sovereign run:\s*(\S+)\s*-->")
RUN_ID = re.compile(r"\b\d{8}T\d{6}Z-[0-9a-z]{2,40}\b")
MARKED = re.compile(rf"({NUMBER})\W{{0,4}}<!--\s*sovereign\s+([a-z0-9_]+/[A-Za-z0-9_]+)(?:@(\d+))?\s*-->")
STEP = re.compile(
    rf"\bstep\s+(\d[\d,]*)\s*[:=]\s*(?:train(?:ing)?(?: loss)?\s*)?({NUMBER})\s*(?:/|,\s*val(?:idation)?(?: loss)?\s+)\s*({NUMBER})",
    re.IGNORECASE,
)
FACTOR = re.compile(
    rf"\b(halv|doubl|tripl|quadrupl)(?:ing|es|ed|e)\s+from\s+({NUMBER})\s+to\s+({NUMBER})", re.IGNORECASE
)
FACTORS = {"halv": 0.5, "doubl": 2.0, "tripl": 3.0, "quadrupl": 4.0}
HEADS: dict[str, Column | Literal["step"]] = {
    "step": "step", "iteration": "step", "iter": "step",
    "train loss": "train loss", "training loss": "train loss", "train": "train loss", "train_loss": "train loss",
    "val loss": "val loss", "validation loss": "val loss", "val": "val loss", "validation": "val loss", "val_loss": "val loss", "eval_loss": "val loss",
    "learning rate": "learning rate", "lr": "learning rate",
}  # fmt: skip
SETTINGS = {
    "optimizer": "optimizer", "schedule": "schedule", "lr schedule": "schedule", "learning rate schedule": "schedule", "decay": "schedule",
    "lr decay": "schedule", "learning rate": "learning rate", "peak learning rate": "learning rate", "lr": "learning rate",
    "weight decay": "weight decay", "warmup": "warmup", "warmup steps": "warmup", "batch": "batch", "batch size": "batch", "seed": "seed",
    "steps": "steps", "updates": "steps", "epochs": "epochs", "passes": "epochs", "parameters": "parameters", "trainable parameters": "parameters",
    "vocabulary": "vocabulary", "vocab size": "vocabulary", "context": "context", "context length": "context", "layers": "layers",
    "hidden": "hidden", "hidden size": "hidden", "rank": "rank", "lora rank": "rank", "precision": "precision",
}  # fmt: skip
WORDS = {
    "cosine": "cosine", "constant": "constant", "flat": "constant", "linear": "linear", "wsd": "wsd", "warmup-stable-decay": "wsd",
    "adamw": "adamw", "adam": "adam", "sgd": "sgd", "muon": "muon", "lion": "lion", "adafactor": "adafactor",
    "bf16": "bf16", "bfloat16": "bf16", "fp32": "fp32", "float32": "fp32", "fp16": "fp16", "float16": "fp16",
}  # fmt: skip
KINDS = {
    "schedule": {"cosine", "constant", "linear", "wsd"}, "optimizer": {"adamw", "adam", "sgd", "muon", "lion", "adafactor"},
    "precision": {"bf16", "fp32", "fp16"},
}  # fmt: skip
# what stands before a word that says it was not so, or speaks of something else
DENIED = re.compile(
    r"\b(?:not|no|without|instead of|rather than|unlike|never|than|if|would|should|could)\s+(?:\w+\s+){0,2}$",
    re.IGNORECASE,
)
PROSE: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("schedule", re.compile(r"\b(cosine|constant|linear|wsd|warmup-stable-decay)\s+(?:learning[- ]rate\s+|lr\s+)?(?:decay|schedule|annealing|learning[- ]rate|lr|rate)\b", re.IGNORECASE)),
    ("optimizer", re.compile(r"\b(AdamW|SGD|Muon|Lion|Adafactor)\b")),
    ("precision", re.compile(r"\b(?:in|with)\s+(bf16|bfloat16|fp32|float32|fp16|float16)\b", re.IGNORECASE)),
    ("rank", re.compile(r"\b(?:LoRA\s+)?rank\s*(?:=|of)?\s*(\d+)\b", re.IGNORECASE)),
    ("epochs", re.compile(r"\b(\d+(?:\.\d+)?)\s+(?:epochs?|passes)\b", re.IGNORECASE)),
    ("seed", re.compile(r"\bseed\s+(\d+)\b", re.IGNORECASE)),
    ("learning rate", re.compile(rf"\b(?:peak\s+)?(?:learning[- ]rate|lr)\s+(?:of\s+|=\s*)({NUMBER})", re.IGNORECASE)),
    ("weight decay", re.compile(rf"\bweight decay\s+(?:of\s+|=\s*)({NUMBER})", re.IGNORECASE)),
    ("batch", re.compile(r"\bbatch size\s+(?:of\s+|=\s*)?(\d[\d,]*)\b", re.IGNORECASE)),
)  # fmt: skip


def check(text: str, path: str, known: Callable[[str], Known | None], first: Known | None = None) -> Checked:
    """Return what a text says of runs, each statement beside the evidence; `known` finds a run by the name it is given.

    `first` is the run that the text speaks of before it names one. A line that names several speaks of none.
    """
    statements: list[Statement] = []
    run, heads, without, fenced = first, None, 0, False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        named = {*RUN.findall(line), *RUN_ID.findall(line)}
        if len(named) == 1:
            run = known(named.pop())
        elif len({name.rpartition("/")[2] for name in named}) > 1:
            run = None
        place = _Place(path, number, line, run)
        cells = _cells(line)
        if cells is None:
            heads = None
        elif heads is None:
            heads = [_plain(cell).lower() for _, cell in cells]
            if _of_losses(heads):
                without += run is None
                continue
            statements += place.setting(cells)
        elif _of_losses(heads):
            statements += place.losses(heads, cells)
        else:
            statements += place.setting(cells)
        statements += place.marked()
        if cells is None and not fenced:
            statements += [*place.pairs(), *place.prose()]
        if not fenced:
            statements += place.arithmetic()
    return Checked(tuple(statements), without)


def _cells(line: str) -> list[tuple[int, str]] | None:
    """Return the cells of a Markdown table's row, each with its column in the line; None for any other line."""
    if not line.lstrip().startswith("|"):
        return None
    found, at = [], line.index("|") + 1
    for cell in line[at:].rstrip().removesuffix("|").split("|"):
        found.append((at + len(cell) - len(cell.lstrip()) + 1, cell.strip()))
        at += len(cell) + 1
    return found


def _plain(cell: str) -> str:
    return re.sub(r"<[^>]*>|[*_`]", "", cell).strip()


def _of_losses(heads: list[str]) -> bool:
    names = {HEADS.get(head.split(" (")[0]) for head in heads}
    return "step" in names and len(names - {"step", None}) > 0


def read_number(text: str) -> float | None:
    """Return a typed number, thousands apart or not; None for anything else."""
    found = re.fullmatch(NUMBER, _plain(text))
    return float(found[0].replace(",", "").rstrip("%")) * (0.01 if found[0].endswith("%") else 1) if found else None


def same(typed: str, evidence: float) -> bool:
    """Say whether evidence rounds to what was typed, with as many decimals as were typed."""
    plain = _plain(typed).replace(",", "")
    value = read_number(typed)
    mantissa, _, exponent = plain.rstrip("%").lower().partition("e")
    decimals = len(mantissa.partition(".")[2]) - int(exponent or 0) + (2 if plain.endswith("%") else 0)
    return value is not None and abs(value - evidence) <= 0.5 * 10.0**-decimals * (1 + 1e-9)


def near(typed: str, evidence: float) -> bool:
    """Say whether a typed setting is the applied one: settings are chosen, so 3 passes are not 2.63 of them."""
    value = read_number(typed)
    return value is not None and math.isclose(value, evidence, rel_tol=5e-3, abs_tol=1e-12)


@dataclass(frozen=True)
class _Place:
    """A line of the text, and the run that it speaks of."""

    path: str
    number: int
    line: str
    run: Known | None

    def _said(self, column: int, state: State, typed: str, said: str, evidence: str = "") -> Statement:
        return Statement(self.path, self.number, column, state, typed, said, evidence)

    def losses(self, heads: list[str], cells: list[tuple[int, str]]) -> Iterator[Statement]:
        """Yield what a row of a table of losses says."""
        names = [HEADS.get(head.split(" (")[0]) for head in heads]
        if self.run is None or len(cells) > len(names):
            return
        step = next((read_number(cell) for name, (_, cell) in zip(names, cells, strict=False) if name == "step"), None)
        if step is None or not step.is_integer():
            return  # the rule beneath the heads, or a row of words
        for name, (column, cell) in zip(names, cells, strict=False):
            if name is not None and name != "step" and read_number(cell) is not None:
                yield self._loss(name, int(step), column, _plain(cell))

    def _loss(self, name: Column, step: int, column: int, typed: str) -> Statement:
        assert self.run is not None
        said = f"{name} at step {step} of {self.run.name}"
        known = self.run.columns[name].get(step, ())
        agrees = near if name == "learning rate" else same
        if any(agrees(typed, value) for value, _ in known):
            return self._said(column, "AGREES", typed, said)
        where = self._elsewhere(typed)
        if not known:
            steps = sorted(self.run.columns[name], key=lambda at: abs(at - step))[:2]
            about = f"; the nearest stand at {' and '.join(map(str, sorted(steps)))}" if steps else ""
            return self._said(column, "NO_EVIDENCE", typed, said, f"no {name} stands at that step{about}{where}")
        shown = " or ".join(f"{value:.6g} {what}" for value, what in known)
        return self._said(column, "CONTRADICTED", typed, said, f"the evidence says {shown}{where}")

    def _elsewhere(self, typed: str) -> str:
        """Return where a typed number really stands, in any column."""
        assert self.run is not None
        found = [
            f"{name} of step {step}"
            for name, steps in self.run.columns.items()
            for step, values in sorted(steps.items())
            if any(same(typed, value) for value, _ in values)
        ]
        more = f" and {len(found) - MOST_PLACES} more" if len(found) > MOST_PLACES else ""
        return f"; {typed} is the {', the '.join(found[:MOST_PLACES])}{more}" if found else ""

    def pairs(self) -> Iterator[Statement]:
        """Yield what `step 800: 0.55/7.40` says."""
        for found in STEP.finditer(self.line):
            if self.run is not None:
                step = int(found[1].replace(",", ""))
                yield self._loss("train loss", step, found.start(2) + 1, found[2])
                yield self._loss("val loss", step, found.start(3) + 1, found[3])

    def marked(self) -> Iterator[Statement]:
        """Yield what numbers with a marker behind them say."""
        for found in MARKED.finditer(self.line):
            if self.run is None:
                continue
            typed, metric, step = found[1], found[2], found[3]
            said = f"{metric}{f' at step {step}' if step else ''} of {self.run.name}"
            observed = self.run.observed if step is None else until(self.run.observed, int(step))
            measured, missing = measure(observed, [metric])
            value = measured[0].value if measured else None
            column = found.start(1) + 1
            if value is None or isinstance(value, str):
                why = missing.get(metric, f"it is the word {value}") if metric in METRICS else "no such metric"
                yield self._said(column, "NO_EVIDENCE", typed, said, why)
            elif same(typed, value):
                yield self._said(column, "AGREES", typed, said)
            else:
                yield self._said(
                    column, "CONTRADICTED", typed, said, f"the evidence says {value:.6g}{self._elsewhere(typed)}"
                )

    def setting(self, cells: list[tuple[int, str]]) -> Iterator[Statement]:
        """Yield what a row of a table of settings says: a name and one value; of several values, it is not said whose."""
        if self.run is None or len(cells) != 2:
            return
        name = SETTINGS.get(_plain(cells[0][1]).lower())
        if name is not None and _plain(cells[1][1]) and set(cells[1][1]) - set("-: "):
            yield from self._setting(name, cells[1][0], _plain(cells[1][1]))

    def prose(self) -> Iterator[Statement]:
        """Yield what a sentence says of the method; what it denies, or only considers, it does not say."""
        if self.run is None:
            return
        for name, pattern in PROSE:
            for found in pattern.finditer(self.line):
                if not DENIED.search(self.line[: found.start()]):
                    yield from self._setting(name, found.start(1) + 1, found[1])

    def _setting(self, name: str, column: int, typed: str) -> Iterator[Statement]:
        assert self.run is not None
        known = self.run.settings.get(name, ())
        said = f"{name} of {self.run.name}"
        if name in KINDS:
            words = {WORDS[word] for word in re.findall(r"[a-z0-9-]+", typed.lower()) if word in WORDS} & KINDS[name]
            if not words:
                return  # a word that is not of the grammar is not judged
            agrees = any(str(value).lower().split("_")[0] in words for value in known)
        else:
            number = re.match(NUMBER, typed)
            if not number:
                return
            agrees = any(isinstance(value, int | float) and near(number[0], float(value)) for value in known)
        shown = " or ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in known)
        if agrees:
            yield self._said(column, "AGREES", typed, said)
        elif known:
            yield self._said(column, "CONTRADICTED", typed, said, f"what was applied is {shown}")
        elif name == "rank":
            yield self._said(column, "CONTRADICTED", typed, said, "its contract has no adapter, and so no rank")
        else:
            yield self._said(column, "NO_EVIDENCE", typed, said, "the run does not record it")

    def arithmetic(self) -> Iterator[Statement]:
        """Yield whether `tripling from 0.35 to 2.76` is what the two numbers say; it needs no run."""
        for found in FACTOR.finditer(self.line):
            first, last = read_number(found[2]), read_number(found[3])
            if not first or last is None:
                continue
            asked, is_ = FACTORS[found[1].lower()], last / first
            agrees = abs(math.log(is_ / asked)) <= math.log(1.2) if is_ > 0 else False
            state: State = "AGREES" if agrees else "CONTRADICTED"
            yield self._said(
                found.start(1) + 1,
                state,
                found[0],
                "a factor",
                "" if agrees else f"{found[3]} is {is_:.3g} times {found[2]}",
            )
