"""No text of evidence becomes structure: whatever it says, a rendering is built as it is for harmless words."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from reported import judged
from test_report_ci import commands

from sovereign.report.github import github
from sovereign.report.html import html
from sovereign.report.junit import junit
from sovereign.report.markdown import escaped, markdown
from sovereign.report.sarif import sarif
from sovereign.report.terminal import plain

SHARP = "|\\`*_{}[]()<>#+-.!&'\"@~$:%,;=/\r\n\t\x00\x1b\x7f\u2028\u202e\ufeff"
PARTS = [
    "<!-- ", "-->", "<script>alert(1)</script>", "</td></tr></table>", "</details>", "]]>", "<![CDATA[", "&lt;", "&#60;", "::error ::x",
    "%0A", "##[error]", "[a](https://b)", "![a](b)", "https://a.example", "www.a.example", "@everyone", "#1", "```", "\n\n# x", "\n- x",
    "|x|y|", "\" onload=\"x", "' x='", "\x1b[31m", "<https://a>", "a@b.example", "\\|", "\\",
]  # fmt: skip
texts = st.lists(
    st.one_of(st.sampled_from(PARTS), st.text(alphabet=SHARP, max_size=4), st.text(max_size=5)), min_size=1, max_size=6
)
hostile = texts.map(
    lambda parts: "x" + "".join(parts) + "x"
)  # between letters, since an empty text rightly leaves parts out
parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])


class Structure(HTMLParser):
    """The tags of a page with the names of their attributes, and what stands in them as text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.links: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attributes)))
        self.links |= {
            value or "" for name, value in attributes if name in ("href", "src", "xlink:href", "srcset", "action")
        }

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", ()))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", ()))


def shape(text: str) -> list[tuple[str, str]]:
    """Return what CommonMark makes of a text: its blocks, and whatever within lines is not plain text."""
    found = []
    for token in parser.parse(text):
        found.append((token.type, token.tag))
        for inner in token.children or ():
            if inner.type not in ("text", "text_special"):
                found.append((inner.type, inner.content))
    return found


@pytest.fixture(scope="module")
def harmless() -> dict[str, object]:
    shown = judged("xx")
    return {"markdown": shape(markdown(shown)), "html": Structure(html(shown)).tags, "junit": tags(junit(shown))}


def tags(text: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.tag, tuple(one.attrib)) for one in Xml.fromstring(text.encode()).iter()]


@settings(max_examples=60)
@given(hostile)
@example("".join(["x", *PARTS, "x"]))
def test_markdown_keeps_its_shape(harmless: dict[str, object], text: str) -> None:
    """Evidence adds no cell, heading, link, image, comment or HTML. Caught: line ends let through."""
    assert harmless["markdown"] == shape(markdown(judged(text)))


@settings(max_examples=60)
@given(hostile)
@example("".join(["x", *PARTS, "x"]))
def test_html_keeps_its_shape(harmless: dict[str, object], text: str) -> None:
    """Evidence adds no element, attribute or comment to the page, and no address. Caught: a reason made Markup."""
    found = Structure(html(judged(text)))

    assert harmless["html"] == found.tags
    assert {"data:,", "#content", "#scoreboard-toy", "#criteria-toy", "#runs-toy"} == found.links


@settings(max_examples=60)
@given(hostile)
@example("".join(["x", *PARTS, "x"]))
def test_xml_keeps_its_shape(harmless: dict[str, object], text: str) -> None:
    """Evidence adds no element to JUnit, and no character that XML cannot hold. Caught: control characters let through."""
    assert harmless["junit"] == tags(junit(judged(text)))


@settings(max_examples=60)
@given(hostile)
@example("".join(["x", *PARTS, "x"]))
def test_annotations_keep_their_number(text: str) -> None:
    """Evidence adds no command and changes the target of none; what it says arrives. Caught: `%` escaped last."""
    plainly, sharply = commands(github(judged("xx"))), commands(github(judged(text)))
    lines = re.split(r"\r\n|\r|\n", github(judged(text)))

    assert [command[:2] for command in plainly] == [command[:2] for command in sharply]
    assert len(plainly) == sum(1 for line in lines if line.startswith("::"))
    assert not any("##[" in line for line in lines if not line.startswith("::"))
    assert f"it fails {text}" in next(
        message for _, properties, message in sharply if properties["title"] == "TOY-002 FALSIFIED"
    )


@settings(max_examples=60)
@given(hostile)
@example("".join(["x", *PARTS, "x"]))
def test_terminals_and_viewers_obey_nothing(text: str) -> None:
    """No control code reaches a terminal by the text, and no link is made of evidence in SARIF."""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", plain(judged(text)))
    assert not any("](" in message for message in messages(json.loads(sarif(judged(text)))))


def messages(value: object) -> list[str]:
    """Return every message of a SARIF log; other strings are never read as links."""
    if isinstance(value, list):
        return [message for one in value for message in messages(one)]
    if not isinstance(value, dict):
        return []
    return [
        *([value["text"]] if set(value) == {"text"} else []),
        *(one for inner in value.values() for one in messages(inner)),
    ]


@settings(max_examples=200)
@given(hostile)
def test_escaped_text_is_one_line_without_mentions_or_links(text: str) -> None:
    """Nobody is called, nothing is referred to, and nothing is linked, though GitHub looks for that after Markdown."""
    said = re.sub(r"&#(\d+);", lambda found: chr(int(found[1])), escaped(text))

    assert not re.search(r"@[^\u200b]|#\d|://|www\.|[\r\n]", said, re.IGNORECASE)
