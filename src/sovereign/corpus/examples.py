"""Examples: pairs, conversations and labelled texts, each trained on whole, with loss on what it is to teach.

An example is named by its content, like a document. Its side is that of the document it was cut from (a module of
the standard library, else itself), and a held-out example that resembles one of the train side is left out.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sovereign.canonical import Malformed, Problem, canonical_bytes, digest, parse_json
from sovereign.contract.data import (
    EXAMPLES,
    ChatFile,
    Data,
    Examples,
    LabelledFile,
    LibraryLabels,
    LibraryPairs,
    PairsFile,
    Preferences,
    StandardLibrary,
    Template,
)
from sovereign.corpus import tokens
from sovereign.corpus.build import SIDES, Listed
from sovereign.corpus.documents import Text, gather
from sovereign.corpus.split import Side, inherited, near_duplicates, sides
from sovereign.corpus.stream import PADDED_TO, Exhausted, Exposure, permuted

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Bpe

HELD_OUT: tuple[Side, ...] = ("validation", "control")
IGNORED = -100  # a target that carries no loss: what torch ignores by default
MOST_CHARACTERS = 600  # of a pair of the standard library: longer docstrings are manuals
LABELS = ("nothing", "value")  # what a function of the standard library returns

Role = Literal["system", "user", "assistant"]
Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Turn:
    role: Role
    content: str


@dataclass(frozen=True)
class Example:
    """What a source holds: turns of which the assistant's are learned, or one turn and its label."""

    name: str
    turns: tuple[Turn, ...]
    label: str = ""
    origin: str = ""  # the document it was cut from, where that is another

    @cached_property
    def document(self) -> str:
        """First 16 hex digits of the sha256 of its content."""
        content = {"turns": [[turn.role, turn.content] for turn in self.turns], "label": self.label}
        return hashlib.sha256(canonical_bytes(content)).hexdigest()[:16]

    @property
    def text(self) -> str:
        return "\n".join(turn.content for turn in self.turns)


@dataclass(frozen=True)
class Encoded:
    """An example as tokens: what the model is given, and what it loses on at each of them (IGNORED: nothing)."""

    document: str
    inputs: NDArray[np.int64]  # [t]
    targets: NDArray[np.int64]  # [t]
    cut: int = 0  # tokens beyond the context

    @property
    def counted(self) -> int:
        """Targets that carry loss."""
        return int((self.targets != IGNORED).sum())


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def read_examples(source: Examples, root: Path) -> list[Example]:
    """Return the examples of a source in its order; raises Malformed for what is missing or no example, at its place."""
    if isinstance(source, LibraryPairs):
        return list(_library_pairs())
    if isinstance(source, LibraryLabels):
        return list(_library_labels())
    if isinstance(source, LabelledFile):
        path = located(source.path, root)
        if source.otherwise is not None and (path is None or not path.is_file()):
            return read_examples(source.otherwise, root)
        if path is None:
            raise Malformed(
                [Problem(source.path, "the environment names no such folder; set the variable, or give a path")]
            )
        return list(_labelled(path, source))
    return list(_turns(root / source.path, source))


def fell_back(source: Examples, root: Path) -> bool:
    """Say whether a declared substitute stands in for a file that is not there."""
    if not isinstance(source, LabelledFile) or source.otherwise is None:
        return False
    path = located(source.path, root)
    return path is None or not path.is_file()


def located(path: str, root: Path) -> Path | None:
    """Return a path from the root, or below the folder that its first part, $NAME, names in the environment."""
    if not path.startswith("$"):
        return root / path
    name, _, rest = path[1:].partition("/")
    folder = os.environ.get(name)
    return Path(folder) / rest if folder else None


