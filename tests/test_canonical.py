"""Reading is strict, digests are of meaning, and writing is whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sovereign.canonical import Malformed, Record, digest, parse_json, parse_yaml, validate, write_atomic

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def told(data: bytes, yaml: bool = False) -> str:
    with pytest.raises(Malformed) as caught:
        (parse_yaml if yaml else parse_json)(data, "f")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1,\n  "a": 2}', "f:2:3: a: key given twice; keep one"),
        (b'{"a": {"b": NaN}}', "f:1:13: NaN is not a number"),
        (b'{"a": -Infinity}', "f:1:7: -Infinity is not a number"),
        (b'{"a": 1e999}', "f:1:1: 1e999 overflows"),
        (b'{"a": 1', "f:1:8: not JSON"),
        (b'{"a": "\xff"}', "f:1:1: not UTF-8: byte 0xff"),
        (b"[" * 100_000, "f:1:1: nested too deeply"),
        (b"", "f:1:1: not JSON"),
        (b'{"a": 1} x', "f:1:10: not JSON"),
    ],
)
def test_json_faults_are_shown_at_their_place(text: bytes, message: str) -> None:
    """What JSON must not hold is refused with file, line and column."""
    said = told(text)

    assert said.startswith(message), said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: 1\nb: 2\na: 3\n", "f:3:1: a: key given twice; keep one"),
        (b"a:\n  b: .nan\n", "f:2:6: a.b: .nan is not a finite number"),
        (b"a: .inf\n", "f:1:4: a: .inf is not a finite number"),
        (b"a: &x 1\nb: *x\n", "f:1:4: b: aliases are not read"),
        (b"1: a\n", "f:1:1: key '1' is not a string"),
        (b"a: [1, 2\n", "f:2:1: not YAML"),
        (b"a: !!python/object:os.system x\n", "f:1:4: a: 'x' has tag"),
    ],
)
def test_yaml_faults_are_shown_at_their_place(text: bytes, message: str) -> None:
    """What YAML must not hold is refused with file, line and column."""
    said = told(text, yaml=True)

    assert said.startswith(message), said


def test_yaml_values_are_what_they_look_like() -> None:
    """`1e-4` is a float, `no` a string, a date a string, `012` no octal surprise."""
    found = parse_yaml(b"a: 1e-4\nb: no\nc: 2026-01-01\nd: 12:30:45\ne: true\nf: null\n", "f").value

    assert {"a": 1e-4, "b": "no", "c": "2026-01-01", "d": "12:30:45", "e": True, "f": None} == found


@given(JSON_VALUES)
def test_layout_does_not_change_a_digest(value: object) -> None:
    """Re-indenting a document, or changing its line endings, leaves its digest; another value changes it."""
    compact = json.dumps(value).encode()
    wide = json.dumps(value, indent=4, ensure_ascii=False).replace("\n", "\r\n").encode("utf-8", "surrogatepass")
    try:
        first = digest(parse_json(compact, "f").value)
    except (Malformed, ValueError):  # lone surrogates have no canonical bytes
        return

    assert first == digest(parse_json(wide, "f").value)
    assert first != digest([value])


def test_canonical_bytes_are_those_of_rfc_8785() -> None:
    """The RFC's own example serialises to the RFC's own bytes (section 3.2.4)."""
    given_value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '€$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    from sovereign.canonical import canonical_bytes

    expected = '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'

    assert expected.encode() == canonical_bytes(given_value)


class Inner(Record):
    learning_rate: float


class Outer(Record):
    name: str
    inner: Inner
    many: tuple[Inner, ...] = ()


def test_an_unknown_key_names_the_nearest_valid_one() -> None:
    """A misspelt key at any depth is refused, at its line, with what was probably meant (CASE-01)."""
    document = parse_yaml(
        b"name: a\ninner:\n  learnin_rate: 1.0\nmany:\n  - {learning_rate: 1.0, learning_rat: 2.0}\n", "f"
    )
    with pytest.raises(Malformed) as caught:
        validate(Outer, document)

    assert [
        "f:2:1: inner.learning_rate: required, and not given",
        "f:3:3: inner.learnin_rate: unknown key; did you mean learning_rate?",
        "f:5:26: many[0].learning_rat: unknown key; did you mean learning_rate?",
    ] == [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("value", ['"0.1"', "true", "null", "[]"])
def test_nothing_is_coerced(value: str) -> None:
    """A string, a boolean or null is not a number, however much it looks like one."""
    document = parse_json(f'{{"name": "a", "inner": {{"learning_rate": {value}}}}}'.encode(), "f")
    with pytest.raises(Malformed) as caught:
        validate(Outer, document)

    assert "f:1:25: inner.learning_rate: input should be a valid number" in str(caught.value)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, what stood there stands, and no partial file is left."""
    target = tmp_path / "a.json"
    write_atomic(target, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, b"new")

    assert [("a.json", b"old")] == [(path.name, path.read_bytes()) for path in tmp_path.iterdir()]


def test_importing_the_law_loads_no_torch() -> None:
    """Everything needed to gate imports without torch, numpy or tokenizers."""
    program = (
        "import sys, sovereign.repository, sovereign.cli.gates, sovereign.report.terminal;"
        "print(sorted(set(sys.modules) & {'torch', 'numpy', 'scipy', 'tokenizers', 'jsonschema', 'parso'}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()

    assert found == "[]"
