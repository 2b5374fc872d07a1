"""Runs with a cause of failure planted in them, and the proof, from each run's own rows, that the plant took.

Every run is `contracts/planted.yaml`, really trained; a plant is another setting of it, other data, or a fault in the code that
runs, never a number in the rows. Guards that would stop such a run are swapped too: they have tests of their own. The
scenarios are those of the reference of the diagnosis; what is planted must be found, and what cannot have been caused must not.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from planted_documents import Language, documents
from torch import nn

from sovereign import plan as planning
from sovereign import run as execution
from sovereign.contract.training import Schedule
from sovereign.corpus import stream as streams
from sovereign.corpus.build import Corpus, Listed, build
from sovereign.corpus.floors import BigramModel
from sovereign.corpus.scoring import scored
from sovereign.corpus.shards import open_shards, write_shards
from sovereign.diagnosis.findings import CLAIMS, Claim
from sovereign.diagnosis.record import scores_of
from sovereign.evidence.folder import Observed
from sovereign.evidence.rows import EvaluationRow, ExposureRow, ExtractionRow, FloorRow, NoticeRow, PathRow, StepRow
from sovereign.model import decoder
from sovereign.planted.faults import FAULTS
from sovereign.planted.swapping import swapped
from sovereign.training import evaluation, guards, loop, scrutiny

Told = dict[str, Any]  # what a plant did, kept beside the run for its check
Plant = Callable[[Told, int], AbstractContextManager[None]]  # given the seed
Checked = tuple[bool, str]
Check = Callable[[Observed, Told, Observed | None], Checked]  # rows, what was done, rows of the clean twin of the seed
Ids = np.ndarray

# ── what a run is expected to show ───────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Twin:
    """The same run with evidence withheld, and the claims of which nothing may then be said."""

    name: str
    kinds: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    steps: int = 0  # only the last so many evaluations are left; 0 leaves all
    open: tuple[Claim, ...] = ()
    planted: tuple[Claim, ...] = ()  # what must be found all the same


@dataclass(frozen=True)
class Scenario:
    """One configuration: what is planted, how it is proved, and what the diagnosis must make of it."""

    name: str
    severity: str
    seeds: int
    check: Check
    planted: tuple[Claim, ...] = ()
    absent: tuple[Claim, ...] = ()
    health: str = "sick"
    sets: tuple[str, ...] = ()
    plants: tuple[Plant, ...] = ()
    twins: tuple[Twin, ...] = ()
    unguarded: bool = False
    referred: bool = False  # the clean twin of the seed scores the same documents, as a model without access to them
    leaked: float | None = None

    @property
    def twinned(self) -> bool:
        """Whether anything is compared with the clean run of the same seed."""
        return self.referred or self.check in (harmless, helped, too_low)

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", f"{self.name} {self.severity}".lower()).strip("-")


# ── data ─────────────────────────────────────────────────────────────────────────────────────────


_BUILT: dict[str, Corpus] = {}


def built(data: Any, tokenizer: Any, *arguments: Any) -> Corpus:
    """Return the corpus of a data section, read and verified once while runs of one seed follow each other."""
    key = repr((data, tokenizer))
    if key not in _BUILT:
        if len(_BUILT) > 2:
            _BUILT.clear()
        _BUILT[key] = build(data, tokenizer, *arguments)
    return _BUILT[key]


def of_data(change: Callable[[Corpus, Told, random.Random], dict[str, list[tuple[str, Ids]]]]) -> Plant:
    """Return a plant of other documents on some sides; the stream opens whatever stands there."""

    @contextmanager
    def planted(told: Told, seed: int) -> Iterator[None]:
        place = Path(tempfile.mkdtemp(prefix="planted-"))

        def changed(*arguments: Any) -> Corpus:
            corpus = built(*arguments)
            shards = dict(corpus.shards)
            for side, held in change(corpus, told, random.Random(seed)).items():
                write_shards(
                    place / side, held, vocabulary=corpus.vocabulary, end_of_text=corpus.end_of_text, tokenizer=corpus.tokenizer_digest
                )  # fmt: skip
                shards[side] = open_shards(place / side)  # type: ignore[index]
            return replace(corpus, shards=shards, listing=_listing(corpus, shards))

        def blind(
            shards: Any, context: int, sequences: int, seed: int, wrap: bool, most: float | None, held_out: Any
        ) -> streams.Stream:
            return streams.Stream(shards, context, sequences, seed, wrap, most)

        try:
            with swapped(planning, "build", changed), swapped(planning, "Stream", blind):
                yield
        finally:
            shutil.rmtree(place, ignore_errors=True)

    return planted


def _listing(corpus: Corpus, shards: dict[Any, Any]) -> Any:
    """Return the listing with the held-out documents that are really there; what was slipped into train is not told."""
    known = {one.document: one for one in corpus.documents}
    listed = [one for one in corpus.documents if one.split not in ("validation", "control")]
    for side in ("validation", "control"):
        for document in shards[side].documents:
            tokens = len(shards[side].ids(document))
            new = Listed(
                document=document, name=f"planted-{document}", split=side, bytes=tokens, tokens=tokens, cluster=document
            )  # type: ignore[arg-type]
            listed.append(known.get(document, new))
    return corpus.listing.model_copy(update={"documents": tuple(listed)})


def named(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def leak(share: float, copies: int, beside: int) -> Plant:
    """Put a share of the validation documents among so many train documents, each so many times; the rest stays out."""

    def change(corpus: Corpus, told: Told, draw: random.Random) -> dict[str, list[tuple[str, Ids]]]:
        held = corpus.ids("validation")
        count = max(1, round(share * len(held)))
        drawn = draw.sample(held, count)
        told["leaked"] = [name for name, _ in drawn]
        again = [(named(f"{name} {copy}"), ids) for name, ids in drawn for copy in range(1, copies)]
        mixed = [*corpus.ids("train")[:beside], *drawn, *again]
        draw.shuffle(mixed)
        return {"train": mixed}

    return of_data(change)


def looped(head: int, body: int) -> Plant:
    """Validation is the head of a stream that is read in order, and around again: a few wraps, or many (CASE-07)."""

    def change(corpus: Corpus, told: Told, draw: random.Random) -> dict[str, list[tuple[str, Ids]]]:
        first = corpus.ids("validation")[:head]
        told["leaked"] = [name for name, _ in first]
        return {"train": [*first, *corpus.ids("train")[:body]], "validation": first}

    return in_order(of_data(change))


def in_order(plant: Plant) -> Plant:
    """Read the documents of a plant in the order in which they stand, pass after pass, and not as the seed draws them."""

    @contextmanager
    def planted(told: Told, seed: int) -> Iterator[None]:
        unshuffled = swapped(streams, "permuted", lambda positions, size, key: positions.astype(np.int64))
        with plant(told, seed), unshuffled:
            yield

    return planted


def by_source(count: int) -> Plant:
    """Train on two sources in order, pass after pass: validation's own first, then as many documents in another dialect."""

    def change(corpus: Corpus, told: Told, draw: random.Random) -> dict[str, list[tuple[str, Ids]]]:
        texts = documents(count, draw.randrange(10**6), dialect=1)
        other = [(named(text), np.array(corpus.encode(text))) for text in texts]
        own = corpus.ids("train")[:count]
        sizes = [sum(len(ids) for _, ids in some) for some in (own, other)]
        told["own"] = sizes[0] / sum(sizes)
        return {"train": [*own, *other]}

    return in_order(of_data(change))


