"""Lint: whether a criterion can fail at all, and whether anything could ever show it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from sovereign.spec.criterion import Criterion, Spec


def faults(
    spec: Spec, metrics: Collection[str], claimed: Mapping[str, Collection[str]], seeds: Mapping[str, Collection[int]],
    slices: Mapping[str, Collection[str]],
) -> Iterator[tuple[str, str]]:  # fmt: skip
    """Yield (criterion or metric, what is wrong) for everything that keeps a spec from being falsifiable.

    `metrics` are those that exist, `slices` the parts that some are measured of beside all rows, each with those
    metrics; `claimed` maps each contract to its claims, `seeds` to its seeds.
    """
    for name in sorted(spec.metrics.keys() - set(metrics)):
        yield name, "no function computes this metric"
    for name in sorted(spec.metrics.keys() - {one.metric for one in spec.criteria}):
        if spec.metrics[name].better == "neither":
            yield name, "no criterion reads it, and it has no better end: nothing would come of it"
    for one in spec.criteria:
        for told in (trivial(one, spec), _unclaimed(one, claimed, seeds), *_unmeasured(one, slices)):
            if told:
                yield one.id, told


def _unmeasured(one: Criterion, slices: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield why an obligation asks for what no run records."""
    unknown = sorted(name for name in set(one.obligations.slices) - {"all"} if one.metric not in slices.get(name, ()))
    if unknown:
        yield f"asks for slices {unknown}; rows are measured whole, as slice `all`: nothing could show it"
    if one.obligations.assurance in ("reproduced", "witnessed"):
        yield f"asks for {one.obligations.assurance}; runs here are reported or recomputed: nothing could show it"
    loose = [place for place in one.obligations.environments if place in ("any", "cpu", "cuda")]
    if one.environment == "exact" and loose:
        yield (
            f"is exact about the environment, and asks for {loose[0]!r}; under obligations.environments, name the class "
            "that runs record: device, accelerator, minor versions, as in `cpu python-3.12 torch-2.13`"
        )


def trivial(criterion: Criterion, spec: Spec) -> str:
    """Return why a bound cannot fail, or cannot hold, anywhere in its metric's range; nothing where it can do both."""
    low, high = spec.metrics[criterion.metric].range
    bound = criterion.bound
    if isinstance(bound, str):
        return "" if len(spec.metrics[criterion.metric].words) > 1 else "its metric knows only this word"
    if criterion.op in ("<=", "<"):
        if high is not None and (bound >= high if criterion.op == "<=" else bound > high):
            return f"{criterion.sentence} holds for every value up to {high}: it cannot fail"
        if low is not None and (bound < low if criterion.op == "<=" else bound <= low):
            return f"{criterion.sentence} holds for no value from {low} on: it cannot pass"
    if criterion.op in (">=", ">"):
        if low is not None and (bound <= low if criterion.op == ">=" else bound < low):
            return f"{criterion.sentence} holds for every value from {low} on: it cannot fail"
        if high is not None and (bound > high if criterion.op == ">=" else bound >= high):
            return f"{criterion.sentence} holds for no value up to {high}: it cannot pass"
    if criterion.op == "==" and ((low is not None and bound < low) or (high is not None and bound > high)):
        return f"{criterion.sentence} lies outside the range {low} to {high}: it cannot pass"
    return ""


def _unclaimed(one: Criterion, claimed: Mapping[str, Collection[str]], seeds: Mapping[str, Collection[int]]) -> str:
    if one.contract not in claimed:
        return f"no contract {one.contract} stands in contracts/: nothing could show it"
    if one.id not in claimed[one.contract]:
        return f"contract {one.contract} does not claim it: no run would be held to it"
    missing = sorted(set(one.obligations.seeds) - set(seeds[one.contract]))
    return f"asks for seeds {missing}, which contract {one.contract} does not have" if missing else ""
