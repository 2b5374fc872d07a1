"""The planted-truth suite: what the diagnosis makes of some three hundred real runs whose truth is known.

    python benchmarks/diagnosis.py --work FOLDER            train what is missing, diagnose everything, print the tables
    python benchmarks/diagnosis.py --work FOLDER --record   and write the outcome as evidence of contracts/planted.yaml

Every run is a decoder of a hundred thousand parameters, trained on a CPU in seconds, with one of the causes of
`benchmarks/planted.py` in it; about an hour of one core for all. A run whose plant did not take, by its own rows, is void. The rows
are kept under FOLDER, outside the repository: an interrupted suite goes on where it was, and a changed diagnosis reads the same
runs again in a minute or two (--minutes 0). Verdicts are scored by `sovereign.metrics.suite`, as the gate does it.

    --minutes N    train for so long at most, and go on another time
    --only TEXT    scenarios whose name or severity holds the text
    --controls     write spec/controls/DIAGNOSIS-*: the same runs read by a diagnosis with a fault planted in it
    --svg FILE     power curves as a picture
    --json         everything on stdout, for programs
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch
from planted import Scenario, Twin, built, in_place, scenarios

from sovereign import plan as planning
from sovereign import run as execution
from sovereign.canonical import digest, digest_file, pretty, sealed, write_atomic
from sovereign.closing import close
from sovereign.contract.contract import Contract
from sovereign.controls import CONTROLS
from sovereign.diagnosis import claims, procedure, record, thresholds
from sovereign.diagnosis.claims import generalisation, health, validation
from sovereign.diagnosis.findings import CLAIMS, Check, Finding, conclude, settle
from sovereign.diagnosis.reading import Reading
from sovereign.evidence.folder import Observed, read_folder
from sovereign.evidence.intent import Intent, Subjects
from sovereign.evidence.journal import Journal
from sovereign.evidence.rows import EvaluationRow, ReferenceRow, ScenarioRow
from sovereign.interop.reported import begin, folder_of, here
from sovereign.measurable import measure
from sovereign.metrics import suite
from sovereign.metrics.intervals import Interval
from sovereign.planted.swapping import swapped
from sovereign.repository import falsifying, open_repository
from sovereign.spec.criterion import Spec
from sovereign.subjects import PACKAGE, closure, evaluator_digest, files_digest, source_digest
from sovereign.training.speed import matrix_peak

ROOT = Path(__file__).parent.parent
CONTRACT = ROOT / "contracts/planted.yaml"
SCRIPTS = ("benchmarks/diagnosis.py", "benchmarks/planted.py", "benchmarks/planted_documents.py")
TRIAL = tuple[Scenario, int]
# the same for many runs, and seconds of each: what the machine can do, what the spec says, documents read and verified
peak_once, spec_once = functools.cache(matrix_peak), functools.cache(Spec.load)


def quiet(*told: Any, **more: Any) -> None:
    """Say nothing: the suite says what it trains."""


# ── training ─────────────────────────────────────────────────────────────────────────────────────


def trials(only: str) -> list[TRIAL]:
    """Return every run of the suite, all scenarios with their first seed first: an unfinished suite has seen them all."""
    chosen = [one for one in scenarios() if only in f"{one.name} {one.severity}"]
    return [
        (one, seed) for seed in range(1, max(one.seeds for one in chosen) + 1) for one in chosen if seed <= one.seeds
    ]


def name_of(scenario: Scenario, seed: int) -> str:
    return f"{scenario.slug}-s{seed}"


def done(work: Path, trial: TRIAL) -> Path:
    """Return the file that says that a run stands whole, what was done to it, and where its rows are."""
    return work / "done" / f"{name_of(*trial)}.json"


def promised(trial: TRIAL) -> Contract:
    """Return the contract of a run: the suite's, with the scenario's settings, another split and another seed."""
    scenario, seed = trial
    return Contract.load(CONTRACT, (f"seeds=[{seed}]", f'data.split.salt="{seed}"', *scenario.sets))


def stands(work: Path, trial: TRIAL) -> bool:
    """Say whether a run stands whole, trained by the contract as it is now."""
    file = done(work, trial)
    return file.exists() and bool(json.loads(file.read_bytes())["model"] == promised(trial).subject)


def train(work: Path, trial: TRIAL) -> float:
    """Train one run with its plants in place, keep its rows, and return the seconds that it took."""
    scenario, seed = trial
    began = time.perf_counter()
    promise = promised(trial)
    told: dict[str, Any] = {}
    with ExitStack() as stack:
        stack.enter_context(swapped(planning, "build", built))
        stack.enter_context(swapped(planning.Plan, "training_bytes", property(lambda plan: plan.state_bytes)))
        stack.enter_context(in_place(scenario, seed, told))
        stack.enter_context(swapped(execution, "close", quiet))  # nothing is claimed, so nothing need be measured
        stack.enter_context(swapped(execution, "matrix_peak", peak_once))
        plan = planning.plan(promise, work, "cpu", quiet, seed)
        found = execution.run(
            plan,
            spec_once(ROOT / promise.spec),
            work,
            overrides=(f"planted: {name_of(*trial)}",),
            told=quiet,
            progress=quiet,
        )
    shutil.rmtree(work / "artifacts" / promise.contract / found.folder.name, ignore_errors=True)
    seconds = time.perf_counter() - began
    told |= {
        "folder": found.folder.relative_to(work).as_posix(),
        "seconds": round(seconds, 2),
        "outcome": found.outcome,
        "model": promise.subject,
    }
    write_atomic(done(work, trial), pretty(told))
    return seconds


def prepared(work: Path) -> Path:
    """Return the work folder with the documents in it, from which corpora are built once a seed."""
    for folder in ("benchmarks", "done"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / "benchmarks/planted_documents.jsonl", work / "benchmarks/planted_documents.jsonl")
    return work


def train_missing(work: Path, wanted: Sequence[TRIAL], minutes: float) -> None:
    """Train what does not stand yet, for so many minutes at most."""
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * minutes
    missing = [trial for trial in wanted if not stands(work, trial)]
    for number, trial in enumerate(missing, 1):
        if time.monotonic() > until:
            print(f"{len(missing) - number + 1} runs are left; the same command goes on", file=sys.stderr)
            return
        took = train(work, trial)
        print(f"{number}/{len(missing)}  {took:5.1f} s  {name_of(*trial)}", file=sys.stderr, flush=True)


# ── diagnosing ───────────────────────────────────────────────────────────────────────────────────


def kept(work: Path, trial: TRIAL) -> tuple[Observed, dict[str, Any]]:
    """Return the rows of a run, and what was done to it."""
    told = json.loads(done(work, trial).read_bytes())
    found = read_folder(work / told["folder"], told["folder"])
    assert found.intent is not None, found.problems
    assert not found.row_problems, found.row_problems
    return Observed(found.intent, found.rows), told


@functools.lru_cache(maxsize=4)
def clean_twin(work: Path, seed: int) -> Observed:
    """Return the rows of the run of a seed in which nothing is planted."""
    return kept(work, (scenarios()[0], seed))[0]


def referred(observed: Observed, clean: Observed, name: str) -> Observed:
    """Return a run's rows with what its clean twin, which had no access to them, scores on the same documents."""
    scored = clean.of(EvaluationRow)
    last = max(row.step for row in scored)
    reference = tuple(
        ReferenceRow(
            run=observed.intent.run,
            document=row.document,
            split="validation",
            nll=row.nll,
            tokens=row.tokens,
            model=name,
        )
        for row in scored
        if row.split == "validation" and row.step == last
    )
    return Observed(observed.intent, {**observed.rows, "reference": reference})


