"""Labels without a model: the most frequent one, and what the words alone say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

WORD = re.compile(r"[a-z0-9_']+")


def majority(labels: Sequence[str]) -> str:
    """Return the most frequent label; of equals the first by name."""
    counted = Counter(labels)
    return min(counted, key=lambda label: (-counted[label], label))


class BagOfWords:
    """Multinomial naive Bayes over the words of a text, each counted once (Wang & Manning 2012), add-one."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str]):
        self.labels = sorted(set(labels))
        words = [set(WORD.findall(text.lower())) for text in texts]
        self.columns = {word: at for at, word in enumerate(sorted(set().union(*words)))}
        counts = np.ones((len(self.labels), len(self.columns)))
        for some, label in zip(words, labels, strict=True):
            counts[self.labels.index(label), [self.columns[word] for word in some]] += 1
        self.weights = np.log(counts / counts.sum(1, keepdims=True))
        shares = Counter(labels)
        self.prior = np.log([shares[label] / len(labels) for label in self.labels])

    def label(self, text: str) -> str:
        """Return the likeliest label of a text; words never seen say nothing."""
        known = [self.columns[word] for word in set(WORD.findall(text.lower())) if word in self.columns]
        return self.labels[int(np.argmax(self.prior + self.weights[:, known].sum(1)))]
