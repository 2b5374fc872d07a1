"""Degeneration: the signs of a collapsed text, against zlib and against what people write."""

from __future__ import annotations

import inspect
import zlib

import pytest
from contending import run
from fabric import intent
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import SampleRow
from sovereign.metrics import degeneration, intervals
from sovereign.metrics.degeneration import (
    MOST_RATIO,
    MOST_REPEATED,
    MOST_RUN,
    deflated,
    longest,
    pieces,
    repeated,
    signs,
)  # fmt: skip
from sovereign.metrics.intervals import Unmeasurable
from sovereign.metrics.measure import METRICS

ENGLISH = """The sea was calm that morning, and nobody on the pier had expected a boat. When it came it came slowly, with one
man at the oars and a dog in the bow, and it was some time before anyone thought of asking where the other two had gone."""
WORDS = st.lists(
    st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]), min_size=0, max_size=60
).map(" ".join)
TEXTS = st.one_of(st.text(max_size=300), WORDS, st.text(alphabet="ab \n", max_size=300))


def zlib_fixed(data: bytes) -> int:
    """Return what zlib makes of the data with fixed codes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_FIXED)
    return len(packer.compress(data) + packer.flush())


@given(TEXTS)
@example("class " * 100)
@example("\n" * 96)
@settings(max_examples=150)
def test_compressed_size_is_zlib_s(text: str) -> None:
    """Within 8 % and three bytes of zlib with fixed codes, which looks ahead where this takes matches greedily.

    Planted: distances priced at their five bits alone, without the extra ones, are too cheap.
    """
    data = text.encode("utf-8", "surrogatepass")

    assert abs(deflated(data) - zlib_fixed(data)) <= 3 + 0.08 * zlib_fixed(data)


@pytest.mark.parametrize("module", [degeneration, intervals], ids=["this module", "another"])
def test_source_compresses_as_zlib_does(module: object) -> None:
    """On 3 KiB of real code it is within 4 % of zlib with fixed codes."""
    data = inspect.getsource(module).encode()[:3000]  # type: ignore[arg-type]

    assert deflated(data) == pytest.approx(zlib_fixed(data), rel=0.04)


@given(TEXTS)
def test_signs_are_within_their_bounds(text: str) -> None:
    """Shares are shares, runs are no longer than the text, and an empty text has no sign at all."""
    found = signs(text)

    assert 0 <= found.repeated < 1
    assert (found.longest == 0) == (not any(not one.isspace() for one in text))
    assert found.longest <= found.length == len(text)
    assert found.ratio >= 0
    assert not signs("").degenerate


@given(TEXTS)
def test_pieces_are_the_text(text: str) -> None:
    """Nothing of a text is lost when it is cut but blanks before words."""
    assert "".join(text.split()) == "".join("".join(pieces(text)).split())


@given(WORDS.filter(lambda text: len(text.split()) >= 4), st.integers(2, 6))
def test_saying_it_again_is_seen(text: str, times: int) -> None:
    """A text said so many times holds no more 4-grams than it has words; saying it once more never looks fresher."""
    again, words = " ".join([text] * times), len(text.split())

    assert repeated(again) >= 1 - words / (words * times - 3) - 1e-9
    assert repeated(again) <= repeated(" ".join([text] * (times + 1))) + 1e-9


@given(st.integers(1, 200), st.sampled_from(["word", "!", "7", "x"]))
def test_a_run_is_as_long_as_it_is(times: int, word: str) -> None:
    """A word so many times over is a run of that length, with or without a text around it; "x x" is no run of letters."""
    text = " ".join([word] * times)

    assert times == longest(text) == longest(f"Once {text} end")


def test_the_thresholds_part_text_from_collapse() -> None:
    """English and code lie below all three; `class class class`, one letter, one phrase and blank lines lie above one."""
    collapsed = {
        "words": "class " * 60,
        "letters": "a" * 200,
        "phrase": "I do not know. " * 20,
        "lines": "\n" * 96,
        "rule": "- - - - - - - -",
    }

    assert (0.2, 3.2, 4) == (MOST_REPEATED, MOST_RATIO, MOST_RUN)
    assert not signs(ENGLISH).degenerate
    assert not signs(inspect.getsource(degeneration.longest)).degenerate
    assert {} == {name: text for name, text in collapsed.items() if not signs(text).degenerate}


def observed(*rows: tuple[int, str, str]) -> Observed:
    promised = intent()
    written = [
        SampleRow(
            run=promised.run,
            step=step,
            sampler=sampler,
            prompt_id=at,
            document=f"{at:016x}",
            prompt="p",
            text=text,
            seed=1,
        )  # type: ignore[arg-type]
        for at, (step, sampler, text) in enumerate(rows)
    ]
    return Observed(promised, {"sample": tuple(written)})


def test_the_metrics_are_of_what_the_model_last_wrote() -> None:
    """Earlier checkpoints and control samplers do not count; the shares and means are those of the texts."""
    found = observed(
        (0, "model", "x x x x x x x"), (9, "bigram", "y " * 90), (9, "model", "class " * 50), (9, "model", ENGLISH)
    )

    assert 0.5 == METRICS["samples/degenerate_rate"](found).value
    assert 50.0 == METRICS["samples/longest_run"](found).value
    assert (300 + len(ENGLISH)) / 2 == METRICS["samples/length"](found).value
    assert METRICS["samples/repeated_4grams"](found).value == pytest.approx(46 / 47 / 2)
    assert METRICS["samples/compression_ratio"](found).value > MOST_RATIO


def test_no_samples_measure_nothing() -> None:
    """A run that wrote nothing has no rate of collapse, least of all zero."""
    with pytest.raises(Unmeasurable, match="no samples by model"):
        METRICS["samples/degenerate_rate"](observed((9, "bigram", "text")))
    assert 3 == METRICS["samples/degenerate_rate"](run().observed).n
