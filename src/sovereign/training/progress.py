"""What a person sees while a model trains: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 10.0  # seconds between plain lines


@contextmanager
def shown(
    steps: int, console: Console, done: int = 0, quiet: bool = False
) -> Iterator[Callable[[int, float, int, float], None]]:
    """Yield the `progress` of a training loop: it shows step, loss, tokens a second and the time that is left.

    Nothing is shown when `quiet`: another process of the run does it.
    """
    if quiet:
        yield lambda step, loss, tokens, seconds: None
        return
    if not console.is_terminal:
        yield _lines(steps, console, done)
        return
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:,.0f} tokens/s  left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=steps, completed=done, loss=float("nan"), rate=0.0)

        def progress(step: int, loss: float, tokens: int, seconds: float) -> None:
            bar.update(task, completed=step, loss=loss, rate=tokens / seconds)

        yield progress


def _lines(steps: int, console: Console, done: int) -> Callable[[int, float, int, float], None]:
    began = spoken = time.monotonic()

    def progress(step: int, loss: float, tokens: int, seconds: float) -> None:
        nonlocal spoken
        now = time.monotonic()
        if now - spoken < EVERY and step not in (done + 1, steps):
            return
        spoken = now
        left = (now - began) / (step - done) * (steps - step)
        line = f"step {step}/{steps}  loss {loss:.3f}  {tokens / seconds:,.0f} tokens/s  {left:.0f} s left"
        console.print(line, highlight=False, soft_wrap=True)

    return progress
