"""llama.cpp, asked for logits, intermediate tensors and token ids through its C interface.

Either package brings the library: `llama-cpp-python` (built where it is installed) or `xllamacpp` (prebuilt). Only
functions and leading struct fields that both share are used. A struct's layout may shift between versions without a
word, so its known defaults are looked for first: where one is not in its place, the library is refused.

Keys and values are kept in float32 and flash attention is off: with its defaults, rounding in the cache hides
everything below a relative 3e-4.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
PACKAGES = {"llama_cpp": "llama-cpp-python", "xllamacpp": "xllamacpp"}
ROOM = 512  # bytes for a struct passed by value; the library reads as many as its own has
F32 = 0  # ggml_type
CACHE = F32  # of keys and values
FLASH_OFF = 0


class Missing(Exception):
    """llama.cpp is not installed here, or not in a version that can be asked; the message says what to install."""


class Unloadable(Exception):
    """llama.cpp will not load or run a file; the message carries its own words."""


class _Opaque(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_ubyte * ROOM)]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


class _Tensor(ctypes.Structure):
    """The leading fields of a ggml_tensor, which have not moved since 2023."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
    ]


Callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.POINTER(_Tensor), ctypes.c_bool, ctypes.c_void_p)
Log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

# offset -> what stands there by default; both libraries' structs begin alike
MODEL_DEFAULTS = {16: ("i", -1), 20: ("i", 1), 32: ("i", 0), 72: ("B", 0), 73: ("B", 0), 74: ("B", 1), 75: ("B", 0)}
MODEL_GPU_LAYERS = 16
MODEL_REPACKS = 74  # whether weights are rearranged on loading, for products that then run in another order
CONTEXT_DEFAULTS = {
    0: ("I", 512), 4: ("I", 2048), 8: ("I", 512), 12: ("I", 1), 36: ("i", 0), 40: ("i", -1), 44: ("i", -1), 48: ("i", -1),
    52: ("i", -1), 56: ("f", 0.0), 60: ("f", 0.0), 64: ("f", -1.0), 68: ("f", -1.0), 72: ("f", -1.0), 76: ("f", -1.0),
    80: ("I", 0), 88: ("Q", 0), 96: ("Q", 0), 104: ("i", 1), 108: ("i", 1),
}  # fmt: skip
CONTEXT = {
    "n_ctx": (0, "I"), "n_batch": (4, "I"), "n_ubatch": (8, "I"), "n_seq_max": (12, "I"), "n_threads": (28, "i"),
    "n_threads_batch": (32, "i"), "flash_attn_type": (52, "i"), "cb_eval": (88, "Q"), "type_k": (104, "i"), "type_v": (108, "i"),
}  # fmt: skip


@dataclass(frozen=True)
class Library:
    """A loaded llama.cpp."""

    package: str
    version: str
    functions: ctypes.CDLL = field(repr=False)
    words: list[str] = field(repr=False)  # the last lines of its log
    log: Any = field(repr=False)

    @property
    def name(self) -> str:
        return f"llama.cpp ({self.package} {self.version})"


@cache
def library() -> Library:
    """Return llama.cpp; raises Missing, naming the package, where there is none that can be trusted with a struct."""
    faults = []
    for module, package in PACKAGES.items():
        path = _shared_object(module)
        if path is None:
            continue
        try:
            return _opened(path, package)
        except (OSError, AttributeError, Missing) as error:
            faults.append(f"{package}: {error}")
    raise Missing("; ".join(faults) or "llama.cpp is not installed: pip install 'sovereign[llama]'")


def _shared_object(module: str) -> Path | None:
    """Return the file of the library that a package brings, without importing the package."""
    found = find_spec(module)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations)))
    names = ("lib/libllama.so", "lib/libllama.dylib", "lib/llama.dll", f"{module}.abi3.so", f"{module}.pyd")
    return next((folder / name for name in names if (folder / name).exists()), None)


