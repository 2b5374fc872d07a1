"""Prompts are heads of real functions: standing alone, spread over documents, and the same every time."""

import ast
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sovereign.contract.data import StandardLibrary
from sovereign.corpus.documents import gather
from sovereign.corpus.prompts import function_heads

BODY = "    x = 1\n    return x\n"


def heads(text, count=100):
    """Return the prompts of one document."""
    return [one.prompt for one in function_heads([("d", text)], count, seed=0)]


def library(every):
    """Return some documents of the standard library, as (document, text)."""
    found = list(gather(StandardLibrary(kind="stdlib"), Path()))[::every]
    return [(one.name, one.data.decode("utf-8", "replace")) for one in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(a, b=2):\n" + BODY, "def f(a, b=2):"),
        ("@cache\n@other(1)\ndef f():\n" + BODY, "def f():"),
        ("async def f():\n" + BODY, "async def f():"),
        ("class A:\n    def f(self):\n        x = 1\n        return x\n", "def f(self):"),
        ("def f(\n    a,  # one: two\n    b={1: (2,)},\n) -> int:  # why\n" + BODY,
         "def f(\n    a,  # one: two\n    b={1: (2,)},\n) -> int:  # why"),
        ("def f(a=lambda: 1, b='''\n:\n'''):\n" + BODY, "def f(a=lambda: 1, b='''\n:\n'''):"),
        ("def f():\n    # a comment of the body\n\n" + BODY, "def f():"),
        ('def f():\n    """Doc."""\n' + BODY, 'def f():\n    """Doc."""'),
        ('class A:\n    def f(self):\n        """One\n\n        two."""\n        x = 1\n        return x\n',
         'def f(self):\n    """One\n\n    two."""'),
        ('class A:\n    def f(self):\n        """One\n  left\n        """\n        x = 1\n        return x\n',
         'def f(self):\n    """One\n  left\n    """'),
        ('def f():\n    """1\n    2\n    3\n    4\n    5"""\n' + BODY,
         'def f():\n    """1\n    2\n    3\n    4\n    5"""'),
        ('def f():\n    """1\n    2\n    3\n    4\n    5\n    6"""\n' + BODY, "def f():"),
        ("\x0c\nx = 'a\x0cb\u2028c'\ndef f():\n" + BODY, "def f():"),
        ("\ufeffdef f(\r\n    a,\r\n):\r\n    x = 1\r\n    return x\r\n", "def f(\n    a,\n):"),
        ("def f(\r    a,\r):\r    x = 1\r    return x\r", "def f(\n    a,\n):"),
        ("def f():\n\tx = 1\n\treturn x\n", "def f():"),
    ],
)  # fmt: skip
def test_a_prompt_is_the_head_of_its_function(text, expected):
    """The def lines, dedented, without decorators, with a docstring of at most 5 lines."""
    assert [expected] == heads(text)


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    return 1\n",
        'def f():\n    """Doc."""\n    return 1\n',
        'def f():\n    """Doc."""\n',
        "def f(): x = 1; return x\n",
        'def f():\n    """Doc."""; x = 1\n    return x\n',
        'def f():\n  """Two spaces."""\n  x = 1\n  return x\n',
        f"def f({'a' * 400}):\n" + BODY,
    ],
)
def test_functions_that_make_no_prompt_are_left_out(text):
    """A body of one statement, a body beside its head, another indent, and more than 400 characters give none."""
    assert ["def g():"] == heads(text + "def g():\n" + BODY)


@pytest.mark.parametrize(
    "text", ["", "no Python at all", "def f(:\n", "x = 1\x00", "x = '\ud800'", "(" * 5000, "print 'two'\n"]
)
def test_documents_that_do_not_parse_are_passed_over(text):
    """What is not Python gives no prompt and no error; the documents beside it give theirs."""
    found = function_heads([("a", text), ("b", "def f():\n" + BODY)], 10, seed=0)

    assert [("b", "def f():")] == [(one.document, one.prompt) for one in found]


def test_held_out_code_warns_nobody():
    """A bad escape or a comparison by `is` in a document is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = heads("def f(a='\\d'):\n    x = a is 'y'\n    return x\n")

    assert ["def f(a='\\d'):"] == found


def test_every_prompt_of_the_library_is_python_once_it_has_a_body():
    """Prompt + pass is one function definition, at most 400 characters, and no prompt stands twice."""
    found = [one.prompt for one in function_heads(library(every=12), 10_000, seed=0)]
    kinds = {type(node) for prompt in found for node in ast.parse(prompt + "\n    pass\n").body}

    assert len(found) > 300
    assert {ast.FunctionDef, ast.AsyncFunctionDef} >= kinds
    assert len(found) == len(set(found))
    assert max(map(len, found)) <= 400


@settings(deadline=None, max_examples=60)
@given(
    names=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8),
    indent=st.sampled_from(["  ", "    ", "\t", "        "]),
    docstring=st.sampled_from(["", '"""Doc."""', "'one' 'two'", '"""a\n b\n"""', 'r"""\\d"""']),
    depth=st.integers(0, 3),
)
def test_prompts_parse_however_a_document_is_laid_out(names, indent, docstring, depth):
    """Tabs, wide and narrow indents, nested classes and odd docstrings: what is given stands alone."""
    lines = [f"{indent * level}class C{level}:" for level in range(depth)]
    for name in names:
        lines += [f"{indent * depth}def {name}(self):"]
        lines += [f"{indent * (depth + 1)}{part}" for part in (docstring, "x = 1", "return x") if part]
    found = [one.prompt for one in function_heads([("d", "\n".join(lines))], 100, seed=0)]

    given = [ast.parse(prompt + "\n    pass\n").body[0].name for prompt in found]
    # a docstring at another indent than the body to be written gives no prompt
    tidy = not docstring or indent == "    "

    assert sorted(set(names)) == sorted(given) or (not tidy and not given)


def test_prompts_are_the_same_every_time():
    """The order of the documents changes nothing, a larger count only adds, another seed draws others of each."""
    texts = library(every=40)
    longest = [max(texts, key=lambda one: len(one[1]))]
    found = function_heads(texts, 20, seed=1)

    assert found == function_heads(texts[::-1], 20, seed=1)
    assert found == function_heads(texts, 60, seed=1)[:20]
    assert found != function_heads(texts, 20, seed=2)
    assert len({function_heads(longest, 1, seed)[0].prompt for seed in range(8)}) > 1
    assert list(range(20)) == [one.prompt_id for one in found]


def test_documents_take_turns():
    """A long document gives no more prompts than a short one, until the short one has no more."""
    sizes = {"long": 50, "middle": 3, "short": 1}
    texts = [(name, "".join(f"def {name}{at}():\n{BODY}" for at in range(size))) for name, size in sizes.items()]
    found = [one.document for one in function_heads(texts, 10, seed=0)]

    assert {"long", "middle", "short"} == set(found[:3])
    assert {"long": 6, "middle": 3, "short": 1} == {name: found.count(name) for name in sizes}


def test_a_prompt_stands_once():
    """Documents that share a function give it once, and each its other functions in the same turn."""
    texts = [(name, f"def main():\n{BODY}def {name}():\n{BODY}") for name in ("a", "b", "c")]
    found = [one.prompt for one in function_heads(texts, 100, seed=0)]

    assert sorted(f"def {name}():" for name in ("a", "b", "c", "main")) == sorted(found)
