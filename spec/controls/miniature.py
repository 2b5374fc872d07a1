"""Write miniature.jsonl: small Python modules that a tiny model learns in seconds, drawn by a fixed seed.

    python spec/controls/miniature.py > spec/controls/miniature.jsonl
    python spec/controls/miniature.py pairs > spec/controls/miniature-pairs.jsonl
    python spec/controls/miniature.py labels > spec/controls/miniature-labels.jsonl

Every function keeps to its own names, which a bigram cannot know; names and numbers are drawn from wide lists, so
that a model which sees few of the modules too often has something to learn by heart.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator

MODULES = 520
VERBS = [
    "add",
    "fold",
    "join",
    "keep",
    "load",
    "make",
    "mark",
    "move",
    "pack",
    "pick",
    "read",
    "scan",
    "send",
    "sort",
    "take",
    "turn",
]
THINGS = [
    "area",
    "batch",
    "block",
    "cell",
    "chain",
    "count",
    "depth",
    "edge",
    "field",
    "frame",
    "grid",
    "group",
    "image",
    "index",
    "label",
    "layer",
    "limit",
    "line",
    "list",
    "mask",
]
THINGS += [
    "name",
    "node",
    "offset",
    "order",
    "page",
    "pair",
    "part",
    "path",
    "point",
    "queue",
    "range",
    "rate",
    "record",
    "row",
    "scale",
    "score",
    "seed",
    "shape",
    "size",
    "slot",
]
THINGS += [
    "span",
    "stack",
    "state",
    "step",
    "store",
    "sum",
    "table",
    "task",
    "text",
    "tile",
    "token",
    "total",
    "tree",
    "unit",
    "value",
    "vector",
    "weight",
    "width",
    "window",
    "word",
    "zone",
]


def module(draw: random.Random) -> str:
    """Return a module of three functions, each working on its own drawn names."""
    return "\n\n".join(draw.choice((choose, gather, repeat))(draw) for _ in range(3))


def choose(draw: random.Random) -> str:
    first, second, made = draw.sample(THINGS, 3)
    number, operator = draw.randrange(1000), draw.choice("+-*")
    return (
        f"def {draw.choice(VERBS)}_{made}({first}, {second}):\n"
        f"    {made} = {first} {operator} {second}\n"
        f"    if {made} > {number}:\n"
        f"        return {first}\n"
        f"    return {made} {operator} {number}\n"
    )


def gather(draw: random.Random) -> str:
    many, one, made = draw.sample(THINGS, 3)
    number = draw.randrange(1000)
    return (
        f"def {draw.choice(VERBS)}_{made}({many}):\n"
        f"    {made} = []\n"
        f"    for {one} in {many}:\n"
        f"        {made}.append({one} + {number})\n"
        f"    return {made}\n"
    )


def repeat(draw: random.Random) -> str:
    given, made, other = draw.sample(THINGS, 3)
    number, operator = draw.randrange(1000), draw.choice("+*")
    return (
        f"def {draw.choice(VERBS)}_{given}({given}, {other}={number}):\n"
        f"    {made} = {number}\n"
        f"    while {made} < {given}:\n"
        f"        {made} = {made} {operator} {other}\n"
        f"    return {made}\n"
    )


def lines(seed: int = 1) -> Iterator[str]:
    """Yield one JSON line a module."""
    draw = random.Random(seed)
    for _ in range(MODULES):
        yield json.dumps({"text": module(draw)})


def pairs(seed: int = 2) -> Iterator[str]:
    """Yield one JSON line a pair: the head of a function, and what it does in a sentence that repeats its names."""
    draw = random.Random(seed)
    for _ in range(400):
        first, second, made = draw.sample(THINGS, 3)
        verb = draw.choice(VERBS)
        prompt = f"def {verb}_{made}({first}, {second}):"
        yield json.dumps({"prompt": prompt, "answer": f"{verb} {made} from {first} and {second}"})


def labels(seed: int = 3) -> Iterator[str]:
    """Yield one JSON line a text: a line of code, labelled by its operator."""
    draw = random.Random(seed)
    for _ in range(600):
        first, second, made = draw.sample(THINGS, 3)
        operator = draw.choice("+-")
        text = f"def {draw.choice(VERBS)}_{made}({first}, {second}): return {first} {operator} {second}"
        yield json.dumps({"sentence": text, "label": {"+": "more", "-": "less"}[operator]})


if __name__ == "__main__":
    written = {"": lines, "pairs": pairs, "labels": labels}["".join(sys.argv[1:])]
    sys.stdout.writelines(f"{line}\n" for line in written())
