"""A run of ours as a model: its shape from the intent, its weights from a checkpoint, its tokenizer by digest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sovereign.canonical import Malformed, Problem, digest_file
from sovereign.corpus import tokens
from sovereign.evidence.folder import RunFolder, read_folder
from sovereign.evidence.places import named
from sovereign.shipping.gguf_model import read_gguf_model
from sovereign.shipping.huggingface import read_folder as read_huggingface
from sovereign.shipping.huggingface import read_safetensors
from sovereign.shipping.weights import Specials, Weights, as_llama, require_fit
from sovereign.training.checkpoint import checkpoints, step_of


@dataclass(frozen=True)
class Found:
    """A run with a checkpoint of it."""

    folder: RunFolder
    checkpoint: Path
    tokenizer: Path

    @property
    def name(self) -> str:
        return f"{self.folder.contract}/{self.folder.run}"


def open_model(where: str, root: Path, step: int | None = None) -> Weights:
    """Return the model that a person names: a GGUF file, a Hugging Face folder, or a run (`contract/run` or its id).

    Its origin is the run, or the file's place from the root. Raises Malformed for what is none of these, or not whole.
    """
    path = Path(where)
    if path.is_file():
        return replace(read_gguf_model(path), origin=named(path, root))
    if (path / "config.json").is_file():
        return replace(read_huggingface(path), origin=named(path, root))
    return read_run(find_run(where, root, step))


def find_run(where: str, root: Path, step: int | None = None) -> Found:
    """Return the run named so, with its best checkpoint, its last where none is best, or that of `step`."""
    name = where.rstrip("/")
    found = [path.parent for path in sorted((root / "evidence").glob("*/*/intent.json"))]
    mine = [path for path in found if name in (path.name, f"{path.parent.name}/{path.name}") or Path(where).resolve() == path.resolve()]  # fmt: skip
    if not mine:
        raise Malformed([Problem(where, "is no GGUF file, no folder with a config.json, and no run under evidence/")])
    folder = read_folder(mine[0], mine[0].relative_to(root).as_posix())
    if folder.problems or folder.intent is None:
        raise Malformed(folder.problems)
    whole = checkpoints(root / "artifacts" / folder.contract / folder.run / "checkpoints")
    if step is not None:
        chosen = [path for path in whole if step_of(path) == step]
        if not chosen:
            kept = ", ".join(str(step_of(path)) for path in whole) or "none"
            raise Malformed([Problem(folder.name, f"has no whole checkpoint of step {step}; kept are {kept}")])
        return Found(folder, chosen[0], _tokenizer_of(folder, root))
    if not whole:
        raise Malformed(
            [Problem(folder.name, f"has no whole checkpoint under artifacts/{folder.contract}/{folder.run}")]
        )
    best = [path for path in whole if _artifact(folder, path, root).startswith("best")]
    return Found(folder, (best or whole)[-1], _tokenizer_of(folder, root))


def read_run(found: Found) -> Weights:
    """Return the model of a run; a text stands behind one end-of-text, as it was trained."""
    intent = found.folder.intent
    assert intent is not None
    stored = read_safetensors(found.checkpoint / "model.safetensors")
    if intent.promise.tuned is not None:
        # of a run that tuned a base the checkpoints hold what moved; beside them stands the plain model it makes
        return replace(read_huggingface(found.checkpoint.parents[1] / "model"), origin=found.name)
    shape = intent.promise.decoder
    tokenizer = tokens.load(found.tokenizer)
    vocabulary = tokenizer.get_vocab_size()
    require_fit(stored, shape, vocabulary, str(found.checkpoint / "model.safetensors"))
    end = tokens.end_of_text(tokenizer)
    return Weights(found.name, as_llama(shape), vocabulary, stored, Specials(end, end, add_begin=True), tokenizer)


def _artifact(folder: RunFolder, checkpoint: Path, root: Path) -> str:
    """Return what the run's statement says of a checkpoint's weights; raises Malformed where they are others."""
    file = checkpoint / "model.safetensors"
    where = file.relative_to(root).as_posix()
    for one in folder.statement.artifacts if folder.statement else ():
        if one.name.endswith(f": {where}"):
            if digest_file(file) != one.digest:
                raise Malformed([Problem(where, f"is not the file that the run's statement lists as {one.digest}")])
            return one.name
    return ""


def _tokenizer_of(folder: RunFolder, root: Path) -> Path:
    assert folder.intent is not None
    wanted = folder.intent.subjects.tokenizer
    listed = [one.name.partition(": ")[2] for one in (folder.statement.artifacts if folder.statement else ()) if one.name.startswith("tokenizer: ")]  # fmt: skip
    for path in [*(root / name for name in listed), *sorted((root / "artifacts" / "corpus").glob("*/tokenizer.json"))]:
        if path.is_file() and tokens.tokenizer_digest(tokens.load(path)) == wanted:
            return path
    raise Malformed([Problem(folder.name, f"its tokenizer {wanted} is not under artifacts/corpus any more")])
