"""The data section: where documents come from, what is left out, and how they are split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from sovereign.canonical import Record

Commit = Annotated[
    str,
    Field(description="the commit pinned, 40 hex digits: a branch or a tag would be another data set tomorrow"),
    AfterValidator(lambda value: _pinned(value)),
]
LicenceField = Annotated[str | None, Field(description="field that holds a document's licence, as an SPDX id")]


def _pinned(value: str) -> str:
    if len(value) != 40 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"{value!r} may move; pin a commit, 40 hex digits")
    return value


class StandardLibrary(Record):
    """The running Python's standard library, a real corpus that every machine has: its code, or the prose in it."""

    kind: Literal["stdlib"]
    part: Literal["source", "docstrings"] = "source"


class Folder(Record):
    """Every file under a folder whose name matches, each one document."""

    kind: Literal["folder"]
    path: str
    include: tuple[str, ...] = ("**/*.txt", "**/*.md", "**/*.py")


class TextFile(Record):
    """One text file, a document wherever the separator stands."""

    kind: Literal["text"]
    path: str
    separator: str = "\n\n"


class JsonLines(Record):
    """One document a line, in a named field."""

    kind: Literal["jsonl"]
    path: str
    field: str = "text"
    licence: LicenceField = None


class Parquet(Record):
    """One document a row, in a named column of one Parquet file or of all below a folder."""

    kind: Literal["parquet"]
    path: str
    field: str = "text"
    licence: LicenceField = None


class HubDataset(Record):
    """One document a row of a data set on the Hugging Face hub, at a pinned commit."""

    kind: Literal["hub"]
    dataset: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name")
    revision: Commit
    config: str | None = None
    split: str = "train"
    field: str = "text"
    licence: LicenceField = None


Single = Annotated[StandardLibrary | Folder | TextFile | JsonLines | Parquet | HubDataset, Field(discriminator="kind")]


Drawn = Annotated[
    int | None, Field(ge=1, description="examples of the train side that are used, drawn by hash; all by default")
]


class LibraryPairs(Record):
    """Pairs made of the standard library: the signature of a function, and the first paragraph of its docstring.

    An example belongs to the module it comes from: near-duplicate modules, and all that is in them, stay on one side.
    """

    kind: Literal["stdlib_pairs"]
    train: Drawn = None


class PairsFile(Record):
    """A prompt and its answer on each line of a JSONL file; only the answer carries loss."""

    kind: Literal["pairs"]
    path: str
    prompt: str = "prompt"
    answer: str = "answer"
    train: Drawn = None


class ChatFile(Record):
    """A conversation on each line of a JSONL file, turns of role and content; only the assistant's carry loss."""

    kind: Literal["chat"]
    path: str
    field: str = "messages"
    train: Drawn = None


class LibraryLabels(Record):
    """Functions of the standard library, name, arguments and first line of the docstring: does one return a value?"""

    kind: Literal["stdlib_labels"]
    train: Drawn = None


class LabelledFile(Record):
    """A text and its label on each line of a TSV file with a head, or of a JSONL file."""

    kind: Literal["labelled"]
    path: str = Field(description="from the root; $NAME at its beginning is a folder that the environment names")
    text: str = "sentence"
    label: str = "label"
    train: Drawn = None
    otherwise: LibraryLabels | None = Field(
        default=None, description="what is used where the file is not there; a notice then says so"
    )


Examples = LibraryPairs | PairsFile | ChatFile | LibraryLabels | LabelledFile
EXAMPLES = (LibraryPairs, PairsFile, ChatFile, LibraryLabels, LabelledFile)
LABELLED = (LibraryLabels, LabelledFile)