def by_heart(count: int, copies: int) -> Plant:
    """Validation is all that is trained on, many times and in another order each time, so that it is known from any context."""

    def change(corpus: Corpus, told: Told, draw: random.Random) -> dict[str, list[tuple[str, Ids]]]:
        held = corpus.ids("validation")[:count]
        told["leaked"] = [name for name, _ in held]
        mixed = []
        for copy in range(copies):
            again = held if not copy else [(named(f"{name} {copy}"), ids) for name, ids in held]
            mixed += draw.sample(again, count)
        return {"train": mixed, "validation": held}

    return of_data(change)


def nearly(share: float, edited: float) -> Plant:
    """Put edited validation documents into the train side: their last words are others, and they are near duplicates still."""

    def change(corpus: Corpus, told: Told, draw: random.Random) -> dict[str, list[tuple[str, Ids]]]:
        wanted, language = round(share * len(corpus.shards["validation"].documents)), Language(0)
        alike: list[float] = []
        copies: list[tuple[str, Ids]] = []
        told["edited"] = []
        texts = corpus.texts("validation")
        for name, text in draw.sample(texts, len(texts)):
            words = text.split()
            cut = len(words) - int(edited * len(words))
            other = [*words[:cut], *(draw.choice(language.verbs) for _ in words[cut:])]
            one, two = ({tuple(some[at : at + 5]) for at in range(len(some) - 4)} for some in (words, other))
            share_alike = len(one & two) / len(one | two)
            if share_alike >= 0.8 and len(copies) < wanted:
                alike.append(share_alike)
                copies.append((named(" ".join(other)), np.array(corpus.encode(" ".join(other)))))
                told["edited"].append(name)
        told["jaccard"] = min(alike)
        mixed = [*corpus.ids("train"), *copies]
        draw.shuffle(mixed)
        return {"train": mixed}

    return of_data(change)


def few(count: int, leaked: int = 0) -> Plant:
    """Train on a few documents only, and on some of validation with them."""

    def change(corpus: Corpus, told: Told, draw: random.Random) -> dict[str, list[tuple[str, Ids]]]:
        some = draw.sample(corpus.ids("validation")[:300], leaked)
        told["leaked"] = [name for name, _ in some]
        mixed = [*corpus.ids("train")[:count], *some]
        draw.shuffle(mixed)
        return {"train": mixed}

    return of_data(change)


def repeated(rows: int, times: int, beside: int) -> Plant:
    """Repeat a few train documents many times beside others."""

    def change(corpus: Corpus, told: Told, draw: random.Random) -> dict[str, list[tuple[str, Ids]]]:
        held = corpus.ids("train")[: rows + beside]
        again = [(named(f"{name} {copy}"), ids) for name, ids in held[:rows] for copy in range(1, times)]
        told["repeated"] = [name for name, _ in (*held[:rows], *again)]
        mixed = [*held, *again]
        draw.shuffle(mixed)
        return {"train": mixed}

    return of_data(change)


