"""A base, and what a method makes of it: where the weights come from, which of them move, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sovereign.canonical import Malformed, Problem, digest, digest_file, read, write_atomic
from sovereign.contract.contract import Contract
from sovereign.contract.data import HubTokenizer, ImportedTokenizer
from sovereign.contract.method import Classification, Embeddings, Full, Qlora, Tuned
from sovereign.contract.model import Decoder as Shape
from sovereign.corpus import tokens, vocabulary
from sovereign.corpus.build import Corpus, Told, build
from sovereign.corpus.examples import ExampleSet, build_examples
from sovereign.lineage import Ancestor, known_sides, line, parent
from sovereign.model import adapters
from sovereign.model.attestation import trainable_parameters
from sovereign.model.classifier import Classifier
from sovereign.model.decoder import Decoder
from sovereign.model.embeddings import embedding, grow, tied
from sovereign.model.pretrained import (
    Pretrained,
    Unfit,
    accounted,
    decoder_shapes,
    load_decoder,
    load_folder,
    outlined,
    shapes,
)
from sovereign.quantization.nf4 import BLOCK, bits, quantize

EMBEDDINGS = ("embed_tokens.weight", "wte.weight")
HEADS = ("lm_head.weight",)

Language = Decoder | Pretrained


@dataclass(frozen=True)
class Tuning:
    """A method with its base found: enough to make the model that is trained, any number of times."""

    method: Tuned
    ancestors: tuple[Ancestor, ...]  # the parent first; none where the base is no run of ours
    folder: Path | None
    shapes: dict[str, tuple[int, ...]] = field(repr=False)  # name -> shape of the base's tensors, from its files
    digest: str  # of the base's weights
    tokenizer: Path
    end: str  # the end-of-text, as text
    pieces: tuple[tuple[int, ...], ...] = ()  # of each new token: the ids it was written with
    labels: int = 0

    @property
    def parent(self) -> Ancestor | None:
        return self.ancestors[0] if self.ancestors else None

    @cached_property
    def end_of_text(self) -> int:
        return tokens.end_of_text(tokens.load(self.tokenizer, self.end), self.end)

    @property
    def shape(self) -> Shape | None:
        """The decoder's shape, where the base is one of ours."""
        return self.ancestors[-1].promise.decoder if self.ancestors else None

    @property
    def rows(self) -> int:
        """Rows of the embedding, those of new tokens included."""
        (name,) = [name for name in self.shapes if name.endswith(EMBEDDINGS)]
        return self.shapes[name][0] + len(self.pieces)

    @property
    def hidden(self) -> int:
        (name,) = [name for name in self.shapes if name.endswith(EMBEDDINGS)]
        return self.shapes[name][1]

    @property
    def parameters(self) -> int:
        """Parameters of the base, from the shapes of its tensors."""
        return sum(_size(shape) for shape in self.shapes.values())

    @property
    def added(self) -> int:
        """Parameters that the method adds to the base's."""
        full = isinstance(self.method, Full) or (
            isinstance(self.method, Classification) and self.method.adapter is None
        )
        if isinstance(self.method, Embeddings):
            return len(self.pieces) * self.hidden * sum(name.endswith((*EMBEDDINGS, *HEADS)) for name in self.shapes)
        return self.labels * self.hidden if full else self.expected_trainable

    @property
    def unpackable(self) -> str:
        """The first matrix of a layer that four-bit blocks do not divide, or nothing."""
        inside = (name for name, shape in self.shapes.items() if len(shape) == 2 and adapters.LAYER.search(name))
        return next((name for name in inside if self.shapes[name][1] % BLOCK), "")

    @property
    def name(self) -> str:
        """The base, as people name it."""
        return self.parent.name if self.parent else str(self.method.base)

    def base(self) -> Language:
        """Return the base as it was saved, on the CPU; raises Unfit naming every tensor that is not in place."""
        if self.shape is None:
            assert self.folder is not None
            return load_folder(self.folder)
        assert self.parent is not None
        rows = self.rows - len(self.pieces)
        return load_decoder(self.shape, rows, self.end_of_text, self.parent.weights)

    def model(self, seed: int) -> nn.Module:
        """Return the model that is trained; raises adapters.Unattached where it is not what the contract asks for."""
        return made(self.base(), self.method, seed, self.pieces, self.labels)

    def outline(self) -> nn.Module:
        """Return the same model on the device "meta": shapes and dtypes, and no content."""
        with torch.device("meta"):
            if self.shape is not None:
                base: Language = Decoder(self.shape, self.rows - len(self.pieces), self.end_of_text)
            else:
                assert self.folder is not None
                base = outlined(self.folder / "config.json")
            return made(base, self.method, 0, self.pieces, self.labels)

    @property
    def expected_trainable(self) -> int:
        """Parameters that are to move, computed from the contract and the shapes of the base's files alone."""
        method = self.method
        grown = {name: shape for name, shape in self.shapes.items() if name.endswith((*EMBEDDINGS, *HEADS))}
        if isinstance(method, Full):
            return self.parameters
        if isinstance(method, Embeddings):
            new = len(self.pieces) * self.hidden * len(grown)
            return new + (sum(map(_size, grown.values())) if method.rows == "all" else 0)
        adapter = adapters.expected_parameters(self.shapes, method.adapter) if method.adapter else 0
        if isinstance(method, Classification):
            heads = sum(_size(shape) for name, shape in self.shapes.items() if name.endswith(HEADS))
            return self.labels * self.hidden + (adapter if method.adapter else self.parameters - heads)
        return adapter


