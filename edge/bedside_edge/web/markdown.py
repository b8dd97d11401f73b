"""Model cards as HTML: CommonMark with tables, no HTML of the card's own, no foreign links.

A card is part of a signed package, and still nothing in it may reach the page as markup.
"""

from collections.abc import Sequence
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape


@cache
def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.add_render_rule("image", _figure)
    reader.add_render_rule("table_open", _table_open)
    reader.add_render_rule("table_close", _table_close)
    for rule in ("th_open", "td_open"):
        reader.add_render_rule(rule, _cell)
    return reader


def to_html(text: str) -> Markup:
    """Return the card for a page; every character of markup in it is shown as text."""
    return Markup(_reader().render(text))  # noqa: S704  made from escaped text, html is off


def _figure(_: RendererHTML, tokens: Sequence[Token], place: int, *__: object) -> str:
    """Name a figure: its file lies in the package, not on this page."""
    return f'<span class="chip">{escape(tokens[place].content)}</span>'


def _table_open(*_: object) -> str:
    return '<div class="scroll" tabindex="0"><table>'


def _table_close(*_: object) -> str:
    return "</table></div>\n"


def _cell(_: RendererHTML, tokens: Sequence[Token], place: int, *__: object) -> str:
    """Write alignment as a class: the pages' policy takes no style attribute."""
    token = tokens[place]
    kind = ' class="number"' if "right" in str(token.attrGet("style") or "") else ""
    scope = ' scope="col"' if token.tag == "th" else ""
    return f"<{token.tag}{scope}{kind}>"