def other_dialect(count: int, mixed: float = 0.5) -> Plant:
    """Validation from another package: some of its documents are in another dialect of the language."""

    def change(corpus: Corpus, told: Told, draw: random.Random) -> dict[str, list[tuple[str, Ids]]]:
        foreign = round(mixed * count)
        texts = list(documents(foreign, draw.randrange(10**6), dialect=1))
        held = [(named(text), np.array(corpus.encode(text))) for text in texts] + corpus.ids("validation")[
            : count - foreign
        ]
        _refer(corpus, held, told)
        return {"validation": held}

    return of_data(change)


def the_easiest(share: float) -> Plant:
    """Validation made of the documents that a bigram model finds easiest, of all that were held out for it."""

    def change(corpus: Corpus, told: Told, draw: random.Random) -> dict[str, list[tuple[str, Ids]]]:
        bigram = BigramModel.count(corpus.train)
        held = corpus.ids("validation")
        levels = [_level(corpus, bigram, ids) for _, ids in held]
        order = np.argsort(levels, kind="stable")
        easy = [held[int(at)] for at in order[: round(share * len(held))]]
        _refer(corpus, easy, told)
        return {"validation": easy}

    return of_data(change)


def _level(corpus: Corpus, bigram: BigramModel, ids: Ids) -> float:
    sequence = scored(ids, corpus.end_of_text, 64)
    return float(bigram.nll(sequence)) / (len(sequence) - 1)


def _refer(corpus: Corpus, held: Sequence[tuple[str, Ids]], told: Told) -> None:
    """Keep what a bigram model, which never saw either, scores on validation above the control."""
    bigram = BigramModel.count(corpus.train)
    sides = [np.mean([_level(corpus, bigram, ids) for _, ids in some]) for some in (held, corpus.ids("control"))]
    told["reference_gap"] = float(sides[0] - sides[1])


def small_validation(count: int) -> Plant:
    """Leave a few validation documents only."""
    return of_data(lambda corpus, told, draw: {"validation": corpus.ids("validation")[:count]})


# ── the stream and the loop ──────────────────────────────────────────────────────────────────────


@contextmanager
def unguarded() -> Iterator[None]:
    """Train without the guards that would end a planted run."""

    class Blind(guards.Guards):
        def batch(self, *told: Any) -> None: ...
        def loss(self, *told: Any) -> None: ...
        def pace(self, *told: Any) -> None: ...
        def reach(self, *told: Any) -> None: ...

    with swapped(loop, "Guards", Blind):
        yield


def of_stream(change: Callable[[Any, int, Any], Any]) -> Plant:
    """Return a plant that changes the batch of a step, given the stream's own batches."""

    @contextmanager
    def planted(told: Told, seed: int) -> Iterator[None]:
        right = streams.Stream.batch

        def wrong(stream: Any, step: int, *ranks: int) -> Any:
            return change(lambda at: right(stream, at, *ranks), step, seed)

        with swapped(streams.Stream, "batch", wrong):
            yield

    return planted


def noisy(share: float) -> Plant:
    """Replace a share of the train tokens by random ones, as they are fed."""

    def change(batch: Any, step: int, seed: int) -> Any:
        found = batch(step)
        draw = np.random.default_rng([seed, step])
        ids = np.where(draw.random(found.ids.shape) < share, draw.integers(1, 384, found.ids.shape), found.ids)
        return replace(found, ids=ids)

    return of_stream(change)


