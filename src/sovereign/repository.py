"""A repository as it stands: its specs, contracts, amendments, waivers and runs, and what they evaluate to."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from sovereign.canonical import Document, Keys, Malformed, Problem, Record, read, validate
from sovereign.contract.contract import Contract
from sovereign.controls import Control, why_unproven
from sovereign.evidence.folder import run_folders
from sovereign.gate.admission import Current, Finding, VerifiedRun, instant
from sovereign.gate.evaluation import Evaluation
from sovereign.gate.obligations import result
from sovereign.gate.status import GONE, judge
from sovereign.remembered import memory
from sovereign.signing import Policy, checked, policy_at, signers_at
from sovereign.spec.amendment import Amendment, Waiver
from sovereign.spec.criterion import Spec
from sovereign.subjects import code_digest, evaluator_digest, files_digest, source_digest
from sovereign.verification import twins

RecordType = TypeVar("RecordType", bound=Record)
Told = Callable[[str, int, int], None]
CLOCKS_DIFFER = timedelta(hours=1)  # between the machine that ran and the one that gates


@dataclass(frozen=True)
class Located:
    """A spec and the file that it was read from, whose places its reports point to."""

    path: str
    spec: Spec
    document: Document

    def line(self, criterion: str) -> int:
        """Return the line of the file on which a criterion begins."""
        ids = [one.id for one in self.spec.criteria]
        return self.document.place(("criteria", ids.index(criterion)))[0] if criterion in ids else 1


@dataclass(frozen=True)
class Repository:
    """Everything a gate needs that stands in files."""

    root: Path
    specs: tuple[Located, ...]
    contracts: dict[str, Contract]
    amendments: tuple[Amendment, ...]
    waivers: tuple[Waiver, ...]
    problems: tuple[Problem, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(Finding("schema", f"{one.path}:{one.line}:{one.column}", one.message) for one in self.problems)


def find_root(start: Path) -> Path:
    """Return the nearest folder upward that holds spec/, or `start` itself where none does."""
    start = start.resolve()
    return next((place for place in (start, *start.parents) if (place / "spec").is_dir()), start)


def open_repository(root: Path) -> Repository:
    """Return what stands in the repository at `root`; what cannot be read stands in `problems`, with its place."""
    problems: list[Problem] = []

    def all_of(kind: type[RecordType], folder: str) -> list[tuple[str, RecordType, Document]]:
        found = []
        for path in sorted((root / folder).glob("*.y*ml")):
            name = path.relative_to(root).as_posix()
            try:
                document = read(path, name)
                found.append((name, validate(kind, document), document))
            except Malformed as error:
                problems.extend(error.problems)
        return found

    all_specs = all_of(Spec, "spec")
    specs = tuple(Located(name, spec, document) for name, spec, document in all_specs)
    contracts = all_of(Contract, "contracts")
    repository = Repository(
        root=root,
        specs=specs,
        contracts={contract.contract: contract for _, contract, _ in contracts},
        amendments=tuple(one for _, one, _ in all_of(Amendment, "spec/amendments")),
        waivers=tuple(one for _, one, _ in all_of(Waiver, "spec/waivers")),
        problems=(),
    )
    problems += _named_twice([(name, one.spec, document) for name, one, document in all_specs], "spec")
    problems += _named_twice([(name, one.contract, document) for name, one, document in contracts], "contract")
    for name, contract, document in contracts:
        problems += claim_problems(contract, document, name, specs)
    problems += signers_at(root)[1]
    return replace(repository, problems=tuple(problems))


def _named_twice(files: Sequence[tuple[str, str, Document]], key: str) -> list[Problem]:
    """Return a problem for each file that calls itself what another one is called already."""
    first: dict[str, str] = {}
    return [
        document.problem((key,), f"{name} is what {first[name]} is called; a name means one file")
        for path, name, document in files
        if first.setdefault(name, path) != path
    ]


def claim_problems(contract: Contract, document: Document, name: str, specs: Sequence[Located]) -> list[Problem]:
    """Return what is wrong between a contract and the specs: unknown specs and criteria, another contract's criteria."""
    located = next((one for one in specs if one.path == contract.spec), None)
    if located is None:
        known = ", ".join(one.path for one in specs) or "none"
        return [document.problem(("spec",), f"no readable spec at {contract.spec}; there is {known}")]
    problems = []
    if Path(name).stem != contract.contract:
        problems.append(
            document.problem(("contract",), f"{contract.contract} should be called {contract.contract}.yaml")
        )
    for index, claim in enumerate(contract.claims):
        criterion = located.spec.by_id.get(claim)
        if criterion is None:
            near = difflib.get_close_matches(claim, located.spec.by_id, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(document.problem(("claims", index), f"{contract.spec} holds no criterion {claim}{hint}"))
        elif criterion.contract != contract.contract:
            problems.append(
                document.problem(("claims", index), f"{claim} is to be shown by contract {criterion.contract}")
            )
    foreseen: list[tuple[Keys, str]] = [
        (("forecasts", at, "metric"), one.metric) for at, one in enumerate(contract.forecasts)
    ]
    for at, one in enumerate(contract.hypotheses):
        foreseen.append((("hypotheses", at, "decides_by", "metric"), one.decides_by.metric))
    for keys, metric in foreseen:
        if metric not in located.spec.metrics:
            close = difflib.get_close_matches(metric, located.spec.metrics, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            problems.append(document.problem(keys, f"{contract.spec} declares no metric {metric}{hint}"))
    return problems


def quiet(part: str, done: int, total: int) -> None:
    """Say nothing about progress."""


def verified_runs(root: Path, told: Told = quiet, policy: Policy | None = None) -> list[VerifiedRun]:
    """Return every run under evidence/, verified, compared with each other, and its signatures checked by a policy.

    Without one, the policy is the one that stands under `root`.
    """
    policy = policy or policy_at(root)
    folders = run_folders(root / "evidence")
    runs = []
    with memory() as known:
        for number, path in enumerate(folders, 1):
            run = checked(known.verified(path, path.relative_to(root).as_posix()), path, policy)
            scripts = run.intent.scripts if run.intent else ()
            runs.append(replace(run, scripts=files_digest(root, scripts)) if scripts else run)
            told("verify", number, len(folders))
    return _without_twins(runs)


def controls(repository: Repository, spec: Spec) -> dict[str, tuple[Control, ...]]:
    """Return criterion -> its good and its bad control, for every active criterion of a spec."""
    with memory() as known:
        return {one.id: known.controls(repository.root, spec, one) for one in spec.criteria if one.stage == "active"}


def unproven(repository: Repository, spec: Spec) -> dict[str, str]:
    """Return criterion -> why its passes may not be believed: its controls, or that they are missing."""
    demanded = spec.controls == "required"
    found = controls(repository, spec)
    return {name: why for name, these in found.items() if (why := why_unproven(these, demanded))}


def _without_twins(runs: list[VerifiedRun]) -> list[VerifiedRun]:
    losses = {run.name: (run.intent.seed, run.losses) for run in runs if run.intent and run.losses}
    told = twins(losses)
    return [
        replace(run, findings=(*run.findings, Finding("integrity", f"evidence/{run.name}", told[run.name])))
        if run.name in told
        else run
        for run in runs
    ]


def current_subjects(repository: Repository) -> dict[str, Current]:
    """Return the subjects of every contract as they stand now."""
    return {
        name: Current(
            code=code_digest(),
            model=contract.subject,
            evaluator=evaluator_digest(),
            source=source_digest(contract, repository.root),
        )
        for name, contract in repository.contracts.items()
    }


def evaluate(
    repository: Repository, now: datetime, told: Told = quiet, *,
    runs: Sequence[VerifiedRun] | None = None, broken: Mapping[str, str] | None = None, findings: Sequence[Finding] = (),
    subjects: Mapping[str, Current] | None = None,
) -> list[Evaluation]:  # fmt: skip
    """Return the evaluation of every spec in the repository.

    A comparison with a base hands in the runs it has marked, the criteria that may not stand as they do, and
    what else it found; without one, the runs are those under evidence/.
    """
    if runs is None:
        runs = verified_runs(repository.root, told)
    subjects = current_subjects(repository) if subjects is None else subjects
    runs = [_in_time(run, now) for run in runs]
    names = {located.spec.spec for located in repository.specs}
    lost = [run for run in runs if run.intent is not None and names and run.intent.spec not in names]
    renamed = "was held to a spec that no file under spec/ is any more"
    findings = (*findings, *(Finding("integrity", f"evidence/{run.name}", renamed) for run in lost))
    return [
        judge(
            located.spec,
            runs,
            subjects,
            now,
            spec_path=located.path,
            amendments=repository.amendments,
            waivers=repository.waivers,
            unproven=unproven(repository, located.spec),
            broken=broken,
            findings=(*repository.findings, *findings),
        )
        for located in repository.specs
    ]


def _in_time(run: VerifiedRun, now: datetime) -> VerifiedRun:
    """Return the run, with a finding where it says that it took place later than now."""
    said = [run.intent.written if run.intent else "", run.statement.finished if run.statement else ""]
    late = [one for one in said if one and instant(one) > now + CLOCKS_DIFFER]
    if not late:
        return run
    found = Finding("integrity", f"evidence/{run.name}", f"is dated {late[0]}, which is still to come")
    return replace(run, findings=(*run.findings, found))


def falsifying(repository: Repository, claims: Sequence[str], now: datetime) -> tuple[str, ...]:
    """Return the digests of the evidence that contradicts any of the claims: what a new run of them answers."""
    runs = verified_runs(repository.root)
    subjects = current_subjects(repository)
    criteria = [
        located.spec.by_id[claim] for located in repository.specs for claim in claims if claim in located.spec.by_id
    ]
    found = {
        run.digest
        for criterion in criteria
        for run in runs
        if run.statement and not run.findings and run.intent and run.intent.confirmatory and run.claims(criterion)
        for slice_ in criterion.obligations.slices
        if result(run, criterion, slice_, subjects.get(criterion.contract, GONE), now).fails
    }
    return tuple(sorted(found))
