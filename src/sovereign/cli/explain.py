"""`sovereign explain`."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import click

from sovereign.cli.options import evaluated, json_option, open_root, print_json, root_option


@click.command("explain")
@click.argument("criterion", required=False)
@click.option("--path", "as_path", is_flag=True, help="Rank what is open by what one fix would discharge.")
@json_option
@root_option
def command(criterion: str | None, as_path: bool, as_json: bool, root: Path | None) -> int:
    """Say why a criterion stands where it does, what would discharge it, and what was forecast of it.

    Without a criterion, the critical path: what one run, one change or one mended file would discharge, the most
    first; then every forecast and hypothesis, with what became of it.

    \b
    sovereign explain MODEL-2-001
    sovereign explain --path
    """
    if criterion is not None and as_path:
        raise click.UsageError("--path is of all criteria; leave the id out")
    from dataclasses import asdict

    from sovereign.foresight import foreseen
    from sovereign.report.terminal import explanation, show

    repository = open_root(root)
    evaluations = evaluated(repository).head
    if criterion is None:
        from sovereign.gate.path import critical_path
        from sovereign.report.foreseen import foreseen as shown
        from sovereign.report.foreseen import path

        fixes, expected = critical_path(evaluations), foreseen(repository.root, repository.contracts)
        if as_json:
            print_json({
                "path": [{**asdict(fix), "criteria": list(fix.criteria)} for fix in fixes],
                "forecasts": [{"run": one.run, **one.forecast.plain(), "outcome": one.outcome, "why": one.why} for one in expected.forecasts],
                "hypotheses": [{"contract": one.contract, **one.hypothesis.plain(), "state": one.state, "why": one.why} for one in expected.hypotheses],
            })  # fmt: skip
            return 0
        show(path(fixes))
        show(shown(expected))
        return 0
    found = [one for spec in evaluations for one in spec.criteria]
    mine = next((one for one in found if one.id == criterion), None)
    if mine is None:
        near = get_close_matches(criterion, [one.id for one in found], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise click.UsageError(f"no criterion {criterion} in any spec.{hint}")
    if as_json:
        print_json(mine.plain())
        return 0
    from sovereign.report.foreseen import beside
    from sovereign.report.foreseen import foreseen as shown

    show(explanation(mine))
    show(shown(beside(foreseen(repository.root, repository.contracts), mine.contract, mine.metric)))
    return 0
