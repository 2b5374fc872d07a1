"""`sovereign verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sovereign.cli.options import (
    base_option,
    json_option,
    open_root,
    print_json,
    root_option,
    signature_option,
    tell,
    tell_signatures,
)

if TYPE_CHECKING:
    from sovereign.gate.admission import Finding, VerifiedRun
    from sovereign.repository import Repository


@click.command("verify")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@base_option
@signature_option
@json_option
@root_option
def command(
    runs: tuple[str, ...], base: str | None, require_signature: bool, as_json: bool, root: Path | None
) -> int:  # fmt: skip
    """Hash, validate and measure evidence again, and say what is not so.

    RUN is `contract/run`, or a run's id; without one, every run under evidence/ is checked.

    \b
    sovereign verify
    sovereign verify model2/20260101T120000Z-1a2b3c
    sovereign verify --base origin/main      and nothing that stood there may be gone or changed
    """
    from sovereign.gate.profile import Exit

    repository = open_root(root)
    found, broken = _found(repository, base, require_signature)
    chosen = [run for run in found if not runs or run.name in runs or run.run in runs]
    unknown = [name for name in runs if not any(name in (run.name, run.run) for run in found)]
    if unknown:
        raise click.UsageError(
            f"no such run: {', '.join(unknown)}; there is {', '.join(run.name for run in found) or 'none'}"
        )
    findings = [*repository.findings, *broken, *(finding for run in chosen for finding in run.findings)]
    if as_json:
        print_json({
            "runs": [
                {"run": run.name, "concluded": run.statement is not None, "measured": len(run.measurements),
                 "signatures": [{"document": one.document, "keyid": one.keyid, "signer": one.signer} for one in run.signatures],
                 "findings": [{"kind": one.kind, "path": one.path, "message": one.message} for one in run.findings]}
                for run in chosen
            ],
            "findings": [{"kind": one.kind, "path": one.path, "message": one.message} for one in (*repository.findings, *broken)],
        })  # fmt: skip
    else:
        tell_signatures(chosen)
        for finding in findings:
            tell(str(finding))
        for run in chosen:
            state = "is not so" if run.findings else "verified" if run.statement else "open, nothing stated yet"
            signers = ", ".join(sorted({one.signer for one in run.signatures if one.signer}))
            said = f"; signed by {signers}" if signers else ""
            click.echo(f"{run.name}: {state}; {len(run.measurements)} measurements repeated from rows{said}")
    if findings:
        return int(Exit.SCHEMA if all(one.kind == "schema" for one in findings) else Exit.INTEGRITY)
    if not chosen:
        click.echo("no run under evidence/: nothing was verified", err=True)
        return int(Exit.NOTHING)
    return int(Exit.SATISFIED)


def _found(repository: Repository, base: str | None, required: bool) -> tuple[list[VerifiedRun], list[Finding]]:
    """Return the runs, and what was done since the base to what is append-only, and to criteria without an amendment.

    With a base, whose signatures count is the base's to say.
    """
    from sovereign.gate.admission import Finding
    from sovereign.history import compare, tree_at
    from sovereign.repository import verified_runs
    from sovereign.signing import policy_at

    if base is None:
        return verified_runs(repository.root, policy=policy_at(repository.root, required)), []
    with tree_at(repository.root, base) as tree:
        against = compare(repository, tree)
        runs = verified_runs(repository.root, policy=policy_at(tree, required))
    return runs, [
        *against.findings,
        *(Finding("integrity", f"evidence/{name}", why) for name, why in against.changed.items()),
        *(Finding("integrity", criterion, why) for criterion, why in against.criteria.items()),
    ]
