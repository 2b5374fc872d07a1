"""The page: everything on it, nothing fetched, and at home in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reported import OLDER, RUN, criterion, evaluation, judged, measured, view
from test_report_escaping import Structure

from sovereign.report.curves import against_bound, losses, ticks
from sovereign.report.html import html
from sovereign.report.runs import RunView

CHROMIUM = next((name for name in ("chromium", "google-chrome") if shutil.which(name)), None)


def test_the_page_holds_what_a_reviewer_needs() -> None:
    """Scoreboard, every criterion with reasons and obligations, every run, curves with floors, samples and cost."""
    page = html(judged())

    for part in (
        *(one.id for one in evaluation().criteria), "FAILS", "1/2 obligations, missing seed 2", "Obligations of TOY-006", RUN, OLDER,
        "ln V", "unigram", "bigram", "Training loss from", "the model", "a bigram sampler", "return width * height", "4 min 20 s",
        "1.8 GiB", "3,151", "fp32 in place of bf16", "spec/toy.yaml:12", "amended after results ×1", "waived by", "expires: not a date",
    ):  # fmt: skip
        assert part in page, part


def test_the_page_is_usable_by_keyboard_and_by_ear() -> None:
    """A skip link comes first, each drawing is described or hidden, tables have captions, focus is seen, both themes exist."""
    page = html(judged())
    tags = Structure(page).tags
    first = next(at for at, (tag, _) in enumerate(tags) if tag == "a")

    assert not any(tag in ("summary", "details", "input", "button") for tag, _ in tags[:first])
    assert 'href="#content" class="skip"' in page
    assert {("role", True), ("aria-hidden", True)} >= {
        (name, True) for tag, names in tags if tag == "svg" for name in names if name in ("role", "aria-hidden")
    }
    assert all({"role", "aria-hidden"} & set(names) for tag, names in tags if tag == "svg")
    assert sum(tag == "table" for tag, _ in tags) == sum(tag == "caption" for tag, _ in tags)
    for rule in (":focus-visible", "prefers-color-scheme: dark", "prefers-reduced-motion", "max-width: 36rem"):
        assert rule in page


def test_the_page_asks_for_nothing() -> None:
    """No script, no address outside the page, and a policy that would forbid both."""
    page = html(judged())

    assert "default-src &#x27;none&#x27;" in page
    assert not re.search(r"<script|https?://|url\(|@import|<iframe|<img", page)


@given(st.lists(st.floats(-1e300, 1e300), max_size=400), st.lists(st.floats(0, 1e9), max_size=12), st.booleans())
def test_any_losses_can_be_drawn(training: list[float], validation: list[float], floors: bool) -> None:
    """A run that diverges, or holds one row, is drawn within its frame, without a number that SVG cannot read."""
    if not training and not validation:
        return
    drawn = losses(
        RunView(
            RUN, training=tuple(enumerate(training, 1)), validation=tuple(enumerate(validation)), floors=view().floors if floors else ()
        ),
        400, 300, "broad",
    )  # fmt: skip
    places = [
        float(number)
        for points in re.findall(r'points="([^"]*)"', drawn)
        for number in re.split("[ ,]", points)
        if number
    ]

    assert not re.search(r"\b(nan|inf)\b", re.sub('aria-label="[^"]*"|<title>[^<]*', "", drawn))
    assert all(0 <= place <= 400 for place in places)


@settings(max_examples=300)
@given(*[st.floats(-1e9, 1e9)] * 3, st.sampled_from(["<=", "<", ">=", ">", "=="]))
def test_any_interval_can_be_drawn_against_its_bound(value: float, margin: float, bound: float, op: str) -> None:
    """The value, its interval and the bound stand within the drawing, whatever they are."""
    drawn = str(against_bound(criterion(1, "OPEN", measured=measured(value, abs(margin)), bound=bound, op=op)))
    places = [float(number) for number in re.findall(r' (?:cx|x1|x2)="([^"]*)"', drawn)]

    assert places
    assert all(0 <= place <= 150 for place in places)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_few_round_and_inside(low: float, span: float, most: int) -> None:
    """An axis has at most one mark more than asked for, all within it."""
    found = ticks(low, low + span, most)

    assert len(found) <= most + 1
    assert all(low - span * 1e-6 - 1e-9 <= tick <= low + span * (1 + 1e-6) + 1e-9 for tick in found)


# ── in a browser ─────────────────────────────────────────────────────────────────────────────────


def opened(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    return subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--enable-logging=stderr", f"--user-data-dir={page.parent / 'profile'}",
            *arguments, page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


def complaints(found: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what the page's console said: errors, and every request that its policy stopped."""
    return [line for line in found.stderr.splitlines() if ":CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is on PATH")
def test_a_browser_opens_the_page_without_a_complaint(tmp_path: Path) -> None:
    """Chromium shows every part, logs no error, and makes no request; a planted request is seen by the same means."""
    sound, planted = tmp_path / "sound.html", tmp_path / "planted.html"
    sound.write_text(html(judged("<img src=https://a.example/x.png onerror=alert(1)>")))
    planted.write_text(html(judged()).replace("</main>", '<img src="https://a.example/x.png"></main>'))
    found = opened(sound, "--dump-dom")

    assert [] == complaints(found)
    assert any("a.example" in line for line in complaints(opened(planted, "--dump-dom")))
    assert {"data:,", "#content", "#scoreboard-toy", "#criteria-toy", "#runs-toy"} == Structure(found.stdout).links
    for part in ("Scoreboard", "TOY-010", "Runs", "<polyline", "a bigram sampler", "Cost by part"):
        assert part in found.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is on PATH")
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_is_no_wider_than_its_window(tmp_path: Path, width: int) -> None:
    """At a phone's width and at a desk's, nothing makes the page scroll sideways: wide tables scroll by themselves."""
    # the policy lets no script in, so the one that measures is put in beside a page without a policy
    page = tmp_path / "page.html"
    measure = "<script>document.title = `wide ${document.documentElement.scrollWidth} of ${document.documentElement.clientWidth}`</script></body>"
    text = re.sub(r'<meta http-equiv="[^>]*>', "", html(judged("word" * 40)))
    page.write_text(f'<!doctype html><iframe style="border:0;width:{width}px;height:900px" srcdoc="{_quoted(text, measure)}"></iframe>'
                    "<script>onload = () => document.body.dataset.said = frames[0].document.title</script>")  # fmt: skip
    found = re.search(
        r'data-said="wide (\d+) of (\d+)"', opened(page, "--dump-dom", "--virtual-time-budget=2000").stdout
    )

    assert found is not None
    assert found[1] == found[2]


def _quoted(page: str, script: str) -> str:
    return page.replace("</body>", script).replace("&", "&amp;").replace('"', "&quot;")
