"""The intent: what a run is about to do and which criteria it will be held to, frozen before step 0."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

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


Origin = Literal["run", "callback", "import", "suite"]


class Subjects(Record):
    """Content digests of what a result speaks about; one that could not be seen is left out, and equals no other."""

    code: Digest | None = Field(default=None, description="the source files that a run imports; a callback's scripts")
    data: Digest | None = Field(default=None, description="the corpus manifest: documents, split, tokens")
    source: Digest | None = Field(
        default=None, description="the files the data came from, where they stand in the repository"
    )
    tokenizer: Digest | None = None
    base: Digest | None = Field(default=None, description="the weights that are tuned")
    model: Digest = Field(description="the contract's data, tokenizer, model, training and evaluation sections")
    evaluator: Digest = Field(description="the source files that compute measurements from rows")


class Environment(Record):
    """Where the run took place; the class is what an environment obligation compares."""

    device: Literal["cpu", "cuda", "mps", "unknown"]
    accelerator: str = ""
    precision: Literal["bf16", "fp16", "fp32", "unknown"]
    python: str
    torch: str
    platform: str
    threads: int | None = Field(default=None, ge=1, description="of each process")
    processes: int = Field(default=1, ge=1)
    packages: dict[str, str] = {}

    @property
    def class_(self) -> str:
        """Device, accelerator, and the minor versions of Python and torch."""
        minor = [".".join(version.split(".")[:2]) for version in (self.python, self.torch)]
        return " ".join(filter(None, (self.device, self.accelerator, f"python-{minor[0]}", f"torch-{minor[1]}")))

    def on(self, place: str) -> Environment:
        """Return this environment as one that meets an obligation on `place`: any, a device, or a class."""
        words = place.split()
        if place == "any" or place == self.class_:
            return self
        named: dict[str, str] = {"device": words[0]}
        if len(words) > 1:
            python, torch = (word.rpartition("-")[2] for word in words[-2:])
            named |= {"accelerator": " ".join(words[1:-2]), "python": python, "torch": torch}
        return self.model_copy(update=named)


class Worktree(Record):
    """Whether the files that decide a run stood as committed when it began."""

    state: Literal["clean", "dirty", "unversioned"]
    commit: str | None = None
    changed: tuple[str, ...] = ()


class Planned(Record):
    """What the plan said the run would do; of somebody else's trainer, as much of it as can be known."""

    steps: int = Field(ge=1)
    tokens: int = Field(ge=1, description="target tokens")
    tokens_until: dict[str, int] | None = Field(
        default=None, description="evaluated step -> target tokens until then, where the run may stop early"
    )
    documents: int | None = Field(
        default=None, ge=1, description="documents that the source held, as they were read: used or left out"
    )
    windows: int | None = Field(default=None, ge=1, description="windows on the train side")
    passes: float | None = Field(default=None, gt=0)
    parameters: int | None = Field(default=None, ge=1)
    trainable: int | None = Field(default=None, ge=1, description="parameters that move, where a base is tuned")
    vocabulary: int | None = Field(default=None, ge=1)
    peak_bytes: int | None = Field(
        default=None, ge=1, description="memory of one process while it trains, as predicted"
    )


class Intent(Record):
    """The frozen promise of one run."""

    schema_: Literal["sovereign/intent/v1"] = Field(default="sovereign/intent/v1", alias="schema")
    contract: str
    run: RunId
    origin: Origin = Field(
        default="run",
        description="who trained: sovereign, somebody else's trainer watched live, or one read of in a log; a suite diagnoses "
        "runs with planted causes",
    )
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
    parent: str | None = Field(default=None, description="contract/run of the base that is tuned, where it is a run")
    answers: tuple[Digest, ...] = Field(default=(), description="evidence of falsified results that this run answers")
    command: str
    scripts: tuple[str, ...] = Field(
        default=(), description="files a callback's or a suite's code subject digests, from the root"
    )
    sovereign: str
    seal: Digest = Field(description="digest of this document without this line")

    @model_validator(mode="after")
    def _a_run_knows_itself(self) -> Intent:
        """Hold a run of our own to everything that it can know; only other trainers may leave it out."""
        if self.origin != "run":
            return self
        looked_at: tuple[tuple[str, Record, tuple[str, ...]], ...] = (
            ("subjects", self.subjects, ("code", "data", "tokenizer")),
            ("planned", self.planned, ("windows", "passes", "parameters", "vocabulary")),
            ("environment", self.environment, ("threads",)),
        )
        absent = [f"{part}.{key}" for part, record, keys in looked_at for key in keys if getattr(record, key) is None]
        if absent:
            raise ValueError(f"a run's intent gives {', '.join(absent)}; only other trainers' may leave it out")
        if self.environment.device not in ("cpu", "cuda") or self.environment.precision == "unknown":
            raise ValueError(f"no run of ours takes place on {self.environment.device} in {self.environment.precision}")
        return self

    @property
    def confirmatory(self) -> bool:
        """Whether the run may discharge or falsify: promised before step 0, nothing overridden, nothing uncommitted."""
        return self.origin != "import" and not self.overrides and self.worktree.state != "dirty"

    @property
    def exploratory_because(self) -> str:
        if self.origin == "import":
            return "imported from a log: its intent was not frozen before step 0"
        if self.overrides:
            return f"overridden by --set {' '.join(self.overrides)}"
        if self.worktree.state == "dirty":
            return f"uncommitted changes in {', '.join(self.worktree.changed[:3])}"
        return ""
