"""The shipping section: what leaves a run besides its checkpoints, and how its parity is shown."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sovereign.canonical import Record


class Shipping(Record):
    """A GGUF file of the best checkpoint, read again, carried out, and compared with it position by position."""

    quantize: Literal["f32", "f16", "q8_0", "q4_k", "q4_k_m"]
    prompts: int = Field(default=32, ge=32, description="held-out texts that both sides carry out")
    tokens: int = Field(default=128, ge=8, description="most tokens of a prompt; no more than the context holds")
    license: str = Field(default="", description="SPDX; empty leaves it undeclared, in words, in the file")
    planted: bool = Field(
        default=False, description="whether faults are planted in copies of the file, to show that the check sees them"
    )
