"""What is known before a token is trained on: the documents that are scored, and what data and base are. All as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sovereign import attesting
from sovereign.contract.data import LabelledFile
from sovereign.corpus.build import Corpus
from sovereign.corpus.examples import Encoded, ExampleSet, fell_back
from sovereign.corpus.floors import floors
from sovereign.corpus.listing import listed, unlisted
from sovereign.corpus.overlap import overlap
from sovereign.corpus.scoring import scored
from sovereign.plan import Plan
from sovereign.tuning import Tuning

Rows = Iterator[tuple[str, dict[str, Any]]]


def sequences(plan: Plan) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Return the documents that every evaluation scores: the same ones, in the same order; none where it has examples."""
    if isinstance(plan.corpus, ExampleSet):
        return {}
    corpus, evaluation = plan.text, plan.contract.evaluation
    sides = {side: corpus.ids(side)[: evaluation.documents] for side in ("validation", "control")}
    sides["train_probe"] = corpus.train_probe(len(sides["validation"]), plan.seed)
    return {
        side: [(document, scored(ids, corpus.end_of_text, evaluation.tokens)) for document, ids in documents]
        for side, documents in sides.items()
    }


def examples(plan: Plan) -> dict[str, Sequence[Encoded]]:
    """Return the examples that every evaluation scores: the same ones, in the same order; none of running text."""
    corpus, most = plan.corpus, plan.contract.evaluation.documents
    if not isinstance(corpus, ExampleSet):
        return {}
    some = corpus.sides["validation"][:most]
    return {
        "validation": some,
        "control": corpus.sides["control"][:most],
        "train_probe": corpus.sides["train"][: len(some)],
    }


def data(plan: Plan) -> Rows:
    """Yield a row for each document that is used, counts of the rest, and what the tokenizer makes of its probes."""
    corpus = plan.corpus
    # held out and observed: of running text all, of examples those that are scored
    if isinstance(corpus, Corpus):
        observed = corpus.held_out
    else:
        observed = frozenset(one.document for side in examples(plan).values() for one in side)
    for one in listed(corpus.documents, observed):
        yield "corpus", one.plain()
    for counted in unlisted(corpus.documents, observed):
        yield "unlisted", counted
    for probe in corpus.probes():
        yield "tokenizer", asdict(probe)


def text(corpus: Corpus, validation: Sequence[tuple[str, np.ndarray]]) -> Rows:
    """Yield how much of each held-out document stands in the train side, and what counting alone loses on `validation`."""
    train = corpus.train
    held_out = [(document, side, ids) for side in ("validation", "control") for document, ids in corpus.ids(side)]
    for found in overlap(train, held_out):
        yield "overlap", asdict(found)
    for floor in floors(train, validation):
        yield "floor", asdict(floor)


def base(plan: Plan, tuning: Tuning, root: Path) -> Rows:
    """Yield where a tuned model comes from, one example as it is trained on, and a source that stands for another."""
    yield from attesting.descent(tuning)
    corpus, source = plan.corpus, plan.contract.data.source
    if not isinstance(corpus, ExampleSet):
        return
    yield from attesting.mask(corpus)
    if isinstance(source, LabelledFile) and fell_back(source, root):
        yield "notice", {
            "step": 0, "name": "source", "asked": source.path, "got": source.otherwise.kind if source.otherwise else "",
            "message": "the file is not there; what data.source.otherwise declares is used",
        }  # fmt: skip
