"""The parity check: preconditions, then comparisons that separate causes, then where the two part; told as rows."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor

from sovereign.model.decoder import Decoder
from sovereign.parity.compare import LEAST_PROMPTS, Incomparable, Logits, compared, every, relative
from sovereign.parity.continuing import continued, stepwise
from sovereign.parity.forward import (
    LOGITS,
    PRODUCTS,
    Forward,
    Place,
    Trace,
    forward,
    in_float32,
)
from sovereign.parity.llamacpp import LlamaCpp
from sovereign.parity.localise import Located, locate
from sovereign.parity.observed import of_llamacpp, of_torch
from sovereign.parity.packed import tensors
from sovereign.parity.rounding import Watch, near, tie_watch
from sovereign.quantization import noise
from sovereign.quantization.formats import FORMATS
from sovereign.shipping.export import converted
from sovereign.shipping.weights import HEAD, Weights

Log = Callable[..., None]  # kind, **values of a row
Told = Callable[[str, int, int], None]
Said = tuple[str, dict[str, Any]]  # a row that is to be logged
T = TypeVar("T")
LANES = 4  # prompts at once, each with logits of every forward
LOCATED_PROMPTS = 4
NOISE_PROMPTS, NOISE_DRAWS = 16, 2  # one draw of errors is too few to be a floor: it falls on few directions
NOISY = ("Q4_K", "Q6_K", "Q8_0", "F16")
CARRIED_OUT = ("implementation", "whole", "decode")  # the comparisons with what the candidate's engine computed


@dataclass(frozen=True)
class Checked:
    """What a check leaves beside its rows: obligations that were not shown, each named, and where the two part."""

    missing: tuple[str, ...]
    located: Located


def check(
    reference: Weights, candidate: Weights, prompts: Sequence[Sequence[int]], log: Log, told: Told, engine: LlamaCpp | None,
    missing: Sequence[str] = (),
) -> Checked:  # fmt: skip
    """Compare two models on prompts of token ids that both agree on; without `engine` our own forward is the candidate's.

    Raises Incomparable before anything is computed where there are too few prompts, or one cannot be carried out.
    """
    _require_prompts(reference, prompts)
    exact, single = forward(reference), forward(reference, dtype=torch.float32)
    theirs = forward(candidate)
    like = replace(theirs, engine_like=True)
    like_single = in_float32(like)
    noisy = _with_noise(reference, single, candidate.kinds)
    carrier = engine or candidate.decoder()
    observe = None if engine is None else of_llamacpp(engine, candidate.shape)
    asking = Lock()  # an engine answers one at a time
    name = engine.library.name if engine else ""
    names = {
        "golden": (f"{reference.origin}, float64", "float32"),
        "noise": (f"{reference.origin}, float64", "weights with random errors of the size expected"),
        "weights": (f"{reference.origin}, float64", f"{candidate.origin}, dequantized, float64"),
        "implementation": (f"{candidate.origin}, float64, activations as the engine rounds them", name or "torch"),
        "whole": (f"{reference.origin}, float64", f"{candidate.origin}, {name or 'torch float32'}"),
        "decode": (f"{candidate.origin}, in one go", "token by token"),
    }  # fmt: skip

    def of_prompt(number: int, ids: Sequence[int], stepped: Tensor) -> list[Said]:
        rows: list[Said] = []

        def say(comparison: str, one: Logits, two: Logits, **more: Any) -> None:
            first, second = names[comparison]
            by = {"engine": name} if comparison in CARRIED_OUT else {}
            about = {"comparison": comparison, "reference": first, "candidate": second, "document": document(ids), "tokens": len(ids)}  # fmt: skip
            rows.append(("parity", {**about, **_row(one, two), **by, **more}))

        wanted = every(ids, exact.run(ids))
        say("golden", wanted, every(ids, single.run(ids)))
        for one in noisy if number < NOISE_PROMPTS else ():
            say("noise", wanted, every(ids, one.run(ids)))
        say("weights", wanted, every(ids, theirs.run(ids)))
        if observe is None:
            assert isinstance(carrier, Decoder)
            with torch.no_grad():
                found = every(ids, carrier(torch.tensor([list(ids)]))[0])
            say("whole", wanted, found)
            say("decode", found, every(ids, stepped))
            return rows
        with asking:
            trace = observe(ids)
        found = every(ids, trace[(candidate.shape.layers, LOGITS.name)])
        tied: dict[Place, Tensor] = {}
        ours = every(ids, like.run(ids, tie_watch(like, tied)))
        say("implementation", ours, found, first_tie=_first(tied))
        say("whole", wanted, found)
        say("decode", found, every(ids, stepped))
        return [*rows, *_of_layers(like, like_single, trace, ids, name)]

    def begun() -> Iterator[Callable[[], list[Said]]]:
        steps = stepwise(carrier, prompts)
        for number, ids in enumerate(prompts):
            with asking:
                stepped = next(steps)
            yield partial(of_prompt, number, ids, stepped)

    for rows in _counted("parity", _in_lanes(begun()), len(prompts), told):
        for kind, values in rows:
            log(kind, **values)
    for both in _counted("parity: going on", continued(reference, carrier, prompts), len(prompts), told):
        log(
            "parity_greedy", document=document(both.prompt), engine=name, reference=both.reference, candidate=both.candidate,
            margin=tuple(map(_short, both.margin)),
        )  # fmt: skip
    both_stored = sum(tensor in reference.stored for tensor in candidate.stored)
    for tensor in _counted("parity: tensors", tensors(reference, candidate), both_stored, told):
        log("parity_tensor", **asdict(tensor))
    told("parity: operations", 0, 1)
    located = _locate(reference, candidate, prompts[:LOCATED_PROMPTS], engine)
    told("parity: operations", 1, 1)
    for place in located.locals:
        suspicions = tuple(one.what for one in located.suspicions[:3]) if place is located.first else ()
        layer, operation = place.place
        log(
            "parity_place", layer=layer, operation=operation, tensor=place.tensor, worst=_short(place.worst), mean=_short(place.mean),
            floor=_short(place.floor), allowed=_short(place.allowed), suspicions=suspicions, engine=name,
        )  # fmt: skip
    unseen = [f"operations that the candidate did not show: {', '.join(located.unseen)}"] if located.unseen else []
    return Checked((*missing, *unseen), located)


def _counted(part: str, work: Iterable[T], total: int, told: Told) -> Iterator[T]:
    """Yield work as it is done, and tell each piece once whoever asked for it has gone on to the next."""
    told(part, 0, total)
    for number, one in enumerate(work):
        yield one
        told(part, number + 1, total)


def _in_lanes(work: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Yield what each piece of work comes to, in order; a few run beside each other, with torch's threads shared out.

    Most operations of one prompt are too short to be worth sharing out among threads by themselves.
    """
    threads = torch.get_num_threads()
    lanes = min(LANES, threads)
    waiting: deque[Future[T]] = deque()
    torch.set_num_threads(threads // lanes)
    try:
        with ThreadPoolExecutor(lanes) as pool:
            for one in work:
                waiting.append(pool.submit(one))
                if len(waiting) > lanes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)


