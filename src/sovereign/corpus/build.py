"""A corpus, built once and found again: source → documents → split → tokenizer → shards.

    <cache>/<key>/
      tokenizer.json
      train/ validation/ control/   shards, each with a manifest
      texts.jsonl                   the held-out texts, for prompts
      corpus.json                   every document and its side, sealed; written last

The key is the digest of what decides the content: the data and tokenizer sections and the source's
files. A folder is built under another name and renamed, so that two builders at once, or a kill,
leave a whole corpus or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sovereign.canonical import (
    Malformed,
    Problem,
    Record,
    digest,
    digest_bytes,
    digest_file,
    sync_directory,
    write_atomic,
)  # fmt: skip
from sovereign.contract.data import Canaries, Data, HubTokenizer, ImportedTokenizer, Mixture, Tokenizer, TrainedBpe
from sovereign.corpus import canaries, tokens
from sovereign.corpus.documents import Found, LeftOut, Text, clean, gather, left, to_shares
from sovereign.corpus.scoring import Ids
from sovereign.corpus.shards import Shards, open_shards, sealed, unsealed, write_shards
from sovereign.corpus.split import Side, inherited, near_duplicates, sides

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Bpe

Told = Callable[[str, int, int], None]
SIDES: tuple[Side, ...] = ("train", "validation", "control")


class Listed(Record):
    """A document the source held: the fields of a corpus row."""

    document: str
    name: str
    split: Literal["train", "validation", "control", "left_out"]
    reason: str = ""
    bytes: int
    tokens: int
    cluster: str = ""
    origin: str = ""
    round_trip: Literal["", "exact", "differs"] = ""


class Listing(Record):
    """What a corpus holds."""

    format: Literal["sovereign/corpus/v3"] = "sovereign/corpus/v3"
    tokenizer: str
    end_of_text: str = tokens.END_OF_TEXT
    held: int  # documents of the source, as they were read, and canaries
    documents: tuple[Listed, ...]
    texts: str
    seconds: dict[str, float]
    digest: str = ""


@dataclass(frozen=True)
class Corpus:
    """A corpus as built; token arrays are memory-mapped."""

    folder: Path
    listing: Listing
    shards: dict[Side, Shards] = field(repr=False)

    @property
    def train(self) -> Shards:
        return self.shards["train"]

    @property
    def documents(self) -> tuple[Listed, ...]:
        return self.listing.documents

    @property
    def held(self) -> int:
        """Documents of the source, as they were read, and canaries: those that `documents` should account for."""
        return self.listing.held

    @property
    def seconds(self) -> dict[str, float]:
        """Wall seconds that each part of the build took, when it was built."""
        return self.listing.seconds

    @property
    def held_out(self) -> frozenset[str]:
        """Documents that are never trained on."""
        return frozenset((*self.shards["validation"].documents, *self.shards["control"].documents))

    @property
    def end_of_text(self) -> int:
        return self.train.end_of_text

    @property
    def vocabulary(self) -> int:
        return self.train.vocabulary

    @property
    def tokenizer_path(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def tokenizer_digest(self) -> str:
        return self.listing.tokenizer

    @cached_property
    def digest(self) -> str:
        """What the data is: every document, its side and its tokens, whatever it was called here."""
        documents = sorted((one.document, one.split, one.tokens) for one in self.documents if one.split != "left_out")
        return digest({"documents": [list(one) for one in documents], "tokenizer": self.tokenizer_digest})

    def side_digest(self, side: Side) -> str:
        """What one side is: losses on two sides of different digests cannot be compared (CASE-36)."""
        documents = sorted((one.document, one.tokens) for one in self.documents if one.split == side)
        return digest({"documents": [list(one) for one in documents], "tokenizer": self.tokenizer_digest})

    def probes(self) -> list[tokens.Probed]:
        """Return what the tokenizer makes of strings that are the same for every tokenizer."""
        return tokens.probed(self._tokenizer)

    def ids(self, side: Side) -> list[tuple[str, Ids]]:
        """Return (document, ids) of one side, in the order of its shards."""
        shards = self.shards[side]
        return [(document, shards.ids(document)) for document in shards.documents]

    def texts(self, side: Literal["validation", "control"]) -> list[tuple[str, str]]:
        """Return (document, text) of one held-out side."""
        wanted = set(self.shards[side].documents)
        with (self.folder / "texts.jsonl").open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return [(row["document"], row["text"]) for row in rows if row["document"] in wanted]

    def train_probe(self, count: int, seed: int) -> list[tuple[str, Ids]]:
        """Return (document, ids) of `count` documents of the train side, the same for the same seed."""
        drawn = sorted(
            self.train.documents, key=lambda document: hashlib.sha256(f"{seed}/{document}".encode()).digest()
        )
        return [(document, self.train.ids(document)) for document in drawn[:count]]

    @cached_property
    def _tokenizer(self) -> Bpe:
        return tokens.load(self.tokenizer_path, self.listing.end_of_text)

    def secrets(self, section: Canaries) -> canaries.Secrets:
        """Return the canaries that a data section plants, found again from its salt."""
        return canaries.secrets(section, self.encode(section.prefix), self.vocabulary, self.end_of_text)

    def encode(self, text: str) -> list[int]:
        return [int(one) for one in tokens.encode(self._tokenizer, [text])[0]]

    def decode(self, ids: Sequence[int]) -> str:
        return tokens.decode(self._tokenizer, ids)


def build(
    data: Data, tokenizer: Tokenizer, root: Path, cache: Path, told: Told, known: Mapping[str, Side] | None = None
) -> Corpus:
    """Return the corpus of a data and a tokenizer section, built under `cache` unless it stands there whole.

    `known` says on which side an ancestor's run put a document: it decides where the contract inherits, and
    split.Contaminated is raised where the split would be drawn anew.
    Raises Malformed for what cannot be read, and ValueError for a split that leaves a side empty, a mixture with an
    empty part, and a tokenizer that is not as the contract expects.
    """
    told("reading the source", 0, 1)
    began = time.perf_counter()
    found = list(gather(data.source, root))
    read_seconds = time.perf_counter() - began
    file = _existing(tokenizer, root)
    known = known or {}
    folder = cache / _key(data, tokenizer, file, found, known).removeprefix("sha256:")[:16]
    if (folder / "corpus.json").exists():
        return open_corpus(folder)
    partial = cache / f".{folder.name}.{secrets.token_hex(4)}.partial"
    partial.mkdir(parents=True)
    try:
        _build_in(partial, data, tokenizer, file, found, read_seconds, told, known)
        try:
            os.rename(partial, folder)
        except OSError:  # another builder was first; both built the same
            if not (folder / "corpus.json").exists():
                raise
        sync_directory(cache)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_corpus(folder)


def open_corpus(folder: Path) -> Corpus:
    """Return the corpus at `folder`, every byte verified; raises Malformed naming what is not as it was written."""
    listing = unsealed(Listing, folder / "corpus.json")
    corpus = Corpus(folder, listing, {side: open_shards(folder / side) for side in SIDES})
    faults = []
    if tokens.tokenizer_digest(tokens.load(corpus.tokenizer_path, listing.end_of_text)) != listing.tokenizer:
        faults.append(
            Problem(str(corpus.tokenizer_path), "is not the tokenizer that made the shards; remove the folder")
        )
    if digest_file(folder / "texts.jsonl") != listing.texts:
        faults.append(Problem(str(folder / "texts.jsonl"), "has changed since it was written; remove the folder"))
    if faults:
        raise Malformed(faults)
    return corpus


def _existing(section: Tokenizer, root: Path) -> Path | None:
    """Return the file of a tokenizer that exists already."""
    if isinstance(section, HubTokenizer):
        return tokens.fetch(section)
    return root / section.path if isinstance(section, ImportedTokenizer) else None


def _key(data: Data, tokenizer: Tokenizer, file: Path | None, found: Sequence[Found], known: Mapping[str, Side]) -> str:
    try:
        imported = digest_bytes(file.read_bytes()) if file else ""
    except OSError as error:
        raise Malformed([Problem(str(file), f"cannot be read: {error.strerror}")]) from None
    meant = {key: value for key, value in data.meaning().items() if key != "least_tokens"}  # it decides no content
    return digest(
        {
            "format": Listing.model_fields["format"].default,
            "data": meant,
            "tokenizer": tokenizer.meaning() | {"file": imported},
            "source": [[one.name, digest_bytes(one.data), one.licence] for one in found],
            **({"known": dict(known)} if known else {}),
        }
    )


def _build_in(
    folder: Path,
    data: Data,
    section: Tokenizer,
    file: Path | None,
    found: Sequence[Found],
    read_seconds: float,
    told: Told,
    known: Mapping[str, Side],
) -> None:
    seconds = {"reading": read_seconds}

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        told(part, 0, 1)
        began = time.perf_counter()
        yield
        seconds[part] = time.perf_counter() - began
        told(part, 1, 1)

    texts, left_out = clean(found, data)
    with timed("near duplicates"):
        clusters = near_duplicates(texts, data.near_duplicates)
    if data.near_duplicates.keep == "first":
        left_out += [left(one, "near_duplicate") for one in texts if clusters[one.document] != one.document]
        texts = [one for one in texts if clusters[one.document] == one.document]
    if isinstance(data.source, Mixture):
        texts, beyond = to_shares(texts, data.source.parts)
        left_out += beyond
    drawn = sides({one.document: clusters[one.document] for one in texts}, data.split)
    side = inherited(drawn, known, data.split.inherit)
    with timed("tokenizer"):
        if isinstance(section, TrainedBpe):
            # the train side only: a vocabulary chosen on validation text would already know it
            tokenizer = tokens.train_bpe(
                (one.text for one in texts if side[one.document] == "train"), section.vocabulary
            )
            end = tokens.END_OF_TEXT
        else:
            assert file is not None
            tokenizer, end = tokens.load(file, section.end_of_text), section.end_of_text
    with timed("tokens"):
        encoded = tokens.encode(tokenizer, [one.text for one in texts])
        ids = dict(zip((one.document for one in texts), encoded, strict=True))
    if not isinstance(section, TrainedBpe):
        faults = tokens.unexpected(tokenizer, section.expect, sum(one.bytes for one in texts), sum(map(len, encoded)))
        if faults:
            raise ValueError("\n".join(f"tokenizer: {fault}" for fault in faults))
    with timed("round trip"):
        exact = dict(zip(ids, tokens.round_trips(tokenizer, [one.text for one in texts], encoded), strict=True))
    write_atomic(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    name = tokens.tokenizer_digest(tokenizer)
    planted = (
        [] if data.canaries is None else list(canaries.documents(_secrets(data, tokenizer, end), data.canaries.salt))
    )
    with timed("shards"):
        for one in SIDES:
            mine = [(text.document, ids[text.document]) for text in texts if side[text.document] == one]
            secret = [(document, ids) for document, _, ids in planted if one == "train"]
            write_shards(
                folder / one,
                canaries.among(mine, secret),
                vocabulary=tokens.size(tokenizer),
                end_of_text=tokens.end_of_text(tokenizer, end),
                tokenizer=name,
            )
    held_out = [{"document": one.document, "text": one.text} for one in texts if side[one.document] != "train"]
    lines = b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in held_out)
    write_atomic(folder / "texts.jsonl", lines)
    listing = Listing(
        tokenizer=name,
        end_of_text=end,
        held=len(found) + len(planted),
        documents=(
            *_listed(texts, left_out, side, clusters, ids, exact),
            *(Listed(document=one, name=name, split="train", bytes=0, tokens=len(ids)) for one, name, ids in planted),
        ),
        texts=digest_bytes(lines),
        seconds={part: round(took, 3) for part, took in seconds.items()},
    )
    write_atomic(
        folder / "corpus.json", sealed({key: value for key, value in listing.plain().items() if key != "digest"})
    )


def _secrets(data: Data, tokenizer: Bpe, end: str) -> canaries.Secrets:
    assert data.canaries is not None
    prefix = [int(one) for one in tokens.encode(tokenizer, [data.canaries.prefix])[0]]
    return canaries.secrets(data.canaries, prefix, tokens.size(tokenizer), tokens.end_of_text(tokenizer, end))


def _listed(
    texts: Sequence[Text],
    left_out: Sequence[LeftOut],
    side: dict[str, Side],
    clusters: dict[str, str],
    ids: Mapping[str, Ids],
    exact: Mapping[str, bool],
) -> Iterator[Listed]:
    for one in texts:
        yield Listed(
            document=one.document, name=one.name, split=side[one.document], bytes=one.bytes,
            tokens=len(ids[one.document]), cluster=clusters[one.document],
            round_trip="exact" if exact[one.document] else "differs",
        )  # fmt: skip
    for gone in left_out:
        yield Listed(
            document=gone.document, name=gone.name, split="left_out", reason=gone.reason, bytes=gone.bytes, tokens=0
        )