def _opened(path: Path, package: str) -> Library:
    try:
        release = version(package)
    except PackageNotFoundError:
        release = "unknown"
    if path.name.startswith("libllama"):  # its neighbours must be there before it
        for name in ("libggml-base", "libggml-cpu", "libggml"):
            for neighbour in sorted(path.parent.glob(f"{name}.*"))[:1]:
                ctypes.CDLL(str(neighbour), mode=ctypes.RTLD_GLOBAL)
    functions = ctypes.CDLL(str(path))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    signatures: tuple[tuple[str, Any, list[Any]], ...] = (
        ("llama_backend_init", None, []),
        ("llama_log_set", None, [Log, pointer]),
        ("llama_model_default_params", _Opaque, []),
        ("llama_context_default_params", _Opaque, []),
        ("llama_model_load_from_file", pointer, [ctypes.c_char_p, _Opaque]),
        ("llama_model_free", None, [pointer]),
        ("llama_init_from_model", pointer, [pointer, _Opaque]),
        ("llama_free", None, [pointer]),
        ("llama_model_get_vocab", pointer, [pointer]),
        ("llama_vocab_n_tokens", ctypes.c_int32, [pointer]),
        ("llama_vocab_bos", ctypes.c_int32, [pointer]),
        ("llama_vocab_eos", ctypes.c_int32, [pointer]),
        ("llama_vocab_get_add_bos", ctypes.c_bool, [pointer]),
        ("llama_n_ctx", ctypes.c_uint32, [pointer]),
        ("llama_n_batch", ctypes.c_uint32, [pointer]),
        ("llama_batch_init", _Batch, [ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
        ("llama_batch_free", None, [_Batch]),
        ("llama_decode", ctypes.c_int32, [pointer, _Batch]),
        ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [pointer, ctypes.c_int32]),
        ("llama_get_memory", pointer, [pointer]),
        ("llama_memory_clear", None, [pointer, ctypes.c_bool]),
        ("llama_tokenize", ctypes.c_int32,
         [pointer, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32), ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]),
        # of its neighbour, which is loaded with it
        ("ggml_get_name", ctypes.c_char_p, [ctypes.POINTER(_Tensor)]),
        ("ggml_nbytes", size, [ctypes.POINTER(_Tensor)]),
        ("ggml_backend_tensor_get", None, [ctypes.POINTER(_Tensor), pointer, size, size]),
    )  # fmt: skip
    for name, result, arguments in signatures:
        function = getattr(functions, name)
        function.restype, function.argtypes = result, arguments
    _require(functions.llama_model_default_params(), MODEL_DEFAULTS, "llama_model_params")
    _require(functions.llama_context_default_params(), CONTEXT_DEFAULTS, "llama_context_params")
    words: list[str] = []

    def heard(level: int, text: bytes, data: Any) -> None:
        words.append(text.decode("utf-8", "replace").strip())
        del words[:-40]

    log = Log(heard)
    functions.llama_log_set(log, None)
    functions.llama_backend_init()
    return Library(package, release, functions, words, log)


def _require(found: _Opaque, defaults: Mapping[int, tuple[str, float]], name: str) -> None:
    held = bytes(found.bytes)
    for offset, (code, value) in defaults.items():
        (seen,) = struct.unpack_from("<" + code, held, offset)
        if seen != value:
            raise Missing(f"its {name} has {seen} at byte {offset}, where {value} is the default: another layout")


def _set(opaque: _Opaque, offset: int, code: str, value: float) -> None:
    struct.pack_into("<" + code, opaque.bytes, offset, value)


Captured = dict[str, list[Floats]]  # name -> what it held at each evaluation, in ggml's axes reversed


