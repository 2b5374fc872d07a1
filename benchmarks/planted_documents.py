"""Write planted_documents.jsonl: small documents that a tiny model learns in seconds, drawn by a fixed seed.

    python benchmarks/planted_documents.py > benchmarks/planted_documents.jsonl

Every document is some 60 words of a made-up language: a sentence takes its words from classes in a fixed order, its
noun decides which adjectives fit, and some documents fall back on set phrases more often than others. So there is grammar to
learn beyond word frequencies, documents differ in difficulty, and none of them holds a passage of another but by copying.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence

DOCUMENTS = 3700
LEAST, MOST = 56, 64  # words
NOUNS, VERBS, ADJECTIVES, PLACES = 40, 24, 32, 16
PHRASES = 5
ONSETS, VOWELS = "bdfgklmnprstvz", "aeiou"


class Language:
    """Words, which adjectives go with which noun, and the set phrases; two dialects share the words and little else."""

    def __init__(self, dialect: int):
        draw = random.Random(7)
        words = [one + two + three for one in ONSETS for two in VOWELS for three in "nrsl"]
        draw.shuffle(words)
        self.nouns, self.verbs, self.adjectives, self.places = (
            [words.pop() for _ in range(count)] for count in (NOUNS, VERBS, ADJECTIVES, PLACES)
        )
        draw = random.Random(100 + dialect)
        for some in (self.nouns, self.verbs, self.adjectives, self.places):
            draw.shuffle(some)  # a rank's word: what is frequent in one dialect is not in the other
        self.fitting = {noun: draw.sample(self.adjectives, 5) for noun in self.nouns}
        self.phrases = [
            [draw.choice(self.nouns), draw.choice(self.verbs), "to", draw.choice(self.places), "."]
            for _ in range(PHRASES)
        ]

    def document(self, draw: random.Random) -> str:
        """Return a document; `draw` decides how much of it is set phrases."""
        habit, length, words = draw.choice((0.0, 0.1, 0.25, 0.5, 0.7)), draw.randint(LEAST, MOST), list[str]()
        while len(words) < length:
            words += draw.choice(self.phrases) if draw.random() < habit else self.sentence(draw)
        return " ".join(words[:length])

    def sentence(self, draw: random.Random) -> list[str]:
        subject, object_ = ranked(draw, self.nouns), ranked(draw, self.nouns)
        found = ["the", draw.choice(self.fitting[subject]), subject, ranked(draw, self.verbs)]
        if draw.random() < 0.6:
            found += ["a", draw.choice(self.fitting[object_]), object_]
        if draw.random() < 0.3:
            found += ["at", ranked(draw, self.places)]
        return [*found, "."]


def ranked(draw: random.Random, words: Sequence[str]) -> str:
    """Return a word, the first ones more often: by Zipf, as in every language."""
    return draw.choices(words, [1 / (rank + 2) for rank in range(len(words))])[0]


def documents(count: int, seed: int, dialect: int = 0) -> Iterator[str]:
    """Yield `count` documents of a dialect, each once."""
    language, draw, seen = Language(dialect), random.Random(seed), set[str]()
    while len(seen) < count:
        text = language.document(draw)
        if text not in seen:
            seen.add(text)
            yield text


if __name__ == "__main__":
    sys.stdout.writelines(json.dumps({"text": text}) + "\n" for text in documents(DOCUMENTS, seed=1))
