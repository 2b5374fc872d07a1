"""Verification: what is not so about a run's folder.

It hashes again, validates again with an independent reader (`jsonschema` against the published schemas),
measures again from the rows, and cross-checks the fields that a made-up run gets wrong.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sovereign.canonical import Problem, digest
from sovereign.evidence.envelope import file_name
from sovereign.evidence.folder import Observed, RunFolder, known_files, read_folder
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import (
    CorpusRow,
    EvaluationRow,
    ExposureRow,
    ReplayRow,
    ReportedRow,
    ScenarioRow,
    StepRow,
    UnlistedRow,
)
from sovereign.evidence.statement import Measurement, Statement
from sovereign.gate.admission import Closing, Finding, VerifiedRun
from sovereign.subjects import evaluator_digest

SCHEMAS = Path(__file__).parent / "schemas"  # generated from the pydantic models; a test holds them equal
TOLERANCE = 1e-9  # relative; sums may be ordered otherwise on another machine
# no device does more: floating-point operations per second, a CPU's by thread
PEAK = {"cpu": 1e12, "cuda": 1e16}


def verify(path: Path, name: str) -> VerifiedRun:
    """Return the run at `path` with everything that is not so; a run without findings may be weighed."""
    folder = read_folder(path, name)
    if path.is_symlink() or path.parent.is_symlink():
        found = Finding("integrity", name, "is a link; a run is a folder of its own")
        return VerifiedRun(path.parent.name, path.name, findings=(found,))
    concluded = (path / "evidence.json").exists()
    malformed = (*folder.problems, *(folder.row_problems if concluded else ()))
    findings = [_as_finding("schema", problem) for problem in malformed]
    findings += [_as_finding("integrity", problem) for problem in folder.out_of_place]
    if folder.intent is None:
        findings = findings or [
            Finding("schema", f"{name}/intent.json", "no intent: nothing was promised before this run")
        ]
        return VerifiedRun(folder.contract, folder.run, digest=folder.statement_digest or "", findings=tuple(findings))
    measured: tuple[Measurement, ...] = ()
    missing: dict[str, str] = {}
    moved: frozenset[str] = frozenset()
    findings += [Finding("integrity", f"{name}/intent.json", text) for text in _intent_faults(folder.intent, folder)]
    if folder.statement is not None and not findings:
        findings += _second_reading(folder)
        findings += [Finding("integrity", f"{name}/evidence.json", text) for text in _statement_faults(folder)]
        observed = Observed(folder.intent, folder.rows)
        measured, missing, moved, differences = _measured_again(observed, folder.statement)
        findings += [Finding("integrity", f"{name}/evidence.json", text) for text in differences]
        findings += [Finding("integrity", f"{name}/rows", text) for text in implausible(observed, folder.statement)]
    return VerifiedRun(
        contract=folder.contract,
        run=folder.run,
        intent=folder.intent,
        statement=Closing.of(folder.statement) if folder.statement else None,
        digest=folder.statement_digest or "",
        measurements=measured,
        unmeasured=missing,
        moved=moved,
        assurance="recomputed" if folder.intent.origin in ("run", "suite") else "reported",
        losses=_losses(folder),
        envelopes=folder.envelopes,
        findings=tuple(findings),
    )


def _losses(folder: RunFolder) -> str:
    losses: list[Any] = [row.loss for row in folder.rows.get("step", ()) if isinstance(row, StepRow)]
    reported = [row for row in folder.rows.get("reported", ()) if isinstance(row, ReportedRow)]
    losses += [[row.step, row.train_loss, row.val_loss] for row in reported]
    return digest(losses) if len(losses) > 1 else ""


def _as_finding(kind: Literal["schema", "integrity"], problem: Problem) -> Finding:
    return Finding(kind, f"{problem.path}:{problem.line}:{problem.column}", problem.message)


# ── identity ─────────────────────────────────────────────────────────────────────────────────────


def _intent_faults(intent: Intent, folder: RunFolder) -> Iterator[str]:
    promise = intent.promise
    if (intent.contract, intent.run) != (folder.contract, folder.run):
        yield f"names run {intent.contract}/{intent.run}, but lies in {folder.contract}/{folder.run}"
    if promise.contract != intent.contract:
        yield f"promises contract {promise.contract}, but is of contract {intent.contract}"
    if set(intent.criteria) != set(promise.claims):
        yield "the criteria frozen are not those that the promised contract claims"
    if any(id_ != criterion.id for id_, criterion in intent.criteria.items()):
        yield "a criterion is frozen under another criterion's id"
    if intent.subjects.model != promise.subject:
        yield "subjects.model is not the digest of the promised contract's sections"
    if intent.seed not in promise.seeds:
        yield f"seed {intent.seed} is not one of the contract's seeds {list(promise.seeds)}"
    if intent.planned.steps != promise.training.steps:
        yield f"planned {intent.planned.steps} steps, but the promised contract says {promise.training.steps}"
    if intent.ttl_hours != promise.ttl_hours:
        yield f"ttl_hours {intent.ttl_hours} is not the promised contract's {promise.ttl_hours}"


def _statement_faults(folder: RunFolder) -> Iterator[str]:
    intent, statement = folder.intent, folder.statement
    assert intent is not None
    assert statement is not None
    if (statement.contract, statement.run) != (folder.contract, folder.run):
        yield f"names run {statement.contract}/{statement.run}, but lies in {folder.contract}/{folder.run}"
    if statement.intent != folder.intent_digest:
        yield "names another intent: intent.json has changed, or belongs to another run"
    if statement.finished < intent.written:
        yield f"finished {statement.finished}, before its intent was written at {intent.written}"
    stated = {row.path: row for row in statement.rows}
    found = {row.path: row for row in folder.row_files}
    for name in sorted(stated.keys() | found.keys()):
        if name not in found:
            yield f"{name} is stated, and missing"
        elif name not in stated:
            yield f"{name} is there, and not stated"
        elif stated[name] != found[name]:
            yield f"{name} is not the file that was stated: its bytes or its count have changed"
    allowed = known_files()
    for file in sorted(folder.path.rglob("*")):
        relative = file.relative_to(folder.path).as_posix()
        if file.is_symlink() or (file.is_file() and relative not in allowed):
            yield f"the folder holds {relative}, which no statement lists"
    if intent.origin != "suite" and statement.outcome == "completed":
        from sovereign.metrics.training import due  # numpy, which few commands need

        if statement.steps != (end := due(Observed(intent, folder.rows))):
            early = "" if end == intent.planned.steps else ", where its evaluations end it"
            yield f"completed with {statement.steps} of {end} planned steps{early}"


# ── an independent reader ────────────────────────────────────────────────────────────────────────


# Two readers by other hands read the published schemas. The compiled one sees every row, a hundred times as fast; the other
# says what is wrong and where. They are held to agree by a test.
@cache
def _reader(name: str) -> Any:
    from jsonschema_rs import Draft202012Validator  # here: cached runs need no second reading

    return Draft202012Validator(_schema(name))


@cache
def _explainer(name: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(_schema(name))


def _schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.schema.json").read_bytes())


def _second_reading(folder: RunFolder) -> Iterator[Finding]:
    """Yield what readers of the published schemas find in documents that pydantic has passed: they must agree."""
    for document in ("intent", "evidence"):
        value = json.loads((folder.path / f"{document}.json").read_bytes())
        yield from _objections(document, value, f"{folder.name}/{document}.json")
    for signed in map(file_name, folder.envelopes):
        value = json.loads((folder.path / signed).read_bytes())
        yield from _objections("envelope", value, f"{folder.name}/{signed}")
    for file in folder.row_files:
        kind = Path(file.path).stem
        for number, line in enumerate((folder.path / file.path).read_bytes().split(b"\n")[:-1], 1):
            yield from _objections(f"row-{kind}", json.loads(line), f"{folder.name}/{file.path}:{number}")


def _objections(schema: str, value: Any, place: str) -> Iterator[Finding]:
    if _reader(schema).is_valid(value):
        return
    told = [f"{error.json_path}: {error.message[:200]}" for error in _explainer(schema).iter_errors(value)]
    for text in told or ["is refused by one reader of its schema, and not by another"]:
        yield Finding("schema", place, text)


# ── measuring again ──────────────────────────────────────────────────────────────────────────────


def _measured_again(
    observed: Observed, statement: Statement
) -> tuple[tuple[Measurement, ...], dict[str, str], frozenset[str], list[str]]:
    """Return what the rows really measure, why the rest cannot be, what moved with the evaluator, and what differs."""
    from sovereign.measurable import measure  # here: numpy is needed only to measure

    claimed = {criterion.metric for criterion in observed.intent.criteria.values()}
    stated = {(one.metric, one.slice): one for one in statement.measurements}
    names = claimed | {metric for metric, _ in stated}
    measured, missing = measure(observed, names)
    differences: list[str] = []
    moved: set[str] = set()
    repeats = [
        name for name, count in Counter((one.metric, one.slice) for one in statement.measurements).items() if count > 1
    ]
    differences += [f"{metric} is stated twice" for metric, _ in repeats]
    found = {(one.metric, one.slice): one for one in measured}
    same_evaluator = observed.intent.subjects.evaluator == evaluator_digest()
    for at in sorted({(name, "all") for name in names} | stated.keys() | found.keys()):
        said, again = stated.get(at), found.get(at)
        name = at[0] if at[1] == "all" else f"{at[0]} of {at[1]}"
        if said is None and again is None:
            continue
        if said is not None and again is not None and _agree(said, again):
            continue
        if not same_evaluator:
            moved.add(at[0])
        elif said is None:
            differences.append(f"{name} can be measured from the rows, and is not stated")
        elif again is None:
            differences.append(f"{name} is stated as {said.value}, and the rows do not give it: {missing.get(at[0])}")
        else:
            differences.append(f"{name} is stated as {_shown(said)}; the rows give {_shown(again)}")
    return measured, missing, frozenset(moved), differences


def _shown(one: Measurement) -> str:
    return f"{one.value} [{one.low}, {one.high}] n={one.n} ({one.method})"


def _agree(said: Measurement, again: Measurement) -> bool:
    if (said.slice, said.n, said.method) != (again.slice, again.n, again.method):
        return False
    pairs = ((said.value, again.value), (said.low, again.low), (said.high, again.high))
    return all(
        one == other
        if isinstance(one, str) or isinstance(other, str)
        else math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-12)
        for one, other in pairs
    )


# ── plausibility ─────────────────────────────────────────────────────────────────────────────────


def implausible(observed: Observed, statement: Statement) -> Iterator[str]:
    """Yield what rows that were really observed do not show."""
    intent = observed.intent
    if intent.origin == "suite":
        yield from _implausible_suite(observed)
        return
    if observed.of(ScenarioRow):
        yield "holds scenario rows, which only a suite observes"
    if intent.origin != "run":
        yield from _implausible_report(observed, statement)
        return
    if observed.of(ReportedRow):
        yield "holds reported rows, and is a run of our own: it observes"
    steps = observed.of(StepRow)
    if [row.step for row in steps] != list(range(1, statement.steps + 1)):
        yield f"step rows are not 1 to {statement.steps}, each once and in order"
    if any(later.clock < earlier.clock for earlier, later in itertools.pairwise(steps)):
        yield "the clock runs backwards"
    if any(row.seconds <= 0 for row in steps):
        yield "a step took no time"
    if len(steps) > 2 and len({row.loss for row in steps}) == 1:
        yield f"every step has the loss {steps[0].loss}: a scripted run, or a placeholder"
    seconds, tokens = sum(row.seconds for row in steps), sum(row.tokens for row in steps)
    device, threads, parameters = intent.environment.device, intent.environment.threads, intent.planned.parameters
    assert threads is not None
    assert parameters is not None  # a run's intent gives both, or is no intent
    peak = PEAK[device] * (threads if device == "cpu" else 1) * intent.environment.processes
    if seconds > 0 and 6 * parameters * tokens / seconds > peak:
        yield f"{tokens / seconds:.0f} tokens/s of {parameters} parameters is more than any device does"
    yield from _evaluations_differ(observed.of(EvaluationRow))
    yield from _digests_repeat(observed, statement)
    exposures = observed.of(ExposureRow)
    windows = statement.steps * intent.promise.training.sequences
    if exposures and sum(row.consumed for row in exposures) < windows:
        yield f"exposures add up to fewer than the {windows} windows that {statement.steps} steps consume"
    if statement.steps:  # a run that broke off before its first may have been writing of its data
        yield from _documents_lost(observed)


def _implausible_report(observed: Observed, statement: Statement) -> Iterator[str]:
    """Yield what a trainer that printed as it went does not show."""
    rows = observed.of(ReportedRow)
    others = sorted(kind for kind, found in observed.rows.items() if found and kind not in ("reported", "notice"))
    if others:
        yield f"holds {', '.join(others)} rows, which nobody observed: another trainer's run has reported ones"
    if not rows:
        yield "no reported rows: the trainer said nothing"
    if statement.steps != max((row.step for row in rows), default=0):
        yield f"states {statement.steps} steps, which is not the last one reported"
    if any(later.step < earlier.step for earlier, later in itertools.pairwise(rows)):
        yield "the reported steps run backwards"
    losses = [row.train_loss for row in rows if row.train_loss is not None]
    if len(losses) > 2 and len(set(losses)) == 1:
        yield f"every reported loss is {losses[0]}: a scripted run, or a placeholder"


def _implausible_suite(observed: Observed) -> Iterator[str]:
    """Yield what a suite of planted runs does not show."""
    rows = observed.of(ScenarioRow)
    others = sorted(kind for kind, found in observed.rows.items() if found and kind not in ("scenario", "notice"))
    if others:
        yield f"holds {', '.join(others)} rows, which are a run's own: a suite has scenario rows"
    if not rows:
        yield "no scenario rows: nothing was diagnosed"
    seen: dict[str, tuple[object, ...]] = {}
    for row in rows:
        both = sorted(set(row.supported) & set(row.refuted))
        if both:
            yield f"{row.trained} ({row.withheld or 'all evidence'}): {both[0]} is supported and refuted"
        planted = (row.scenario, row.severity, row.seed, row.rows, row.held, row.manipulation)
        if seen.setdefault(row.trained, planted) != planted:
            yield f"{row.trained} is two runs: another scenario, seed, digest or check under one name"
    diagnosed = Counter((row.scenario, row.severity, row.seed, row.withheld) for row in rows)
    for (scenario, severity, seed, withheld), count in diagnosed.items():
        if count > 1:
            yield f"{scenario}, {severity}, seed {seed} ({withheld or 'all evidence'}) is counted {count} times"
    contents = Counter(digest for _, digest in {(row.trained, row.rows) for row in rows})
    if contents and max(contents.values()) > 1:
        yield "two runs have the same rows to the byte: one run under two names"


def _documents_lost(observed: Observed) -> Iterator[str]:
    """Yield documents that the source held and nobody accounts for: each is listed, or counted among those that are not."""
    held, listed, counted = observed.intent.planned.documents, observed.of(CorpusRow), observed.of(UnlistedRow)
    if held is None:
        if counted:
            yield "counts documents that no row lists, and its intent does not say how many the source held"
        return
    named = [*(row.document for row in listed), *(one for row in counted for one in row.members)]
    others = sum(row.documents for row in counted)
    if len(listed) + others != held:
        yield f"lists {len(listed)} documents and counts {others} more; the source held {held}"
    if len(set(named)) < len(named):
        yield f"{len(named) - len(set(named))} documents are listed or counted twice"
    looked_at = {row.document for row in observed.of(EvaluationRow)} | {
        row.document for row in observed.of(ExposureRow)
    }
    if unknown := looked_at - {row.document for row in listed}:
        yield f"{len(unknown)} documents were trained on or scored, and no corpus row lists them (one is {min(unknown)})"


def _evaluations_differ(rows: tuple[EvaluationRow, ...]) -> Iterator[str]:
    scored: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for row in rows:
        scored.setdefault((row.split, row.step), []).append((row.document, row.tokens))
    first: dict[str, list[tuple[str, int]]] = {}
    for (split, step), documents in sorted(scored.items()):
        if len({document for document, _ in documents}) != len(documents):
            yield f"a {split} document is scored twice at step {step}"
        if sorted(documents) != first.setdefault(split, sorted(documents)):
            yield f"the {split} documents scored at step {step} are not those of the first evaluation"


def _digests_repeat(observed: Observed, statement: Statement) -> Iterator[str]:
    """Yield digests that are the same for states that are not: they were made of something else than the state (CASE-18)."""
    moved = {row.step for row in observed.of(StepRow) if row.learning_rate > 0 and row.grad_norm > 0}
    replayed = sorted(observed.of(ReplayRow), key=lambda row: row.step)
    for one, two in itertools.pairwise(replayed):
        if one.step < two.step and two.step in moved and one.straight == two.straight:
            yield f"the weights after steps {one.step} and {two.step} have one digest, with an update between them"
    kept = {one.name.partition(": ")[0]: one for one in statement.artifacts}
    if {"best", "last"} <= kept.keys() and kept["best"].digest == kept["last"].digest:
        yield f"{kept['best'].name} and {kept['last'].name} have one digest, and are of different steps"


def twins(runs: Mapping[str, tuple[int, str]]) -> dict[str, str]:
    """Return name -> sentence for runs of different seeds whose losses are the same to the last digit.

    `runs` maps a run's name to its seed and the digest of its losses.
    """
    first: dict[str, str] = {}
    told: dict[str, str] = {}
    for name, (seed, losses) in sorted(runs.items()):
        other = first.setdefault(losses, name)
        if other != name and runs[other][0] != seed:
            told[name] = f"every loss equals that of {other}, which had another seed"
    return told