class LlamaCpp:
    """A GGUF file in llama.cpp, on the CPU, one thread unless told otherwise."""

    def __init__(self, path: Path, context: int, sequences: int = 1, threads: int = 1, repack: bool = False):
        self.library = library()
        self._ = functions = self.library.functions
        settings = functions.llama_model_default_params()
        _set(settings, MODEL_GPU_LAYERS, "i", 0)
        _set(settings, MODEL_REPACKS, "B", repack)
        self.library.words.clear()
        self.model = functions.llama_model_load_from_file(str(path).encode(), settings)
        if not self.model:
            raise Unloadable(f"{path}: llama.cpp does not load it: {self._last_words()}")
        self.vocab = functions.llama_model_get_vocab(self.model)
        self.vocabulary = functions.llama_vocab_n_tokens(self.vocab)
        self.captured: Captured = {}
        self._wanted: Callable[[str], bool] | None = None
        self._callback = Callback(self._seen)
        options = functions.llama_context_default_params()
        values = {
            "n_ctx": context * sequences, "n_batch": context * sequences, "n_ubatch": context * sequences, "n_seq_max": sequences,
            "n_threads": threads, "n_threads_batch": threads, "flash_attn_type": FLASH_OFF, "type_k": CACHE, "type_v": CACHE,
            "cb_eval": ctypes.cast(self._callback, ctypes.c_void_p).value or 0,
        }  # fmt: skip
        for name, value in values.items():
            _set(options, *CONTEXT[name], value)
        self.context = functions.llama_init_from_model(self.model, options)
        if not self.context:
            functions.llama_model_free(self.model)
            raise Unloadable(f"{path}: llama.cpp makes no context for it: {self._last_words()}")
        self.memory = functions.llama_get_memory(self.context)

    def close(self) -> None:
        if self.context:
            self._.llama_free(self.context)
            self._.llama_model_free(self.model)
            self.context = None

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Return llama.cpp's own ids of a text, with the special tokens it puts around it where `special`."""
        data = text.encode()
        room = len(data) + 8
        ids = (ctypes.c_int32 * room)()
        count = self._.llama_tokenize(self.vocab, data, len(data), ids, room, special, False)
        if count < 0:
            raise Unloadable(f"llama.cpp cannot tokenize {text[:40]!r}")
        return list(ids[:count])

    def specials(self) -> tuple[int, int, bool]:
        """Return begin, end, and whether begin is put before a text."""
        vocab = self.vocab
        return self._.llama_vocab_bos(vocab), self._.llama_vocab_eos(vocab), self._.llama_vocab_get_add_bos(vocab)

    def prefill(self, ids: Sequence[int]) -> Floats:
        """Return logits [t, v] of one sequence decoded in one go."""
        self._.llama_memory_clear(self.memory, True)
        return self._decode([(token, position, 0) for position, token in enumerate(ids)])

    def stepwise(self, sequences: Sequence[Sequence[int]]) -> list[Floats]:
        """Return logits [t, v] of each sequence, decoded one token at a time with the others beside it."""
        self._.llama_memory_clear(self.memory, True)
        found: list[list[Floats]] = [[] for _ in sequences]
        for position in range(max(map(len, sequences))):
            alive = [index for index, ids in enumerate(sequences) if position < len(ids)]
            logits = self._decode([(sequences[index][position], position, index) for index in alive])
            for index, row in zip(alive, logits, strict=True):
                found[index].append(row)
        return [np.stack(rows) for rows in found]

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Return the `count` tokens with which it goes on from `ids`, the most likely one each time."""
        self._.llama_memory_clear(self.memory, True)
        logits = self._decode([(token, position, 0) for position, token in enumerate(ids)], last=True)
        found = [int(logits[-1].argmax())]
        while len(found) < count:
            logits = self._decode([(found[-1], len(ids) + len(found) - 1, 0)])
            found.append(int(logits[-1].argmax()))
        return found

    @contextmanager
    def watching(self, wanted: Callable[[str], bool]) -> Iterator[Captured]:
        """Collect every intermediate tensor whose name is wanted while inside."""
        self.captured, self._wanted = {}, wanted
        try:
            yield self.captured
        finally:
            self._wanted = None

    def _seen(self, tensor: Any, asking: bool, data: Any) -> bool:
        if self._wanted is None:
            return not asking
        name = self._.ggml_get_name(tensor).decode("utf-8", "replace")
        if not self._wanted(name):
            return not asking
        if not asking:
            held = tensor.contents
            if held.type == F32:
                size = self._.ggml_nbytes(tensor)
                into = np.empty(size // 4, np.float32)
                self._.ggml_backend_tensor_get(tensor, into.ctypes.data, 0, size)
                shape = tuple(int(one) for one in held.ne)[::-1]
                if into.size == int(np.prod(shape)):  # a view with gaps is not one of those that are asked for
                    self.captured.setdefault(name, []).append(into.reshape(shape))
        return True

    def _decode(self, tokens: Sequence[tuple[int, int, int]], last: bool = False) -> Floats:
        """Return logits [n, v] behind tokens, each with its position and its sequence; [1, v] of the `last` alone."""
        asked = range(len(tokens) - 1 if last else 0, len(tokens))
        batch = self._.llama_batch_init(len(tokens), 0, 1)
        try:
            for index, (token, position, sequence) in enumerate(tokens):
                batch.token[index], batch.pos[index], batch.n_seq_id[index] = token, position, 1
                batch.seq_id[index][0] = sequence
                batch.logits[index] = index in asked
            batch.n_tokens = len(tokens)
            code = self._.llama_decode(self.context, batch)
            if code:
                raise Unloadable(f"llama.cpp refuses {len(tokens)} tokens with code {code}: {self._last_words()}")
            rows = [self._.llama_get_logits_ith(self.context, index) for index in asked]
            return np.stack([np.ctypeslib.as_array(row, (self.vocabulary,)) for row in rows])
        finally:
            self._.llama_batch_free(batch)

    def _last_words(self) -> str:
        return "; ".join(word for word in self.library.words[-6:] if word)[:400]
