"""The status of every criterion of a spec, as a pure function of values.

It is total (every criterion has one status), independent of the order of its inputs, and monotone:
removing support never improves a status, adding a falsifier or an unconcluded intent never does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sovereign.canonical import shown
from sovereign.gate.admission import Current, Finding, VerifiedRun
from sovereign.gate.evaluation import (
    CriterionStatus,
    Evaluation,
    FindingNote,
    ObligationStatus,
    Reason,
    RunNote,
    Status,
    WaiverNote,
)  # fmt: skip
from sovereign.gate.obligations import Result, answered, result, weigh
from sovereign.spec.amendment import Amendment, Waiver
from sovereign.spec.criterion import Criterion, Spec
from sovereign.spec.diff import classify

GONE = Current(code="", model=None, evaluator="")


def judge(
    spec: Spec,
    runs: Sequence[VerifiedRun],
    subjects: Mapping[str, Current],
    now: datetime,
    *,
    spec_path: str = "",
    amendments: Sequence[Amendment] = (),
    waivers: Sequence[Waiver] = (),
    unproven: Mapping[str, str] | None = None,
    broken: Mapping[str, str] | None = None,
    findings: Sequence[Finding] = (),
) -> Evaluation:
    """Return what the evidence makes of every criterion.

    `subjects` holds each contract's subjects as they stand now; `unproven` says of a criterion why its
    evaluator's passes may not be believed (a control that did not come out; what it falsified stays
    falsified), `broken` why it may not stand as it does (loosened without an amendment); `findings` are
    those of no run.
    """
    ordered = sorted(runs, key=lambda run: (run.intent.written if run.intent else "", run.name))
    mine = [run for run in ordered if run.intent is None or run.intent.spec == spec.spec]
    statuses = [
        _criterion(
            spec,
            one,
            mine,
            subjects.get(one.contract, GONE),
            now,
            amendments,
            waivers,
            (unproven or {}).get(one.id),
            (broken or {}).get(one.id),
        )
        for one in spec.criteria
    ]
    statuses += [_tombstone(one.id, one.category, one.amendment, amendments, mine) for one in spec.withdrawn]
    statuses += _dropped(spec, mine)
    return Evaluation(
        spec=spec.spec,
        version=spec.version,
        spec_path=spec_path,
        now=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        criteria=tuple(statuses),
        runs=tuple(_note(run, now) for run in mine),
        findings=tuple(
            FindingNote(kind=one.kind, path=one.path, message=one.message)
            for one in (*findings, *(found for run in mine for found in run.findings))
        ),
        expired_waivers=tuple(sorted(one.id for one in waivers if one.expires < now.date() and _missed(one, statuses))),
    )


def _criterion(
    spec: Spec, criterion: Criterion, runs: Sequence[VerifiedRun], current: Current, now: datetime,
    amendments: Sequence[Amendment], waivers: Sequence[Waiver], unproven: str | None,
    broken_by: str | None,
) -> CriterionStatus:  # fmt: skip
    touching = [run for run in runs if run.claims(criterion)]
    sound = [run for run in touching if not run.findings and run.intent is not None]
    binding = [run for run in sound if run.intent and run.intent.confirmatory]
    concluded = [run for run in binding if _decides(run)]
    history = _History(criterion, amendments)

    obligations = []
    for seed, slice_, environment in criterion.expanded():
        here = [
            run for run in concluded
            if run.intent and run.intent.seed == seed and environment.split()[0] in ("any", run.intent.environment.device)
        ]  # fmt: skip
        now_held = [run for run in here if history.carries(run)]
        once_held = [run for run in here if not history.carries(run)]
        results = [result(run, criterion, slice_, current, now, environment) for run in now_held]
        results += history.standing_falsifiers(once_held, slice_, current, now)
        outdated = history.outdated(once_held, slice_, current, now)
        if unproven:  # then no pass counts, neither now nor as an answer to a failure
            results, outdated = [one for one in results if one.fails], []
        obligations.append(weigh(criterion, seed, slice_, environment, results, outdated, current))

    status = _roll_up(obligations)
    reasons = _told(obligations)
    strays = history.strays(concluded, current, now, believed=not unproven)
    if strays and status != "FALSIFIED":
        status = "FALSIFIED"
        text = f"{strays[-1].run.name} failed it before it was asked of other seeds, slices or environments"
        reasons = (Reason(code="FAILS", text=text), *reasons)
    unconcluded = [run for run in binding if run.unconcluded(now)]
    if unconcluded and status == "DISCHARGED":
        status = "PARTIAL"
        reasons = (
            Reason(code="UNCONCLUDED", text=f"{len(unconcluded)} run(s) unconcluded: {unconcluded[0].name}"),
            *reasons,
        )
    broken = [found for run in touching for found in run.findings]
    hidden = history.hidden_results(sound) + ([broken_by] if broken_by else [])
    if broken or hidden:
        status = "INVALID"
        reasons = (
            *(Reason(code=found.kind.upper(), text=str(found)) for found in broken[:3]),
            *(Reason(code="INTEGRITY", text=text) for text in hidden),
        )
    if unproven:
        reasons = (Reason(code="UNPROVEN", text=unproven), *reasons)
    if any(run.intent and history.reevaluated(run) for run in concluded):
        reasons = (
            *reasons,
            Reason(code="RE_EVALUATED", text="evidence from before the bound was tightened, judged by the new one"),
        )
    measured = next((one.measured for one in obligations if one.measured and one.status == status), None)
    return CriterionStatus(
        id=criterion.id, title=criterion.title, category=criterion.category, contract=criterion.contract,
        stage="active" if history.was_active(binding) else criterion.stage, metric=criterion.metric, unit=spec.metrics[criterion.metric].unit, op=criterion.op,
        bound=criterion.bound, digest=criterion.digest, status=status, reasons=reasons, obligations=tuple(obligations),
        measured=measured or next((one.measured for one in obligations if one.measured), None),
        waiver=_waiver(criterion, status, waivers, now),
        evidence=tuple(sorted(run.digest for run in concluded)),
        exploratory=sum(1 for run in sound if run.statement) - len([run for run in binding if run.statement]),
        amended_after_results=history.after_results,
        was_falsified=history.once_falsified(concluded, current, now),
        discharge=_command(criterion, binding),
    )  # fmt: skip


def _command(criterion: Criterion, runs: Sequence[VerifiedRun]) -> str:
    """Return what would show it: our own run, or what the latest evidence gives where another program trained."""
    latest = runs[-1].intent if runs else None
    if latest is not None and latest.origin != "run":
        return shown(latest.command)
    return f"sovereign run --contract contracts/{criterion.contract}.yaml"


def _decides(run: VerifiedRun) -> bool:
    """Say whether a run's measurements may count: it closed, or it was given up with all its training done.

    Of the second kind only failures count (`Result.passes`): giving up must not make one vanish.
    """
    if run.statement is None or run.intent is None:
        return False
    return run.statement.outcome != "abandoned" or run.statement.steps == run.intent.planned.steps


def _roll_up(obligations: Sequence[ObligationStatus]) -> Status:
    """Return one status for many: the first rule that matches."""
    states = [one.status for one in obligations]
    if "FALSIFIED" in states:
        return "FALSIFIED"
    if all(state == "DISCHARGED" for state in states):
        return "DISCHARGED"
    if "DISCHARGED" in states or "PARTIAL" in states:
        return "PARTIAL"
    return "STALE" if "STALE" in states else "OPEN"


def _told(obligations: Sequence[ObligationStatus]) -> tuple[Reason, ...]:
    """Return the reasons once each; with several obligations, what is shown and what is missing, by name."""
    reasons: list[Reason] = []
    if len(obligations) > 1:
        shown = [one for one in obligations if one.status == "DISCHARGED"]
        missing = "; ".join(one.name for one in obligations if one.status != "DISCHARGED")
        text = f"{len(shown)}/{len(obligations)} obligations" + (f", missing {missing}" if missing else "")
        reasons.append(Reason(code="COVERAGE", text=text))
    for one in obligations:
        reasons += [reason for reason in one.reasons if reason not in reasons]
    return tuple(reasons)


@dataclass(frozen=True, slots=True)
class _Form:
    """A criterion as runs froze it, what it means, and whether what was shown of it holds for its present form."""

    criterion: Criterion
    digest: str
    carries: bool


class _History:
    """What became of a criterion's earlier forms: which evidence carries over, and what must not be forgotten."""

    def __init__(self, criterion: Criterion, amendments: Sequence[Amendment]):
        self.criterion = criterion
        self.now = criterion.digest
        self.amendments = [one for one in amendments if one.criterion == criterion.id]
        # earlier digests that amendments lead away from, as far as the present one
        self.amended: set[str] = set()
        ends = {self.now}
        for _ in self.amendments:
            ends |= {one.from_ for one in self.amendments if one.to in ends}
        self.amended = ends - {self.now}
        # thousands of runs of one contract froze the same form: what was said of it once is kept beside it
        self._forms: dict[int, _Form] = {}

    @property
    def after_results(self) -> int:
        return sum(1 for one in self.amendments if one.results_seen)

    def form(self, run: VerifiedRun) -> _Form:
        """Return the criterion as the run froze it."""
        assert run.intent is not None
        frozen = run.intent.criteria[self.criterion.id]
        known = self._forms.get(id(frozen))
        if known is None:
            held = classify(frozen, self.criterion) in ("same", "editorial", "tighten")
            known = self._forms[id(frozen)] = _Form(
                frozen, frozen.digest, held
            )  # it keeps the form: its id stays its own
        return known

    def reevaluated(self, run: VerifiedRun) -> bool:
        form = self.form(run)
        return form.carries and form.digest != self.now

    def carries(self, run: VerifiedRun) -> bool:
        """Say whether the run was held to this form of the criterion, or to one that was only tightened since."""
        return self.form(run).carries

    def _by_its_own_bound(self, run: VerifiedRun, slice_: str, current: Current, now: datetime) -> Result:
        return result(run, self.form(run).criterion, slice_, current, now)

    def standing_falsifiers(
        self, runs: Sequence[VerifiedRun], slice_: str, current: Current, now: datetime
    ) -> list[Result]:
        """Return failures under an earlier form that no amendment has owned up to: they still count."""
        held = [self._by_its_own_bound(run, slice_, current, now) for run in runs]
        return [one for one in held if one.fails and self.form(one.run).digest not in self.amended]

    def strays(self, runs: Sequence[VerifiedRun], current: Current, now: datetime, believed: bool) -> list[Result]:
        """Return unanswered failures under an earlier form, whatever seed, slice or environment is asked for now.

        Passes answer them only where they are believed.
        """
        earlier = [run for run in runs if not self.carries(run)]
        failing = [
            one
            for run in earlier
            for slice_ in self.form(run).criterion.obligations.slices
            for one in self.standing_falsifiers([run], slice_, current, now)
        ]
        if not failing:
            return []
        passing = [
            one
            for run in runs
            if believed and self.carries(run)
            for slice_ in self.criterion.obligations.slices
            if (one := result(run, self.criterion, slice_, current, now)).passes
        ]
        return [one for one in failing if not answered(one, failing, passing, current)]

    def was_active(self, runs: Sequence[VerifiedRun]) -> bool:
        """Say whether a run was held to it as active, and no amendment made it a draft: it still gates then."""
        forms = map(self.form, runs)
        return any(one.criterion.stage == "active" and one.digest not in self.amended for one in forms)

    def outdated(self, runs: Sequence[VerifiedRun], slice_: str, current: Current, now: datetime) -> list[Result]:
        held = [self._by_its_own_bound(run, slice_, current, now) for run in runs]
        return [one for one in held if one.passes]

    def once_falsified(self, runs: Sequence[VerifiedRun], current: Current, now: datetime) -> tuple[str, ...]:
        """Return the earlier digests under which a run failed; they are shown for ever."""
        found = {
            self.form(run).digest
            for run in runs
            if self.form(run).digest != self.now
            for slice_ in self.form(run).criterion.obligations.slices
            if self._by_its_own_bound(run, slice_, current, now).fails
        }
        return tuple(sorted(found))

    def hidden_results(self, runs: Sequence[VerifiedRun]) -> list[str]:
        """Return a sentence for each amendment that keeps quiet about results which existed."""
        told = []
        for one in self.amendments:
            seen = {run.digest for run in runs if run.statement and self.form(run).digest == one.from_}
            # a later amendment of the same form may own up to what an earlier one could not know
            listed = {digest for other in self.amendments if other.from_ == one.from_ for digest in other.results_seen}
            hidden = sorted(seen - listed)
            if hidden:
                told.append(
                    f"amendment {one.id} leaves out {len(hidden)} result(s) under the old criterion, {hidden[0]} first"
                )
        return told


