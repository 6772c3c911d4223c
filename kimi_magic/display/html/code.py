"""Code as HTML, highlighted if its language is known."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from html import escape
from itertools import groupby
from operator import itemgetter
from typing import Any

__all__ = ["CODE_STYLE", "INKS", "MONOSPACE", "code_html", "highlight", "mixed"]

# Untrusted notebooks drop declarations with var(): the first font stands then.
MONOSPACE = "font-family:monospace;font-family:var(--jp-code-font-family,monospace)"
CODE_STYLE = (
    "margin:0 0 1em;padding:.6em .8em;border-radius:6px;background-color:rgba(127,127,127,.1);"
    f"overflow:auto;white-space:pre;{MONOSPACE}"
)
# Many lexers take time that grows with the square of the text, or of a run of blanks or of one
# character. These languages stay near linear.
MAX_CODE = 10_000
_RUN = re.compile(r"\s{200}|(\S)\1{200}")
_LANGUAGES = set(
    "bash bat c c# c++ cmake cpp cs csharp css dart docker dockerfile fortran go golang graphql"
    " haskell html http ini java javascript jl js json jsx julia kotlin kt latex lua markdown"
    " matlab md objective-c perl php powershell ps1 py pycon pytb python python3 r rb rs ruby rust"
    " scala scss sh shell sql swift tex toml ts tsx typescript xml yaml yml zsh".split()
)
# No colour has a contrast of 4.5 : 1 on light and on dark pages alike, so each is mixed with the
# text's own. A browser without color-mix() takes the first, with 4 : 1 on both.
_INK = {
    "#767676": "Comment",
    "#b847ca": "Keyword Operator.Word",
    "#007bd4": "Keyword.Constant Literal.Number",
    "#34893b": "Literal.String Generic.Inserted",
    "#a96b00": "Name.Attribute",
    "#008876": "Name.Builtin",
    "#2b77e1": "Name.Class Name.Decorator Name.Function Name.Tag",
    "#ce4f3b": "Generic.Deleted",
}


def mixed(ink: str) -> str:
    """Return a colour mixed with the text's own, as a style."""
    return f"color:{ink};color:color-mix(in srgb,currentcolor 45%,{ink})"


INKS = {name: mixed(ink) for ink, names in _INK.items() for name in names.split()}


def code_html(code: str, language: str) -> str:
    """Return a block of code as HTML."""
    # Keys scroll only an element that can have the focus.
    return f'<pre tabindex="0" style="{CODE_STYLE}">{highlight(code, language)}</pre>\n'


def highlight(code: str, language: str) -> str:
    """Return code as HTML for a ``<pre>``, highlighted if the language is known."""
    fits = len(code) <= MAX_CODE and not _RUN.search(code)
    lexer = _lexer(language.lower()) if fits else None
    return _coloured(code, lexer) if lexer else escape(code)


@lru_cache(maxsize=128)  # the live view and the record draw the same blocks
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

    if language not in _LANGUAGES:
        return None
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


@cache
def _ink(kind: str) -> str:
    """Return the style of a type such as ``Token.Name.Function``, or of its nearest parent."""
    names = kind.split(".")[1:]
    found = (INKS.get(".".join(names[:n])) for n in range(len(names), 0, -1))
    return next(filter(None, found), "")
