"""`sovereign corpus`: build, inspect and overlap."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sovereign.canonical import shown
from sovereign.cli.options import json_option, open_root, print_json, root_option
from sovereign.cli.promise import telling

if TYPE_CHECKING:
    from sovereign.corpus.build import Corpus


@click.group("corpus")
def command() -> None:
    """Build the documents of a contract, look at them, and see what two corpora share."""


@command.command("build")
@click.option("--contract", type=click.Path(path_type=Path), required=True, help="The contract file.")
@json_option
@root_option
def build(contract: Path, as_json: bool, root: Path | None) -> int:
    """Read, clean, split and tokenize a contract's documents, and say where the shards stand.

    It is what `plan` and `run` do first; what stands there already is verified and used.

    \b
    sovereign corpus build --contract contracts/model2.yaml
    """
    from sovereign.gate.profile import Exit

    found = _opened(str(contract), open_root(root).root)
    if found is None:
        return int(Exit.REFUSED)
    told = {
        "folder": str(found.folder),
        "digest": found.digest,
        "tokenizer": found.tokenizer_digest,
        "vocabulary": found.vocabulary,
        "train_tokens": found.train.tokens,
        "documents": len([one for one in found.documents if one.split != "left_out"]),
        "left_out": len([one for one in found.documents if one.split == "left_out"]),
    }
    if as_json:
        print_json(told)
    else:
        for name, value in told.items():
            click.echo(f"{name.replace('_', ' '):>12}  {value:,}" if isinstance(value, int) else f"{name:>12}  {value}")
    return int(Exit.SATISFIED)


@command.command("inspect")
@click.argument("corpus")
@click.option("--repeats", type=click.IntRange(0), default=5, show_default=True, help="Longest repeats to show.")
@click.option("--samples", type=click.IntRange(0), default=3, show_default=True, help="Train documents to show.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which documents are shown.")
@json_option
@root_option
def inspect(corpus: str, repeats: int, samples: int, seed: int, as_json: bool, root: Path | None) -> int:
    """Say what CORPUS, a contract file or the folder of a built corpus, holds.

    Counts, lengths and bytes a token of each side, what was left out and why, the longest runs of tokens that the
    train side holds twice, and a few documents.

    \b
    sovereign corpus inspect contracts/model2.yaml
    sovereign corpus inspect artifacts/corpus/0123456789abcdef --samples 10
    """
    from sovereign.corpus.inspection import figures
    from sovereign.gate.profile import Exit

    found = _opened(corpus, open_root(root).root)
    if found is None:
        return int(Exit.REFUSED)
    seen = figures(found, repeats, samples, seed)
    if as_json:
        print_json(seen)
    else:
        click.echo("\n".join(_inspected(seen)))
    return int(Exit.SATISFIED)


@command.command("overlap")
@click.argument("trained")
@click.argument("other")
@json_option
@root_option
def overlap(trained: str, other: str, as_json: bool, root: Path | None) -> int:
    """Say how much of OTHER stands in what TRAINED trains on: identical documents, and matches of 13 and 50 tokens.

    Each is a contract file or the folder of a built corpus. A model trained on TRAINED has seen that much of OTHER;
    the excess of validation over control is what the split, and not the kind of text, is to answer for.

    \b
    sovereign corpus overlap contracts/parent.yaml contracts/child.yaml
    """
    from sovereign.corpus.inspection import shared
    from sovereign.gate.profile import Exit

    place = open_root(root).root
    one, two = _opened(trained, place), _opened(other, place)
    if one is None or two is None:
        return int(Exit.REFUSED)
    sides = shared(one, two)
    rows: list[dict[str, Any]] = [
        {
            "side": side.side,
            "documents": side.documents,
            "identical": side.identical,
            "tokens": sum(side.tokens),
            "covered_13": sum(side.covered_13) / max(1, sum(side.tokens)),
            "covered_50": sum(side.covered_50) / max(1, sum(side.tokens)),
        }
        for side in sides
    ]
    excess = {f"excess_{length}": _excess(sides, length) for length in (13, 50)}
    if as_json:
        print_json({"sides": rows, **excess})
        return int(Exit.SATISFIED)
    click.echo(f"{'':>10}  documents  identical      tokens  in 13-grams  in 50-grams")
    for row in rows:
        click.echo(
            f"{row['side']:>10}  {row['documents']:9,}  {row['identical']:9,}  {row['tokens']:10,}"
            f"  {row['covered_13']:11.2%}  {row['covered_50']:11.2%}"
        )
    for length in (13, 50):
        found = excess[f"excess_{length}"]
        click.echo(
            f"validation above control, {length} tokens: {found['value']:+.2%} [{found['low']:+.2%}, {found['high']:+.2%}]"
        )
    return int(Exit.SATISFIED)


def _excess(sides: Any, length: int) -> dict[str, float]:
    import numpy as np

    from sovereign.metrics.intervals import ratio_difference

    columns = {
        side.side: (np.array(getattr(side, f"covered_{length}"), float), np.array(side.tokens, float)) for side in sides
    }
    found = ratio_difference(columns["validation"], columns["control"])
    return {"value": found.value, "low": found.low, "high": found.high}


def _opened(given: str, root: Path) -> Corpus | None:
    """Return a built corpus, or that of a contract, built where need be; None, with the reason told, where refused."""
    from sovereign.contract.contract import Contract
    from sovereign.corpus.build import build as built
    from sovereign.corpus.build import open_corpus

    path = Path(given)
    if path.is_dir():
        return open_corpus(path)
    contract = Contract.load(path)
    if contract.tuned is not None:
        raise click.UsageError(
            f"{given} tunes a base: its data stand in the base's tokens; see `sovereign plan --contract {given}`"
        )
    with telling() as told:
        try:
            return built(contract.data, contract.trained_tokenizer, root, root / "artifacts" / "corpus", told)
        except ValueError as reason:  # an empty side, a tokenizer that is not as expected
            click.echo("\n".join(f"refused: {line}" for line in str(reason).splitlines()), err=True)
            return None


def _inspected(seen: dict[str, Any]) -> list[str]:
    lines = [
        f"{seen['folder']}",
        f"vocabulary {seen['vocabulary']:,} · {seen['bytes_per_token']:.3f} bytes a token · {seen['clusters']:,} clusters of "
        f"near-duplicates · {seen['round_trip_errors']:,} documents that do not come back from their ids",
        "",
        f"{'':>10}  documents       tokens        bytes    shortest  p10  median  p90  longest, in tokens",
    ]
    for side, one in seen["sides"].items():
        lengths = "  ".join(f"{value:,}" for value in one["lengths"].values())
        lines.append(f"{side:>10}  {one['documents']:9,}  {one['tokens']:11,}  {one['bytes']:11,}    {lengths}")
    lines += [f"left out: {count:,} {reason}" for reason, count in seen["left_out"].items()]
    if seen["repeats"]:
        lines += ["", f"longest repeats among {seen['repeats_searched']:,} train tokens:"]
    for one in seen["repeats"]:
        lines.append(f"  {one['tokens']:6,} tokens in {' and '.join(one['documents'])}: {_excerpt(one['text'], 60)}")
    for one in seen["samples"]:
        lines += ["", f"── {one['document']}", *_excerpt(one["text"], 2000, lines=True).split("\n")]
    return lines


def _excerpt(text: str, most: int, lines: bool = False) -> str:
    return shown(text[:most] + ("…" if len(text) > most else ""), lines)
