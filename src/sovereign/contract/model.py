"""The model section: the shape of a Llama-family decoder trained from scratch."""

from __future__ import annotations

from pydantic import Field, model_validator

from sovereign.canonical import Record


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

    def parameters(self, vocabulary: int) -> int:
        """Return how many parameters the decoder has with this vocabulary, tied embeddings counted once."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_heads * self.head_dim
        layer = attention + 3 * self.hidden * self.ffn + 2 * self.hidden
        embeddings = vocabulary * self.hidden * (1 if self.tied_embeddings else 2)
        return self.layers * layer + embeddings + self.hidden

    def flops_per_token(self, vocabulary: int) -> float:
        """Return floating-point operations to train on one token: 6 per matrix weight, and attention (PaLM, app. B)."""
        embedding = vocabulary * self.hidden
        matrices = self.parameters(vocabulary) - (0 if self.tied_embeddings else embedding)
        return 6.0 * matrices + 12.0 * self.layers * self.hidden * self.context
