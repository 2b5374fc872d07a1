"""Readers: the log of somebody else's trainer as one `Series`.

Each row of a log is one point, in order, with the numbers as they were printed. Nothing is guessed and nothing
is dropped: a line that looks like a row and does not parse is refused with its place, and whatever a format is
known to hide (an average in place of NaN, a mean in place of the last loss) is said in the series' remarks.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from sovereign.canonical import Document, Malformed, Place, Problem, digest_bytes, parse_json, validate
from sovereign.diagnosis.record import Settings

Format = Literal["transformers", "csv", "jsonl", "mlx-lm", "nanogpt", "series"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Point:
    """What one row of a log says, as printed; None where it says nothing."""

    step: int | None = None  # a table may count epochs, or only its rows
    epoch: float | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens: int | None = None
    wall: float | None = None  # seconds since the start
    scope: str = ""  # what train_loss was averaged over; empty where the format does not say
    position: float | None = None  # in the data: 1 where training was nearest to the validation part
    entry: int = field(default=0, compare=False)  # line of the log, or number of the entry, counted from 1


@dataclass(frozen=True)
class Series:
    """One run as a log tells it: its points in order, and what a reader of them must know."""

    format: Format
    unit: str
    points: tuple[Point, ...]
    vocabulary: int | None = None
    reached: int | None = None  # the last step the log tells of, where that is not its last point's
    remarks: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)  # what the log says of the run beside its losses
    broke: str = ""  # the first number that is not finite, and where; only `read_log(broken=True)` reads past one
    digest: str = field(default="", compare=False)  # of the log's bytes
    size: int = field(default=0, compare=False)

    @property
    def steps(self) -> int:
        """The last step that the log tells of; 0 where it counts none."""
        return max(self.reached or 0, self.points[-1].step or 0)


def read_log(path: Path, fmt: Format | None = None, broken: bool = False) -> Series:
    """Return the log at `path`, in the format given, or in the one its content shows (`Series.format` says which).

    Raises Malformed with every fault at its file and line: an unknown column, a row that does not parse, a number
    that is not finite, steps that run backwards, a log without a loss. With `broken`, a number that is not finite is
    left out and told of in `Series.broke`: a diagnosis must be able to look at a run that broke down.
    """
    name = str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Malformed([Problem(name, f"cannot be read: {error.strerror}")]) from None
    text = _decoded(data, name)
    if not text.strip():
        raise Malformed([Problem(name, "an empty log: the trainer said nothing, or said it elsewhere")])
    chosen = fmt or detect(text)
    if chosen is None:
        known = ", ".join(FORMATS)
        raise Malformed([Problem(name, f"no row of any known log in it; name its format, one of {known}, to see why")])
    reading = _Reading(name, text, broken)
    READERS[chosen](reading)
    reading.check()
    if reading.problems:
        raise Malformed(reading.problems)
    points = tuple(reading.points)
    if not reading.broke and all(point.train_loss is None and point.val_loss is None for point in points):
        raise Malformed([Problem(name, f"no loss in it: read as {chosen}, it holds {EXPECTED[chosen]} nowhere")])
    return Series(
        chosen, "nats/token", points, reading.vocabulary, reading.reached, tuple(reading.remarks), reading.settings,
        reading.broke, digest_bytes(data), len(data),
    )  # fmt: skip


def detect(text: str) -> Format | None:
    """Return the format that a log's content shows, or None where it shows none, or more than one."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    if lines[0].lstrip().startswith("{"):
        return _detected_json(text)
    head = {cell.strip().strip('"') for cell in re.split(r"[,;\t]", lines[0])}
    if head & {"step", "epoch"} and (head & {"train_loss", "val_loss"} or "step" in head):
        return "csv"
    found = [format_ for format_, row in (("mlx-lm", MLX_ROW), ("nanogpt", NANO_ROW)) if row.search(text)]
    return cast("Format", found[0]) if len(found) == 1 else None


