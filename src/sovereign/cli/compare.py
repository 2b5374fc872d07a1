"""`sovereign compare`."""

from __future__ import annotations

from pathlib import Path

import click

from sovereign.cli.options import json_option, print_json, root_option


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="A B [RUN]...")
@click.option("--samples", type=click.IntRange(min=0), default=2, show_default=True, help="Prompts shown side by side.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")
@click.option(
    "--svg",
    type=click.Path(path_type=Path),
    default=None,
    help="Also write a picture: curves, and documents one by one.",
)
@json_option
@root_option
def command(
    runs: tuple[str, ...], samples: int, as_markdown: bool, svg: Path | None, as_json: bool, root: Path | None
) -> int:
    """Put runs beside the first one: what differed, what the difference is, and whether it says anything.

    A run is `contract/run`, a run's id, the path of its folder, or a contract, whose newest completed run it is then.
    VOID is a comparison that is not possible, with the reason; INCONCLUSIVE one that shows nothing. An effect is
    ascribed to a setting only where nothing else differs and the noise of seeds does not explain it.

    Exits 0 where anything could be compared, 4 where a run is not what it states, 5 where every pair is VOID.

    \b
    sovereign compare voice-15 voice-158
    sovereign compare model2/20260101T120000Z-1a2b3c model2/20260102T120000Z-4d5e6f --samples 5
    sovereign compare a b --markdown > comparison.md
    sovereign compare a b --svg comparison.svg
    """
    if len(runs) < 2:
        raise click.UsageError("give two runs or more; the first is what the others are compared with")
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown: choose one")
    from sovereign.cli.report import writable, write
    from sovereign.comparison.compare import compare
    from sovereign.contenders import Unsound, contenders
    from sovereign.gate.profile import Exit
    from sovereign.repository import find_root

    if root is not None and not root.is_dir():
        raise click.UsageError(f"--root {root}: no such folder")
    if svg is not None:
        writable(svg, f"--svg {svg}")
    try:
        known = contenders(find_root(Path.cwd()) if root is None else root.resolve(), runs)
        found = compare(known)
    except Unsound as unsound:
        for finding in unsound.findings:
            click.echo(str(finding), err=True)
        click.echo("not compared: a run is not what it states; see `sovereign verify`", err=True)
        return int(Exit.SCHEMA if all(one.kind == "schema" for one in unsound.findings) else Exit.INTEGRITY)
    if as_json:
        print_json(found.plain())
    elif as_markdown:
        from sovereign.report.comparing import markdown

        click.echo(markdown(found, samples), nl=False)
    else:
        from sovereign.report.comparing import terminal
        from sovereign.report.terminal import show

        show(terminal(found, samples))
    if svg is not None:
        from sovereign.report.comparing import letter
        from sovereign.report.pictures import of_comparison

        drawn = zip(known, found.runs, strict=True)
        rows = [(f"{letter(at)} {run.contract}", run.validation, one.documents) for at, (one, run) in enumerate(drawn)]
        write(of_comparison(rows).encode("utf-8", "replace"), svg)
    if not found.compared:
        click.echo("every comparison is VOID: nothing was compared", err=True)
        return int(Exit.NOTHING)
    return int(Exit.SATISFIED)