def withheld(observed: Observed, twin: Twin) -> Observed:
    """Return a run's rows without the evidence that a twin lacks."""
    rows = {kind: found for kind, found in observed.rows.items() if kind not in twin.kinds}
    scored = [row for row in observed.of(EvaluationRow) if row.split not in twin.splits]
    if twin.steps:
        last = sorted({row.step for row in scored})[-twin.steps :]
        scored = [row for row in scored if row.step in last]
    return Observed(observed.intent, {**rows, "evaluation": tuple(scored)})


def verdicts(work: Path, trial: TRIAL) -> list[dict[str, Any]]:
    """Return the fields of a run's scenario rows: with all its evidence first, then with some withheld."""
    scenario, seed = trial
    observed, told = kept(work, trial)
    clean = clean_twin(work, seed) if scenario.twinned else None
    held, manipulation = scenario.check(observed, told, clean)
    files = sorted((work / told["folder"] / "rows").glob("*.jsonl"))
    content = digest({file.name: digest_file(file) for file in files})
    if scenario.referred and clean is not None:
        observed = referred(observed, clean, name_of(scenarios()[0], seed))
    found = []
    for twin in (None, *scenario.twins):
        run = record.from_run(observed if twin is None else withheld(observed, twin))
        reading = Reading(run)
        diagnosis = procedure.diagnose(run)
        by_verdict = {
            verdict: tuple(c for c, v in diagnosis.verdicts.items() if v == verdict)
            for verdict in ("SUPPORTED", "REFUTED")
        }
        fired = {check.probe for check in diagnosis.of("CONTAMINATED").checks if check.result == "fires"}
        against = reading.against_control()
        val = reading.val.loss
        expected = (scenario.planted, scenario.absent, ()) if twin is None else (twin.planted, (), twin.open)
        found.append({
            "trained": name_of(*trial), "rows": content, "scenario": scenario.name, "severity": scenario.severity, "seed": seed,
            "withheld": "" if twin is None else twin.name, "health": scenario.health, "held": held, "manipulation": manipulation[:200],
            "planted": expected[0], "absent": expected[1], "open": expected[2],
            "supported": by_verdict["SUPPORTED"], "refuted": by_verdict["REFUTED"], "headline": diagnosis.headline,
            "documents": len(reading.columns(run.validation)[0]) if run.validation else 0, "leaked": scenario.leaked,
            "overlap": tuple(name for name, probe in (("identities", "O1 identities"), ("matches", "O3 50-token matches")) if probe in fired),
            "easier": None if against is None else against.high < 0, "online_gap": reading.online_gap,
            "rise": float(val[-1] / val.min() - 1) if len(val) else None,
        })  # fmt: skip
    return found


