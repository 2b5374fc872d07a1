"""`sovereign diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sovereign.cli.options import json_option, print_json, root_option

if TYPE_CHECKING:
    from sovereign.diagnosis.procedure import Diagnosis
    from sovereign.diagnosis.record import RunRecord

FORMATS = ("transformers", "csv", "jsonl", "mlx-lm", "nanogpt", "series")  # as interop.logs has them; a test holds it


@click.command("diagnose")
@click.argument("what", metavar="RUN|FILE")
@click.option("--format", "fmt", type=click.Choice(FORMATS), default=None, help="Of a FILE; by default, what it shows.")
@click.option(
    "--require", "required", metavar="CLAIM=VERDICT", multiple=True,
    help="Exit 1 where the verdict is the opposite, and 6 where it is open; repeatable.",
)  # fmt: skip
@json_option
@root_option
def command(what: str, fmt: str | None, required: tuple[str, ...], as_json: bool, root: Path | None) -> int:
    """Say what a run really shows, and what it does not.

    RUN is a run's folder, contract/run, or a run's id. FILE is a trainer_state.json, a CSV or JSONL table, an mlx-lm or
    nanoGPT console log, or JSON like {"vocab_size": 50257, "meta": {...}, "series": [{"epoch": 1, "val_loss": 3.2}]}.

    Each claim is SUPPORTED, REFUTED or INCONCLUSIVE; a diagnosis is no judgement, so a sick run exits 0 too. Exits 3 where
    the record cannot be read, 4 where a run's files were changed, 5 where there is no loss in it.

    \b
    sovereign diagnose output/trainer_state.json
    sovereign diagnose evidence/model2/20261121T030958Z-49558a
    sovereign diagnose train.csv --require CONTAMINATED=REFUTED --json
    """
    wanted = [_wanted(one) for one in required]

    from sovereign.diagnosis.procedure import diagnose
    from sovereign.gate.profile import Exit

    record, code = _record(what, fmt, root)
    found = diagnose(record)
    if as_json:
        print_json(found.plain())
    else:
        from sovereign.report.diagnosed import show_diagnosis

        show_diagnosis(found)
        for remark in record.remarks:
            click.echo(f"· {_printable(remark)}", err=True)
    if code:
        return code
    if not record.broke and all(point.train is None and point.val is None for point in record.points):
        click.echo("no loss stands in it: nothing was diagnosed", err=True)
        return int(Exit.NOTHING)
    return _held(found, wanted)


def _wanted(text: str) -> tuple[str, str]:
    from sovereign.diagnosis.findings import CLAIMS, VERDICTS

    claim, _, verdict = text.partition("=")
    if claim not in CLAIMS or verdict not in VERDICTS:
        raise click.UsageError(
            f"--require {text}: write CLAIM=VERDICT, a claim of {', '.join(CLAIMS)}, a verdict of {', '.join(VERDICTS)}"
        )
    return claim, verdict


def _held(found: Diagnosis, wanted: list[tuple[str, str]]) -> int:
    from sovereign.gate.profile import Exit

    codes = [Exit.SATISFIED]
    for claim, verdict in wanted:
        finding = found.of(claim)
        if finding.verdict != verdict:
            click.echo(
                f"{claim} is {finding.verdict}, and {verdict} was required: {_printable(finding.because)}", err=True
            )
            codes.append(Exit.INCOMPLETE if finding.open else Exit.FALSIFIED)
    return int(Exit.FALSIFIED if Exit.FALSIFIED in codes else max(codes))


def _record(what: str, fmt: str | None, root: Path | None) -> tuple[RunRecord, int]:
    """Return the record of a log or of a run, and the exit code that its folder asks for; raises Malformed."""
    path = Path(what)
    if path.is_file():
        from sovereign.interop.diagnosable import read_record

        return read_record(path, fmt), 0  # type: ignore[arg-type]
    if fmt is not None:
        raise click.UsageError(f"{what}: no such file; --format is of a file")
    from sovereign.canonical import Malformed
    from sovereign.diagnosis.record import from_run
    from sovereign.evidence.folder import Observed, read_folder
    from sovereign.gate.profile import Exit

    place = _run(what, root)
    folder = read_folder(place, f"{place.parent.name}/{place.name}")
    concluded = folder.statement is not None
    faults = (*folder.problems, *(folder.row_problems if concluded else ()))
    if faults or folder.intent is None:
        raise Malformed(faults)
    for problem in (*folder.out_of_place, *(() if concluded else folder.row_problems)):
        click.echo(str(problem), err=True)
    record = from_run(Observed(folder.intent, folder.rows), f"{folder.contract}/{folder.run}")
    return record, int(Exit.INTEGRITY) if folder.out_of_place else 0


def _run(what: str, root: Path | None) -> Path:
    """Return the folder of a run, named by its path, as contract/run, or by its id."""
    if (Path(what) / "intent.json").is_file():
        return Path(what).resolve()
    from sovereign.cli.options import open_root
    from sovereign.evidence.folder import run_folders

    evidence = open_root(root).root / "evidence"
    name = what.rstrip("/").removeprefix("evidence/")
    found = [path for path in run_folders(evidence) if name in (path.name, f"{path.parent.name}/{path.name}")]
    if not found:
        raise click.UsageError(f"{what}: neither a file, nor a run under {evidence}")
    return found[0]


def _printable(text: str) -> str:
    from sovereign.report.diagnosed import clean

    return clean(text)
