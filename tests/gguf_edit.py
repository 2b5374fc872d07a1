"""GGUF files written again with something changed: what a faulty exporter would have written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def rewritten(
    path: Path, out: Path, *, metadata: Mapping[str, Any] | None = None, tensors: Mapping[str, Callable[[Array], Array]] | None = None,
    copies: Mapping[str, str] | None = None, without: tuple[str, ...] = (), added: Mapping[str, Array] | None = None,
) -> Path:  # fmt: skip
    """Write the file at `path` to `out` with metadata set (None removes), tensors edited as stored, or taken from others."""
    metadata, tensors, copies = metadata or {}, tensors or {}, copies or {}
    unknown = {*tensors, *copies, *copies.values(), *without} - {one.name for one in gguf.GGUFReader(path).tensors}
    assert not unknown, unknown
    reader = gguf.GGUFReader(path)
    held = {one.name: one for one in reader.tensors}
    writer = gguf.GGUFWriter(out, "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or metadata.get(key, "") is None:
            continue
        value = metadata.get(key, field.contents())
        writer.add_key_value(key, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for name, tensor in held.items():
        if name in without:
            continue
        tensor = held[copies.get(name, name)]
        data = np.array(tensor.data)
        writer.add_tensor(
            name, np.ascontiguousarray(tensors[name](data)) if name in tensors else data, raw_dtype=tensor.tensor_type
        )
    for name, data in (added or {}).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
