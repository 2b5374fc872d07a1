"""llama.cpp's own row quantizers, through whichever of its Python packages is installed."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path

import numpy as np
import pytest

# package -> where its shared library with the symbols of ggml stands
LIBRARIES = {"llama_cpp": "lib/libggml-base.so", "xllamacpp": "xllamacpp.abi3.so"}


@functools.cache
def ggml() -> ctypes.CDLL:
    """Return the library, or skip the test where no package brings one."""
    for package, file in LIBRARIES.items():
        found = importlib.util.find_spec(package)
        for place in (found and found.submodule_search_locations) or ():
            if (Path(place) / file).exists():
                return ctypes.CDLL(str(Path(place) / file))
    pytest.skip(f"none of {', '.join(LIBRARIES)} is installed: no llama.cpp to compare with")


def quantize_rows(name: str, weights: np.ndarray, size: int) -> np.ndarray:
    """Return the `size` bytes that ggml's `quantize_row_<name>_ref` makes of float32 weights."""
    weights = np.ascontiguousarray(weights, dtype=np.float32)
    packed = np.zeros(size, dtype=np.uint8)
    pointers = (ctypes.c_void_p(each.ctypes.data) for each in (weights, packed))
    getattr(ggml(), f"quantize_row_{name}_ref")(*pointers, ctypes.c_int64(weights.size))
    return packed