def as_stored(reference: Weights, kinds: dict[str, str]) -> Forward:
    """Return the forward of a reference whose tensors are put into a candidate's types, and rounded as its engine does.

    A tensor in a type that is not quantized here keeps its exact weights.
    """
    stored = {name: converted(kind, reference.tensor(name)) if kind.lower() in FORMATS else reference.tensor(name) for name, kind in kinds.items()}  # fmt: skip
    made = {name: tensor.double() for name, tensor in stored.items() if name in reference.stored}
    made.setdefault(HEAD, made[reference.holder(HEAD)])
    all_kinds = {**kinds, HEAD: kinds.get(reference.holder(HEAD), "F32")}
    return Forward(reference.shape, made, all_kinds, engine_like=True)


def _locate(
    reference: Weights, candidate: Weights, prompts: Sequence[Sequence[int]], engine: LlamaCpp | None
) -> Located:
    """Return where the candidate parts from the reference, which is first put into the candidate's types."""
    sound = as_stored(reference, candidate.kinds)
    if engine is not None:
        return locate(sound, of_llamacpp(engine, reference.shape), prompts)
    return locate(sound, of_torch(forward(candidate, engine_like=True, dtype=torch.float32)), prompts)


def document(ids: Sequence[int]) -> str:
    """Return the name of a prompt: the first 16 hex digits of the sha256 of its token ids."""
    return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()[:16]


def _require_prompts(reference: Weights, prompts: Sequence[Sequence[int]]) -> None:
    if len(prompts) < LEAST_PROMPTS:
        raise Incomparable(f"counts: {len(prompts)} prompts, where at least {LEAST_PROMPTS} are needed")
    short = [index for index, ids in enumerate(prompts) if len(ids) < 2]
    if short:
        raise Incomparable(f"counts: prompt {short[0]} has {len(prompts[short[0]])} tokens, where a loss needs two")
    long = [index for index, ids in enumerate(prompts) if len(ids) > reference.shape.context]
    if long:
        raise Incomparable(
            f"positions: prompt {long[0]} has {len(prompts[long[0]])} tokens, beyond the context of {reference.shape.context}"
        )
    if len({document(ids) for ids in prompts}) != len(prompts):
        raise Incomparable("counts: a prompt is given twice, and would be counted twice")