constant_batch = of_stream(lambda batch, step, seed: batch(1))
half_repeated = of_stream(lambda batch, step, seed: batch((step + 1) // 2))


def exhausted(after: int) -> Plant:
    """Log a placeholder loss at once for every step after the loader has run dry (CASE-15)."""

    @contextmanager
    def planted(told: Told, seed: int) -> Iterator[None]:
        def placeholding(model: Any, optimizer: Any, stream: Any, settings: Any, **given: Any) -> None:
            last: Told = {}

            def log(kind: str, **row: Any) -> None:
                if kind == "step":
                    last.update(row)
                given["log"](kind, **row)

            loop.train(model, optimizer, stream, settings, **{**given, "log": log, "until": after})
            for step in range(after + 1, settings.steps + 1):
                seconds = last["seconds"] / 500
                last.update(step=step, loss=1.0, seconds=seconds, clock=last["clock"] + seconds)
                last["windows"] = loop.windows_digest(stream.windows(step))
                given["log"]("step", **last)
                if step % given["evaluate_every"] == 0:
                    given["evaluate"](step)

        with swapped(execution, "train", placeholding):
            yield

    return planted


@contextmanager
def uncounted(told: Told, seed: int) -> Iterator[None]:
    with FAULTS["targets_uncounted"]():
        yield


def rate(changed: Callable[[float, int], float]) -> Plant:
    """Change the learning rate that every step applies, given the planned one and the step."""

    @contextmanager
    def planted(told: Told, seed: int) -> Iterator[None]:
        right = Schedule.rate
        with swapped(Schedule, "rate", lambda schedule, step, steps: changed(right(schedule, step, steps), step)):
            yield

    return planted


# ── the model ────────────────────────────────────────────────────────────────────────────────────


def of_model(change: Callable[[Any, int], None]) -> Plant:
    """Return a plant in the fresh model."""

    @contextmanager
    def planted(told: Told, seed: int) -> Iterator[None]:
        right = planning.Plan.fresh

        def wrong(*arguments: Any) -> Any:
            model = right(*arguments)
            change(model, seed)
            return model

        with swapped(planning.Plan, "fresh", wrong):
            yield

    return planted


def dropout(p: float) -> Plant:
    """Drop activations in training mode, on the embeddings and behind every feed-forward network."""

    def change(model: Any, seed: int) -> None:
        for part in (model.model.embed_tokens, *(layer.mlp for layer in model.model.layers)):
            part.register_forward_hook(lambda module, given, out: F.dropout(out, p, module.training))

    return of_model(change)


def _detached(model: Any, seed: int) -> None:
    for weight in model.parameters():
        weight.register_hook(torch.zeros_like)


def _gains_only(model: Any, seed: int) -> None:
    for name, weight in model.named_parameters():
        weight.requires_grad_("norm" in name)


def _overflows(model: Any, seed: int) -> None:
    """Let the hidden states pass the largest half-precision number once a while has been trained."""
    calls = [0]

    def half(module: nn.Module, given: Any, out: Any) -> Any:
        calls[0] += module.training
        large = out[0] * (1.0 if calls[0] < 60 + seed else 1e5)
        return (large.half().float() if calls[0] >= 60 + seed else out[0]), out[1]

    model.model.register_forward_hook(half)


detached, gains_only, overflows = (of_model(one) for one in (_detached, _gains_only, _overflows))

# ── evaluation ───────────────────────────────────────────────────────────────────────────────────


def of_evaluation(wrong: Callable[[Told], Callable[..., Any]]) -> Plant:
    """Return a plant in every evaluation, the probe that compares the two paths included."""

    @contextmanager
    def planted(told: Told, seed: int) -> Iterator[None]:
        other = wrong({"seed": seed})
        with swapped(execution, "evaluate", other), swapped(scrutiny, "evaluate", other):
            yield

    return planted


def _sees_the_future(state: Told) -> Callable[..., Any]:
    right = decoder.attention

    def evaluate(*arguments: Any, **settings: Any) -> Any:
        def unmasked(q: Any, k: Any, v: Any, seen: Any = None, sinks: Any = None) -> Any:
            return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

        with swapped(decoder, "attention", unmasked):
            return evaluation.evaluate(*arguments, **settings)

    assert right is decoder.attention
    return evaluate


def _stale(state: Told) -> Callable[..., Any]:
    """Evaluate the weights of the evaluation before: a buffer that is filled too late."""
    state |= {"calls": 0, "used": None, "latest": None}

    def evaluate(model: Any, *arguments: Any, **settings: Any) -> Any:
        if (
            len(arguments[0]) > 100 and state["calls"] % 3 == 0
        ):  # a round of three sides; the path probe has a few windows
            state["used"] = state["latest"]
            state["latest"] = {name: one.detach().clone() for name, one in model.state_dict().items()}
        state["calls"] += len(arguments[0]) > 100
        now = {name: one.detach().clone() for name, one in model.state_dict().items()}
        if state["used"] is not None:
            model.load_state_dict(state["used"])
        try:
            return evaluation.evaluate(model, *arguments, **settings)
        finally:
            model.load_state_dict(now)

    return evaluate


def _redrawn(state: Told) -> Callable[..., Any]:
    """Score another half of the documents each time (CASE-21)."""
    draw = random.Random(state["seed"])

    def evaluate(model: Any, sequences: Any, **settings: Any) -> Any:
        some = sequences if len(sequences) < 100 else draw.sample(list(sequences), len(sequences) // 2)
        return evaluation.evaluate(model, some, **settings)

    return evaluate


def _retokenized(state: Told) -> Callable[..., Any]:
    """Count the closing token of a document at first, and no more later."""
    state["calls"] = 0

    def evaluate(model: Any, sequences: Any, **settings: Any) -> Any:
        state["calls"] += 1
        cut = sequences if state["calls"] <= 3 else [(name, ids[:-1]) for name, ids in sequences]
        return evaluation.evaluate(model, cut, **settings)

    return evaluate


sees_the_future, stale, redrawn, retokenized = (
    of_evaluation(one) for one in (_sees_the_future, _stale, _redrawn, _retokenized)
)


@contextmanager
def shortsighted(told: Told, seed: int) -> Iterator[None]:
    with FAULTS["evaluation_shortsighted"]():
        yield


@contextmanager
def in_place(scenario: Scenario, seed: int, told: Told) -> Iterator[None]:
    """Hold a scenario's plants in place for as long as the block lasts."""
    with ExitStack() as stack:
        if scenario.unguarded:
            stack.enter_context(unguarded())
        for plant in scenario.plants:
            stack.enter_context(plant(told, seed))
        yield


# ── manipulation checks: from a run's rows, whether the plant took ───────────────────────────────


def losses(observed: Observed, split: str = "validation") -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the steps of the evaluations, and document -> loss in nats per token at each of them."""
    scores = scores_of(row for row in observed.of(EvaluationRow) if row.split == split)[split]
    each = scores.nll / scores.tokens
    return np.array(scores.steps), dict(zip(scores.documents, each.T, strict=True))


def curve(observed: Observed, split: str = "validation") -> np.ndarray:
    """Return the loss in nats per token at each evaluation."""
    return scores_of(row for row in observed.of(EvaluationRow) if row.split == split)[split].losses


def online(observed: Observed) -> np.ndarray:
    return np.array([row.loss for row in observed.of(StepRow)])


def online_gap(observed: Observed) -> float:
    """Return the last validation loss minus the mean training loss since the evaluation before."""
    every = observed.intent.promise.evaluation.every
    return float(curve(observed)[-1] - online(observed)[-every:].mean())


def joined(observed: Observed) -> int:
    """Return how many validation documents were consumed in training."""
    held = {row.document for row in observed.of(EvaluationRow) if row.split == "validation"}
    return len(held & {row.document for row in observed.of(ExposureRow) if row.consumed})


def learns_cleanly(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    fell, shared = float(curve(observed)[0] - curve(observed)[-1]), joined(observed)
    return fell > 0.5 and not shared, f"validation falls by {fell:.2f}, {shared} documents shared"


def harmless(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    assert clean is not None
    apart, shared = float(curve(observed)[-1] - curve(clean)[-1]), joined(observed)
    return apart <= 0.05 and not shared, f"validation {apart:+.3f} from the twin on fresh data"


def helped(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    """The leaked documents became easier than they are to the clean twin, beyond what the others did."""
    assert clean is not None
    leaked, (_, now), (_, then) = set(told["leaked"]), losses(observed), losses(clean)
    gains = [
        np.array([now[name][-1] - then[name][-1] for name in now if name in then and (name in leaked) == side])
        for side in (True, False)
    ]
    shared = joined(observed)
    if not len(gains[1]):  # all of validation was leaked
        gains[1] = np.zeros(2)
    reach = 1.645 * math.sqrt(sum(one.var(ddof=1) / len(one) for one in gains if len(one) > 1))
    apart = float(gains[0].mean() - gains[1].mean())
    return (
        shared > 0 and apart + reach < 0,
        f"{shared} documents consumed, easier by {-apart:.3f} (at least {-apart - reach:.3f})",
    )


def consumed(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    shared = joined(observed)
    return shared == len(told["leaked"]), f"{shared} of {len(told['leaked'])} leaked documents consumed"


def edited(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    shared = joined(observed)
    return told["jaccard"] >= 0.8 and not shared, f"Jaccard at least {told['jaccard']:.2f}, join {shared}"


def overfits(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    control = curve(observed, "control")
    rise = float(control[-1] - control.min())
    return rise > 0.1, f"the control rises by {rise:.2f} from its minimum"


def overfits_and_leaks(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    (rises, says), (leaks, joins) = overfits(observed, told, clean), consumed(observed, told, clean)
    return rises and leaks, f"{says}; {joins}"


def recites(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    rows, often = observed.of(ExtractionRow), set(told["repeated"])
    hits = [
        [
            row.matched >= row.continued
            for row in rows
            if row.side == side and (side == "control" or row.document in often)
        ]
        for side in ("train", "control")
    ]
    excess = float(np.mean(hits[0]) - np.mean(hits[1]))
    return (
        excess > 0.05,
        f"{np.mean(hits[0]):.0%} of repeated passages extracted, {np.mean(hits[1]):.0%} of the control's",
    )


def misreports(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    """The online training loss lies away from the probe's in evaluation mode."""
    every = observed.intent.promise.evaluation.every
    apart = float(online(observed)[-every:].mean() - curve(observed, "train_probe")[-1])
    return apart > 0.05, f"online training loss {apart:+.3f} from the same documents in evaluation mode"


def goes_round(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    """Once all was read, validation falls while its own source is read again, rises in the other, and ends risen."""
    steps, _ = losses(observed)
    around, sequences = observed.intent.planned.windows, observed.intent.promise.training.sequences
    assert around is not None
    middle = (steps[1:] + steps[:-1]) / 2 * sequences / around  # passes, between one evaluation and the next
    moved, again = np.diff(curve(observed)), middle > 1
    own, other = (float(moved[again & ((middle % 1 < told["own"]) == side)].mean()) for side in (True, False))
    rise, shared = float(curve(observed)[-1] - curve(observed).min()), joined(observed)
    return (
        own < -0.02 and other > 0.02 and rise > 0.1 and not shared,
        f"validation moves {own:+.2f} an evaluation in its own source, {other:+.2f} in the other, ends {rise:.2f} above its lowest, {shared} documents shared",
    )


def misreports_and_leaks(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    (lies, says), (leaks, joins) = misreports(observed, told, clean), consumed(observed, told, clean)
    return lies and leaks, f"{says}; {joins}"


def harder(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    return told[
        "reference_gap"
    ] > 0.05, f"a bigram model finds validation {told['reference_gap']:+.2f} from the control"


def easier(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    return told[
        "reference_gap"
    ] < -0.3, f"a bigram model finds validation {told['reference_gap']:+.2f} from the control"


def unlearned(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    floor = observed.of(FloorRow)
    unigram = sum(row.unigram_nll for row in floor) / sum(row.tokens for row in floor)
    above = float(curve(observed)[-1] - unigram)
    return above > -0.1, f"validation ends {above:+.2f} from the unigram level"


def diverges(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    broke = [row.name for row in observed.of(NoticeRow) if row.name.startswith("non_finite")]
    if broke:
        return True, broke[0]
    train = online(observed)
    levels = np.convolve(train, np.ones(10) / 10, "valid")  # one easy batch is no level that a loss could rise from
    end, least = float(levels[-1]), float(levels.min())
    return end > min(
        train[0] + 0.2, least + 0.5
    ), f"training ends {end - train[0]:+.2f} from its start, {end - least:+.2f} from its lowest"


def spikes(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    train = online(observed)
    before, peak, end = float(train[100:120].mean()), float(train[120:160].max()), float(train[-20:].mean())
    return (
        peak > before + 0.5 and end < before,
        f"a spike of {peak - before:+.2f}, ends {end - before:+.2f} from before it",
    )


def repeats_batches(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    seen = [row.windows for row in observed.of(StepRow)]
    most = max(seen.count(one) for one in set(seen))
    return most > 1, f"one batch stands {most} times in the hash log"


def placeholds(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    equal = int((online(observed) == 1.0).sum())
    return equal > 2, f"{equal} steps have a loss of exactly 1"


def miscounts(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    planned = observed.intent.planned.tokens / observed.intent.planned.steps
    counted = float(np.mean([row.tokens for row in observed.of(StepRow)]))
    return counted < 0.99 * planned, f"{counted:.0f} tokens a step where {planned:.0f} were planned"


def paths_differ(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    (row,) = observed.of(PathRow)
    apart = abs(row.train_nll - row.eval_nll) / row.tokens
    return apart > 1e-3, f"two paths differ by {apart:.2g} nats a token on one batch"


def drawn_anew(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    by_step: dict[int, set[str]] = {}
    for row in observed.of(EvaluationRow):
        if row.split == "validation":
            by_step.setdefault(row.step, set()).add(row.document)
    sets = list(by_step.values())
    return sets[0] != sets[
        -1
    ], f"{len(sets[0] & sets[-1])} of {len(sets[0])} documents stand in the first and the last evaluation"


def recounted(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    scores = scores_of(row for row in observed.of(EvaluationRow) if row.split == "validation")["validation"]
    changed = int((scores.tokens[0] != scores.tokens[-1]).sum())
    return changed > 0, f"{changed} documents change their token count"


def too_low(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    """Validation ends far below what the clean twin scores on the same documents."""
    assert clean is not None
    (_, now), (_, then) = losses(observed), losses(clean)
    apart = float(np.mean([now[name][-1] - then[name][-1] for name in now]))
    shared = joined(observed)
    return apart < -0.4 and shared > 0, f"{shared} documents consumed; validation {apart:+.2f} from the clean twin"


def stands_still(observed: Observed, told: Told, clean: Observed | None) -> Checked:
    moved = float(curve(observed)[-1] - curve(observed)[-2])
    return abs(moved) < 0.002, f"validation moves by {moved:+.4f} over the last fifth"


# ── the scenarios ────────────────────────────────────────────────────────────────────────────────

# a claim that no plant of the kind could cause, so that finding it is an accusation. METRIC_ARTIFACT is not among them: a
# training loss averaged over the last steps really lags behind by more than 0.05 in a run this short
NEVER: tuple[Claim, ...] = (
    "INVALID_DATA",
    "CONTAMINATED",
    "MEMORIZED",
    "BROKEN_LOADER",
    "EVAL_PATH",
    "COMPARABILITY_VIOLATED",
)
ELSE: tuple[Claim, ...] = tuple(claim for claim in CLAIMS if claim not in ("METRIC_ARTIFACT", "HEALTHY"))
NO_JOIN = Twin("no identities", kinds=("exposure", "corpus", "overlap"), open=("CONTAMINATED", "HEALTHY"))
NO_PROBE = Twin("no train probe", splits=("train_probe",), open=("HEALTHY",))
SMALL = "evaluation.documents=300"
QUICK = "evaluation.probes.extraction=null"
KEEN = (
    "training.optimizer.weight_decay=0.0",
    "training.schedule.peak=8.0e-3",
)  # what is seen often is learned by heart
LARGE = (
    "model.hidden=128",
    "model.ffn=512",
    "model.heads=4",
    "model.kv_heads=4",
    "training.optimizer.weight_decay=0.0",
)


def without(*planted: Claim, of: tuple[Claim, ...] = NEVER) -> tuple[Claim, ...]:
    return tuple(claim for claim in of if claim not in planted)


def scenarios() -> tuple[Scenario, ...]:
    """Return every configuration of the suite."""
    found = [
        Scenario("healthy stream", "one epoch", 20, learns_cleanly, absent=ELSE, health="healthy", twins=(NO_JOIN, NO_PROBE)),
        Scenario("harmless repeats", "2 passes", 4, harmless, absent=ELSE, health="healthy", plants=(few(900),), twins=(NO_JOIN,)),
        Scenario("harmless repeats", "3 passes", 4, harmless, absent=ELSE, health="healthy", plants=(few(600),)),
        Scenario("late spike", "recovers", 3, spikes, absent=without(of=ELSE), health="open", sets=(SMALL, QUICK),
                 plants=(rate(lambda planned, step: 0.06 if 121 <= step <= 122 else planned),)),
        Scenario("small validation", "60 documents", 3, learns_cleanly, absent=ELSE, health="open", sets=(SMALL,), plants=(small_validation(60),)),
    ]  # fmt: skip
    hidden = Twin("matches only", kinds=("exposure", "corpus"), planted=("CONTAMINATED",))
    for share, copies, seeds, beside in (
        (0.005, 60, 3, 1000), (0.01, 30, 3, 1000), (0.02, 16, 3, 1000), (0.03, 12, 12, 1000), (0.1, 5, 3, 1000), (0.5, 2, 3, 500),
    ):  # fmt: skip
        found.append(Scenario(
            "exact leak", f"{100 * share:g} %", seeds, helped, planted=("CONTAMINATED",), absent=without("CONTAMINATED", "MEMORIZED"),
            sets=(*KEEN, "training.sequences=4", "training.steps=400", "evaluation.every=200", QUICK), plants=(leak(share, copies, beside),), referred=True, leaked=share,
            twins=(Twin("no identities", kinds=("exposure", "corpus", "overlap"), open=("CONTAMINATED", "HEALTHY")), *((hidden,) if share >= 0.03 else ())),
        ))  # fmt: skip
    short = ("training.steps=96", "evaluation.every=32", SMALL, QUICK)
    found += [
        Scenario("leak by wrap", "2 wraps", 3, consumed, planted=("CONTAMINATED",), absent=("INVALID_DATA", "EVAL_PATH"),
                 sets=(SMALL, QUICK), plants=(looped(120, 780),), twins=(NO_JOIN,), referred=True),
        Scenario("leak by wrap", "9 wraps", 3, consumed, planted=("CONTAMINATED",), absent=("INVALID_DATA", "EVAL_PATH"),
                 sets=(SMALL, QUICK), plants=(looped(100, 100),), referred=True),
        Scenario("leak by heart", "20 documents × 24", 18, too_low, planted=("CONTAMINATED", "IMPLAUSIBLE"), absent=("INVALID_DATA", "EVAL_PATH"),
                 sets=(*LARGE, "training.sequences=2", "training.steps=240", "evaluation.every=120", SMALL, QUICK), plants=(by_heart(20, 24),), referred=True,
                 twins=(Twin("no reference", kinds=("reference",), open=("IMPLAUSIBLE",)),)),
        Scenario("near-duplicate leak", "10 % edited", 4, edited, planted=("CONTAMINATED",), absent=without("CONTAMINATED", "MEMORIZED"),
                 sets=(SMALL, QUICK), plants=(nearly(0.05, 0.1),),
                 twins=(Twin("no matches", kinds=("overlap",), open=("CONTAMINATED", "HEALTHY")),)),
        Scenario("duplicates in train", "2 % × 50", 18, recites, planted=("MEMORIZED",), absent=without("MEMORIZED"), health="beside",
                 sets=(*LARGE, "training.sequences=2", "training.steps=400", "evaluation.every=200", SMALL), plants=(repeated(6, 50, 294),),
                 twins=(Twin("no extraction", kinds=("extraction", "canary"), open=("MEMORIZED",)),)),
        Scenario("overfit", "× 20", 14, overfits, planted=("OVERFIT",), absent=without("MEMORIZED", of=(*NEVER, "NOT_LEARNED")),
                 sets=(*LARGE, "training.sequences=2", "training.steps=200", "evaluation.every=40", SMALL, QUICK), plants=(few(20),), twins=(Twin("two evaluations", steps=2, open=("OVERFIT", "HEALTHY")),)),
        Scenario("overfit and leak", "× 20, 3 %", 6, overfits_and_leaks, planted=("OVERFIT", "CONTAMINATED"), absent=("INVALID_DATA", "EVAL_PATH"),
                 sets=(*LARGE, "training.sequences=2", "training.steps=240", "evaluation.every=48", SMALL, QUICK), plants=(few(14, 9),), leaked=0.03),
        Scenario("label noise", "15 %", 9, misreports, planted=("METRIC_ARTIFACT",), absent=without(), health="open", sets=short, plants=(noisy(0.15),),
                 twins=(Twin("no train probe", splits=("train_probe",), open=("METRIC_ARTIFACT", "HEALTHY")),)),
        Scenario("dropout artifact", "p = 0.3", 9, misreports, planted=("METRIC_ARTIFACT",), absent=without(), health="open", sets=short, plants=(dropout(0.3),),
                 twins=(Twin("no train probe", splits=("train_probe",), open=("METRIC_ARTIFACT", "HEALTHY")),)),
        Scenario("dropout and leak", "p = 0.3, 10 %", 3, misreports_and_leaks, planted=("METRIC_ARTIFACT", "CONTAMINATED"), absent=("INVALID_DATA", "EVAL_PATH"),
                 sets=(QUICK,), plants=(dropout(0.3), leak(0.1, 2, 1700)), leaked=0.1),
        Scenario("shifted validation", "other dialect", 8, harder, planted=("SHIFT",), absent=without(), health="beside", sets=short,
                 plants=(other_dialect(300),), twins=(Twin("no control", splits=("control",), open=("SHIFT",)),)),
        Scenario("shift and small validation", "60 documents", 5, harder, planted=("SHIFT",), absent=without(), health="beside", sets=short,
                 plants=(other_dialect(60, 1.0),)),
        Scenario("easier validation", "20th percentile", 8, easier, planted=("SHIFT",), absent=without(), health="beside",
                 sets=(QUICK, "training.steps=160", "data.split.validation=0.5", "evaluation.documents=400"), plants=(the_easiest(0.2),), twins=(Twin("no identities", kinds=("exposure", "corpus", "overlap"), open=("SHIFT", "CONTAMINATED", "HEALTHY")),)),
        Scenario("not learned", "rate × 0.01", 6, unlearned, planted=("NOT_LEARNED",), absent=without(), sets=(*short, "training.schedule.peak=2.0e-5", "training.schedule.floor=1.0e-6"),
                 twins=(Twin("no floors", kinds=("floor",), open=("NOT_LEARNED",)),)),
        Scenario("not learned", "detached backward", 6, unlearned, planted=("NOT_LEARNED",), absent=without("BROKEN_LOADER"), sets=short, plants=(detached,), unguarded=True,
                 twins=(Twin("no floors", kinds=("floor",), open=("NOT_LEARNED",)),)),
        Scenario("not learned", "gains only", 6, unlearned, planted=("NOT_LEARNED",), absent=without(), sets=short, plants=(gains_only,),
                 twins=(Twin("no floors", kinds=("floor",), open=("NOT_LEARNED",)),)),
        Scenario("divergence", "rate × 1000", 6, diverges, planted=("DIVERGED",), absent=without("BROKEN_LOADER", "EVAL_PATH"), sets=(*short, "training.schedule.kind=constant", "training.schedule.peak=0.9"),
                 unguarded=True, twins=(Twin("two evaluations", kinds=("step", "notice"), steps=2, open=("DIVERGED",)),)),
        Scenario("divergence", "overflow in half precision", 8, diverges, planted=("DIVERGED",), absent=without(), sets=short, plants=(overflows,),
                 twins=(Twin("no steps", kinds=("step", "notice"), steps=2, open=("DIVERGED", "HEALTHY")),)),
        Scenario("divergence", "late and for good", 16, diverges, planted=("DIVERGED",), absent=without("BROKEN_LOADER", "EVAL_PATH"), sets=short,
                 plants=(rate(lambda planned, step: 0.3 if step > 50 else planned),), unguarded=True),
        Scenario("broken loader", "constant batch", 6, repeats_batches, planted=("BROKEN_LOADER",), absent=("INVALID_DATA", "CONTAMINATED", "EVAL_PATH"), sets=short,
                 plants=(constant_batch,), unguarded=True, twins=(Twin("no steps", kinds=("step", "batch"), open=("BROKEN_LOADER",)),)),
        Scenario("broken loader", "placeholder loss", 6, placeholds, planted=("BROKEN_LOADER",), absent=("INVALID_DATA", "CONTAMINATED", "EVAL_PATH"), sets=short,
                 plants=(exhausted(60),), twins=(Twin("no steps", kinds=("step", "batch"), open=("BROKEN_LOADER", "HEALTHY")),)),
        Scenario("broken loader", "half repeated", 4, repeats_batches, planted=("BROKEN_LOADER",), absent=without("BROKEN_LOADER"), sets=short, plants=(half_repeated,), unguarded=True),
        Scenario("broken loader", "tokens not counted", 4, miscounts, planted=("BROKEN_LOADER",), absent=("INVALID_DATA", "CONTAMINATED"), sets=short, plants=(uncounted,)),
        Scenario("evaluation bug", "no causal mask", 6, paths_differ, planted=("EVAL_PATH",), absent=("INVALID_DATA", "CONTAMINATED", "BROKEN_LOADER"), sets=short,
                 plants=(sees_the_future,), twins=(Twin("no paths", kinds=("path", "permuted"), open=("EVAL_PATH",)),)),
        Scenario("evaluation bug", "stale buffer", 6, paths_differ, planted=("EVAL_PATH",), absent=("INVALID_DATA", "CONTAMINATED", "BROKEN_LOADER"), sets=short,
                 plants=(stale,), twins=(Twin("no paths", kinds=("path", "permuted"), open=("EVAL_PATH", "HEALTHY")),)),
        Scenario("evaluation bug", "half the context", 6, paths_differ, planted=("EVAL_PATH",), absent=("INVALID_DATA", "CONTAMINATED", "BROKEN_LOADER"), sets=short, plants=(shortsighted,)),
        Scenario("evaluation bug", "subset redrawn", 18, drawn_anew, planted=("COMPARABILITY_VIOLATED",), absent=("INVALID_DATA", "CONTAMINATED", "BROKEN_LOADER", "EVAL_PATH"),
                 sets=short, plants=(redrawn,), twins=(Twin("one evaluation", steps=1, open=("COMPARABILITY_VIOLATED", "HEALTHY")),)),
        Scenario("evaluation bug", "retokenized midway", 18, recounted, planted=("INVALID_DATA",), absent=("CONTAMINATED", "MEMORIZED", "BROKEN_LOADER"), sets=short, plants=(retokenized,),
                 twins=(Twin("one evaluation, no paths", kinds=("path", "permuted"), steps=1, open=("INVALID_DATA", "HEALTHY")),)),
        Scenario("plateau", "rate a 2000th after three fifths", 20, stands_still, planted=("PLATEAU",), absent=without(), health="beside",
                 sets=(*short, "evaluation.every=12", "training.measure_updates_every=12"),
                 plants=(rate(lambda planned, step: planned if step <= 60 else 2e-6),), twins=(Twin("no train probe", splits=("train_probe",), open=("PLATEAU", "HEALTHY")),)),
    ]  # fmt: skip
    ordered = (
        "training.steps=160",
        "evaluation.every=10",
        "training.schedule.kind=constant",
        SMALL,
        QUICK,
    )  # four passes, ending in the other source
    found += [
        Scenario("ordered stream", "two sources", 18, goes_round, planted=("POSITION_ARTIFACT",), absent=without(), sets=ordered, plants=(by_source(158),),
                 twins=(Twin("no steps", kinds=("step", "batch"), open=("POSITION_ARTIFACT",)), Twin("seven evaluations", steps=7, open=("POSITION_ARTIFACT",)))),
    ]  # fmt: skip
    return tuple(found)