def _functions() -> Iterator[tuple[str, str, ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """Yield (name, module's document, function, docstring) of each documented function of the standard library."""
    for found in gather(StandardLibrary(kind="stdlib"), Path()):
        try:
            tree = ast.parse(found.data)
        except (SyntaxError, ValueError):  # templates and the like
            continue
        document = hashlib.sha256(found.data).hexdigest()[:16]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (told := ast.get_docstring(node)):
                yield f"{found.name}:{node.lineno}", document, node, told


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return f"def {node.name}({ast.unparse(node.args)}):"


def _library_pairs() -> Iterator[Example]:
    for name, document, node, told in _functions():
        answer = " ".join(told.split("\n\n")[0].split())
        prompt = _signature(node)
        if len(answer.split()) >= 3 and len(prompt) + len(answer) <= MOST_CHARACTERS:
            yield Example(name, (Turn("user", prompt), Turn("assistant", answer)), origin=document)


def _library_labels() -> Iterator[Example]:
    for name, document, node, told in _functions():
        returns = any(isinstance(one, ast.Return) and one.value is not None for one in _own(node))
        yields = any(isinstance(one, ast.Yield | ast.YieldFrom) for one in _own(node))
        first = told.strip().split("\n")[0]
        if not yields and len(node.body) > 1:
            text = f"{_signature(node)} {first}"
            yield Example(name, (Turn("user", text[:MOST_CHARACTERS]),), LABELS[returns], document)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function without those of functions inside it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield from _own(child)


def _lines(path: Path, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_text(path, name).split("\n"), 1):
        if line.strip():
            value = parse_json(line.encode(), name, number).value
            if not isinstance(value, dict):
                raise Malformed([Problem(name, "the line is no object", number)])
            yield number, value


def _turns(path: Path, source: PairsFile | ChatFile) -> Iterator[Example]:
    for number, row in _lines(path, source.path):
        turns: list[Any]
        if isinstance(source, PairsFile):
            turns = [
                {"role": "user", "content": row.get(source.prompt)},
                {"role": "assistant", "content": row.get(source.answer)},
            ]
            wanted = f"texts in fields {source.prompt!r} and {source.answer!r}; it has {', '.join(sorted(row))}"
        else:
            given = row.get(source.field)
            turns = given if isinstance(given, list) else []
            wanted = f"a list of turns {{role, content}} in field {source.field!r}, one of them the assistant's"
        yield Example(f"{source.path}#{number:07d}", _checked(turns, source.path, number, wanted))


def read_preferences(source: Preferences, root: Path) -> list[tuple[Example, Example]]:
    """Return each prompt with its chosen and with its rejected answer; raises Malformed for a line without the three."""
    wanted = f"texts in fields {source.prompt!r}, {source.chosen!r} and {source.rejected!r}"
    found = []
    for number, row in _lines(root / source.path, source.path):
        asked = {"role": "user", "content": row.get(source.prompt)}
        both = [
            _checked([asked, {"role": "assistant", "content": row.get(answer)}], source.path, number, wanted)
            for answer in (source.chosen, source.rejected)
        ]
        if not both[0][1].content or not both[1][1].content or both[0] == both[1]:
            raise Malformed([Problem(source.path, "an answer is empty, or both are the same", number)])
        name = f"{source.path}#{number:07d}"
        found.append((Example(name, both[0]), Example(name, both[1])))
    return found


def _checked(turns: Sequence[Any], name: str, number: int, wanted: str) -> tuple[Turn, ...]:
    sound = all(
        isinstance(one, dict)
        and set(one) == {"role", "content"}
        and one["role"] in ("system", "user", "assistant")
        and isinstance(one["content"], str)
        for one in turns
    )
    if not sound or not any(one["role"] == "assistant" for one in turns):
        raise Malformed([Problem(name, f"the line needs {wanted}", number)])
    return tuple(Turn(one["role"], one["content"]) for one in turns)


def _labelled(path: Path, source: LabelledFile) -> Iterator[Example]:
    text = _text(path, source.path)
    if path.suffix == ".jsonl":
        rows = _lines(path, source.path)
    else:
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
        rows = ((number, dict(row)) for number, row in enumerate(table, 2))
    for number, row in rows:
        content, label = row.get(source.text), row.get(source.label)
        if not isinstance(content, str) or not isinstance(label, str | int) or isinstance(label, bool):
            known = ", ".join(str(key) for key in row)
            message = f"no text in {source.text!r} or no label in {source.label!r}; there are {known}"
            raise Malformed([Problem(source.path, message, number)])
        yield Example(f"{source.path}#{number:07d}", (Turn("user", content.strip()),), str(label))


def _text(path: Path, name: str) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise Malformed([Problem(name, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise Malformed([Problem(name, f"no UTF-8: {error.reason} at byte {error.start}")]) from None


# ── tokens and what they teach ───────────────────────────────────────────────────────────────────


def encoded(
    example: Example, encode: Callable[[str], Sequence[int]], end_of_text: int, context: int, template: Template,
    labels: Sequence[str] = (),
) -> Encoded:  # fmt: skip
    """Return an example as tokens, cut to `context`, the end-of-text its first input.

    The assistant's tokens carry loss, and the end-of-text that closes each of its turns. With labels the last token's
    target is the number of the label, and nothing else carries loss.
    """
    if labels:
        ids = [end_of_text, *encode(example.turns[0].content)]
        kept = np.array(ids[:context], dtype=np.int64)
        targets = np.full(len(kept), IGNORED, dtype=np.int64)
        targets[-1] = labels.index(example.label)
        return Encoded(example.document, kept, targets, max(0, len(ids) - context))
    sequence, learned = [end_of_text], [False]
    for turn in example.turns:
        ids = list(encode(_written(turn, template)))
        teaches = turn.role == "assistant"
        sequence += [*ids, *([end_of_text] if teaches else [])]
        learned += [teaches] * (len(ids) + teaches)
    inputs = np.array(sequence[:-1][:context], dtype=np.int64)
    targets = np.where(learned[1:], sequence[1:], IGNORED)[:context].astype(np.int64)
    return Encoded(example.document, inputs, targets, max(0, len(sequence) - 1 - context))


def _written(turn: Turn, template: Template) -> str:
    return str(getattr(template, turn.role)).replace("{content}", turn.content)


def pieces(one: Encoded, decode: Callable[[Sequence[int]], str]) -> list[tuple[str, bool]]:
    """Return an example's text in order, cut where its tokens begin or cease to carry loss."""
    following = np.where(one.targets == IGNORED, np.append(one.inputs[1:], -1), one.targets)
    found: list[tuple[list[int], bool]] = []
    for token, learned in zip(following.tolist(), (one.targets != IGNORED).tolist(), strict=True):
        if token < 0:
            continue
        if not found or found[-1][1] != learned:
            found.append(([], learned))
        found[-1][0].append(token)
    return [(decode(ids), learned) for ids, learned in found]


# ── a set of examples ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ExampleSet:
    """Examples on their sides, encoded; it answers what a corpus answers."""

    tokenizer_path: Path
    tokenizer: Bpe = field(repr=False)
    end_of_text: int
    held: int  # examples of the source, as they were read: those that `documents` should account for
    documents: tuple[Listed, ...]
    sides: Mapping[Side, tuple[Encoded, ...]] = field(repr=False)
    examples: Mapping[str, Example] = field(repr=False)
    labels: tuple[str, ...]
    template: Template
    seconds: Mapping[str, float]

    @property
    def held_out(self) -> frozenset[str]:
        """Examples that are never trained on."""
        return frozenset(one.document for side in HELD_OUT for one in self.sides[side])

    @property
    def vocabulary(self) -> int:
        return tokens.size(self.tokenizer)

    @cached_property
    def tokenizer_digest(self) -> str:
        return tokens.tokenizer_digest(self.tokenizer)

    @cached_property
    def digest(self) -> str:
        """What the data is: every example used, its side and its tokens, and how it is written out."""
        used = sorted((one.document, one.split, one.tokens) for one in self.documents if one.split != "left_out")
        told = {"documents": [list(one) for one in used], "tokenizer": self.tokenizer_digest}
        return digest({**told, "labels": list(self.labels), "template": self.template.plain()})

    @property
    def cut(self) -> int:
        """Tokens beyond the context, over all sides."""
        return sum(one.cut for side in self.sides.values() for one in side)

    @property
    def without_targets(self) -> list[str]:
        """Examples of which no token carries loss: the prompt alone fills the context (CASE-11)."""
        return [one.document for side in self.sides.values() for one in side if not one.counted]

    def shown(self) -> tuple[str, list[tuple[str, bool]]]:
        """Return the first example of the train side, and its pieces: what is given, and what is learned."""
        first = self.sides["train"][0]
        if self.labels:
            label = self.labels[int(first.targets[-1])]
            return first.document, [(self.decode(first.inputs[1:].tolist()), False), (label, True)]
        return first.document, pieces(first, self.decode)

    def probes(self) -> list[tokens.Probed]:
        """Return what the tokenizer makes of strings that are the same for every tokenizer."""
        return tokens.probed(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        return [int(one) for one in tokens.encode(self.tokenizer, [text])[0]]

    def decode(self, ids: Sequence[int]) -> str:
        return tokens.decode(self.tokenizer, ids)

    def asked(self, document: str) -> tuple[str, str]:
        """Return what an example asks, written out up to its last answer, and that answer."""
        turns = self.examples[document].turns
        last = max(at for at, turn in enumerate(turns) if turn.role == "assistant")
        return "".join(_written(turn, self.template) for turn in turns[:last]), turns[last].content


def build_examples(
    data: Data, root: Path, tokenizer: Path, end: str, context: int, known: Mapping[str, Side], told: Told
) -> ExampleSet:
    """Return the examples of a data section on their sides, in tokens of an existing tokenizer.

    `known` says on which side an ancestor put a document; it decides where the contract inherits. Raises
    Contaminated where the split would be drawn anew over known documents, and ValueError for a side without examples.
    """
    assert isinstance(data.source, EXAMPLES)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        told(part, 0, 1)
        began = time.perf_counter()
        yield
        seconds[part] = round(time.perf_counter() - began, 3)
        told(part, 1, 1)

    with timed("reading examples"):
        found = read_examples(data.source, root)
    used, out = _cleaned(found, data)
    drawn_sides = sides({one.document: one.origin or one.document for one in used}, data.split)
    seen = {
        one.document: where for one in used if (where := known.get(one.document) or known.get(one.origin)) is not None
    }
    side = inherited(drawn_sides, seen, data.split.inherit)
    with timed("near duplicates"):
        texts = [Text(one.document, one.name, one.text, len(one.text.encode())) for one in used]
        clusters = near_duplicates(texts, data.near_duplicates)
    trained = {clusters[one] for one, where in side.items() if where == "train"}
    near = {one for one, where in side.items() if where != "train" and clusters[one] in trained}
    drawn = sorted(
        (one for one, where in side.items() if where == "train"),
        key=lambda one: hashlib.sha256(f"{data.split.salt}/{one}".encode()).digest(),
    )
    beyond = set(drawn[data.source.train :]) if data.source.train is not None else set()
    out += [(one, "near_duplicate") for one in used if one.document in near]
    out += [(one, "not_drawn") for one in used if one.document in beyond]
    gone = near | beyond
    used = [one for one in used if one.document not in gone]
    empty = [where for where in ("train", *HELD_OUT) if not any(side[one.document] == where for one in used)]
    if empty:
        raise ValueError(f"{len(used)} examples leave the {empty[0]} side empty; change split.salt or the shares")

    bpe = tokens.load(tokenizer, end)
    end_of_text, template = tokens.end_of_text(bpe, end), data.template or Template()
    labels = tuple(sorted({one.label for one in used})) if data.labelled else ()
    if data.labelled and len(labels) < 2:
        raise ValueError(f"the examples have one label, {labels[0]!r}: there is nothing to tell apart")
    with timed("tokens"):
        made = {
            one.document: encoded(
                one, lambda text: tokens.encode(bpe, [text])[0].tolist(), end_of_text, context, template, labels
            )
            for one in used
        }
    listed = [
        Listed(
            document=one.document, name=one.name, split=side[one.document], bytes=len(one.text.encode()),
            tokens=len(made[one.document].inputs), cluster=clusters[one.document], origin=one.origin,
        )
        for one in used
    ] + [
        Listed(
            document=one.document, name=one.name, split="left_out", reason=reason, bytes=len(one.text.encode()), tokens=0
        )
        for one, reason in out
    ]  # fmt: skip
    on_sides: dict[Side, tuple[Encoded, ...]] = {
        where: tuple(made[one.document] for one in used if side[one.document] == where) for where in SIDES
    }
    return ExampleSet(
        tokenizer,
        bpe,
        end_of_text,
        len(found),
        tuple(listed),
        on_sides,
        {one.document: one for one in used},
        labels,
        template,
        seconds,
    )


def _cleaned(found: Sequence[Example], data: Data) -> tuple[list[Example], list[tuple[Example, str]]]:
    used: list[Example] = []
    out: list[tuple[Example, str]] = []
    seen: set[str] = set()
    for one in found:
        size = len(one.text.encode())
        if one.document in seen:
            out.append((one, "exact_duplicate"))
        elif size < data.least_bytes or (data.most_bytes is not None and size > data.most_bytes):
            out.append((one, "too_short" if size < data.least_bytes else "too_long"))
        else:
            seen.add(one.document)
            used.append(one)
    return used, out


# ── batches ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ExampleBatch:
    """One rank's examples of one step, padded on the right to the longest: [examples, t] each."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    windows: NDArray[np.int64]  # numbers of the examples
    passed: int


def padded(some: Sequence[Encoded], length: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return inputs and targets [examples, length], padded on the right with 0 and IGNORED; causal models see no padding."""
    length = length or max(len(one.inputs) for one in some)
    inputs = np.zeros((len(some), length), dtype=np.int64)
    targets = np.full((len(some), length), IGNORED, dtype=np.int64)
    for row, one in enumerate(some):
        inputs[row, : len(one.inputs)], targets[row, : len(one.targets)] = one.inputs, one.targets
    return inputs, targets


class ExampleStream:
    """Examples of the train side as a function of (seed, step, rank, world): every pass a fresh permutation."""

    def __init__(
        self, examples: Sequence[Encoded], sequences: int, seed: int, wrap_around: bool = False,
        most_passes: float | None = None,
    ):  # fmt: skip
        self.examples, self.sequences, self.seed = tuple(examples), sequences, seed
        self.longest = max((len(one.inputs) for one in self.examples), default=0)
        self.wrap_around, self.most_passes = wrap_around, 1.0 if most_passes is None else most_passes
        self._order = lru_cache(maxsize=4)(self._ordered)

    @property
    def per_pass(self) -> int:
        return len(self.examples)

    def capacity(self) -> int:
        """Return how many examples may be consumed over all passes."""
        return math.floor(self.per_pass * self.most_passes)

    def refusal(self, steps: int) -> str | None:
        """Return the arithmetic that forbids this many steps, or None where they fit."""
        wanted = steps * self.sequences
        if self.per_pass < 2:
            return f"{self.per_pass} example(s) on the train side: one alone would be every batch"
        if wanted <= self.capacity():
            return None
        limit = (
            f"most_passes {self.most_passes:g} allows {self.capacity()}" if self.wrap_around else "wrap_around is false"
        )
        return (
            f"{steps} steps x {self.sequences} sequences = {wanted} examples, "
            f"but the train side holds {self.per_pass} and {limit}"
        )

    def windows(self, step: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Return the numbers of the examples of one rank in one step, in order."""
        refused = self.refusal(step)
        if refused:
            raise Exhausted(refused)
        share = self.sequences // world
        first = (step - 1) * self.sequences + rank * share
        places = (divmod(first + at, self.per_pass) for at in range(share))
        return np.array([self._order(passed)[position] for passed, position in places], dtype=np.int64)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> ExampleBatch:
        """Return one rank's share of one step; raises Exhausted where there is no more."""
        windows = self.windows(step, rank, world)
        some = [self.examples[number] for number in windows]
        length = -(-max(len(one.inputs) for one in some) // PADDED_TO) * PADDED_TO
        inputs, targets = padded(some, min(length, self.longest))
        return ExampleBatch(inputs, targets, windows, (step - 1) * self.sequences // self.per_pass)

    def targets(self, steps: int, since: int = 0) -> int:
        """Return the targets that carry loss in the steps after `since`, up to `steps`, counted from the examples consumed."""
        return sum(
            self.examples[number].counted
            for step in range(since + 1, steps + 1)
            for number in self.windows(step).tolist()
        )

    def given(self, steps: int) -> int:
        """Return the tokens that the first `steps` steps put in, padding left out."""
        return sum(
            len(self.examples[number].inputs) for step in range(1, steps + 1) for number in self.windows(step).tolist()
        )

    def lengths(self, steps: int, together: int) -> int:
        """Return how many lengths the batches of the first `steps` steps have, so many examples together."""
        found = set()
        for step in range(1, steps + 1):
            long = np.array([len(self.examples[number].inputs) for number in self.windows(step).tolist()])
            most = np.maximum.reduceat(long, np.arange(0, len(long), together))
            found.update((-(-most // PADDED_TO)).tolist())
        return len(found)

    def exposures(self, steps: int) -> list[Exposure]:
        """Return how often each example was consumed in the first `steps` steps."""
        visits = np.zeros(self.per_pass, dtype=np.int64)
        for step in range(1, steps + 1):
            np.add.at(visits, self.windows(step), 1)
        return [Exposure(one.document, 1, seen, seen) for one, seen in zip(self.examples, visits.tolist(), strict=True)]

    def _ordered(self, passed: int) -> NDArray[np.int64]:
        positions = np.arange(self.per_pass, dtype=np.uint64)
        order = permuted(positions, self.per_pass, f"sovereign/examples/v1 seed {self.seed} pass {passed}")
        # an example that ended the pass before does not begin this one: batches of one would repeat
        if passed and self._order(passed - 1)[-1] == order[0]:
            order[[0, 1]] = order[[1, 0]]
        return order
