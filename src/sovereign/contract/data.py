"""The data section: where documents come from, what is left out, and how they are split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sovereign.canonical import Record


class StandardLibrary(Record):
    """The source code of the running Python's standard library: a real corpus that every machine has."""

    kind: Literal["stdlib"]


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


Source = Annotated[StandardLibrary | Folder | TextFile | JsonLines, Field(discriminator="kind")]


class NearDuplicates(Record):
    """Documents this similar stand on one side of the split (MinHash; Broder 1997, Lee et al. 2021)."""

    jaccard: float = Field(default=0.6, gt=0, le=1)
    shingle: int = Field(default=5, ge=1, description="words in a shingle")
    permutations: int = Field(default=128, ge=16, le=1024)


class Split(Record):
    """Shares of the documents that are never trained on; which ones is decided by document hash."""

    validation: float = Field(default=0.1, gt=0, lt=1)
    control: float = Field(default=0.1, gt=0, lt=1)
    salt: str = "sovereign"

    @model_validator(mode="after")
    def _leaves_something(self) -> Split:
        if self.validation + self.control >= 0.9:
            raise ValueError(
                f"validation + control = {self.validation + self.control:g} leaves too little to train on; stay below 0.9"
            )
        return self


class Data(Record):
    """Documents, cleaning, and the split."""

    source: Source
    least_bytes: int = Field(default=1, ge=1)
    most_bytes: int | None = Field(default=None, ge=1)
    near_duplicates: NearDuplicates = NearDuplicates()
    split: Split = Split()


class TrainedBpe(Record):
    """A byte-level BPE tokenizer (GPT-2's split pattern), trained on the train side only."""

    kind: Literal["bpe"]
    vocabulary: int = Field(ge=257, le=1_000_000, description="entries, the 256 bytes and <|endoftext|> included")


class ImportedTokenizer(Record):
    """A tokenizer.json that exists already."""

    kind: Literal["file"]
    path: str


Tokenizer = Annotated[TrainedBpe | ImportedTokenizer, Field(discriminator="kind")]
