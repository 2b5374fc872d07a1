"""`sovereign parity`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sovereign.cli.options import json_option, open_root, print_json, root_option
from sovereign.cli.promise import telling

if TYPE_CHECKING:
    from sovereign.evidence.rows import Row
    from sovereign.parity.llamacpp import LlamaCpp
    from sovereign.shipping.weights import Weights


@click.command("parity")
@click.argument("reference")
@click.argument("candidate")
@click.option(
    "--prompts", type=click.Path(dir_okay=False, path_type=Path), help="JSONL, a string or an object with text a line."
)
@click.option("--tokens", type=click.IntRange(2), default=128, show_default=True, help="Most tokens of a prompt.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "torch", "llama.cpp"]),
    default="auto",
    show_default=True,
    help="Who carries the candidate out; auto is llama.cpp for a GGUF file.",
)
@click.option("--rows", type=click.Path(file_okay=False, path_type=Path), help="Keep the rows in this new folder.")
@json_option
@root_option
def command(
    reference: str, candidate: str, prompts: Path | None, tokens: int, engine: str, rows: Path | None, as_json: bool,
    root: Path | None,
) -> int:  # fmt: skip
    """Compare two models position by position, and name the first operation that makes something else of its input.

    Each is a run, a Hugging Face folder, or a GGUF file. Without --prompts: 32 held-out documents of the reference's
    run, or modules of the standard library. Exit 0: alike; 1: not; 6: something asked for could not be shown; 7: not
    comparable.

    \b
    sovereign parity model2/20260101T120000Z-1a2b3c model.gguf
    sovereign parity model2/20260101T120000Z-1a2b3c exported/ --engine torch --json
    """
    from sovereign.evidence.rows import KINDS, line
    from sovereign.gate.profile import Exit
    from sovereign.parity.check import check
    from sovereign.parity.compare import Incomparable, require_alike
    from sovereign.parity.continuing import TOKENS
    from sovereign.parity.llamacpp import Unloadable
    from sovereign.parity.prompts import PROMPTS, from_file
    from sovereign.parity.verdict import measurements, verdict
    from sovereign.shipping.runs import open_model

    if rows is not None and rows.exists():
        raise click.UsageError(f"--rows {rows}: exists; name a new folder")
    if engine == "llama.cpp" and not Path(candidate).is_file():
        raise click.UsageError(f"llama.cpp carries out GGUF files, and {candidate} is none")
    where = open_root(root).root
    first, second = open_model(reference, where), open_model(candidate, where)
    found: dict[str, list[Row]] = {}

    def log(kind: str, **values: Any) -> None:
        found.setdefault(kind, []).append(KINDS[kind](run="parity", **values))

    try:
        texts = from_file(prompts) if prompts else list(islice(_texts(reference, where), 4 * PROMPTS))
        ids = [one[:tokens] for one in require_alike(first, second, texts)]
        kept = (
            ids if prompts else list({tuple(one): one for one in ids if len(one) >= min(tokens, 16)}.values())[:PROMPTS]
        )
        with (
            telling() as told,
            _engine(engine, candidate, second, max(map(len, kept), default=2) + TOKENS) as (used, missing),
        ):
            if used is not None:
                _require_engine_alike(second, used, texts[: len(kept)])
            checked = check(first, second, kept, log, told, used, missing)
    except Incomparable as reason:
        click.echo(f"refused: {reason}", err=True)
        return int(Exit.REFUSED)
    except Unloadable as reason:
        click.echo(str(reason), err=True)
        return int(Exit.FALSIFIED)
    if rows is not None:
        rows.mkdir(parents=True)
        for kind, held in found.items():
            (rows / f"{kind}.jsonl").write_bytes(b"".join(map(line, held)))
    measured = measurements(found)
    questions = verdict(measured, any(kind != "F32" for kind in second.kinds.values()))
    if as_json:
        print_json({
            "reference": first.origin, "candidate": second.origin, "engine": used.library.name if used else "torch",
            "prompts": len(kept), "positions": sum(map(len, kept)), "missing": list(checked.missing),
            "located": checked.located.sentence, "measurements": [one.plain() for one in measured],
            "verdict": [{"metric": one.metric, "high": one.high, "bound": one.bound, "holds": one.holds} for one in questions],
        })  # fmt: skip
    else:
        click.echo(
            f"{len(kept)} prompts, {sum(map(len, kept))} positions; candidate by {used.library.name if used else 'torch'}"
        )
        for one in questions:
            mark = "✔" if one.holds else "✘"
            click.echo(
                f"  {mark} {one.metric:<30} {one.value:.3g} [{one.low:.3g}, {one.high:.3g}] <= {one.bound:.3g}  {one.because}"
            )
        click.echo(checked.located.sentence)
        for name in checked.missing:
            click.echo(f"not shown: {name}")
    if not all(one.holds for one in questions):
        return int(Exit.FALSIFIED)
    return int(Exit.INCOMPLETE) if checked.missing else int(Exit.SATISFIED)


def _texts(reference: str, root: Path) -> Iterator[str]:
    """Return texts of the reference's held-out side where it is a run, else of the standard library."""
    from sovereign.parity.prompts import held_out, of_the_library
    from sovereign.shipping.runs import find_run

    if Path(reference).is_file() or (Path(reference) / "config.json").is_file():
        return of_the_library()
    return held_out(find_run(reference, root).tokenizer)


@contextmanager
def _engine(asked: str, candidate: str, weights: Weights, context: int) -> Iterator[tuple[LlamaCpp | None, list[str]]]:
    """Open the engine that was asked for, or name what stays unshown without it."""
    from sovereign.parity.llamacpp import LlamaCpp, Missing, library

    is_file = Path(candidate).is_file()
    if asked == "torch" or not is_file:
        unshown = [f"{candidate} in llama.cpp: torch was asked for"] if is_file else []
        yield None, unshown
        return
    try:
        library()
    except Missing as reason:
        yield None, [f"{candidate} in llama.cpp: {reason}"]
        return
    with LlamaCpp(Path(candidate), context) as engine:
        yield engine, []


def _require_engine_alike(weights: Weights, engine: LlamaCpp, texts: list[str]) -> None:
    """Hold the engine's own ids of every text, and its special tokens, to what the file says."""
    from sovereign.parity.compare import Incomparable, tokenized

    specials = weights.specials
    if engine.specials() != (specials.begin, specials.end, specials.add_begin):
        raise Incomparable(f"special tokens: {specials} in the file, {engine.specials()} in {engine.library.name}")
    for index, text in enumerate(texts):
        if tokenized(weights, text) != engine.tokenize(text):
            raise Incomparable(f"token ids: {engine.library.name} makes others of prompt {index}")