class Part(Record):
    """One source of several, and how much of the whole it is to make up."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="stands before the names of its documents")
    source: Single
    weight: float = Field(gt=0, description="share of the bytes used, relative to the other parts")


class Mixture(Record):
    """Several sources, cut by document hash to the shares of their weights.

    Nothing is repeated: the part that is scarcest for its weight is used whole, and of the others what is too much
    is left out, and counted.
    """

    kind: Literal["mixture"]
    parts: tuple[Part, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _named_once(self) -> Mixture:
        if len({part.name for part in self.parts}) != len(self.parts):
            raise ValueError("two parts have one name")
        return self


Source = Annotated[
    StandardLibrary | Folder | TextFile | JsonLines | Parquet | HubDataset | Mixture | Examples,
    Field(discriminator="kind"),
]


class NearDuplicates(Record):
    """Documents this similar stand on one side of the split (MinHash; Broder 1997, Lee et al. 2021)."""

    jaccard: float = Field(default=0.6, gt=0, le=1)
    shingle: int = Field(default=5, ge=1, description="words in a shingle")
    permutations: int = Field(default=128, ge=16, le=1024)
    keep: Literal["all", "first"] = Field(
        default="all", description="all of a family, on one side; or the first by hash, the others left out and counted"
    )


class Split(Record):
    """Shares of the documents that are never trained on; which ones is decided by document hash."""

    validation: float = Field(default=0.1, gt=0, lt=1)
    control: float = Field(default=0.1, gt=0, lt=1)
    salt: str = "sovereign"
    inherit: bool = Field(
        default=False, description="a document that an ancestor's run has put on a side stays there; needs a base run"
    )

    @model_validator(mode="after")
    def _leaves_something(self) -> Split:
        if self.validation + self.control >= 0.9:
            raise ValueError(
                f"validation + control = {self.validation + self.control:g} leaves too little to train on; stay below 0.9"
            )
        return self


class Canaries(Record):
    """Random secrets planted in the train side, to see what is memorized (Carlini et al. 2019)."""

    copies: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        default=(1, 2, 4, 8, 16), min_length=1, description="how often secrets are planted: some once, some twice, ..."
    )
    each: int = Field(default=8, ge=1, description="secrets for each number of copies")
    candidates: int = Field(default=1023, ge=15, description="secrets of the same format that are never planted")
    tokens: int = Field(default=10, ge=4, le=64)
    prefix: str = Field(default="The secret is", min_length=1)
    salt: str = "canary"


class Template(Record):
    """How an example is written out for the model; {content} is what a person wrote."""

    user: str = "{content}\n"
    assistant: str = "{content}"
    system: str = "{content}\n"

    @model_validator(mode="after")
    def _has_content(self) -> Template:
        for role in ("user", "assistant", "system"):
            if getattr(self, role).count("{content}") != 1:
                raise ValueError(f"{role}: {getattr(self, role)!r} must hold {{content}} once")
        return self


class Preferences(Record):
    """Pairs of answers, the preferred one and the other, that a later phase is to learn from; nothing here trains on them.

    The plan holds them against the base, and is refused outside the ranges: what the base finds next to impossible, or
    what differs in length above all, is no goal that preferences reach (CASE-05).
    """

    path: str = Field(description="JSONL, a prompt and its two answers on each line")
    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    pairs: int = Field(default=200, ge=10, description="how many are scored, drawn by hash")
    gap: tuple[float, float] = Field(
        description="range of the mean of ln p(chosen) - ln p(rejected) under the base, nats an answer"
    )
    length_ratio: tuple[Annotated[float, Field(gt=0)], float] = Field(
        description="range of the tokens of all chosen answers over those of all rejected ones"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Preferences:
        for name in ("gap", "length_ratio"):
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name}: [{low:g}, {high:g}] is no range; the lower end stands first")
        return self


class Data(Record):
    """Documents, cleaning, and the split."""

    source: Source
    least_bytes: int = Field(default=1, ge=1)
    most_bytes: int | None = Field(default=None, ge=1)
    undecodable: Literal["leave_out", "refuse"] = Field(
        default="leave_out", description="a document that is no UTF-8: left out and counted, or the end of the build"
    )
    licences: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="SPDX ids; documents under another, or under none, are left out"
    )
    near_duplicates: NearDuplicates = NearDuplicates()
    split: Split = Split()
    canaries: Canaries | None = Field(default=None, description="none are planted where this is absent")
    least_tokens: int | None = Field(
        default=None, ge=1, description="the plan is refused where the train side, or what is trained on, is less"
    )

    template: Template | None = Field(
        default=None, description="how pairs and turns are written out; plainly by default"
    )
    preferences: Preferences | None = Field(default=None, description="held against the base by the plan")

    @property
    def sources(self) -> tuple[Single | Examples, ...]:
        """The sources themselves, whether one or several."""
        if isinstance(self.source, Mixture):
            return tuple(part.source for part in self.source.parts)
        return (self.source,)

    @property
    def examples(self) -> bool:
        """Whether the data are examples, each whole, rather than running text cut into windows."""
        return isinstance(self.source, EXAMPLES)

    @property
    def labelled(self) -> bool:
        """Whether each example has a label."""
        return isinstance(self.source, LABELLED)

    @model_validator(mode="after")
    def _consistent(self) -> Data:
        if self.most_bytes is not None and self.most_bytes < self.least_bytes:
            raise ValueError(f"most_bytes {self.most_bytes} is below least_bytes {self.least_bytes}")
        writes = (self.examples and not self.labelled) or self.preferences is not None
        if self.template is not None and not writes:
            raise ValueError(f"template writes out pairs and chats; a source of kind {self.source.kind} has neither")
        if self.licences is not None:
            silent = [one.kind for one in self.sources if getattr(one, "licence", None) is None]
            if silent:
                raise ValueError(
                    f"licences are asked for, and the {silent[0]} source names no field of them: "
                    "give its `licence`, where it has one"
                )
        return self


class TrainedBpe(Record):
    """A byte-level BPE tokenizer (GPT-2's split pattern), trained on the train side only."""

    kind: Literal["bpe"]
    vocabulary: int = Field(ge=257, le=1_000_000, description="entries, the 256 bytes and <|endoftext|> included")


class ProbeString(Record):
    """A text and the ids that the reference tokenizer gives it."""

    text: str
    ids: tuple[int, ...]


class Expected(Record):
    """What shows that a tokenizer is the one that was meant; whatever differs refuses the plan."""

    special: dict[str, int] = Field(default={}, description="special token -> id")
    strings: tuple[ProbeString, ...] = ()
    least_bytes_per_token: float | None = Field(default=None, gt=0, description="over all documents")
    most_bytes_per_token: float | None = Field(default=None, gt=0)


class ImportedTokenizer(Record):
    """A tokenizer.json that exists already."""

    kind: Literal["file"]
    path: str
    end_of_text: str = Field(default="<|endoftext|>", description="the special token that stands between documents")
    vocabulary: int | None = Field(default=None, ge=2, description="entries it must have; whatever it has by default")
    expect: Expected = Expected()


class HubTokenizer(Record):
    """The tokenizer.json of a model on the Hugging Face hub, at a pinned commit."""

    kind: Literal["hub"]
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name")
    revision: Commit
    file: str = "tokenizer.json"
    end_of_text: str = "<|endoftext|>"
    vocabulary: int | None = Field(default=None, ge=2)
    expect: Expected = Expected()


Tokenizer = Annotated[TrainedBpe | ImportedTokenizer | HubTokenizer, Field(discriminator="kind")]