def _waiver(criterion: Criterion, status: Status, waivers: Sequence[Waiver], now: datetime) -> WaiverNote | None:
    if criterion.stage == "draft":
        return None
    for one in sorted(waivers, key=lambda waiver: waiver.id):
        in_force = one.granted <= now.date() <= one.expires
        if in_force and (one.criterion, one.digest, one.state) == (criterion.id, criterion.digest, status):
            return WaiverNote(
                id=one.id, state=status, expires=one.expires.isoformat(), owner=one.owner, approver=one.approver, reason=one.reason
            )  # fmt: skip
    return None


def _missed(waiver: Waiver, statuses: Sequence[CriterionStatus]) -> bool:
    """Say whether what an expired waiver let pass still stands so, and nothing else lets it pass."""
    held = (waiver.criterion, waiver.digest, waiver.state)
    return any((one.id, one.digest, one.status) == held and one.waiver is None for one in statuses)


def _tombstone(
    id_: str, category: str, amendment: str, amendments: Sequence[Amendment], runs: Sequence[VerifiedRun]
) -> CriterionStatus:
    held = [(run, run.intent.criteria[id_].digest) for run in runs if run.intent and id_ in run.intent.criteria]
    reason = Reason(
        code="INTEGRITY", text=f"withdrawn, but no amendment {amendment} that withdraws it stands in spec/amendments"
    )
    for one in amendments:
        if one.id != amendment or one.criterion != id_ or one.change != "withdraw":
            continue
        hidden = sorted({run.digest for run, _ in held if run.statement} - set(one.results_seen))
        if held and one.from_ not in {digest for _, digest in held}:
            reason = Reason(
                code="INTEGRITY", text=f"amendment {amendment} withdraws another form than any run was held to"
            )
        elif hidden:
            reason = Reason(
                code="INTEGRITY", text=f"amendment {amendment} leaves out {len(hidden)} result(s), {hidden[0]} first"
            )
        else:
            return _without_criterion(
                id_, category, "WITHDRAWN", Reason(code="WITHDRAWN", text=f"by amendment {amendment}")
            )
    return _without_criterion(id_, category, "INVALID", reason)


