"""HTML and SVG that cannot be broken out of: whatever is not an element already is text, and is escaped."""

from __future__ import annotations

import re
from html import escape

VOID = frozenset({"meta", "link", "br", "circle", "line", "path", "polyline", "polygon", "rect"})
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
BIDI = re.compile(r"[\u202a-\u202e\u2066-\u2069]")  # by these, text can be made to look like other text


class Markup(str):
    """A string that is HTML already. Only `element` and `joined` make it, and the style sheet."""

    __slots__ = ()


Content = Markup | str | int | float | None


def element(name: str, /, *content: Content, **attributes: str | int | float | bool | None) -> Markup:
    """Return an element; None and False leave a part out, `class_` and `aria_label` are spelt as HTML spells them."""
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID and not content:
        return Markup(f"<{name}{given} />")  # within SVG, an element that is not closed holds all that follows
    return Markup(f"<{name}{given}>{joined(*content)}</{name}>")


def joined(*content: Content) -> Markup:
    """Return the parts one after another, each escaped unless it is markup."""
    return Markup("".join(part if isinstance(part, Markup) else _text(part) for part in content if part is not None))


def _text(value: object) -> str:
    shown = CONTROL.sub("\N{REPLACEMENT CHARACTER}", BIDI.sub("\N{REPLACEMENT CHARACTER}", str(value)))
    return escape(shown, quote=True)