def diagnosed(work: Path, wanted: Iterable[TRIAL], workers: int) -> list[dict[str, Any]]:
    """Return the fields of the scenario rows of every run that stands, in order."""
    stand = [trial for trial in wanted if stands(work, trial) and stands(work, (scenarios()[0], trial[1]))]
    if workers < 2:
        return [row for trial in stand for row in verdicts(work, trial)]
    numbered = [(work, name_of(*trial)) for trial in stand]
    with ProcessPoolExecutor(workers) as pool:
        return [row for rows in pool.map(_verdicts_of, numbered, chunksize=8) for row in rows]


def _verdicts_of(asked: tuple[Path, str]) -> list[dict[str, Any]]:
    work, name = asked
    return verdicts(work, next(trial for trial in trials("") if name_of(*trial) == name))


# ── telling ──────────────────────────────────────────────────────────────────────────────────────


def share(found: Interval) -> str:
    return f"{found.value:4.0%} [{found.low:.0%}, {found.high:.0%}]"


def tables(rows: Sequence[ScenarioRow]) -> str:
    """Return the suite's outcome as people read it."""
    full, void = suite.whole(rows), [row for row in rows if not row.held and not row.withheld]
    told = [
        f"{len({row.trained for row in rows})} runs trained, {len(void)} void; of the others {len(suite.counted(rows))} diagnoses: "
        f"{len(full)} with all evidence, {len(suite.counted(rows)) - len(full)} with some withheld"
    ]
    told += [f"  void: {row.trained}: {row.manipulation}" for row in void]
    told += [
        "",
        f"{'claim':24}{'planted':>9}{'S':>5}{'R':>5}{'I':>5}   {'absent':>6}{'S':>5}{'R':>5}{'I':>5}   {'withheld':>8}{'S':>5}{'R':>5}{'I':>5}   recall, exact 95 %",
    ]
    recall, table = suite.recalls(rows), suite.confusion(rows)
    for claim in (one for one in CLAIMS if one in table):
        cells = ""
        for truth, width in (("planted", 9), ("absent", 9), ("withheld", 11)):
            counts = table[claim].get(truth, {})  # type: ignore[call-overload]
            cells += f"{sum(counts.values()) or '':>{width}}" + "".join(
                f"{counts.get(one, 0) or '.':>5}" for one in ("SUPPORTED", "REFUTED", "INCONCLUSIVE")
            )
        told.append(f"{claim:24}{cells}   {share(recall[claim]) if claim in recall else ''}")
    told += ["", f"abstention where something was planted: {share(suite.abstention(rows))}"]
    told += ["", "cost a diagnosis (a sick run called healthy 10, a mistake 5, silence 1)"]
    told += [f"  {name:22}{value:7.3f}" for name, value in suite.costs(rows).items()]
    told += ["", "share of runs in which a leak is found, by the share of validation that was leaked"]
    curves = suite.power(rows)
    sizes = [size for size, _ in next(iter(curves.values()))] if curves else []
    told.append(f"  {'':26}" + "".join(f"{f'{100 * size:g} %' if size else 'none':>8}" for size in sizes))
    told.append(f"  {'runs':26}" + "".join(f"{one.n:>8}" for _, one in next(iter(curves.values()))))
    told += [f"  {name:26}" + "".join(f"{one.value:>8.2f}" for _, one in curve) for name, curve in curves.items()]
    wrong = [line for row in suite.counted(rows) for line in mistakes(row)]
    told += ["", f"mistakes and silences: {len(wrong) or 'none'}", *(f"  {line}" for line in wrong)]
    return "\n".join(told)