def _size(shape: Sequence[int]) -> int:
    size = 1
    for one in shape:
        size *= one
    return size


def made(base: Language, method: Tuned, seed: int, pieces: Sequence[Sequence[int]] = (), labels: int = 0) -> nn.Module:
    """Return what a method makes of a base, in place: with what it adds, and only what it moves movable.

    On the device "meta", which has nothing to pack, matrices of four bits stay as wide as they were (`packed_away`).
    Raises adapters.Unattached where the live model is not what the method asks for.
    """
    if isinstance(method, Full):
        return base
    if isinstance(method, Embeddings):
        base.requires_grad_(False)
        _move_rows(base, method, pieces)
        return base
    rows: Any = embedding(base).weight
    if isinstance(method, Classification):
        whole = Classifier(base, rows.shape[1], labels, seed)
        if not tied(base):
            _without_head(base)
        if method.adapter is not None:
            adapters.attach(whole, method.adapter, seed)
            whole.score.requires_grad_(True)
        return whole
    if isinstance(method, Qlora) and not rows.is_meta:
        quantize(base, adapters.layer_matrices(base), double=method.double_quantization)
    adapters.attach(base, method.adapter, seed)
    return base


def packed_away(model: nn.Module, method: Tuned | None, multiplied: torch.dtype) -> int:
    """Give the frozen matrices of a model on "meta" the dtype they multiply in; return the bytes that packing takes off.

    What is in four bits is unpacked for one product at a time, and kept for none: the largest is counted.
    """
    if not isinstance(method, Qlora):
        return 0
    saved, largest = 0.0, 0
    for name in adapters.layer_matrices(model):
        module: Any = model.get_submodule(name)
        if not module.weight.requires_grad:
            whole = module.weight.to(multiplied)
            module.weight = nn.Parameter(whole, requires_grad=False)
            largest = max(largest, whole.nbytes)
            saved += whole.nbytes - whole.numel() * bits(method.double_quantization) / 8
    return int(saved - largest)


def _move_rows(base: Language, method: Embeddings, pieces: Sequence[Sequence[int]]) -> None:
    if pieces:
        assert isinstance(base, Decoder)  # the contract has seen to it
        grow(base, pieces)
        for module in {embedding(base), base.lm_head}:
            for name, weight in module.named_parameters(recurse=False):
                weight.requires_grad_(name == "rows" or method.rows == "all")
        return
    for module in {embedding(base), base.lm_head}:
        module.requires_grad_(True)


def _without_head(base: Language) -> None:
    if isinstance(base, Decoder):
        base.lm_head = nn.Identity()  # type: ignore[assignment]
    else:
        base.net.set_output_embeddings(nn.Identity())


