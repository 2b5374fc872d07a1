"""Logs of other trainers are read as they were printed, or refused at the line that is wrong."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sovereign.canonical import Malformed
from sovereign.cli.import_ import FORMATS as OFFERED
from sovereign.interop.logs import FORMATS, Format, Point, Series, read_log

# SmolLM3 run 4 of the founding diaries: 1367 iterations, reported every 50, so the last row is off the grid
MLX = """\
Loading pretrained model
Fetching 9 files: 100%|██████████| 9/9 [00:00<00:00, 12345.6it/s]
Trainable parameters: 0.171% (5.259M/3075.098M)
Starting training..., iters: 1367
Calculating loss...: 100%|██████████| 25/25 [00:12<00:00,  2.03it/s]\rIter 1: Val loss 2.810, Val took 12.300s
Iter 50: Train loss 2.345, Learning Rate 1.000e-05, It/sec 0.500, Tokens/sec 120.300, Trained Tokens 5321, Peak mem 10.200 GB
Iter 100: Saved adapter weights to adapters/adapters.safetensors and adapters/0000100_adapters.safetensors.
Iter 1350: Train loss 1.921, Learning Rate 1.000e-05, It/sec 0.512, Tokens/sec 121.900, Trained Tokens 143667, Peak mem 10.200 GB
Iter 1367: Val loss 1.629, Val took 12.100s
Iter 1367: Train loss 1.964, Learning Rate 1.000e-05, It/sec 0.498, Tokens/sec 119.200, Trained Tokens 145476, Peak mem 10.200 GB
Saved final weights to adapters/adapters.safetensors.
"""
NANO = """\
tokens per iteration will be: 16,384
found vocab_size = 65 (inside data/shakespeare_char/meta.pkl)
Initializing a new model from scratch
number of parameters: 10.65M
step 0: train loss 4.2874, val loss 4.2823
iter 0: loss 4.2649, time 33420.55ms, mfu -100.00%
iter 10: loss 3.2438, time 20.10ms, mfu 18.22%
step 250: train loss 1.9683, val loss 2.0620
saving checkpoint to out-shakespeare-char
iter 250: loss 2.0377, time 4512.30ms, mfu 17.90%
"""
# GPT-2-XL run 3 of the diaries, as the Trainer left it
HF: dict[str, Any] = {
    "best_metric": None, "epoch": 3.0, "global_step": 474, "max_steps": 474, "logging_steps": 50, "is_world_process_zero": True,
    "log_history": [
        {"epoch": 1.0, "grad_norm": 1.5, "learning_rate": 3.3e-05, "loss": 2.874492, "step": 158},
        {"epoch": 1.0, "eval_loss": 3.220853, "eval_runtime": 1.5, "eval_samples_per_second": 8.0, "eval_steps_per_second": 8.0, "step": 158},
        {"epoch": 2.0, "grad_norm": 1.25, "learning_rate": 1.6e-05, "loss": 1.60702, "step": 316},
        {"epoch": 2.0, "eval_loss": 3.343305, "eval_accuracy": 0.4, "eval_runtime": 1.5, "step": 316},
        {"epoch": 3.0, "step": 474, "total_flos": 1e15, "train_loss": 1.772072, "train_runtime": 99.0, "train_samples_per_second": 4.8,
         "train_steps_per_second": 4.8},
    ],
}  # fmt: skip
CSV = "step,epoch,train_loss,val_loss,lr\n0,0.0,,4.2823,0\n250,0.5,1.9683,2.0620,1e-3\n500,1.0,1.8,,1e-3\n"
JSONL = '{"step": 0, "val_loss": 4.2823}\n{"step": 250, "epoch": 0.5, "train_loss": 1.9683, "val_loss": null, "tokens": 4096}\n'
SERIES = '{"vocab_size": 65, "series": [\n {"step": 0, "epoch": 0, "train_loss": 4.28, "val_loss": 4.29},\n {"step": 250, "train_loss": 2.0}]}\n'
LOGS: dict[Format, str] = {
    "transformers": json.dumps(HF, indent=1) + "\n", "csv": CSV, "jsonl": JSONL, "mlx-lm": MLX, "nanogpt": NANO, "series": SERIES,
}  # fmt: skip


def read(tmp_path: Path, text: str, fmt: Format | None = None) -> Series:
    (tmp_path / "log").write_bytes(text.encode())
    return read_log(tmp_path / "log", fmt)


def refused(tmp_path: Path, text: str, fmt: Format | None = None) -> str:
    with pytest.raises(Malformed) as caught:
        read(tmp_path, text, fmt)
    return str(caught.value)


def last(series: Series) -> tuple[int, float | None, float | None]:
    trained = [point for point in series.points if point.train_loss is not None]
    validated = [point for point in series.points if point.val_loss is not None]
    return trained[-1].step, trained[-1].train_loss, validated[-1].val_loss


@pytest.mark.parametrize(
    ("name", "points", "steps", "ends"),
    [
        ("transformers", 4, 474, (316, 1.60702, 3.343305)),
        ("csv", 3, 500, (500, 1.8, 2.062)),
        ("jsonl", 2, 250, (250, 1.9683, 4.2823)),
        ("mlx-lm", 5, 1367, (1367, 1.964, 1.629)),
        ("nanogpt", 5, 250, (250, 2.0377, 2.062)),
        ("series", 2, 250, (250, 2.0, 4.29)),
    ],
)
def test_each_format_is_told_from_its_content_and_ends_where_it_ends(
    tmp_path: Path, name: Format, points: int, steps: int, ends: tuple[int, float, float]
) -> None:
    """The last row of a log is the last point, also off the reporting grid: 1367 and 1.964, not 1350 and 1.921 (CASE-30)."""
    found = read(tmp_path, LOGS[name])

    assert (name, "nats/token", points, steps, ends) == (
        found.format, found.unit, len(found.points), found.steps, last(found),
    )  # fmt: skip
    assert found == read(tmp_path, LOGS[name], name)


def test_every_printed_number_arrives(tmp_path: Path) -> None:
    """Rates, norms, counts and scopes are those of the row, and the vocabulary is the one that was printed."""
    mlx, nano, hf = (read(tmp_path, LOGS[name]) for name in ("mlx-lm", "nanogpt", "transformers"))

    assert mlx.points[1] == Point(
        50, train_loss=2.345, learning_rate=1e-5, tokens=5321, scope="mean since the last report"
    )
    assert nano.points[:2] == (
        Point(0, train_loss=4.2874, val_loss=4.2823, scope="evaluation mode"),
        Point(0, train_loss=4.2649, scope="last micro-batch"),
    )
    assert nano.vocabulary == read(tmp_path, SERIES).vocabulary == 65
    assert hf.points[0] == Point(158, 1.0, 2.874492, None, 3.3e-5, 1.5, scope="mean since the last log")
    assert [point.entry for point in mlx.points] == [5, 6, 8, 9, 10]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("transformers", "logging_nan_inf_filter"),
        ("transformers", "the last logged loss, 1.60702, is of step 316"),
        ("transformers", "1.772072 is the mean over the whole run, not the last step's"),
        ("transformers", "not read: eval_accuracy"),
        ("mlx-lm", "Val loss at Iter N is of N-1 updates"),
        ("mlx-lm", "CASE-21"),
        ("nanogpt", "one micro-batch's loss"),
        ("csv", "the unit is not stated"),
        ("csv", "CASE-22"),
    ],
)
def test_what_a_format_hides_is_said(tmp_path: Path, name: Format, said: str) -> None:
    """A reader of the series learns what its numbers do not mean (CASE-20, 21, 22, 30)."""
    assert any(said in remark for remark in read(tmp_path, LOGS[name]).remarks), read(tmp_path, LOGS[name]).remarks


def test_a_log_that_ends_early_says_so(tmp_path: Path) -> None:
    """A console cut before its last report, or within its last line, is not taken for a whole one (CASE-30)."""
    early = MLX[: MLX.index("Iter 1367: Val")]
    cut = (
        NANO.rstrip("\n").removesuffix("iter 250: loss 2.0377, time 4512.30ms, mfu 17.90%")
        + "step 500: train loss 1.7, val loss 1.8"
    )

    assert any(
        "announces 1367 iterations; its last training row is of iteration 1350" in one
        for one in read(tmp_path, early).remarks
    )
    assert any("may have been cut off" in one for one in read(tmp_path, cut).remarks)
    assert not any("cut off" in one for one in read(tmp_path, NANO).remarks)


ROW = "Iter 1367: Train loss"
FAULTY: dict[str, tuple[Format | None, str, str]] = {
    "an empty log": (None, "", "log:1:1: an empty log"),
    "no log": (None, "hello\nworld\n", "log:1:1: no row of any known log in it"),
    "no loss": (None, "step,lr\n1,0.1\n", "log:1:1: no loss in it"),
    "no row of that format": ("mlx-lm", CSV, "log:1:1: no loss in it: read as mlx-lm"),
    "an unknown column": (None, CSV.replace("val_loss", "valid_loss"), "log:1:1: valid_loss: unknown column; did you mean val_loss?"),
    "a column twice": (None, "step,lr,learning_rate\n1,1,1\n", "log:1:1: learning_rate: column given twice"),
    "semicolons": (None, CSV.replace(",", ";"), "log:1:1: columns are parted by commas"),
    "no step": ("csv", "lr,val_loss\n1,2\n", "log:1:1: step: a column is required"),
    "a short row": (None, CSV + "750,1.5\n", "log:5:1: 2 cells, where the header has 5 columns"),
    "a bare step": (None, CSV + "750,,,,\n", "log:5:1: step 750 says nothing beside its number"),
    "a decimal comma": (None, 'step,val_loss\n1,"2,5"\n', "log:2:1: val_loss: '2,5' is not a number"),
    "half a step": (None, "step,val_loss\n1.5,2\n", "log:2:1: step: '1.5' is not a whole number"),
    "NaN": (None, CSV.replace("1.8", "nan"), "log:4:1: train_loss: nan is no number that evidence may hold"),
    "infinity": (None, NANO.replace("3.2438", "inf"), "log:7:1: train_loss: inf is no number"),
    "NaN in mlx-lm": (None, MLX.replace("1.921", "nan"), "log:8:1: Train loss: nan is no number"),
    "NaN in JSON": (None, LOGS["transformers"].replace("1.60702", "NaN"), "NaN is not a number that evidence may hold"),
    "below zero": (None, CSV.replace("1.8", "-1.8"), "log:4:1: train_loss: -1.8 is below zero"),
    "an overflow": (None, CSV.replace("1.8", "1e999"), "log:4:1: train_loss: overflows"),
    "backwards": (None, CSV + "250,1.5,1.7,,\n", "log:5:1: step 250 after step 500: two runs in one log"),
    "two runs in one console": (None, MLX + MLX, "after step 1367: two runs in one log"),
    "two losses of one step": (None, CSV + "500,1.0,1.7,,\n", "log:5:1: step 500 gives train_loss as 1.8 and as 1.7"),
    "epochs backwards": (None, CSV + "750,0.9,1.7,,\n", "log:5:1: epoch: 0.9 after 1.0"),
    "tokens backwards": (None, MLX.replace("145476", "14547"), "log:10:1: tokens: 14547 after 143667"),
    "a row that is none": (None, MLX.replace(ROW, "Iter 1367 Train loss"), "log:10:1: 'Iter 1367 Train loss"),
    "a row cut off": (None, MLX[: MLX.index(", Tokens/sec 119")] + "\n", "log:10:1: lacks Peak mem, Tokens/sec, Trained Tokens"),
    "a unit cut off": (None, MLX[: MLX.index(" GB\nSaved")] + "\n", "log:10:1: 'Peak mem 10.200' lacks its unit GB"),
    "a field nobody knows": (None, MLX.replace("It/sec 0.498", "Spam 1"), "log:10:1: 'Spam 1' is no field of an mlx-lm row"),
    "an iteration of nothing": (None, MLX.replace("Iter 100: Saved", "Iter 100: Kept"), "log:7:1: 'Kept adapter weights"),
    "a nanoGPT row that is none": (None, NANO.replace("time 20.10ms", "20.10ms"), "log:7:1: 'iter 10: loss 3.2438"),
    "a nanoGPT row cut off": (None, NANO[: NANO.index(", val loss 2.0620")] + "\n", "log:8:1: 'step 250: train loss 1.9683'"),
    "two trainers": (None, MLX + NANO, "no row of any known log in it; name its format"),
    "another key": (None, JSONL.replace("tokens", "tokenz"), "log:2:1: tokenz: unknown column; did you mean tokens?"),
    "a key twice": (None, '{"step": 1, "step": 2, "val_loss": 2}\n', "step: key given twice"),
    "a word for a number": (None, '{"step": 1, "val_loss": "2"}\n', 'log:1:1: val_loss: "2" is not a number'),
    "true for a number": (None, '{"step": 1, "val_loss": true}\n', "log:1:1: val_loss: true is not a number"),
    "a torn object": (None, JSONL + '{"step": 500, "val', "log:3:"),
    "a list for an object": ("jsonl", "[1, 2]\n", "log:1:1: [1, 2] is not an object"),
    "no step in JSON": (None, '{"series": [{"epoch": 1, "train_loss": 2.87}, {"train_loss": 2.5}]}', "step: required, and not given"),
    "another top key": (None, SERIES.replace("vocab_size", "vocab_sise"), "log:1:2: vocab_sise: unknown key; did you mean vocab_size?"),
    "another setting": (None, SERIES.replace('65,', '65, "meta": {"unigram_nat": 3.3},'), "unigram_nat: unknown key; did you mean unigram_nats?"),
    "two vocabularies": (None, SERIES.replace('65,', '65, "meta": {"vocab": 66},'), "vocab_size: is 65, and vocab is 66"),
    "a leak by hearsay": (None, SERIES.replace('65,', '65, "meta": {"val_in_train": 0.5},'), "val_in_train needs val_in_train_from"),
    "a vocabulary of none": (None, SERIES.replace("65", "0"), "vocab_size: 0 is not a number of tokens"),
    "an entry at its line": (None, SERIES.replace("2.0}", '"x"}'), 'log:3:2: train_loss: "x" is not a number'),
    "a state without its step": (None, json.dumps({**HF, "global_step": None}), "global_step: required"),
    "a state before its log": (None, json.dumps({**HF, "global_step": 300}), "global_step is 300, and an entry is logged at step 316"),
}  # fmt: skip


@pytest.mark.parametrize("fault", sorted(FAULTY))
def test_a_faulty_log_is_refused_at_its_line(tmp_path: Path, fault: str) -> None:
    """Whatever is not a row as its trainer prints it is named with its place, and nothing is returned."""
    fmt, text, message = FAULTY[fault]
    told = refused(tmp_path, text, fmt)

    assert message in told


def test_other_encodings_are_named(tmp_path: Path) -> None:
    """A console redirected by PowerShell is UTF-16, and a byte that is no text has a line; a BOM means nothing."""
    for data, message in ((CSV.encode("utf-16"), "UTF-16"), (CSV.encode() + b"\xff", "log:5:1: not UTF-8: byte 0xff")):
        (tmp_path / "log").write_bytes(data)
        with pytest.raises(Malformed, match=message):
            read_log(tmp_path / "log")

    assert read(tmp_path, CSV) == read(tmp_path, "\ufeff" + CSV)


def test_progress_bars_hide_no_row(tmp_path: Path) -> None:
    """A bar that was drawn over a line stands before or after the row with a carriage return between: the row is read."""
    drawn = MLX.replace("Val took 12.100s", "Val took 12.100s\r 99%|█████████▉| 1366/1367").replace(
        "Iter 50:", "  0%|  |\rIter 50:"
    )

    assert read(tmp_path, MLX).points == read(tmp_path, drawn).points


def test_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    """A log that went through Windows says the same."""
    for name, text in LOGS.items():
        assert read(tmp_path, text) == read(tmp_path, text.replace("\n", "\r\n")), name


def test_the_command_offers_every_format() -> None:
    """What `sovereign import --format` offers is what can be read (it lists them itself, so that help stays quick)."""
    assert OFFERED == FORMATS


# ── properties ───────────────────────────────────────────────────────────────────────────────────

LOSS = st.integers(0, 20_000).map(lambda thousandths: thousandths / 1000)
FLOAT = st.floats(0, 1e6, allow_subnormal=False)
GAPS = st.lists(st.integers(1, 500), min_size=1, max_size=12)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Point, ...]:
    """Return points as a table holds them: any columns, every row with a loss, counters that do not run backwards."""
    points = []
    step = epoch = tokens = 0
    for gap in draw(GAPS):
        step, epoch, tokens = step + gap, epoch + draw(st.integers(0, 3)), tokens + draw(st.integers(0, 10**9))
        train, val = draw(st.one_of(st.tuples(FLOAT, st.none()), st.tuples(st.none(), FLOAT), st.tuples(FLOAT, FLOAT)))
        points.append(Point(
            step, draw(st.sampled_from([None, epoch / 4])), train, val, draw(st.none() | FLOAT), draw(st.none() | FLOAT),
            draw(st.sampled_from([None, tokens])),
        ))  # fmt: skip
    return tuple(points)


NAMES = {"step": "step", "epoch": "epoch", "train_loss": "train_loss", "val_loss": "val_loss", "lr": "learning_rate",
         "grad_norm": "grad_norm", "tokens": "tokens"}  # fmt: skip


def as_csv(points: tuple[Point, ...]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(NAMES)
    for point in points:
        values = [getattr(point, name) for name in NAMES.values()]
        writer.writerow("" if value is None else repr(value) for value in values)
    return out.getvalue()


def as_objects(points: tuple[Point, ...]) -> list[dict[str, Any]]:
    return [
        {key: getattr(point, name) for key, name in NAMES.items() if getattr(point, name) is not None}
        for point in points
    ]


WRITERS: dict[Format, Callable[[tuple[Point, ...]], str]] = {
    "csv": as_csv,
    "jsonl": lambda points: "".join(json.dumps(one) + "\n" for one in as_objects(points)),
    "series": lambda points: json.dumps({"vocab_size": 7, "series": as_objects(points)}),
}


@given(points=tables(), name=st.sampled_from(sorted(WRITERS)))
def test_what_was_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, points: tuple[Point, ...], name: Format
) -> None:
    """A table of random points reads back equal, to the last digit, in every tabular format."""
    found = read(tmp_path_factory.getbasetemp(), WRITERS[name](points))

    assert (name, points) == (found.format, found.points)


def mlx_line(point: Point) -> str:
    if point.val_loss is not None:
        return f"Iter {point.step}: Val loss {point.val_loss:.3f}, Val took 1.234s"
    return (
        f"Iter {point.step}: Train loss {point.train_loss:.3f}, Learning Rate {point.learning_rate:.3e}, It/sec 0.500, "
        f"Tokens/sec 120.300, Trained Tokens {point.tokens}, Peak mem 10.200 GB"
    )


def nano_line(point: Point) -> str:
    if point.val_loss is not None:
        return f"step {point.step}: train loss {point.train_loss:.4f}, val loss {point.val_loss:.4f}"
    return f"iter {point.step}: loss {point.train_loss:.4f}, time 20.10ms, mfu 3.20%"


def hf_entry(point: Point) -> dict[str, Any]:
    if point.val_loss is not None:
        return {"eval_loss": point.val_loss, "eval_runtime": 1.0, "epoch": point.epoch, "step": point.step}
    return {
        "loss": point.train_loss,
        "grad_norm": 1.0,
        "learning_rate": point.learning_rate,
        "epoch": point.epoch,
        "step": point.step,
    }


@st.composite
def consoles(draw: st.DrawFn) -> tuple[Format, tuple[Point, ...], str]:
    """Return a format, the points of a run, and the log that its trainer would have printed, other lines included."""
    name: Format = draw(st.sampled_from(["mlx-lm", "nanogpt", "transformers"]))
    points, step = [], 0
    for gap in draw(GAPS):
        step += gap
        train, val = draw(LOSS), draw(st.none() | LOSS)
        if name == "mlx-lm":
            points.append(
                Point(step, val_loss=val)
                if val is not None
                else Point(
                    step, train_loss=train, learning_rate=1e-5, tokens=step * 100, scope="mean since the last report"
                )
            )
        elif name == "nanogpt":
            points.append(
                Point(
                    step, train_loss=train, val_loss=val, scope="last micro-batch" if val is None else "evaluation mode"
                )
            )
        else:
            points.append(
                Point(step, step / 100, val_loss=val)
                if val is not None
                else Point(step, step / 100, train, None, 1e-4, 1.0, scope="mean since the last log")
            )
    if name == "transformers":
        return (
            name,
            tuple(points),
            json.dumps({"global_step": step, "max_steps": step, "log_history": [hf_entry(one) for one in points]}),
        )
    noise = draw(
        st.lists(
            st.sampled_from(["", "saving checkpoint to out", "  10%|█         | 5/50", "Loading data"]), max_size=3
        )
    )
    line = mlx_line if name == "mlx-lm" else nano_line
    return name, tuple(points), "\n".join([*noise, *map(line, points), *noise, ""])  # fmt: skip


@given(told=consoles())
def test_a_console_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, told: tuple[Format, tuple[Point, ...], str]
) -> None:
    """What a trainer printed of a random run is what is read: one point a row, never more and never fewer."""
    name, points, text = told
    found = read(tmp_path_factory.getbasetemp(), text)

    assert (name, points) == (found.format, found.points)


@settings(max_examples=300)
@given(name=st.sampled_from(sorted(LOGS)), data=st.data())
def test_a_broken_log_is_refused_or_keeps_its_rows(
    tmp_path_factory: pytest.TempPathFactory, name: Format, data: st.DataObject
) -> None:
    """A log with a few characters changed is read into finite rows in order, or refused; nothing else is raised."""
    text = LOGS[name]
    at = data.draw(st.integers(0, len(text) - 1))
    broken = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 3)) :]
    folder = tmp_path_factory.getbasetemp()
    try:
        found = read(folder, broken, name)
    except Malformed:
        return
    numbers = [value for point in found.points for value in vars(point).values() if isinstance(value, float)]

    assert len(found.points) <= max(text.count("\n") + 4, 5)
    assert all(map(math.isfinite, numbers))
    assert [point.step for point in found.points] == sorted(point.step for point in found.points)


@pytest.mark.parametrize(("name", "line"), [("csv", 3), ("jsonl", 2)])
def test_a_row_that_lost_its_step_is_refused(tmp_path: Path, name: Format, line: int) -> None:
    """Among rows with steps, one that gives its epoch alone has no place in their order: named with its line.

    Caught by random edits of a table: the lost step came through as none, and the rows could not be sorted.
    """
    text: dict[Format, str] = {
        "csv": "step,epoch,train_loss\n10,0.1,3.0\n,0.2,2.5\n30,0.3,2.0\n",
        "jsonl": '{"step": 10, "epoch": 0.1, "train_loss": 3.0}\n{"epoch": 0.2, "train_loss": 2.5}\n{"step": 30, "epoch": 0.3, "train_loss": 2.0}\n',
    }
    told = refused(tmp_path, text[name], name)

    assert f":{line}:" in told
    assert "step: given in some rows and not in others" in told


def test_a_table_may_count_epochs(tmp_path: Path) -> None:
    """What a notebook prints has epochs and no steps; it is read so, with the settings and floors given beside it."""
    table = read(tmp_path, "epoch,train_loss,val_loss\n1,2.87,3.22\n2,1.61,3.34\n")
    told = read(
        tmp_path, '{"meta": {"vocab": 50257, "unigram_nats": 6.95}, "series": [{"epoch": 4, "val_loss": 9.751}]}'
    )
    words = read(
        tmp_path,
        '{"series": [{"epoch": null, "point": "first", "val_loss": 3.4}, {"point": "last", "val_loss": 3.47}]}',
    )

    assert [(None, 1.0, 2.87), (None, 2.0, 1.61)] == [(one.step, one.epoch, one.train_loss) for one in table.points]
    assert (50257, 6.95) == (told.vocabulary, told.settings.unigram_nats)
    assert [3.4, 3.47] == [one.val_loss for one in words.points]


@pytest.mark.parametrize(
    "text",
    [
        "step,train_loss\n10,2.5\n20,nan\n30,nan\n",
        '{"step": 10, "train_loss": 2.5}\n{"step": 20, "train_loss": NaN}\n',
        '{"series": [{"step": 10, "train_loss": 2.5},\n{"step": 20, "train_loss": NaN}]}',
        MLX.replace("Train loss 1.921", "Train loss nan"),
    ],
)
def test_a_run_that_broke_down_can_be_looked_at(tmp_path: Path, text: str) -> None:
    """An import refuses what is not finite; a diagnosis reads on, and says where the first of it stood (CASE-20)."""
    assert "nan" in refused(tmp_path, text).lower()

    (tmp_path / "log").write_text(text)
    series = read_log(tmp_path / "log", broken=True)

    assert "rain" in series.broke
    assert "nan" in series.broke.lower()
    assert all(one.train_loss is None or math.isfinite(one.train_loss) for one in series.points)
