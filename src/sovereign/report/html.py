"""One page that stands alone: scoreboard, criteria, runs with curves and samples. No script, no request, no font to fetch.

The policy in its head forbids every request, so that even a fault of ours in escaping could not make one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files

from sovereign import __version__
from sovereign.gate.evaluation import CriterionStatus, Evaluation, ObligationStatus, RunNote, Status
from sovereign.gate.scoreboard import Line, headline, scoreboard
from sovereign.report.curves import against_bound, by_position, losses
from sovereign.report.figures import MARK, bound, interval, memory, remarks, seconds, short, way_on
from sovereign.report.judged import Judged
from sovereign.report.markup import Content, Markup, element, joined
from sovereign.report.pictures import exposures, gap
from sovereign.report.runs import RunView, SamplePair

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
SAMPLES = 6  # pairs shown of a run; more do not tell more, and the rows hold them all
NUMERIC = frozenset(
    {
        "of",
        "waived",
        "drafts",
        "withdrawn",
        "measured",
        "n",
        "seed",
        "steps",
        "validation loss",
        "loss",
        "documents",
        "wall time",
        "tokens/s",
        "peak memory",
    }
)  # columns whose cells, and so whose heads, end on one line at the right
MOST = 4000  # characters of one text from outside


def html(judged: Judged) -> str:
    """Return the page."""
    title = "; ".join(f"{one.spec}: {headline(one)}" for one in judged.evaluations) or "nothing evaluated"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", f"sovereign · {title}"),
        element("style", Markup(files("sovereign.report").joinpath("page.css").read_text("utf-8"))),
    )
    body = element(
        "body",
        element("a", "Skip to the content", href="#content", class_="skip"),
        _header(judged),
        element("main", _faults(judged), _changes(judged), *(_spec(judged, one) for one in judged.evaluations), _foreseen(judged), id="content"),
        element(
            "footer",
            "Every status on this page was computed from rows of evidence by sovereign ", __version__,
            "; none was typed. ", element("code", "sovereign gates"), " computes them again, ",
            element("code", "sovereign explain ID"), " says why.",
        ),
    )  # fmt: skip
    return "<!doctype html>\n" + element("html", "\n", head, "\n", body, "\n", lang="en") + "\n"


def _header(judged: Judged) -> Markup:
    verdict = "good" if judged.exit == 0 else "bad"
    links = [
        element(
            "li",
            element(
                "a",
                f"{one.spec}: {part}" if len(judged.evaluations) > 1 else part.capitalize(),
                href=f"#{part}-{one.spec}",
            ),
        )
        for one in judged.evaluations
        for part in ("scoreboard", "criteria", "runs")
    ]
    lines = [element("p", headline(one), class_="headline") for one in judged.evaluations]
    return element(
        "header",
        element("p", "sovereign", class_="brand"),
        element("h1", " · ".join(f"{one.spec} {one.version}" for one in judged.evaluations) or "Nothing evaluated"),
        *lines,
        element(
            "p",
            element("strong", judged.verdict, class_=f"verdict {verdict}"),
            *(joined(" as of ", element("time", now, datetime=now)) for now in {one.now for one in judged.evaluations}),
        ),
        element("nav", element("ul", *links), aria_label="On this page") if links else None,
    )


def _faults(judged: Judged) -> Markup | None:
    if not judged.faults:
        return None
    items = [
        element(
            "li",
            element("b", fault.kind),
            " ",
            element("code", f"{fault.path}:{fault.line}"),
            " ",
            short(fault.message, MOST),
        )
        for fault in judged.faults
    ]
    return element(
        "section",
        element("h2", "What is broken", id="broken"),
        element("ul", *items),
        class_="broken",
        aria_labelledby="broken",
    )


def _changes(judged: Judged) -> Markup | None:
    if judged.base is None:
        return None
    items = [element("li", element("code", one.id), f" {one.before} → {one.after}") for one in judged.changes]
    said = element("ul", *items) if items else element("p", "No status changed.")
    return element("section", element("h2", "Against the base", id="changes"), said, aria_labelledby="changes")


def _foreseen(judged: Judged) -> Markup | None:
    """Return forecasts and hypotheses with what became of them: a story is never its own proof."""
    found: list[tuple[str, str, str]] = [(one.outcome, one.sentence, one.run) for one in judged.foreseen.forecasts]
    found += [(one.state, one.sentence, one.contract) for one in judged.foreseen.hypotheses]
    if not found:
        return None
    items = [
        element("li", element("b", word), " ", short(said, MOST), " ", element("code", whose))
        for word, said, whose in found
    ]
    return _section("foreseen", "Forecasts and hypotheses", element("ul", *items, class_="reasons"))


def _spec(judged: Judged, evaluation: Evaluation) -> Markup:
    views = {view.run: view for view in judged.runs}
    name = evaluation.spec
    return joined(
        _section(f"scoreboard-{name}", "Scoreboard", _scoreboard(evaluation)),
        _section(f"criteria-{name}", "Criteria", *(_criterion(judged, evaluation, one) for one in evaluation.criteria)),
        _section(f"runs-{name}", "Runs", *_runs(evaluation, views)),
    )


def _section(name: str, title: str, *content: Content) -> Markup:
    return element("section", element("h2", title, id=name), *content, aria_labelledby=name)


def _pill(status: str, shown: str | None = None) -> Markup:
    mark = element("span", MARK.get(status, "~"), aria_hidden="true")
    return element("span", mark, element("span", f" {shown or status}", class_="word"), class_=f"pill {status.lower()}")


# ── scoreboard ───────────────────────────────────────────────────────────────────────────────────


def _scoreboard(evaluation: Evaluation) -> Markup:
    lines = scoreboard(evaluation)
    columns = [status for status in lines[-1].counts if any(line.counts[status] for line in lines)]
    extra = [name for name in ("waived", "drafts", "withdrawn") if getattr(lines[-1], name)]
    heads = [element("th", _pill(status), scope="col") for status in columns]
    heads += [_head(name) for name in ("of", *extra)]
    rows = [
        element(
            "tr",
            element("th", line.category, scope="row"),
            element("td", _bar(line, columns), class_="bar"),
            *(element("td", line.counts[status] or "·", class_="count") for status in columns),
            element("td", line.total, class_="count"),
            *(element("td", getattr(line, name) or "·", class_="count") for name in extra),
            class_="sum" if line is lines[-1] else None,
        )
        for line in lines
    ]
    return _table(
        "Active criteria by category and status",
        [element("th", "category", scope="col"), element("td", class_="bar"), *heads],
        rows,
    )


def _bar(line: Line, columns: Sequence[Status]) -> Markup:
    parts = [
        element("span", class_=status.lower(), style=f"flex-grow: {line.counts[status]}")
        for status in columns
        if line.counts[status]
    ]
    return element("span", *parts, class_="stack", aria_hidden="true")


def _head(name: str) -> Markup:
    return element("th", name, scope="col", class_="count" if name in NUMERIC else None)


def _table(caption: str, heads: Iterable[Markup], rows: Iterable[Markup], class_: str | None = None) -> Markup:
    """Return a table that scrolls by itself where it is wider than the page, by keyboard too."""
    table = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
        class_=class_,
    )
    return element("div", table, class_="wide", tabindex="0", role="region", aria_label=caption)


# ── criteria ─────────────────────────────────────────────────────────────────────────────────────


def _criterion(judged: Judged, evaluation: Evaluation, one: CriterionStatus) -> Markup:
    standing = judged.standing(evaluation, one)
    summary = element(
        "summary",
        _pill("waived" if one.waiver else one.status, one.shown),
        element("span", one.id, " (draft)" if one.stage == "draft" else "", class_="id"),
        element("span", one.title or "no longer in the spec", class_="title"),
        element("span", interval(one.measured), element("span", f" {bound(one)}", class_="bound"), class_="measured"),
        against_bound(one),
    )
    where = f"{evaluation.spec_path}:{judged.line(evaluation, one)}"
    stage = "draft: it does not gate" if one.stage == "draft" else "active"
    facts = [
        ("asks", joined(element("code", f"{one.metric} {bound(one)}"))) if one.metric else None,
        ("measured", _measured(one)) if one.measured else None,
        ("written at", element("code", where)),
        ("stage", joined(stage)),
        ("contract", element("code", one.contract)) if one.contract else None,
        ("criterion", element("code", one.digest)) if one.digest else None,
        ("evidence", joined(*(element("code", f"{digest} ") for digest in one.evidence))) if one.evidence else None,
        ("waiver", joined(f"{one.waiver.id}: {one.waiver.reason} (owner {one.waiver.owner}, approved by {one.waiver.approver}, "
                          f"until {one.waiver.expires})")) if one.waiver else None,
        ("way on", element("code", way_on(one))) if way_on(one) else None,
    ]  # fmt: skip
    return element(
        "details",
        summary,
        element(
            "div",
            _reasons(one),
            element("dl", *(joined(element("dt", fact[0]), element("dd", fact[1])) for fact in facts if fact)),
            _obligations(one),
            class_="body",
        ),
        class_=f"criterion {standing}",
        id=f"{evaluation.spec}-{one.id}",
        open=standing in ("invalid", "failed", "blocking"),
    )


def _measured(one: CriterionStatus) -> Markup:
    found = one.measured
    assert found is not None
    said = f"{interval(found)}, n = {found.n}, {found.method}, from "
    return joined(said, element("code", found.run))


def _reasons(one: CriterionStatus) -> Markup:
    items = [element("li", element("b", reason.code), " ", short(reason.text, MOST)) for reason in one.reasons]
    items += [element("li", short(remark, MOST), class_="remark") for remark in remarks(one)]
    return element("ul", *items, class_="reasons")


def _obligations(one: CriterionStatus) -> Markup | None:
    if len(one.obligations) < 2:
        return None  # the criterion's own line says it all
    heads = [_head(name) for name in ("obligation", "status", "measured", "n", "why")]
    return _table(f"Obligations of {one.id}", heads, [_obligation(each) for each in one.obligations])


def _obligation(one: ObligationStatus) -> Markup:
    why = "; ".join(f"{reason.code}: {reason.text}" for reason in one.reasons)
    return element(
        "tr",
        element("th", one.name, scope="row"),
        element("td", _pill(one.status)),
        element("td", interval(one.measured), class_="count"),
        element("td", one.measured.n if one.measured else "", class_="count"),
        element("td", short(why, MOST)),
    )


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────


def _runs(evaluation: Evaluation, views: dict[str, RunView]) -> list[Markup]:
    if not evaluation.runs:
        return [element("p", "No run under evidence/ was held to this spec.")]
    newest = sorted(evaluation.runs, key=lambda run: run.run.partition("/")[2], reverse=True)
    drawn = [run for run in newest if run.run in views]
    heads = [_head(name) for name in ("run", "state", "seed", "steps", "remark")]
    listed = _table("All runs, newest first", heads, map(_line, newest))
    said = (
        element("p", f"Curves of the newest {len(drawn)} of {len(newest)} runs.") if len(drawn) < len(newest) else None
    )
    return [listed, *filter(None, [said]), *(_run(run, views[run.run], first=run is drawn[0]) for run in drawn)]


def _line(run: RunNote) -> Markup:
    return element(
        "tr",
        element("th", run.run, scope="row"),
        element("td", _state(run)),
        element("td", run.seed, class_="count"),
        element("td", run.steps or "", class_="count"),
        element("td", short(_remark(run), MOST)),
    )


def _remark(run: RunNote) -> str:
    return "; ".join(filter(None, (f"exploratory: {run.exploratory}" if run.exploratory else "", run.reason)))


def _state(run: RunNote) -> Markup:
    origin = {"run": "", "callback": " · watched", "import": " · imported", "suite": " · suite"}[run.origin]
    return element("span", run.state + origin, class_=f"pill state-{run.state}")


def _run(run: RunNote, view: RunView, first: bool) -> Markup:
    facts = [
        f"seed {run.seed}" if run.seed is not None else "",
        f"{view.parameters:,} parameters" if view.parameters else "",
    ]
    facts += [f"{run.steps or '?'} of {view.planned_steps} steps" if view.planned_steps else "", view.environment]
    return element(
        "details",
        element(
            "summary", _state(run), element("span", run.run, class_="id"), element("span", view.title, class_="title")
        ),
        element(
            "div",
            element("p", " · ".join(filter(None, facts)), class_="facts"),
            element("p", _remark(run), class_="remark") if _remark(run) else None,
            _curves(view),
            _positions(view),
            _exposures(view),
            _diagnosis(view),
            _notices(view),
            _samples(view.samples),
            _costs(view),
            class_="body",
        ),
        class_="run",
        open=first,
    )


def _curves(view: RunView) -> Markup:
    if not view.training and not view.validation:
        return element("p", "No rows of steps or evaluations: there is nothing to draw.")
    legend = element(
        "p",
        element("span", "training loss by step", class_="key training"),
        element("span", "validation loss by evaluation", class_="key validation"),
        element("span", "what knowing nothing, or counting, scores", class_="key floor") if view.floors else None,
        element("span", "ringed: not told from the best by a paired test") if view.tied else None,
        class_="legend",
    )
    heads = [_head(name) for name in ("step", "validation loss")]
    rows = [
        element("tr", element("th", step, scope="row"), element("td", f"{loss:.4f}", class_="count"))
        for step, loss in view.validation
    ]
    numbers = element(
        "details", element("summary", "The evaluations in numbers"), _table("Validation loss by step", heads, rows)
    )
    return element(
        "figure",
        element(
            "figcaption", f"Loss in nats per token{', as the trainer reported it' if view.reported else ''}", legend
        ),
        losses(view, 860, 330, "broad"),
        losses(view, 360, 280, "narrow"),
        _gap(view),
        numbers if rows else None,
    )


def _positions(view: RunView) -> Markup | None:
    if not view.positions:
        return None
    heads = [_head(name) for name in ("positions", "loss", "documents")]
    rows = [
        element(
            "tr",
            element("th", f"{one.start} to {one.stop}", scope="row"),
            element("td", f"{one.loss:.4f}", class_="count"),
            element("td", one.documents, class_="count"),
        )
        for one in view.positions
    ]
    numbers = element(
        "details", element("summary", "The positions in numbers"), _table("Loss by position", heads, rows)
    )
    return element(
        "figure",
        element("figcaption", f"Loss by position in nats per token; {view.context} tokens were trained on"),
        by_position(view, 860, 260, "broad"),
        by_position(view, 360, 240, "narrow"),
        numbers,
    )


def _exposures(view: RunView) -> Markup | None:
    if not view.exposures:
        return None
    return element(
        "figure",
        element("figcaption", "Exposures: documents by how often they were trained on"),
        exposures(view, 860, 200),
    )


def _gap(view: RunView) -> Markup | None:
    if len(view.gaps) < 2:
        return None
    said = "Gap: validation minus train probe in nats per token, both in evaluation mode, with its 95 % band"
    return joined(element("p", said, class_="legend"), gap(view, 860, 200))


def _diagnosis(view: RunView) -> Markup | None:
    """Return what the run shows, claim by claim; a run of which nothing is shown or ruled out has no table."""
    found = view.diagnosis
    settled = [] if found is None else [one for one in found.findings if not one.open]
    if found is None or not settled:
        return None
    rows = [
        element(
            "tr",
            element("th", one.claim, scope="row"),
            element("td", "shown" if one.supported else "ruled out"),
            element("td", one.confidence),
            element("td", short(one.because, MOST)),
            element("td", one.overturned_by),
        )
        for one in settled
    ]
    open_ = [
        one.claim + (", leaning towards it" if one.leaning == "SUPPORTED" else "") for one in found.findings if one.open
    ]
    return joined(
        element("h3", f"Diagnosis: {found.headline}"),
        _table(
            "What the run shows, and what it does not",
            [
                element("th", name, scope="col")
                for name in ("claim", "verdict", "confidence", "because", "would overturn it")
            ],
            rows,
        ),
        element("p", f"Open: {'; '.join(open_)}.") if open_ else None,
        element("p", f"Cheapest next: {found.missing[0].do} ({found.missing[0].cost}).") if found.missing else None,
    )


def _notices(view: RunView) -> Markup | None:
    if not view.notices:
        return None
    items = [
        element("li", element("b", one.name), f" at step {one.step}: ", short(one.message, MOST))
        for one in view.notices[:20]
    ]
    more = [element("li", f"and {len(view.notices) - 20} more")] if len(view.notices) > 20 else []
    return joined(element("h3", "Notices"), element("ul", *items, *more))


def _samples(samples: Sequence[SamplePair]) -> Markup | None:
    if not samples:
        return None
    said = f"{min(len(samples), SAMPLES)} of {len(samples)} held-out prompts, in order: none was picked."
    pairs = [
        element(
            "div",
            element("h4", f"Prompt {number_}"),
            element(
                "pre",
                short(pair.prompt, MOST),
                class_="prompt",
                tabindex="0",
                role="group",
                aria_label=f"Prompt {number_}",
            ),
            _continuation("the model", pair.model),
            _continuation("a bigram sampler", pair.bigram),
            class_="sample",
        )
        for number_, pair in enumerate(samples[:SAMPLES], 1)
    ]
    return joined(element("h3", "Samples"), element("p", said), *pairs)


def _continuation(by: str, text: str) -> Markup:
    shown = element("pre", short(text, MOST), tabindex="0", role="group", aria_label=f"Continued by {by}")
    return element("div", element("p", by, class_="by"), shown, class_="continuation")


def _costs(view: RunView) -> Markup | None:
    if not view.costs:
        return None
    heads = [_head(name) for name in ("part", "wall time", "tokens/s", "peak memory")]
    rows = [
        element(
            "tr",
            element("th", one.part, scope="row"),
            element("td", seconds(one.seconds), class_="count"),
            element("td", f"{one.tokens / one.seconds:,.0f}" if one.tokens and one.seconds else "", class_="count"),
            element("td", memory(one.peak_bytes), class_="count"),
        )
        for one in view.costs
    ]
    return joined(element("h3", "Cost"), _table("Cost by part", heads, rows))