def _dropped(spec: Spec, runs: Sequence[VerifiedRun]) -> list[CriterionStatus]:
    """Return an INVALID line for every criterion that evidence was held to and the spec no longer knows."""
    known = spec.by_id.keys() | {one.id for one in spec.withdrawn}
    lost: dict[str, tuple[str, str]] = {}
    for run in runs:
        for id_, criterion in (run.intent.criteria if run.intent else {}).items():
            if id_ not in known:
                lost.setdefault(id_, (criterion.category, run.name))
    return [
        _without_criterion(id_, category, "INVALID", Reason(
            code="INTEGRITY", text=f"run {run} was held to it; the spec dropped it without withdrawing it by amendment"))
        for id_, (category, run) in sorted(lost.items())
    ]  # fmt: skip


def _without_criterion(id_: str, category: str, status: Status, reason: Reason) -> CriterionStatus:
    return CriterionStatus(
        id=id_, title="", category=category, contract="", stage="active", metric="", unit="", op="", bound="", digest="",
        status=status, reasons=(reason,),
    )  # fmt: skip


def _note(run: VerifiedRun, now: datetime) -> RunNote:
    if run.findings or run.intent is None:
        return RunNote(run=run.name, state="invalid", reason=str(run.findings[0]) if run.findings else "no intent")
    if run.statement is None:
        return RunNote(
            run=run.name,
            state="unconcluded" if run.unconcluded(now) else "open",
            origin=run.intent.origin,
            seed=run.intent.seed,
            exploratory=run.intent.exploratory_because,
        )
    return RunNote(
        run=run.name, state=run.statement.outcome, origin=run.intent.origin, seed=run.intent.seed, steps=run.statement.steps,
        exploratory=run.intent.exploratory_because, reason=run.statement.reason,
    )  # fmt: skip
