"""Amendments and waivers: the two ways a spec may give way in the open, each leaving a mark."""

from __future__ import annotations

import unicodedata
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sovereign.canonical import Record
from sovereign.spec.criterion import Id

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
LONGEST_WAIVER = 90  # days


def _person(name: str) -> str:
    """Return a name as it is told from another: without case, spaces around it, or characters that nobody sees."""
    seen = "".join(one for one in unicodedata.normalize("NFKC", name) if unicodedata.category(one) not in ("Cf", "Cc"))
    return " ".join(seen.split()).casefold()


class Amendment(Record):
    """A change to one criterion, with the results that had been seen when it was made."""

    schema_: Literal["sovereign/amendment/v1"] = Field(alias="schema")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    criterion: Id
    change: Literal["tighten", "loosen", "withdraw"]
    from_: Digest = Field(alias="from", description="criterion digest before")
    to: Digest | None = Field(default=None, description="criterion digest after; none when withdrawn")
    from_sentence: str
    to_sentence: str = ""
    reason: str = Field(min_length=1)
    results_seen: tuple[Digest, ...] = Field(description="evidence that existed under the old criterion, computed")
    author: str = Field(min_length=1)
    approver: str = Field(min_length=1)
    written: date

    @model_validator(mode="after")
    def _consistent(self) -> Amendment:
        if (self.to is None) != (self.change == "withdraw"):
            raise ValueError("`to` is the new criterion's digest, and only a withdrawal has none")
        if _person(self.author) == _person(self.approver):
            raise ValueError(f"author and approver are both {self.author!r}; someone else must approve")
        return self


class Waiver(Record):
    """A time-limited exception: the state stays visible beneath it."""

    schema_: Literal["sovereign/waiver/v1"] = Field(alias="schema")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    criterion: Id
    digest: Digest
    state: Literal["OPEN", "PARTIAL", "STALE", "FALSIFIED"]
    reason: str = Field(min_length=1)
    owner: str = Field(min_length=1)
    approver: str = Field(min_length=1)
    granted: date
    expires: date

    @model_validator(mode="after")
    def _limited(self) -> Waiver:
        if _person(self.owner) == _person(self.approver):
            raise ValueError(f"owner and approver are both {self.owner!r}; someone else must approve")
        days = (self.expires - self.granted).days
        if not 0 < days <= LONGEST_WAIVER:
            raise ValueError(f"expires {days} days after it was granted; 1 to {LONGEST_WAIVER} are allowed")
        return self
