"""The model section: the shape of a Llama-family decoder trained from scratch."""

from __future__ import annotations

from pydantic import Field, model_validator

from sovereign.canonical import Record


class Experts(Record):
    """Several feed-forward networks a layer, of which each token passes through a few (Jiang et al. 2024, Mixtral)."""

    count: int = Field(ge=2, description="feed-forward networks a layer, each of width ffn")
    active: int = Field(ge=1, description="networks that one token passes through: the likeliest by the router")
    balance: float = Field(
        default=0.01,
        ge=0,
        description="weight of the load-balancing loss in the gradient; the reported loss is without it",
    )

    @model_validator(mode="after")
    def _chooses(self) -> Experts:
        if self.active >= self.count:
            raise ValueError(
                f"active {self.active} of {self.count} experts chooses nothing; use fewer, or leave experts out"
            )
        return self


class Decoder(Record):
    """RMSNorm, SwiGLU, rotary positions, grouped-query attention (Touvron et al. 2023, Ainslie et al. 2023)."""

    hidden: int = Field(ge=8, multiple_of=8)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    ffn: int = Field(ge=8, multiple_of=8)
    context: int = Field(ge=8, description="tokens a window holds, and positions the model is trained on")
    rope_base: float = Field(default=10000.0, gt=0)
    norm_epsilon: float = Field(default=1e-5, gt=0)
    tied_embeddings: bool = True
    window: int | None = Field(
        default=None, ge=1, description="tokens a token attends to, itself included; all before it by default"
    )
    sinks: bool = Field(default=False, description="a learned logit a head that takes attention and gives nothing")
    within_documents: bool = Field(default=False, description="a token attends to its own document only")
    experts: Experts | None = None

    @model_validator(mode="after")
    def _divides(self) -> Decoder:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if (self.hidden // self.heads) % 2:
            raise ValueError(f"hidden / heads = {self.hidden // self.heads} is odd; rotary positions turn pairs")
        return self

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def reach(self) -> int:
        """Tokens that the last token of a window attends to."""
        return min(self.context, self.window or self.context)

    def parameters(self, vocabulary: int) -> int:
        """Return how many parameters the decoder has with this vocabulary, tied embeddings counted once."""
        gains = 2 * self.hidden + (self.heads if self.sinks else 0)
        embeddings = vocabulary * self.hidden * (1 if self.tied_embeddings else 2)
        networks = self.experts.count if self.experts else 1
        return self.layers * (self._matrices(networks) + gains) + embeddings + self.hidden

    def flops_per_token(self, vocabulary: int) -> float:
        """Return floating-point operations to train on one token: 6 per weight of a matrix it passes through, the
        output head among them, and attention to `reach` tokens (PaLM, app. B)."""
        networks = self.experts.active if self.experts else 1
        matrices = self.layers * self._matrices(networks) + vocabulary * self.hidden
        return 6.0 * matrices + 12.0 * self.layers * self.hidden * self.reach

    def _matrices(self, networks: int) -> int:
        """Return the weights of one layer's matrices, with so many of its feed-forward networks."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_heads * self.head_dim
        router = self.hidden * self.experts.count if self.experts else 0
        return attention + router + networks * 3 * self.hidden * self.ffn
