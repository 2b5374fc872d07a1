"""Lineage: the run that a tuned model begins from, those before it, and what they know of documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sovereign.canonical import Malformed, Problem, digest_file, read, validate
from sovereign.contract.contract import Contract
from sovereign.corpus.split import Side
from sovereign.evidence.folder import run_folders
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import CorpusRow, EvaluationRow, ExposureRow, Row, UnlistedRow, read_rows
from sovereign.evidence.statement import Statement


class Missing(Exception):
    """A base run that is not there; `contract` is what makes one."""

    def __init__(self, contract: str, why: str):
        super().__init__(f"base run {contract}: {why}; `sovereign run --contract contracts/{contract}.yaml` makes one")
        self.contract = contract


@dataclass(frozen=True)
class Ancestor:
    """A completed run with its weights: the best that were kept, the last where none is best."""

    folder: Path
    intent: Intent
    statement: Statement
    weights: Path  # of a plain model, adapters merged
    weights_digest: str
    tokenizer: Path
    step: int  # of the weights

    @property
    def name(self) -> str:
        return f"{self.intent.contract}/{self.intent.run}"

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding, as the run planned them."""
        assert self.intent.planned.vocabulary is not None  # a run of ours knows it
        return self.intent.planned.vocabulary

    @property
    def promise(self) -> Contract:
        return self.intent.promise

    def sides(self) -> dict[str, Side]:
        """Return document -> the side that this run put it on."""
        found: dict[str, Side] = {}
        for row in (*self._rows("corpus"), *self._rows("unlisted")):
            if isinstance(row, CorpusRow) and row.split != "left_out":
                found[row.document] = row.split
            elif isinstance(row, UnlistedRow) and row.split != "left_out":
                found |= dict.fromkeys(row.members, row.split)
        return found

    def consumed(self) -> dict[str, int]:
        """Return document -> how often its windows were trained on, of those that were."""
        found: Counter[str] = Counter()
        for row in self._rows("exposure"):
            if isinstance(row, ExposureRow):
                found[row.document] += row.consumed
        return {document: times for document, times in found.items() if times}

    def validation(self) -> dict[str, tuple[float, int]]:
        """Return document -> loss in nats and target tokens, as measured with these weights."""
        rows = (row for row in self._rows("evaluation") if isinstance(row, EvaluationRow))
        return {
            row.document: (row.nll, row.tokens) for row in rows if row.split == "validation" and row.step == self.step
        }

    def loss(self) -> float | None:
        """Return the validation loss in nats per token that was measured with these weights, if it was."""
        scored = self.validation()
        tokens = sum(tokens for _, tokens in scored.values())
        return sum(nll for nll, _ in scored.values()) / tokens if tokens else None

    def _rows(self, kind: str) -> Sequence[Row]:
        path = self.folder / "rows" / f"{kind}.jsonl"
        return read_rows(path, f"{self.name}/rows/{path.name}", self.intent.run) if path.exists() else ()


def parent(run: str, root: Path) -> Ancestor:
    """Return the run named `contract/run`, or the latest completed one of a contract that nothing overrode.

    Raises Missing where there is none, or its weights are not here; Malformed where they are not those it listed.
    """
    contract, _, name = run.partition("/")
    folders = [folder for folder in run_folders(root / "evidence") if folder.parent.name == contract]
    for folder in reversed(folders):
        if name not in ("", folder.name) or not (folder / "evidence.json").exists():
            continue
        shown = folder.relative_to(root).as_posix()
        statement = validate(Statement, read(folder / "evidence.json", f"{shown}/evidence.json"))
        intent = validate(Intent, read(folder / "intent.json", f"{shown}/intent.json"))
        if statement.outcome != "completed" or intent.origin != "run" or (intent.overrides and not name):
            continue
        files = {one.name.partition(": ")[0]: one for one in statement.artifacts}
        best = files.get("best") or files.get("last")
        if best is None or "tokenizer" not in files:
            continue
        whole = files.get("model", best)  # a tuned run lists the plain model that its best weights make
        weights, tokenizer = (root / one.name.partition(": ")[2] for one in (whole, files["tokenizer"]))
        if not weights.is_file() or not tokenizer.is_file():
            continue
        for path, listed in ((weights, whole), (tokenizer, files["tokenizer"])):
            if digest_file(path) != listed.digest:
                raise Malformed([Problem(str(path), f"is not the file that {shown} lists as {listed.digest}")])
        step = next(part for part in Path(best.name).parts if part.startswith("step-"))
        return Ancestor(folder, intent, statement, weights, whole.digest, tokenizer, int(step.removeprefix("step-")))
    why = (
        f"{run} is no completed run whose weights are under artifacts/"
        if name
        else "no completed run with its weights here"
    )
    raise Missing(contract, why)


def line(youngest: Ancestor, root: Path) -> Iterator[Ancestor]:
    """Yield a run and those it came from, the youngest first."""
    one: Ancestor | None = youngest
    while one is not None:
        yield one
        one = parent(one.intent.parent, root) if one.intent.parent else None


def known_sides(ancestors: Sequence[Ancestor]) -> dict[str, Side]:
    """Return document -> side over a lineage; a document that any of them trained on is a trained one."""
    found: dict[str, Side] = {}
    for one in ancestors:
        for document, side in one.sides().items():
            if found.get(document) != "train":
                found[document] = side
    return found
