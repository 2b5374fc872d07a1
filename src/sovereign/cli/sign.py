"""`sovereign sign`."""

from __future__ import annotations

from pathlib import Path

import click

from sovereign.cli.options import open_root, root_option, tell


@click.command("sign")
@click.argument("run")
@click.option(
    "--key", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An ed25519 private key, as OpenSSH or PKCS#8 write it.",
)  # fmt: skip
@click.option("--name", default="", help="Your name in spec/allowed_signers, to print the line that lists you there.")
@click.option("--passphrase", envvar="SOVEREIGN_KEY_PASSPHRASE", help="Of the key; asked for where it needs one.")
@root_option
def command(run: str, key: Path, name: str, passphrase: str | None, root: Path | None) -> int:
    """Sign a run's intent, and its evidence once it is concluded, each in an envelope beside it.

    RUN is `contract/run`, or a run's id. Only a run that verifies is signed. A second signer adds to the envelope.

    \b
    ssh-keygen -t ed25519 -f signer
    sovereign sign model2/20260101T120000Z-1a2b3c --key signer --name ann@example.org
    """
    from sovereign.evidence.folder import run_folders
    from sovereign.gate.profile import Exit
    from sovereign.signing import ALLOWED, Unusable, private_key, public_half, sign
    from sovereign.verification import verify

    repository = open_root(root)
    asked = run.rstrip("/").removeprefix("evidence/")
    folders = run_folders(repository.root / "evidence")
    folder = next((one for one in folders if asked in (one.name, f"{one.parent.name}/{one.name}")), None)
    if folder is None:
        raise click.UsageError(f"no run {run} under evidence/; `sovereign verify` lists them")
    shown = folder.relative_to(repository.root).as_posix()
    findings = verify(folder, shown).findings
    for finding in findings:
        tell(str(finding))
    if findings:
        tell("not signed: what does not verify, nobody should stand behind")
        return int(Exit.INTEGRITY)
    try:
        private = private_key(key, passphrase.encode() if passphrase else None)
    except TypeError:
        private = private_key(key, click.prompt("Passphrase", hide_input=True, err=True).encode())
    except Unusable as error:
        raise click.UsageError(str(error)) from None
    written = sign(folder, shown, private)
    for path in written:
        click.echo(path.relative_to(repository.root).as_posix())
    if not written:
        tell("signed by this key already")
    tell(f"the line for {ALLOWED}: {public_half(name or 'NAME', private).line}")
    return int(Exit.SATISFIED)
