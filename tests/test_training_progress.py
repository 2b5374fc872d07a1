"""Progress: a bar for a person, lines for a file."""

import io

import pytest
from rich.console import Console

from sovereign.training.progress import shown


@pytest.mark.parametrize(("terminal", "bar"), [(True, True), (False, False)])
def test_a_terminal_gets_a_bar_and_a_file_gets_lines(terminal, bar):
    """Both say step, loss and tokens a second; only the terminal is moved about in."""
    out = io.StringIO()
    with shown(3, Console(file=out, force_terminal=terminal, width=120)) as progress:
        for step in (1, 2, 3):
            progress(step, 4.0 - step, 2048, 0.5)
    text = out.getvalue()

    assert ("\x1b[" in text) == bar
    assert "loss 1.000" in text
    assert "4,096 tokens/s" in text
    assert "3/3" in text


def test_plain_lines_are_few():
    """Steps quicker than the interval are not all told: the first, and the last."""
    out = io.StringIO()
    with shown(100, Console(file=out), done=40) as progress:
        for step in range(41, 101):
            progress(step, 1.0, 10, 0.01)

    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["41/100", "100/100"]