def mistakes(row: ScenarioRow) -> Iterable[str]:
    """Yield a line for every verdict of a row that is not what it had to be."""
    for claim, truth in suite.judged(row).items():
        verdict = suite.said(row, claim)
        right = {
            "planted": verdict == "SUPPORTED",
            "absent": verdict != "SUPPORTED",
            "withheld": verdict == "INCONCLUSIVE",
        }
        if not right[truth]:
            yield f"{row.trained}{f' ({row.withheld})' if row.withheld else ''}: {claim} is {truth}, found {verdict}"
    if row.health == "beside" and suite.falsely_healthy(row):
        yield f"{row.trained}: the headline is HEALTHY"


def picture(rows: Sequence[ScenarioRow]) -> str:
    """Return the power curves as SVG."""
    import io

    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "sovereign"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    for name, curve in suite.power(rows).items():
        x = [max(size, 0.002) for size, _ in curve]
        values = [one.value for _, one in curve]
        reach = [[one.value - one.low for _, one in curve], [one.high - one.value for _, one in curve]]
        axes.errorbar(x, values, yerr=reach, marker="o", capsize=3, label=name)
    axes.set(
        xscale="log",
        xlabel="share of validation documents leaked (leftmost: none)",
        ylabel="share of runs that fire",
        ylim=(-0.05, 1.05),
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    target = io.StringIO()
    figure.savefig(target, format="svg", bbox_inches="tight", metadata={"Date": None})
    return target.getvalue()


# ── evidence ─────────────────────────────────────────────────────────────────────────────────────


def scripts() -> tuple[str, ...]:
    """Return the files that decide what is said of a kept run: this suite, and everything that the diagnosis imports."""
    rooms = ("sovereign.diagnosis.procedure", "sovereign.diagnosis.record", "sovereign.diagnosis.reading")
    files = closure(rooms, ("sovereign.spec", "sovereign.evidence", "sovereign.contract"))
    return (*SCRIPTS, *(f"src/sovereign/{file.relative_to(PACKAGE).as_posix()}" for file in files))


def begun(promise: Contract, root: Path, command: str) -> Intent:
    """Write the intent of a suite's evidence under a root, and return it: criteria and subjects as they stand now."""
    files, now = scripts(), datetime.now(UTC)
    return begin(
        promise, Spec.load(ROOT / promise.spec), root, now, origin="suite", seed=promise.seeds[0], vocabulary=None,
        subjects=Subjects(
            code=files_digest(ROOT, files), source=source_digest(promise, ROOT), model=promise.subject, evaluator=evaluator_digest()
        ),
        environment=here("cpu", "", "fp32", 1), paths=[ROOT / file for file in files], scripts=files, command=command,
        answers=falsifying(open_repository(root), promise.claims, now),
    )  # fmt: skip


def evidence(intent: Intent, work: Path, wanted: Sequence[TRIAL], rows: Sequence[dict[str, Any]]) -> Path:
    """Log the verdicts on the kept runs under a frozen intent, and close: a run folder as any other."""
    folder = folder_of(intent, ROOT)
    journal = Journal(folder / "rows", intent.run)
    missing = [name_of(*trial) for trial in wanted if not stands(work, trial)]
    if missing:
        message = f"not trained yet: {missing[0]} and {len(missing) - 1} more"
        journal.log(
            "notice",
            step=0,
            name="unfinished",
            asked=str(len(wanted)),
            got=str(len(wanted) - len(missing)),
            message=message,
        )
    for row in rows:
        journal.log("scenario", **row)
    journal.close()
    close(folder, folder.relative_to(ROOT).as_posix(), "completed", "", datetime.now(UTC))
    return folder


# ── controls: the same runs, read by a diagnosis that is wrong ───────────────────────────────────


@contextmanager
def everywhere(name: str, wrong: Any) -> Iterator[None]:
    """Put `wrong` in the place of what claims call `name`, in every module of theirs, for as long as the block lasts."""
    modules = [module for place, module in sys.modules.items() if place.startswith(f"{claims.__name__}.")]
    places = [module for module in modules if hasattr(module, name)]
    assert places, name
    with ExitStack() as stack:
        for place in places:
            stack.enter_context(swapped(place, name, wrong))
        yield


@dataclass(frozen=True)
class Faulty:
    """A fault of the diagnosis under which a criterion must be falsified, and the rows that show it."""

    planted: Callable[[], AbstractContextManager[None]]
    of: tuple[str, ...]  # what the names and severities of scenarios begin with
    shown: Callable[[ScenarioRow], bool]


FAULTY: dict[str, Faulty] = {
    "DIAGNOSIS-001": Faulty(
        lambda: swapped(health, "SICK", ("DIVERGED",)),  # health looks at divergence only
        ("broken loader", "leak by wrap", "divergence", "not learned"), lambda row: not row.withheld and row.health == "sick",
    ),
    "DIAGNOSIS-002": Faulty(
        lambda: everywhere("SMALL_GAP", -1.0),  # no gap is small enough
        ("healthy stream",), lambda row: not row.withheld,
    ),
    "DIAGNOSIS-003": Faulty(
        lambda: swapped(validation, "contaminated", _by_the_gap),  # who is close to training must have seen it
        ("broken loader", "not learned", "evaluation bug"), lambda row: not row.withheld,
    ),
    "DIAGNOSIS-004": Faulty(
        lambda: swapped(generalisation, "FLAT", 0.0),  # nothing is ever flat enough to be a plateau
        ("plateau",), lambda row: not row.withheld,
    ),
    "DIAGNOSIS-005": Faulty(
        lambda: everywhere("settle", _silence_refutes),  # a test that did not run has passed
        ("evaluation bug", "not learned", "plateau"), lambda row: bool(row.open),
    ),
    "DIAGNOSIS-006": Faulty(
        lambda: swapped(record, "_identity", lambda observed, scored: None),  # identities are never joined
        ("exact leak 3 %",), lambda row: not row.withheld,
    ),
    "DIAGNOSIS-007": Faulty(nullcontext, (), lambda row: not row.withheld),  # an unfinished suite
}  # fmt: skip
UNFINISHED = 40  # rows


def _silence_refutes(claim: Any, checks: Sequence[Check], **more: Any) -> Finding:
    """Settle a claim as if a test that did not run had passed."""
    return settle(
        claim,
        [one.model_copy(update={"result": "passes"}) if one.result == "did not run" else one for one in checks],
        **more,
    )


def _by_the_gap(reading: Reading) -> Finding:
    """Accuse of a leak by the reported gap, as people do: small, so validation was known."""
    small = reading.online_gap is not None and reading.online_gap < thresholds.SMALL_GAP
    return conclude("CONTAMINATED", "SUPPORTED" if small else "REFUTED", [], "the gap is small", [], "HIGH")


def begins(name: str, severity: str, of: tuple[str, ...]) -> bool:
    """Say whether a scenario is one of those named; all are where none is."""
    return not of or f"{name} {severity}".startswith(of)


def write_controls(work: Path, wanted: Sequence[TRIAL], right: Sequence[dict[str, Any]], workers: int) -> None:
    """Write the good and the bad control of each criterion of the suite, given the rows of all runs that stand."""
    promise = Contract.load(CONTRACT)
    for name in promise.claims:
        faulty = FAULTY[name]
        shown = [row for row in right if begins(row["scenario"], row["severity"], faulty.of)]
        with faulty.planted():
            some = [one for one in wanted if faulty.of and begins(one[0].name, one[0].severity, faulty.of)]
            wrong = diagnosed(work, some, workers) if some else shown[:UNFINISHED]
        for side, rows in (("good", shown), ("bad", wrong)):
            with tempfile.TemporaryDirectory(prefix="sovereign-controls-") as place:
                intent = begun(promise, Path(place), f"recorded as a control: {name} {side}")
                journal = Journal(Path(place) / "rows", intent.run)
                for row in rows:
                    if faulty.shown(ScenarioRow(run=intent.run, **row)):
                        journal.log("scenario", **row)
                journal.close()
                target = ROOT / CONTROLS / name / side
                shutil.rmtree(target, ignore_errors=True)
                (target / "rows").mkdir(parents=True)
                marked = sealed({**intent.plain(), "overrides": [f"recorded as a control: {side}"]})
                write_atomic(target / "intent.json", pretty(marked))
                shutil.copyfile(Path(place) / "rows/scenario.jsonl", target / "rows/scenario.jsonl")
            print(f"{target.relative_to(ROOT)}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--only", default="")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--controls", action="store_true")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    work, wanted = prepared(given.work.resolve()), trials(given.only)
    if given.minutes > 0:
        train_missing(work, wanted, given.minutes)
    if not any(stands(work, trial) for trial in wanted):
        sys.exit("no run stands yet: give --minutes, or none")
    command = shlex.join(["python", "benchmarks/diagnosis.py", "--work", "FOLDER", "--record"])
    intent = begun(Contract.load(CONTRACT), ROOT, command) if given.record else None  # frozen before anything is said
    diagnoses = diagnosed(work, wanted, given.workers)
    if given.controls:
        write_controls(work, wanted, diagnoses, given.workers)
    if intent:
        folder = evidence(intent, work, wanted, diagnoses)
        print(folder.relative_to(ROOT), file=sys.stderr)
        found = read_folder(folder, folder.name)
        assert found.intent is not None
        observed = Observed(found.intent, found.rows)
    else:
        with tempfile.TemporaryDirectory() as place:
            intent = begun(Contract.load(CONTRACT), Path(place), "")
        observed = Observed(intent, {"scenario": tuple(ScenarioRow(run=intent.run, **row) for row in diagnoses)})
    rows = observed.of(ScenarioRow)
    measured, missing = measure(observed, suite.METRICS)
    if given.svg:
        write_atomic(given.svg, picture(rows).encode())
    if given.json:
        table = suite.confusion(rows)
        print(json.dumps({
            "measurements": {one.metric: [one.value, one.low, one.high, one.n] for one in measured}, "missing": missing,
            "confusion": {claim: {truth: dict(counts) for truth, counts in truths.items()} for claim, truths in table.items()},
            "recall": {claim: [one.value, one.low, one.high, one.n] for claim, one in suite.recalls(rows).items()},
            "cost": suite.costs(rows),
            "power": {name: [[size, one.value, one.low, one.high, one.n] for size, one in curve] for name, curve in suite.power(rows).items()},
            "mistakes": [line for row in suite.counted(rows) for line in mistakes(row)],
        }, indent=1))  # fmt: skip
    else:
        print(tables(rows))
        print()
        for one in measured:
            print(f"{one.metric:28}{one.value:8.3f} [{one.low:.3f}, {one.high:.3f}]  n={one.n}  {one.method}")
        for name, why in missing.items():
            print(f"{name:28}{why}")


if __name__ == "__main__":
    main()
