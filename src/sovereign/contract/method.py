"""The method section: what is trained, from which weights, and which of them move."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from sovereign.canonical import Record

EMBEDDING = ("embed_tokens", "wte")  # what models call the module that holds the rows of the vocabulary
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


class Base(Record):
    """The weights that are tuned: those of a run of ours, of a folder, or of a model on the hub at a pinned commit."""

    run: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9-]*(/\d{8}T\d{6}Z-[0-9a-z-]{2,40})?$",
        description="a contract, whose latest completed run is taken, or contract/run",
    )
    folder: str | None = Field(default=None, description="config.json, safetensors and tokenizer.json, from the root")
    hub: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name")
    revision: str | None = Field(default=None, description="the commit of the hub's model, 40 hex digits")
    config: str | None = Field(
        default=None, description="a file with the sizes of the hub's config.json: what is fetched must agree with it"
    )

    @model_validator(mode="after")
    def _one_and_pinned(self) -> Base:
        given = [key for key in ("run", "folder", "hub") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"a base is one of run, folder or hub, not {' and '.join(given) or 'none of them'}")
        if self.hub and self.revision is None:
            raise ValueError(f"{self.hub} without a revision is another model tomorrow; pin a commit, 40 hex digits")
        if self.config is not None and not self.hub:
            raise ValueError("config says the sizes of a hub's model; a run or a folder has its own")
        if self.revision is not None and not self.hub:
            raise ValueError("a revision pins a model of the hub; a run or a folder is known by its bytes")
        if self.revision is not None and (len(self.revision) != 40 or set(self.revision) - set("0123456789abcdef")):
            raise ValueError(f"revision {self.revision!r} may move; pin a commit, 40 hex digits")
        if self.folder and self.folder.endswith(PICKLES):
            raise ValueError(f"{self.folder} is a pickle, which runs code as it is read; give a folder of safetensors")
        return self

    def __str__(self) -> str:
        return self.run or self.folder or f"{self.hub}@{str(self.revision)[:12]}"


class Scratch(Record):
    """Every weight is new; the model section says its shape, the tokenizer section its vocabulary."""

    kind: Literal["scratch"] = "scratch"


class Adapter(Record):
    """Low-rank adapters beside frozen matrices (Hu et al. 2021): W x + alpha / rank * B A x."""

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(
        min_length=1,
        description="names of modules, as q_proj; each must stand in every adapted layer. A classifier's may name the "
        "embedding, embed_tokens or wte, whose input is not dropped",
    )
    layers: int | None = Field(
        default=None, ge=1, description="how many layers are adapted, from the top; all by default"
    )

    @model_validator(mode="after")
    def _named_once(self) -> Adapter:
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("targets names a module twice")
        return self


def _beside_layers(adapter: Adapter) -> Adapter:
    """Refuse an adapter beside the embedding where a tied output head would stay behind."""
    if named := set(adapter.targets) & set(EMBEDDING):
        raise ValueError(
            f"{named.pop()} is adapted only of a classifier: an output head may be tied to it, and would not move"
        )
    return adapter


LayerAdapter = Annotated[Adapter, AfterValidator(_beside_layers)]
Context = Annotated[int, Field(ge=8, description="most tokens of an example, or of a window of running text")]


class Full(Record):
    """Every weight of the base moves."""

    kind: Literal["full"]
    base: Base
    context: Context


class Lora(Record):
    """Adapters move; the base is frozen."""

    kind: Literal["lora"]
    base: Base
    context: Context
    adapter: LayerAdapter


class Qlora(Record):
    """Adapters move; the adapted matrices are frozen in four bits, NF4 (Dettmers et al. 2023)."""

    kind: Literal["qlora"]
    base: Base
    context: Context
    adapter: LayerAdapter
    double_quantization: bool = Field(default=True, description="the scales are quantized too")


class NewTokens(Record):
    """Identifiers of the parent's train side that cost many tokens, the most frequent first, as one token each."""

    count: int = Field(ge=1)
    least_tokens: int = Field(default=4, ge=2, description="tokens that an identifier costs so far")


class Embeddings(Record):
    """Rows of the embedding move, and nothing else: those of new tokens, or all of them."""

    kind: Literal["embeddings"]
    base: Base
    context: Context
    rows: Literal["new", "all"]
    new_tokens: NewTokens | None = None

    @model_validator(mode="after")
    def _has_rows(self) -> Embeddings:
        if self.rows == "new" and self.new_tokens is None:
            raise ValueError("rows: new needs new_tokens: without them there is no row to move")
        return self


class Classification(Record):
    """A head over the last token's hidden state gives a label; the base moves whole, or by adapters."""

    kind: Literal["classification"]
    base: Base
    context: Context
    adapter: Adapter | None = Field(default=None, description="adapters; without them every weight of the base moves")


Tuned = Full | Lora | Qlora | Embeddings | Classification
Method = Annotated[Scratch | Full | Lora | Qlora | Embeddings | Classification, Field(discriminator="kind")]
