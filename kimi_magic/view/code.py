"""Code as HTML, coloured where its language is known."""

from __future__ import annotations

from functools import cache, lru_cache
from html import escape
from itertools import groupby
from operator import itemgetter
from typing import Any

__all__ = ["CODE_STYLE", "MONOSPACE", "code_html", "highlight"]

# Where var() is refused the first font stands.
MONOSPACE = "font-family:monospace;font-family:var(--jp-code-font-family,monospace)"
CODE_STYLE = (
    "margin:0 0 1em;padding:.6em .8em;border-radius:6px;background-color:rgba(127,127,127,.1);"
    f"overflow:auto;white-space:pre;{MONOSPACE}"
)
MOST_CODE = 20_000  # characters that are coloured: some lexers take their time
# Each with a contrast above 4 : 1 on white and on the #111 of JupyterLab's dark theme.
_INK = {
    "Comment": "color:#767676;font-style:italic",
    "Keyword": "color:#b847ca",
    "Keyword.Constant": "color:#007bd4",
    "Literal.Number": "color:#007bd4",
    "Literal.String": "color:#34893b",
    "Name.Attribute": "color:#a96b00",
    "Name.Builtin": "color:#008876",
    "Name.Class": "color:#2b77e1",
    "Name.Decorator": "color:#2b77e1",
    "Name.Function": "color:#2b77e1",
    "Name.Tag": "color:#2b77e1",
    "Generic.Deleted": "color:#ce4f3b",
    "Generic.Inserted": "color:#34893b",
    "Operator.Word": "color:#b847ca",
}


def code_html(code: str, language: str) -> str:
    """A block of code, coloured where the language is known."""
    return f'<pre style="{CODE_STYLE}">{highlight(code, language)}</pre>\n'


def highlight(code: str, language: str) -> str:
    """Code as HTML for a ``<pre>``, coloured where the language is known."""
    lexer = _lexer(language) if len(code) <= MOST_CODE else None
    return _coloured(code, lexer) if lexer else escape(code)


@lru_cache(maxsize=128)  # the live view draws a block, and the record the same once more
def _coloured(code: str, lexer: Any) -> str:
    inked = ((_ink(str(kind)), text) for kind, text in lexer.get_tokens(code))
    runs = ((ink, "".join(text for _, text in run)) for ink, run in groupby(inked, itemgetter(0)))
    return "".join(
        f'<span style="{ink}">{escape(text)}</span>' if ink else escape(text) for ink, text in runs
    )


@lru_cache(maxsize=64)
def _lexer(language: str) -> Any:
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


@cache
def _ink(kind: str) -> str:
    """The style for a kind of token, such as ``Token.Name.Function``, or for what it belongs to."""
    names = kind.split(".")[1:]
    found = (_INK.get(".".join(names[:n])) for n in range(len(names), 0, -1))
    return next(filter(None, found), "")
