"""A review in Markdown: what changed, worst first, within the size of a comment on a pull request."""

from __future__ import annotations

from pathlib import Path

from sovereign.gate.evaluation import RunNote
from sovereign.gate.scoreboard import headline
from sovereign.report.figures import bound, interval, number
from sovereign.report.markdown import Block, code, escaped, fitted
from sovereign.report.runs import RunView, run_views
from sovereign.report.sparkline import sparkline
from sovereign.review import Change, Review

MOST_RUNS = 50  # whose curves are drawn; the others are listed


def markdown(review: Review, profile: str, base: str, head: str, root: Path, limit: int) -> str:
    """Return the review of commit `head` in at most `limit` bytes; what did not fit is said."""
    specs = "+".join(one.spec for one in review.head)
    lines = [f"<!-- sovereign-review:{specs}:{profile} -->"]
    lines += [f"## {escaped(one.spec)} {escaped(one.version)}: {headline(one)}" for one in review.head]
    lines += [f"\nHead {code(head)} against {code(base)}."] if head else []
    if review.quiet:
        lines.append(f"\nNothing that was promised, shown or waived differs from {code(base)}.")
    views = {view.run: view for view in run_views(root / "evidence", [run.run for run in review.new_runs], MOST_RUNS)}
    blocks = [
        Block("### What is not so\n", [f"- {one.kind}: {code(one.path)} {escaped(one.message)}" for one in review.findings]),
        Block("### Criteria that may not stand as they do\n", [f"- {code(id_)} {escaped(why)}" for id_, why in review.unamended.items()]),
        Block("### Evidence that is gone\n", [f"- {code(name)}" for name in review.gone_runs]),
        Block("### Statuses that changed\n\n| criterion | was | is | measured | bound | why |\n|---|---|---|---|---|---|",
              [_change(one) for one in review.changes]),
        Block("### Edits of the spec\n", [
            f"- {edit.change}: {code(edit.id)} {escaped(edit.old.sentence if edit.old else '–')} → "
            f"{escaped(edit.new.sentence if edit.new else '–')}" for edit in review.edits]),
        Block("### Amendments\n", [
            f"- {code(one.criterion)} {escaped(one.from_sentence)} → {escaped(one.to_sentence or 'withdrawn')}, "
            f"**after {len(one.results_seen)} results had been seen**: {escaped(one.reason)} "
            f"(by {escaped(one.author)}, approved by {escaped(one.approver)})" for one in review.amendments]),
        Block("### Waivers\n", [
            f"- {code(one.criterion)} {one.state} until {one.expires}: {escaped(one.reason)} "
            f"(owner {escaped(one.owner)}, approved by {escaped(one.approver)})" for one in review.waivers]),
        Block("### New evidence\n\n| run | outcome | seed | steps | training loss | validation loss | remark |\n|---|---|---|---|---|---|---|",
              [_run(run, views.get(run.run)) for run in review.new_runs]),
        *(Block(f"<details><summary>Samples of {escaped(name)}</summary>\n", _samples(view), "\n</details>")
          for name, view in views.items() if view.samples),
    ]  # fmt: skip
    return fitted("\n".join(lines), blocks, limit)


def _change(one: Change) -> str:
    criterion = one.criterion
    why = (
        "; ".join(f"{reason.code}: {reason.text}" for reason in criterion.reasons[:2])
        if one.after != "DISCHARGED"
        else ""
    )
    mark = "**" if one.worse else ""
    measured, asked = escaped(interval(criterion.measured)), escaped(bound(criterion))
    return f"| {code(criterion.id)} | {one.before} | {mark}{one.after}{mark} | {measured} | {asked} | {escaped(why)} |"


def _run(run: RunNote, view: RunView | None) -> str:
    curves = [_curve(view.training), _curve(view.validation)] if view else ["", ""]
    remark = run.exploratory or run.reason
    return (
        f"| {code(run.run)} | {run.state} | {run.seed} | {run.steps} | {curves[0]} | {curves[1]} | {escaped(remark)} |"
    )


def _curve(points: tuple[tuple[int, float], ...]) -> str:
    return f"{sparkline([value for _, value in points], 20)} {number(points[-1][1])}" if points else ""


def _samples(view: RunView) -> list[str]:
    return [f"- {code(one.prompt)} → {code(one.model)}" for one in view.samples[:5]]
