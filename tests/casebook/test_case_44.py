"""CASE-44 Six causes, one plateau.

Stage: review
Outcome: HYPOTHESIS until an applied intervention changes the outcome beside a reference run; then SUPPORTED or REFUTED
"""

from __future__ import annotations

from contending import contender, edited, promise, said
from fabric import CONTRACT

from sovereign.comparison.compare import Contender
from sovereign.evidence.intent import Intent
from sovereign.foresight import Decided, decided

# four stories of one plateau at 3.5 nats; the planted cause is another: a gradient that one layer never sees
CAUSES = {
    "rate": ("training.schedule.peak", ("peak: 1.0e-3", "peak: 2.0e-3")),
    "width": ("model.hidden", ("hidden: 16", "hidden: 32")),
    "batch": ("training.sequences", ("sequences: 2", "sequences: 4")),
    "data": ("data.source", ('include: ["*.txt"]', 'include: ["*.md"]')),
}
STORIES = "hypotheses:\n" + "".join(
    f"  - {{id: {name}, claim: it was the {name}, otherwise: it was not the {name}, intervention: [{key}],\n"
    f"     decides_by: {{contract: {name}, metric: validation/loss, op: '<', bound: 3.3}}}}\n"
    for name, (key, _) in CAUSES.items()
)
HELD = promise(CONTRACT + STORIES)
PLATEAU = contender(HELD, said(HELD))


def intervened(name: str, shift: float, **rows: object) -> Contender:
    """Return the run of one story's intervention, its loss moved by `shift`."""
    edit = CAUSES[name][1]
    promised = promise(edited(edit, ("contract: toy", f"contract: {name}")), 2)
    tokens = [
        (kind, {**values, "tokens": 64} if kind == "step" and name == "batch" else values)
        for kind, values in said(promised, noise=2, shift=shift, **rows)  # type: ignore[arg-type]
    ]
    return contender(promised, tokens)


def judged(name: str, runs: list[Contender], intents: tuple[Intent, ...] = (HELD,)) -> Decided:
    one = next(one for one in HELD.promise.hypotheses if one.id == name)
    return decided("toy", one, [PLATEAU], runs, intents)


def test_stories_stay_hypotheses_while_nobody_intervenes() -> None:
    """Four explanations of a plateau, none of them tried: four hypotheses, and nothing concluded."""
    assert {"HYPOTHESIS"} == {judged(name, []).state for name in CAUSES}


def test_interventions_that_change_nothing_refute_their_stories() -> None:
    """Each is tried alone, and the plateau stays: every story is REFUTED, and what does hold instead is said."""
    found = {name: judged(name, [intervened(name, 0.0)]) for name in CAUSES}

    assert dict.fromkeys(CAUSES, "REFUTED") == {name: one.state for name, one in found.items()}
    assert "it was not the rate" in found["rate"].sentence


def test_an_intervention_that_was_never_applied_decides_nothing() -> None:
    """The rate that was asked for never reached the optimizer: neither for nor against the story (CASE-16)."""
    found = judged("rate", [intervened("rate", 0.0, rate=lambda step: 1e-3)])

    assert "HYPOTHESIS" == found.state
    assert "the change never reached it" in found.why


def test_an_applied_intervention_that_changes_the_outcome_supports_its_story() -> None:
    """The clean twin: the plateau gives way under one change alone, beside its reference."""
    found = judged("rate", [intervened("rate", -0.6)])

    assert ("SUPPORTED", True) == (found.state, "it was the rate" in found.sentence)


def test_runs_that_contradict_each_other_decide_nothing() -> None:
    """One run breaks the plateau and another does not: the story stays one."""
    found = judged("rate", [intervened("rate", -0.6), intervened("rate", 0.0)])

    assert ("HYPOTHESIS", "the runs of rate contradict each other") == (found.state, found.why)


def test_a_story_told_after_its_run_is_not_decided_by_it() -> None:
    """Nothing had frozen the hypothesis when the run was promised."""
    assert "HYPOTHESIS" == judged("rate", [intervened("rate", -0.6)], ()).state
