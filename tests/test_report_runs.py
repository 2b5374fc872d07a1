"""What is drawn of a run comes from its rows, and from nothing else."""

from __future__ import annotations

import math
from pathlib import Path

from fabric import intent, repository, rows, write_run

from sovereign.evidence.folder import read_folder
from sovereign.report.runs import SamplePair, run_view, run_views

SAMPLE = {"kind": "sample", "document": f"{1:016x}", "prompt": "def f():", "seed": 1}


def test_curves_floors_samples_and_cost_come_from_rows(tmp_path: Path) -> None:
    """Losses are summed nats over summed tokens; floors too; samples are the last of each sampler, paired by prompt."""
    said = rows(loss=2.5)
    said += [
        ("floor", {"document": f"{n:016x}", "tokens": 10 * n, "unigram_nll": 60.0 * n, "bigram_nll": 40.0 * n})
        for n in (1, 2)
    ]
    said += [("sample", {"step": step, "sampler": sampler, "prompt_id": 0, "text": f"{sampler} at {step}",
                         **{key: value for key, value in SAMPLE.items() if key != "kind"}})
             for step in (5, 10) for sampler in ("model", "bigram", "newline")]  # fmt: skip
    said += [("cost", {"part": "training", "seconds": 3.0, "peak_bytes": 5, "tokens": 320})]
    found = run_view(read_folder(write_run(repository(tmp_path), said=said), "run"))

    assert (1, 5.0 - 0.1 + 0.001) == found.training[0]
    assert [(0, 3.5), (10, 2.5)] == [(step, round(loss, 6)) for step, loss in found.validation]
    assert (("ln V", math.log(300)), ("unigram", 6.0), ("bigram", 4.0)) == found.floors
    assert (SamplePair("def f():", "model at 10", "bigram at 10"),) == found.samples
    assert [("training", 3.0, 320)] == [(row.part, row.seconds, row.tokens) for row in found.costs]


def test_a_run_without_rows_or_without_an_intent_is_an_empty_view(tmp_path: Path) -> None:
    """A run that was killed at once, or whose intent is garbage, is shown as having nothing to draw."""
    folder = write_run(repository(tmp_path), said=[], outcome=None)
    before = run_view(read_folder(folder, "run"))
    (folder / "intent.json").write_text("{")
    after = run_view(read_folder(folder, "run"))

    assert ((), (), (("ln V", math.log(300)),)) == (before.training, before.validation, before.floors)
    assert ("", ()) == (after.title, after.floors)


def test_the_newest_runs_are_read(tmp_path: Path) -> None:
    """Of many runs the newest are drawn, whichever contract they are of; runs that are gone are not an error."""
    repository(tmp_path)
    names = [f"2026010{day}T000000Z-aaaaaa" for day in (1, 2, 3)]
    for name in names[:2]:
        write_run(tmp_path, intent(name))
    found = run_views(tmp_path / "evidence", [f"toy/{name}" for name in names], 2)

    assert [f"toy/{names[2]}", f"toy/{names[1]}"] == [one.run for one in found]
