"""llama.cpp's own row quantizers, through whichever of its Python packages is installed."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path

import numpy as np
import pytest

# package -> its shared libraries: one with the reference quantizers, one with what a CPU computes with
LIBRARIES = {
    "llama_cpp": ("lib/libggml-base.so", "lib/libggml-cpu.so"),
    "xllamacpp": ("xllamacpp.abi3.so", "xllamacpp.abi3.so"),
}


@functools.cache
def ggml() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """Return the libraries, or skip the test where no package brings them."""
    for package, files in LIBRARIES.items():
        found = importlib.util.find_spec(package)
        for place in (found and found.submodule_search_locations) or ():
            if all((Path(place) / file).exists() for file in files):
                base, cpu = (ctypes.CDLL(str(Path(place) / file)) for file in files)
                cpu.ggml_cpu_init()
                return base, cpu
    pytest.skip(f"none of {', '.join(LIBRARIES)} is installed: no llama.cpp to compare with")


def quantize_rows(name: str, weights: np.ndarray, size: int) -> np.ndarray:
    """Return the `size` bytes that ggml's `quantize_row_<name>_ref` makes of float32 weights."""
    return _quantized(getattr(ggml()[0], f"quantize_row_{name}_ref"), weights, size)


def _quantized(function, values: np.ndarray, size: int) -> np.ndarray:
    values = np.ascontiguousarray(values, dtype=np.float32)
    packed = np.zeros(size, dtype=np.uint8)
    function(_at(values), _at(packed), ctypes.c_int64(values.size))
    return packed


def products(kind: str, x: np.ndarray, packed: np.ndarray, variant: str = "") -> np.ndarray:
    """Return x [n, k] times packed rows [m, bytes] as ggml's `ggml_vec_dot_<kind><variant>` computes it, [n, m]."""
    cpu = ggml()[1]
    mine, theirs = {"q4_k": ("q4_K", "q8_K"), "q6_k": ("q6_K", "q8_K"), "q8_0": ("q8_0", "q8_0")}[kind]
    k = x.shape[1]
    size = {"q8_K": k // 256 * 292, "q8_0": k // 32 * 34}[theirs]
    rounded = [_quantized(getattr(cpu, f"quantize_row_{theirs}"), row, size) for row in x]
    dot = getattr(cpu, f"ggml_vec_dot_{mine}_{theirs}{variant}")
    result, none = np.zeros((len(x), len(packed)), dtype=np.float32), ctypes.c_size_t(0)
    for i, row in enumerate(rounded):
        for j, weights in enumerate(packed):
            dot(k, _at(result[i, j:]), none, _at(weights), none, _at(row), none, 1)
    return result


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
