"""The intent: what a run is about to do and which criteria it will be held to, frozen before step 0."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from sovereign.canonical import Record
from sovereign.contract.contract import Contract
from sovereign.spec.criterion import Criterion, Id

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
RunId = Annotated[str, Field(pattern=r"^\d{8}T\d{6}Z-[0-9a-z-]{2,40}$")]


def _exists(text: str) -> str:
    datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    return text


Instant = Annotated[
    str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", description="UTC"), AfterValidator(_exists)
]


class Subjects(Record):
    """Content digests of what a result speaks about."""

    code: Digest = Field(description="the source files that a run imports")
    data: Digest = Field(description="the corpus manifest: documents, split, tokens")
    source: Digest | None = Field(
        default=None, description="the files the data came from, where they stand in the repository"
    )
    tokenizer: Digest
    model: Digest = Field(description="the contract's data, tokenizer, model, training and evaluation sections")
    evaluator: Digest = Field(description="the source files that compute measurements from rows")


class Environment(Record):
    """Where the run took place; the class is what an environment obligation compares."""

    device: Literal["cpu", "cuda"]
    accelerator: str = ""
    precision: Literal["bf16", "fp32"]
    python: str
    torch: str
    platform: str
    threads: int = Field(ge=1)
    packages: dict[str, str] = {}

    @property
    def class_(self) -> str:
        """Device, accelerator, and the minor versions of Python and torch."""
        minor = [".".join(version.split(".")[:2]) for version in (self.python, self.torch)]
        return " ".join(filter(None, (self.device, self.accelerator, f"python-{minor[0]}", f"torch-{minor[1]}")))


class Worktree(Record):
    """Whether the files that decide a run stood as committed when it began."""

    state: Literal["clean", "dirty", "unversioned"]
    commit: str | None = None
    changed: tuple[str, ...] = ()


class Planned(Record):
    """What the plan said the run would do."""

    steps: int = Field(ge=1)
    tokens: int = Field(ge=1, description="target tokens")
    windows: int = Field(ge=1, description="windows on the train side")
    passes: float = Field(gt=0)
    parameters: int = Field(ge=1)
    vocabulary: int = Field(ge=1)


class Intent(Record):
    """The frozen promise of one run."""

    schema_: Literal["sovereign/intent/v1"] = Field(default="sovereign/intent/v1", alias="schema")
    contract: str
    run: RunId
    written: Instant
    spec: str = Field(description="name of the spec that holds the criteria")
    spec_version: str
    criteria: dict[Id, Criterion] = Field(description="the claimed criteria, whole, as they stood")
    promise: Contract
    overrides: tuple[str, ...] = ()
    seed: int
    subjects: Subjects
    environment: Environment
    worktree: Worktree
    planned: Planned
    ttl_hours: float
    answers: tuple[Digest, ...] = Field(default=(), description="evidence of falsified results that this run answers")
    command: str
    sovereign: str
    seal: Digest = Field(description="digest of this document without this line")

    @property
    def confirmatory(self) -> bool:
        """Whether the run may discharge or falsify: nothing overridden, nothing uncommitted."""
        return not self.overrides and self.worktree.state != "dirty"

    @property
    def exploratory_because(self) -> str:
        if self.overrides:
            return f"overridden by --set {' '.join(self.overrides)}"
        if self.worktree.state == "dirty":
            return f"uncommitted changes in {', '.join(self.worktree.changed[:3])}"
        return ""