def _detected_json(text: str) -> Format:
    try:
        value = json.loads(text)
        keys = set(value) if isinstance(value, dict) else set()
    except ValueError:  # many documents, or one that is broken: its reader says where
        first = text.lstrip().splitlines()[0]
        keys = {key for key in ("log_history", "series") if f'"{key}"' in text and not first.rstrip().endswith("}")}
    return "transformers" if "log_history" in keys else "series" if "series" in keys else "jsonl"


def _decoded(data: bytes, name: str) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise Malformed([Problem(name, "is UTF-16, as PowerShell writes it; save it as UTF-8")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = data.count(b"\n", 0, error.start) + 1
        raise Malformed([Problem(name, f"not UTF-8: byte 0x{data[error.start]:02x}", at)]) from None


# ── what all readers share ───────────────────────────────────────────────────────────────────────


class _Fault(ValueError):
    """What is wrong with one row."""


class _NotFinite(_Fault):
    """A row that tells of a run that broke down."""


class _Reading:
    """A log being read: the points so far, and what is wrong with it."""

    def __init__(self, name: str, text: str, broken: bool = False):
        self.name, self.text, self.broken = name, text, broken
        self.settings = Settings()
        self.broke = ""
        self.points: list[Point] = []
        self.problems: list[Problem] = []
        self.remarks: list[str] = []
        self.vocabulary: int | None = None
        self.reached: int | None = None
        self.place: Callable[[int], Place] = lambda entry: (
            entry,
            1,
        )  # of an entry: its line, unless a reader knows better

    def fault(self, entry: int, message: str) -> None:
        line, column = self.place(entry)
        self.problems.append(Problem(self.name, message, line, column))

    def refuse(self, entry: int, fault: _Fault) -> None:
        """Keep the fault of a row; one that only says that the run broke down is a finding where that is asked for."""
        if self.broken and isinstance(fault, _NotFinite):
            self.broke = self.broke or f"{str(fault).partition(' is ')[0]} in line {self.place(entry)[0]}"
        else:
            self.fault(entry, str(fault))

    def finite(self, text: str, line: int = 1) -> str:
        """Return JSON without its NaN and infinities, each told of, where a broken run is to be read."""
        if not self.broken:
            return text
        found = NON_FINITE.search(text)
        if found:
            at = text.count("\n", 0, found.start()) + line
            self.broke = self.broke or f"{found[1]}: {found[2]} in line {at}"
        return NON_FINITE.sub(lambda one: f'"{one[1]}": null', text)

    def document(self, key: str) -> Document:
        """Return the log as one JSON document, whose entries stand in a list under `key`."""
        document = parse_json(self.finite(self.text).encode(), self.name)
        self.place = lambda entry: document.place((key, entry - 1))
        return document

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield each line that is not empty, with its number."""
        for number, line in enumerate(self.text.split("\n"), 1):
            if line.strip():
                yield number, line

    def torn(self) -> None:
        """Say where the last line may be half a line: its number would read as another one."""
        if self.text and not self.text.endswith("\n"):
            self.remarks.append("the last line has no line end: it may have been cut off, and its last number with it")

    def check(self) -> None:
        """Find what no single run prints: steps and counters that run backwards, a step reported twice."""
        seen: dict[tuple[str, str], float] = {}
        before: Point | None = None
        counted: dict[str, float] = {}
        for point in self.points:
            if before is not None and (point.step is None) != (before.step is None):
                told = "step: given in some rows and not in others; their order cannot be told, so give it in each or in none"
                self.fault(point.entry, told)
            if before is not None and point.step is not None and before.step is not None and point.step < before.step:
                told = f"step {point.step} after step {before.step}: two runs in one log, or a resumed one; import them one by one"
                self.fault(point.entry, told)
            for name in ("epoch", "tokens", "wall"):
                now = getattr(point, name)
                if now is not None and now < counted.get(name, 0):
                    self.fault(point.entry, f"{name}: {now} after {counted[name]}; it runs backwards within one run")
                if now is not None:
                    counted[name] = now
            if before is None or point.step is None or point.step != before.step:
                seen = {}
            for name, scope in (("train_loss", point.scope), ("val_loss", "")):
                value = getattr(point, name)
                if value is not None and seen.setdefault((name, scope), value) != value:
                    told = f"step {point.step} gives {name} as {seen[name, scope]} and as {value}; keep the row that is the run's"
                    self.fault(point.entry, told)
            before = point


def _float(text: str, name: str) -> float:
    if re.fullmatch(r"[+-]?(nan|inf|infinity)", text.strip(), re.IGNORECASE):
        raise _NotFinite(
            f"{name}: {text.strip()} is no number that evidence may hold: the run broke down here, or before. Cut the log "
            "above this line; what is left ends before its planned last step, and is closed as abandoned"
        )
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text.strip()):
        raise _Fault(f"{name}: {text.strip()!r} is not a number; write it like 2.345 or 1e-4")
    return _finite(float(text), name)


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise _Fault(f"{name}: overflows a 64-bit float")
    if value < 0:
        raise _Fault(f"{name}: {value:g} is below zero, which no {name.replace('_', ' ')} is")
    return value


def _int(text: str, name: str) -> int:
    if not re.fullmatch(r"\d+", text.strip()):
        raise _Fault(f"{name}: {text.strip()!r} is not a whole number; write it like 1350")
    return int(text)


# ── tables: CSV, JSONL, and one JSON document ────────────────────────────────────────────────────

COLUMNS = {
    "step": "step", "epoch": "epoch", "train_loss": "train_loss", "val_loss": "val_loss", "tokens": "tokens",
    "lr": "learning_rate", "learning_rate": "learning_rate", "grad_norm": "grad_norm", "wall": "wall",
    "position": "position",
}  # fmt: skip
WHOLE = frozenset({"step", "tokens"})
NON_FINITE = re.compile(r'"(\w+)"\s*:\s*(NaN|-?Infinity)\b')
UNSAID = (
    "the unit is not stated; losses are taken as nats per token",
    "what one train_loss covers is not stated: values of single batches support no trend (CASE-22)",
)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COLUMNS)}"
    return f"{name}: unknown column; {hint}"


def _point(values: Mapping[str, Any], entry: int, counted: bool = False) -> Point:
    """Return the point of one row; its columns are known, and absent values are left out.

    `counted` says that rows are in order by themselves, so that one may give neither step nor epoch.
    """
    named = {COLUMNS[name]: value for name, value in values.items()}
    if not named.keys() & {"step", "epoch"} and not counted:
        raise _Fault("step: required, and not given; write how many updates, or epochs, were done")
    if not named.keys() - {"step", "epoch"}:
        raise _Fault(f"step {named.get('step', named.get('epoch'))} says nothing beside its number")
    if not 0 <= named.get("position", 0) <= 1:
        raise _Fault(f"position: {named['position']} is no share; 1 is nearest to the validation part, 0 is elsewhere")
    return Point(entry=entry, **named)


def _read_csv(reading: _Reading) -> None:
    rows = csv.reader(io.StringIO(reading.text, newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in rows:
            stripped = [cell.strip() for cell in cells]
            if not any(stripped) and len(cells) < 2:
                continue
            if not header:
                header = stripped
                _check_header(reading, header, rows.line_num)
                if reading.problems:
                    return
            elif len(cells) != len(header):
                reading.fault(rows.line_num, f"{len(cells)} cells, where the header has {len(header)} columns")
            else:
                given = {name: cell for name, cell in zip(header, stripped, strict=True) if cell}
                _add(reading, given, rows.line_num, lambda name, cell: (_int if name in WHOLE else _float)(cell, name))
    except csv.Error as error:
        reading.fault(rows.line_num, f"not CSV: {error}")
    reading.torn()
    reading.remarks += UNSAID


def _check_header(reading: _Reading, header: list[str], line: int) -> None:
    if len(header) == 1 and re.search(r"[;\t]", header[0]):
        reading.fault(line, "columns are parted by commas; this header has semicolons or tabs")
        return
    for name in header:
        if name not in COLUMNS:
            reading.fault(line, _unknown(name))
    meanings = [COLUMNS.get(name, name) for name in header]
    for name in sorted({name for name in meanings if meanings.count(name) > 1}):
        reading.fault(line, f"{name}: column given twice; keep one")
    if not {"step", "epoch"} & set(header):
        reading.fault(line, "step: a column is required, and not given; epoch does where steps were not counted")


def _add(
    reading: _Reading, given: Mapping[str, Any], entry: int, number: Callable[[str, Any], float], counted: bool = False
) -> None:
    """Add the point of one row of a table, or the fault in it."""
    values = {}
    try:
        for name, value in given.items():
            try:
                values[name] = number(name, value)
            except _NotFinite as fault:
                if not reading.broken:
                    raise
                reading.refuse(entry, fault)
        if reading.broke and not values.keys() - {"step", "epoch"}:
            return  # all it had to say was not finite
        reading.points.append(_point(values, entry, counted))
    except _Fault as fault:
        reading.fault(entry, str(fault))


def _json_number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Fault(f"{name}: {json.dumps(value)} is not a number")
    if name in WHOLE and not isinstance(value, int):
        raise _Fault(f"{name}: {value} is not a whole number; write {round(value)}")
    return _finite(value, name)


def _add_object(reading: _Reading, value: Any, entry: int, counted: bool = False) -> None:
    """Add the point of a JSON object with the columns of a table."""
    if not isinstance(value, dict):
        reading.fault(entry, f'{json.dumps(value)[:40]} is not an object like {{"step": 10, "train_loss": 2.5}}')
        return
    unknown = [name for name in value if name not in COLUMNS]
    if unknown or {"lr", "learning_rate"} <= value.keys():
        reading.fault(entry, _unknown(unknown[0]) if unknown else "lr and learning_rate are one column; keep one")
        return
    _add(reading, {name: one for name, one in value.items() if one is not None}, entry, _json_number, counted)


def _read_jsonl(reading: _Reading) -> None:
    for number, line in reading.lines():
        try:
            value = parse_json(reading.finite(line, number).encode(), reading.name, number).value
        except Malformed as error:
            reading.problems += error.problems
            continue
        _add_object(reading, value, number)
    reading.remarks += UNSAID


# of a collection of cases: told to people, and no evidence
ASIDE = frozenset({
    "id", "title", "source", "model", "method", "note", "notes", "expected", "confidence", "leaning", "also_acceptable", "why",
    "next", "author_claim", "with_sources",
})  # fmt: skip


def _read_series(reading: _Reading) -> None:
    document = reading.document("series")
    value = document.value
    if not isinstance(value, dict) or not isinstance(value.get("series"), list):
        reading.fault(0, 'is not {"vocab_size": ..., "series": [{"step": ..., "train_loss": ...}]}')
        return
    _series_settings(reading, document)
    # a word for a point, as "first" and "last", counts nothing; such rows are in the order in which they stand
    rows = [
        {key: one for key, one in row.items() if key != "point"} if isinstance(row, dict) else row
        for row in value["series"]
    ]
    counted = not any(
        isinstance(row, dict) and (row.get("step") is not None or row.get("epoch") is not None) for row in rows
    )
    for entry, one in enumerate(rows, 1):
        _add_object(reading, one, entry, counted and len(rows) > 0)
    reading.remarks += UNSAID
    aside = sorted(value.keys() & ASIDE - {"id", "title"})
    if aside:
        reading.remarks.append(f"not read, as it is no evidence: {', '.join(aside)}")


def _series_settings(reading: _Reading, document: Document) -> None:
    """Take what the document says of the run: under `meta` or `settings`, or beside the series."""
    value = document.value
    section = next((name for name in ("meta", "settings") if name in value), None)
    beside = {key: one for key, one in value.items() if key in Settings.model_fields}
    for name in value.keys() - {"vocab_size", "series", "meta", "settings"} - ASIDE - beside.keys():
        near = difflib.get_close_matches(
            name, ["vocab_size", "series", "meta", *Settings.model_fields], n=1, cutoff=0.5
        )
        hint = (
            f"did you mean {near[0]}?"
            if near
            else "there are vocab_size, series, and meta with what is known of the run"
        )
        reading.problems.append(document.problem((name,), f"unknown key; {hint}"))
    if {"meta", "settings"} <= value.keys():
        reading.problems.append(document.problem(("settings",), "meta and settings are one section; keep one"))
    size = value.get("vocab_size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        reading.problems.append(document.problem(("vocab_size",), f"{json.dumps(size)} is not a number of tokens"))
        size = None
    given = value.get(section) if section else {}
    if not isinstance(given, dict):
        reading.problems.append(document.problem((section or "",), "is not an object with what is known of the run"))
        return
    named = {key: one for key, one in {**given, **beside}.items() if one is not None}
    if size is not None and named.setdefault("vocab", size) != size:
        told = f"is {size}, and vocab is {named['vocab']}"
        reading.problems.append(document.problem(("vocab_size",), told))
    inside = lambda keys: document.place((section, *keys) if section and keys and keys[0] in given else keys)  # noqa: E731
    try:
        reading.settings = validate(Settings, Document(reading.name, named, inside))
    except Malformed as error:
        reading.problems += error.problems
        return
    reading.vocabulary = reading.settings.vocab


# ── transformers ─────────────────────────────────────────────────────────────────────────────────

HF_TRAIN = {
    "epoch": "epoch", "loss": "train_loss", "eval_loss": "val_loss", "learning_rate": "learning_rate",
    "grad_norm": "grad_norm", "num_input_tokens_seen": "tokens", "num_tokens": "tokens",
}  # fmt: skip
HF_TIMES = re.compile(r"(eval|train)_(runtime|samples_per_second|steps_per_second|tokens_per_second)|total_flos|step")


def _read_transformers(reading: _Reading) -> None:
    state = reading.document("log_history").value
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        reading.fault(0, "has no list log_history, as a trainer_state.json has")
        return
    unread: set[str] = set()
    for entry, one in enumerate(history, 1):
        if not isinstance(one, dict):
            reading.fault(entry, "is not an object, as every entry of log_history is")
            continue
        if "train_runtime" in one:
            told = f"the closing entry's train_loss {one.get('train_loss')} is the mean over the whole run, not the last step's: it is no point"
            reading.remarks.append(told)
            continue
        unread |= {name for name in one if name not in HF_TRAIN and not HF_TIMES.fullmatch(name)}
        if "loss" not in one and "eval_loss" not in one:
            continue
        try:
            reading.points.append(_hf_point(one, entry))
        except _Fault as fault:
            reading.refuse(entry, fault)
    _hf_ends(reading, state)
    reading.remarks.append(
        "logging_nan_inf_filter, on by default, may have replaced a NaN loss by an average (transformers)"
    )
    reading.remarks.append(
        "before transformers 4.46, losses under gradient accumulation are means of micro-batch means, not per token (#34191)"
    )
    if unread:
        reading.remarks.append(f"not read: {', '.join(sorted(unread))}")


def _hf_point(one: Mapping[str, Any], entry: int) -> Point:
    step = one.get("step")
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise _Fault(f"step: {json.dumps(step)} is not a whole number of updates")
    known = {name: value for name, value in one.items() if name in HF_TRAIN and value is not None}
    if {"num_input_tokens_seen", "num_tokens"} <= known.keys():
        del known["num_tokens"]
    named: dict[str, Any] = {HF_TRAIN[name]: _json_number(name, value) for name, value in known.items()}
    if "tokens" in named:
        named["tokens"] = int(named["tokens"])  # trl counts them as a float
    return Point(step, entry=entry, scope="mean since the last log" if "train_loss" in named else "", **named)


def _hf_ends(reading: _Reading, state: Mapping[str, Any]) -> None:
    """Compare where the log ends with where the run did: the last logged loss need not be the last step's (CASE-30)."""
    done, planned = state.get("global_step"), state.get("max_steps")
    if isinstance(done, bool) or not isinstance(done, int):
        reading.fault(0, "global_step: required in a trainer_state.json, and not given as a whole number")
        return
    reading.reached = done
    trained = [point for point in reading.points if point.train_loss is not None]
    last = reading.points[-1].step if reading.points else None
    if last is not None and last > done:
        reading.fault(reading.points[-1].entry, f"global_step is {done}, and an entry is logged at step {last}")
    elif trained and (trained[-1].step or 0) < done:
        told = f"training reached step {done}; the last logged loss, {trained[-1].train_loss}, is of step {trained[-1].step}"
        reading.remarks.append(told)
    if isinstance(planned, int) and planned > done:
        reading.remarks.append(f"training stopped at step {done} of max_steps {planned}")


# ── consoles ─────────────────────────────────────────────────────────────────────────────────────

# what looks like a row, however broken: it must then parse
MLX_ROW = re.compile(r"\bIter\s+\d+\b|\b(Train|Val) loss\b")
MLX_FIELDS: dict[str, tuple[str, str]] = {  # as printed -> what it is here, and the unit behind it
    "Train loss": ("train_loss", ""), "Val loss": ("val_loss", ""), "Learning Rate": ("learning_rate", ""),
    "It/sec": ("", ""), "Tokens/sec": ("", ""), "Trained Tokens": ("tokens", ""), "Peak mem": ("", " GB"),
    "Val took": ("", "s"),
}  # fmt: skip
NANO_ROW = re.compile(r"\b(step|iter)\s+\d+\b|\b(train|val) loss\b")
NANO_STEP = re.compile(r"\bstep (\d+): train loss (\S+), val loss (\S+)$")
NANO_ITER = re.compile(r"\biter (\d+): loss (\S+), time (\S+)ms(?:, mfu (\S+)%)?$")
NANO_VOCABULARY = re.compile(r"found vocab_size = (\d+)|defaulting to vocab_size of GPT-2 to (\d+)")


def _pieces(reading: _Reading) -> Iterator[tuple[int, str]]:
    """Yield what each line shows: progress bars write over a line, with carriage returns between."""
    for number, line in reading.lines():
        for piece in line.split("\r"):
            if piece.strip():
                yield number, piece.rstrip()


def _read_mlx(reading: _Reading) -> None:
    shown: dict[str, set[str]] = {}  # the fields that rows of training, and of validation, have had so far
    announced = None
    for number, piece in _pieces(reading):
        if found := re.search(r"Starting training\W*iters: (\d+)", piece):
            announced = int(found[1])
        if not MLX_ROW.search(piece) or re.search(r"\bIter \d+: Saved ", piece):
            continue
        try:
            step, fields = _mlx_fields(piece)
            kind = "Val loss" if "Val loss" in fields else "Train loss"
            lacking = shown.setdefault(kind, set(fields)) - set(fields)
            if lacking:
                raise _Fault(f"lacks {', '.join(sorted(lacking))}, which rows before it have: is the line cut off?")
            named: dict[str, Any] = {
                MLX_FIELDS[name][0]: value for name, value in fields.items() if MLX_FIELDS[name][0]
            }
            scope = "mean since the last report" if kind == "Train loss" else ""
            reading.points.append(Point(step, entry=number, scope=scope, **named))
        except _Fault as fault:
            reading.refuse(number, fault)
    trained = [point.step for point in reading.points if point.train_loss is not None]
    if announced is not None and trained and trained[-1] != announced:
        reading.remarks.append(
            f"the log announces {announced} iterations; its last training row is of iteration {trained[-1]}"
        )
    if any(point.val_loss is not None for point in reading.points):
        reading.remarks.append(
            "mlx-lm validates before the update of the iteration it prints: Val loss at Iter N is of N-1 updates"
        )
        reading.remarks.append(
            "mlx-lm draws the validation batches anew at each evaluation: successive losses are of other examples (CASE-21)"
        )
    reading.torn()


def _mlx_fields(piece: str) -> tuple[int, dict[str, float]]:
    """Return the iteration of a row and its fields by their printed names."""
    found = re.search(r"\bIter (\d+): (.*)$", piece)
    if not found:
        raise _Fault(f"{piece.strip()[:60]!r} looks like a row, and is not `Iter 50: Train loss 2.345, ...`")
    fields: dict[str, float] = {}
    for part in found[2].split(", "):
        name, (_, unit) = next(
            ((name, way) for name, way in MLX_FIELDS.items() if part.startswith(f"{name} ")), ("", ("", ""))
        )
        if not name:
            raise _Fault(f"{part[:40]!r} is no field of an mlx-lm row; there are {', '.join(MLX_FIELDS)}")
        if not part.endswith(unit):
            raise _Fault(f"{part!r} lacks its unit{unit and f' {unit.strip()}'}: is the line cut off?")
        if name in fields:
            raise _Fault(f"{name} stands twice in one row")
        number = part.removeprefix(f"{name} ").removesuffix(unit)
        fields[name] = _int(number, name) if name == "Trained Tokens" else _float(number, name)
    if ("Train loss" in fields) == ("Val loss" in fields):
        raise _Fault("a row gives either Train loss or Val loss")
    return int(found[1]), fields


def _read_nanogpt(reading: _Reading) -> None:
    for number, piece in _pieces(reading):
        if found := NANO_VOCABULARY.search(piece):
            reading.vocabulary = int(found[1] or found[2])
        if not NANO_ROW.search(piece):
            continue
        try:
            reading.points.append(_nano_point(piece, number))
        except _Fault as fault:
            reading.refuse(number, fault)
    if any(point.scope == "last micro-batch" for point in reading.points):
        reading.remarks.append(
            "nanoGPT's iter rows print one micro-batch's loss: single batches support no trend (CASE-22)"
        )
    if any(point.val_loss is not None for point in reading.points):
        reading.remarks.append(
            "nanoGPT's step rows print means over eval_iters random batches, drawn anew each time (CASE-21)"
        )
    reading.torn()


def _nano_point(piece: str, number: int) -> Point:
    if found := NANO_STEP.search(piece):
        train, val = _float(found[2], "train_loss"), _float(found[3], "val_loss")
        return Point(int(found[1]), train_loss=train, val_loss=val, scope="evaluation mode", entry=number)
    if found := NANO_ITER.search(piece):
        return Point(int(found[1]), train_loss=_float(found[2], "train_loss"), scope="last micro-batch", entry=number)
    raise _Fault(
        f"{piece.strip()[:60]!r} looks like a row, and is neither `step 250: train loss 2.0, val loss 2.1` "
        "nor `iter 10: loss 3.1, time 20.1ms, mfu 3.2%`"
    )


READERS: dict[Format, Callable[[_Reading], None]] = {
    "transformers": _read_transformers,
    "csv": _read_csv,
    "jsonl": _read_jsonl,
    "mlx-lm": _read_mlx,
    "nanogpt": _read_nanogpt,
    "series": _read_series,
}
EXPECTED: dict[Format, str] = {
    "transformers": "an entry with loss or eval_loss",
    "csv": "a value of train_loss or val_loss",
    "jsonl": "a value of train_loss or val_loss",
    "mlx-lm": "`Iter 50: Train loss 2.345, ...`",
    "nanogpt": "`step 250: train loss 2.0, val loss 2.1`",
    "series": "a value of train_loss or val_loss",
}
