"""The signature envelope beside a document of a run: DSSE (secure-systems-lab/dsse) over the document's canonical bytes."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from sovereign.canonical import Record

Signable = Literal["intent", "evidence"]
SIGNABLE: tuple[Signable, ...] = ("intent", "evidence")
TYPE = {name: f"application/vnd.sovereign.{name}.v1+json" for name in SIGNABLE}


def _decodes(text: str) -> str:
    base64.b64decode(text, validate=True)
    return text


Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$"), AfterValidator(_decodes)]


class Signature(Record):
    """One signature over the envelope's type and payload."""

    keyid: str = Field(default="", description="a hint at the key; nothing is decided by it")
    sig: Base64


class Envelope(Record):
    """A document's canonical bytes and the signatures over them."""

    payload: Base64 = Field(description="the RFC 8785 bytes of the document beside it")
    type_: str = Field(alias="payloadType")
    signatures: tuple[Signature, ...] = Field(min_length=1)

    @property
    def content(self) -> bytes:
        return base64.b64decode(self.payload)

    @property
    def signed(self) -> bytes:
        """What is signed: DSSE's pre-authentication encoding of the type and the payload."""
        kind = self.type_.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.content), self.content)


def unsigned(kind: Signable, content: bytes) -> Envelope:
    """Return an envelope over canonical bytes to which signatures are to be added; as it stands, none is valid."""
    return Envelope.model_construct(payload=base64.b64encode(content).decode(), type_=TYPE[kind], signatures=())


def file_name(kind: Signable) -> str:
    return f"{kind}.dsse.json"