def _row(reference: Logits, candidate: Logits) -> dict[str, Any]:
    """Return the columns of a parity row; four significant digits hold every comparison made of them."""
    found = compared(reference, candidate)
    lists = {
        name: tuple(_short(value) for value in getattr(found, name).tolist())
        for name in ("relative_l2", "max_difference", "kl", "margin")
    }
    choice = int(reference.exact[-1].argmax())
    return {
        **lists,
        "cosine": tuple(round(value, 12) for value in found.cosine.tolist()),
        "agree": tuple(found.agree.tolist()),
        "reference_nll": found.reference_nll,
        "candidate_nll": found.candidate_nll,
        "targets": found.targets,
        "reference_first": float(reference.exact[-1].softmax(-1)[choice]),
        "candidate_first": float(candidate.exact[-1].softmax(-1)[choice]),
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _with_noise(reference: Weights, single: Forward, kinds: dict[str, str]) -> list[Forward]:
    """Return draws of the reference with random errors of the variance that each tensor's own blocks predict; none for plain floats."""
    deviations = {}
    for name, kind in kinds.items():
        if kind in NOISY and name in reference.stored:
            packed = FORMATS[kind.lower()].quantize(reference.tensor(name))
            deviations[name] = noise.variances(packed, kind.lower()).sqrt()
    return [_drawn(reference, single, deviations, seed) for seed in range(NOISE_DRAWS) if deviations]


def _drawn(reference: Weights, single: Forward, deviations: dict[str, Tensor], seed: int) -> Forward:
    draw = torch.Generator().manual_seed(seed)
    changed = {
        name: reference.tensor(name) + deviation * torch.randn(deviation.shape, generator=draw)
        for name, deviation in deviations.items()
    }
    held = {**single.tensors, **changed}
    if reference.shape.tied_embeddings:
        held[HEAD] = held[reference.holder(HEAD)]
    return replace(single, tensors=held)


# ── rounding ties ────────────────────────────────────────────────────────────────────────────────


def _marks(tied: dict[Place, Tensor]) -> tuple[str, ...]:
    return tuple(f"{at}:{name}" for (_, name), where in tied.items() for at in where.nonzero().flatten().tolist())


def _first(tied: dict[Place, Tensor]) -> int | None:
    found = torch.stack(list(tied.values())).any(0).nonzero()
    return int(found[0]) if len(found) else None


def _of_layers(like: Forward, single: Forward, trace: Trace, ids: Sequence[int], engine: str) -> Iterator[Said]:
    """Yield a row of every layer, fed with what the engine had before it, and the head as the layer behind the last.

    Queries, keys and values are compared where they are made, and the engine's go into the attention: so a tie counts at
    its own position alone, and float32's error in the rotation (2e-6 at position 100) shifts no quotient behind it.
    """
    layers = like.shape.layers
    for layer in range(layers + 1):
        x = trace.get((layer - 1, "out") if layer else (-1, "embedding"))
        ends = ("q", "k", "v", "out") if layer < layers else (LOGITS.name,)
        if x is None or any(
            (layer, name) not in trace for name in (*ends, *(("q_rope", "k_rope") if layer < layers else ()))
        ):
            continue
        tied: dict[Place, Tensor] = {}
        values: Trace = {}
        watch = tie_watch(like, tied)

        def seen(place: Place, value: Tensor, watch: Watch = watch, values: Trace = values) -> None:
            watch(place, value)
            values[place] = value

        instead = {name: trace[(layer, name)] for name in ("q_rope", "k_rope", "v") if layer < layers}
        like.carry(layer, x, ids, seen, instead)
        near_by, window = near(single, layer, x, ids, values, instead)
        apart = torch.stack([relative(trace[(layer, name)], values[(layer, name)]) for name in ends]).amax(0)
        yield (
            "parity_layer",
            {
                "document": document(ids),
                "layer": layer,
                "relative_l2": tuple(map(_short, apart.tolist())),
                "ties": _marks(tied),
                "window": window,
                "near": _marks(near_by),
                "products": sum(name in PRODUCTS for _, name in values),
                "engine": engine,
            },
        )