def find(contract: Contract, root: Path, told: Told, named: str | None = None) -> Tuning:
    """Return the base of a contract that tunes one; `named` is the run that an intent froze.

    Raises lineage.Missing where no run has made it, and Unfit or Malformed where it is not whole.
    """
    method = contract.tuned
    assert method is not None
    if method.base.run:
        ancestors = tuple(line(parent(named or method.base.run, root), root))
        oldest, youngest = ancestors[-1].promise, ancestors[0]
        if oldest.tuned is not None:
            raise Unfit(f"{youngest.name} was tuned from a folder; name the folder that `sovereign export` makes of it")
        section = oldest.tokenizer
        end = section.end_of_text if isinstance(section, ImportedTokenizer | HubTokenizer) else tokens.END_OF_TEXT
        found = Tuning(
            method, ancestors, None, shapes(youngest.weights), youngest.weights_digest, youngest.tokenizer, end
        )
        wanted = decoder_shapes(oldest.decoder, youngest.vocabulary, found.end_of_text)
        accounted(youngest.weights.relative_to(root).as_posix(), found.shapes, wanted)
    else:
        folder = (
            root / method.base.folder
            if method.base.folder
            else _fetched(str(method.base.hub), str(method.base.revision))
        )
        if method.base.config:
            as_declared(folder, root / method.base.config)
        found = _of_folder(method, folder)
    if isinstance(method, Embeddings) and method.new_tokens is not None:
        assert found.parent is not None
        bpe = tokens.load(found.tokenizer, found.end)
        train = data_of(found.parent.promise, found.ancestors[1:], root, told)
        if not isinstance(train, Corpus):
            raise Unfit(f"{found.parent.name} was trained on examples; new tokens are found in running text")
        costly = vocabulary.costly_identifiers(train.train, bpe, method.new_tokens)
        made = vocabulary.extended(bpe, [name for name, _ in costly])
        place = root / "artifacts" / "tokenizers" / tokens.tokenizer_digest(made).removeprefix("sha256:")[:16]
        place.mkdir(parents=True, exist_ok=True)
        write_atomic(place / "tokenizer.json", made.to_str(pretty=True).encode())
        return Tuning(
            method, found.ancestors, None, found.shapes, found.digest, place / "tokenizer.json", found.end,
            tuple(tuple(ids) for _, ids in costly),
        )  # fmt: skip
    return found


def as_declared(folder: Path, declared: Path) -> None:
    """Raise Unfit, naming what differs, unless a folder's config.json says all that the declared sizes say."""
    said, found = (read(path).value for path in (declared, folder / "config.json"))
    wrong = [
        f"{key} is {found.get(key)!r}, declared as {value!r}" for key, value in said.items() if found.get(key) != value
    ]
    if wrong:
        raise Unfit(f"{folder}: {'; '.join(wrong)}")


def _of_folder(method: Tuned, folder: Path) -> Tuning:
    files = sorted(folder.glob("*.safetensors"))
    base = load_folder(folder)
    sizes = {name: tuple(weight.shape) for name, weight in base.named_parameters()}
    eos = base.net.config.eos_token_id
    path = folder / "tokenizer.json"
    if not path.is_file() or not isinstance(eos, int):
        raise Unfit(f"{folder}: needs a tokenizer.json, and one eos_token_id in config.json")
    from tokenizers import Tokenizer as Bpe

    end = Bpe.from_file(str(path)).id_to_token(eos)
    if end is None:
        raise Unfit(f"{folder}: eos_token_id {eos} is no token of its tokenizer.json")
    return Tuning(method, (), folder, sizes, digest([digest_file(file) for file in files]), path, end)


def _fetched(hub: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download  # here: only hub models need it

    try:
        patterns = ["*.safetensors", "*.json"]
        return Path(snapshot_download(hub, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise Malformed([Problem(f"{hub}@{revision[:12]}", f"cannot be fetched: {error}")]) from None


def data_of(contract: Contract, ancestors: Sequence[Ancestor], root: Path, told: Told) -> Corpus | ExampleSet:
    """Return what a run was trained and measured on, built again or found; `ancestors` are those of the run."""
    cache = root / "artifacts" / "corpus"
    if contract.tuned is None:
        return build(contract.data, contract.trained_tokenizer, root, cache, told)
    tuning = find(contract, root, told, ancestors[0].name if ancestors else None)
    return data_for(contract, tuning, root, told)


def data_for(contract: Contract, tuning: Tuning, root: Path, told: Told) -> Corpus | ExampleSet:
    """Return the data of a contract in the tokens of its base, on the sides that its lineage allows.

    Raises corpus.split.Contaminated where the split would be drawn anew over what an ancestor has seen.
    """
    known = known_sides(tuning.ancestors)
    if contract.data.examples:
        return build_examples(contract.data, root, tuning.tokenizer, tuning.end, contract.context, known, told)
    path = tuning.tokenizer
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    section = ImportedTokenizer(kind="file", path=shown, end_of_text=tuning.end)
    return build(contract.data, section, root, root / "artifacts" / "corpus", told, known)


def counted(tuning: Tuning, model: nn.Module) -> dict[str, Any]:
    """Return the fields of an attestation row: parameters that move in the live model, beside those that are to."""
    return {
        "subject": "trainable_parameters",
        "expected": str(tuning.expected_trainable),
        "found": str(trainable_parameters(model)),
    }
