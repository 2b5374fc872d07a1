"""`sovereign export`."""

from __future__ import annotations

from pathlib import Path

import click

from sovereign.cli.options import json_option, open_root, print_json, root_option

RECIPES = ("f32", "f16", "q8_0", "q4_k", "q4_k_m")


@click.command("export")
@click.argument("run")
@click.option("--to", type=click.Choice(["hf", "gguf"]), required=True, help="A Hugging Face folder, or a GGUF file.")
@click.option("--quantize", type=click.Choice(RECIPES), default="f32", show_default=True, help="The type of matrices.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to; by default beside the run's checkpoints.")
@click.option("--checkpoint", type=int, metavar="STEP", help="By default the best one, or the last where none is best.")
@click.option(
    "--license", "licence", default="", metavar="SPDX", help="The licence you give the model; it goes into the file."
)
@click.option("--force", is_flag=True, help="Write over what stands there.")
@json_option
@root_option
def command(
    run: str, to: str, quantize: str, out: Path | None, checkpoint: int | None, licence: str, force: bool, as_json: bool,
    root: Path | None,
) -> int:  # fmt: skip
    """Write a run's model as a file that others load; it is read again, and every tensor compared, before it stands.

    \b
    sovereign export model2/20260101T120000Z-1a2b3c --to hf
    sovereign export model2/20260101T120000Z-1a2b3c --to gguf --quantize q4_k_m --license Apache-2.0
    """
    from datetime import UTC, datetime

    from sovereign.canonical import digest_file
    from sovereign.gate.profile import Exit
    from sovereign.report.card import Shown, model_card
    from sovereign.repository import evaluate
    from sovereign.shipping.export import Unexportable, Unfaithful, export_folder, export_gguf
    from sovereign.shipping.runs import find_run, read_run

    repository = open_root(root)
    found = find_run(run, repository.root, checkpoint)
    weights, intent = read_run(found), found.folder.intent
    assert intent is not None
    digest = digest_file(found.checkpoint / "model.safetensors")
    name = f"{intent.contract}-{intent.run}"
    place = out or found.checkpoint.parent.parent / "export" / (
        f"{name}-hf-{quantize}" if to == "hf" else f"{name}-{quantize}.gguf"
    )
    try:
        if to == "gguf":
            about = {
                "general.name": intent.promise.title, "general.license": licence or "unknown",
                "sovereign.run": found.name, "sovereign.weights": digest, "sovereign.data": intent.subjects.data or "",
            }  # fmt: skip
            written = export_gguf(weights, place, quantize, about, force=force)
        else:
            criteria = [
                one
                for evaluation in evaluate(repository, datetime.now(UTC))
                for one in evaluation.criteria
                if one.id in intent.promise.claims
            ]
            card = model_card(Shown(intent, found.folder.statement, criteria, licence, digest))
            written = export_folder(weights, place, quantize, card, force=force)
    except Unexportable as reason:
        click.echo(f"refused: {reason}", err=True)
        return int(Exit.REFUSED)
    except Unfaithful as reason:
        click.echo(str(reason), err=True)
        return int(Exit.INTEGRITY)
    if as_json:
        files = {file: {"bytes": size, "digest": seen} for file, (size, seen) in written.files.items()}
        print_json(
            {
                "path": str(written.path),
                "run": found.name,
                "weights": digest,
                "files": files,
                "types": dict(written.kinds),
            }
        )
    else:
        click.echo(f"{written.path}: {len(written.kinds)} tensors, read again and equal")
        for file, (size, seen) in written.files.items():
            click.echo(f"  {seen}  {size:>12,}  {file}")
    return 0
