"""The end of a run that ships: its best checkpoint as a GGUF file, and the rows that show what the file computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from sovereign.canonical import Malformed, digest_file
from sovereign.contract.model import Decoder as Shape
from sovereign.contract.shipping import Shipping
from sovereign.corpus import tokens
from sovereign.evidence.places import named
from sovereign.parity.check import Log, Told, check
from sovereign.parity.compare import Incomparable, tokenized
from sovereign.parity.llamacpp import LlamaCpp, Missing, Unloadable, library
from sovereign.parity.planting import planted
from sovereign.shipping.export import Unexportable, export_gguf
from sovereign.shipping.gguf_model import read_gguf_model
from sovereign.shipping.huggingface import read_safetensors
from sovereign.shipping.weights import Specials, Weights, as_llama, require_fit


def ship(
    file: Path, shape: Shape, tokenizer: Path, texts: Sequence[str], settings: Shipping, out: Path, root: Path, name: str, log: Log,
    told: Told, step: int,
) -> None:  # fmt: skip
    """Export the weights in `file` to `out` and log the rows of their parity, which name the file from the root.

    What cannot be had (a type that does not fit, too few texts, no llama.cpp) is a notice, and its criteria stay open. Without
    llama.cpp our own forward carries the file out: those rows name no engine, and what is asked of llama.cpp is not shown.
    """

    def notice(what: str, asked: str, message: str) -> None:
        log("notice", step=step, name=what, asked=asked, message=message)

    bpe = tokens.load(tokenizer)
    end = tokens.end_of_text(bpe)
    stored = read_safetensors(file)
    try:
        require_fit(stored, shape, bpe.get_vocab_size(), name)
    except Malformed as reason:
        notice("export", settings.quantize, str(reason))
        return
    weights = Weights(name, as_llama(shape), bpe.get_vocab_size(), stored, Specials(end, end, add_begin=True), bpe)
    about = {
        "general.name": name,
        "general.license": settings.license or "unknown",
        "sovereign.weights": digest_file(file),
    }
    try:
        export_gguf(weights, out, settings.quantize, about, force=True)
    except Unexportable as reason:
        notice("export", settings.quantize, str(reason))
        return
    with ExitStack() as stack:
        engine, asked, refused = None, "", ""
        try:
            asked = library().name
            engine = stack.enter_context(LlamaCpp(out, shape.context))
        except (Missing, Unloadable) as reason:
            said = str(reason).replace(str(out), named(out, root))
            refused = said if asked else ""
            notice("engine", "llama.cpp", said)
        candidate, given = replace(read_gguf_model(out), origin=named(out, root)), texts[: settings.prompts]
        theirs = engine.tokenize if engine is not None else partial(tokenized, candidate)
        apart = sum(theirs(text) != _ids(weights, text) for text in given)
        log(
            "export", quantize=settings.quantize, bytes=out.stat().st_size,
            weights=sum(math.prod(one.shape) for one in stored.values()),
            engine=asked, refused=refused, texts=len(given), otherwise=apart,
        )  # fmt: skip
        try:
            prompts = pieces(weights, texts, settings.prompts, min(settings.tokens, shape.context))
            if apart:
                raise Incomparable(f"token ids: the file's are others for {apart} of {len(given)} held-out texts")
            checked = check(weights, candidate, prompts, log, told, engine)
        except Incomparable as reason:
            notice("parity", "comparable sides", str(reason))
            return
        if settings.planted:
            told("planted faults", 0, 1)
            for found in planted(candidate, out, prompts, out.with_name(f".{out.name}.planted"), engine is not None):
                log("parity_planted", **asdict(found), engine="" if engine is None else asked)
            told("planted faults", 1, 1)
    for one in checked.missing:
        notice("parity", "every operation", one)
    if checked.located.first is not None:
        notice("parity", "no operation parts", checked.located.sentence)


def pieces(weights: Weights, texts: Sequence[str], count: int, length: int) -> list[list[int]]:
    """Return prompts of `length` tokens, each behind one end-of-text as in training: pieces of the texts, in turn."""
    begin = weights.specials.begin
    assert begin is not None
    sequences = [_ids(weights, text)[1:] for text in texts]
    found: dict[tuple[int, ...], None] = {}
    start, step = 0, length - 1
    while len(found) < count and any(start + step <= len(ids) for ids in sequences):
        found.update({(begin, *ids[start : start + step]): None for ids in sequences if start + step <= len(ids)})
        start += step
    return [list(ids) for ids in list(found)[:count]]


def _ids(weights: Weights, text: str) -> list[int]:
    assert weights.tokenizer is not None
    return [weights.specials.begin or 0, *(int(one) for one in tokens.encode(weights.tokenizer, [text])[0])]
