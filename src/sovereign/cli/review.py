"""`sovereign review`."""

from __future__ import annotations

from pathlib import Path

import click

from sovereign.cli.options import evaluated, open_root, profile_option, root_option, signature_option


@click.command("review")
@click.option("--base", metavar="REF", required=True, help="The git ref that the change is proposed against.")
@profile_option
@click.option(
    "--limit", type=click.IntRange(min=1000), default=60_000, show_default=True, help="Bytes of Markdown at most."
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write there instead of to standard output."
)
@click.option("--head", metavar="SHA", help="The commit to name as the head; by default the one checked out.")
@signature_option
@root_option
def command(
    base: str, profile: str, limit: int, output: Path | None, head: str | None, require_signature: bool, root: Path | None
) -> int:  # fmt: skip
    """Say in Markdown what a reviewer must know: what changed status, what is new, what gave way, what is not so.

    The exit code is the one of `sovereign gates --base REF` under the profile.

    \b
    sovereign review --base origin/main
    sovereign review --base origin/main --output review.md
    """
    from sovereign.canonical import write_atomic
    from sovereign.history import commit
    from sovereign.report.reviewing import markdown
    from sovereign.review import review

    repository = open_root(root)
    found = evaluated(repository, base, require_signature)
    against = found.against
    assert against is not None
    seen = review(
        found.base, found.head, against.edits, against.criteria,
        (against.base.amendments, repository.amendments), (against.base.waivers, repository.waivers),
    )  # fmt: skip
    text = markdown(seen, profile, base, head or commit(repository.root), repository.root, limit)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomic(output, text.encode())
    return found.exit_code(profile)
