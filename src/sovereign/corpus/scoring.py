"""Which tokens of a held-out document are scored: one convention for the model, the floors and every report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer[Any]]


def scored(ids: Ids, end_of_text: int, limit: int) -> NDArray[np.int64]:
    """Return the sequence a document is scored on, shape [targets + 1]: inputs are `[:-1]`, targets `[1:]`.

    The end-of-text id is the only context, as it is in the shards, where every document follows another's end.
    The targets are the document and its closing end-of-text, cut to the first `limit` of them.
    """
    if limit < 1:
        raise ValueError(f"a limit of {limit} leaves no target to score; use at least 1")
    body = np.asarray(ids[:limit], dtype=np.int64)
    closing = [end_of_text] if len(ids) < limit else []
    return np.concatenate([[end_of_text], body, closing]).astype(np.int64)
