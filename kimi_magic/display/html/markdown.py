"""Markdown from a model as HTML that is safe in a trusted notebook, where nothing is sanitised.

Raw HTML becomes text, images become links, and links are http, https or mailto. Maths keeps its
dollars for the front end's MathJax. Every other ``$`` and ``\\`` gets an element of its own, since
MathJax looks for maths in unbroken runs of text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from html import escape
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from kimi_magic.core.text import MATHJAX, clean, mend_surrogates, plain_html
from kimi_magic.display.html.code import CODE_STYLE, INKS, code_html
from kimi_magic.display.html.maths import is_typeset

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

__all__ = ["Blocks", "foreign_html", "parser", "plain_html", "to_html"]

_LINK = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
_TAGS = set(
    "a blockquote br code del div em h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong"
    " table tbody td th thead tr ul".split()
)
_VOID = {"<br>", "<hr>"}
_ELEMENT_STEP = {"</": -1}
_FENCE = re.compile(r" {0,3}(`{3,}+|~{3,}+)")
_ALIGNED = re.compile(r"text-align: ?(?:left|right|center)")

# Beyond these limits the parsers' time, or their output, is out of proportion to the text.
MAX_NESTING, MAX_BRACKETS, MAX_FILLED_CELLS = 24, 1000, 1000
MAX_HTML_DEPTH = 100


def to_html(text: str) -> str:
    """Render Markdown."""
    styled = {tag: {"style"} for tag in ("span", "td", "th")} | {"pre": {"style", "tabindex"}}
    return _sanitised(_rendered(text), _TAGS, styled | {"ol": {"start"}})


def _rendered(text: str) -> str:
    """Render Markdown without sanitising it; text that is nested too deep stays as it is."""
    md = parser()
    env: dict[str, Any] = {}
    with suppress(RecursionError):
        tokens = md.parse(text, env)
        # The parser drops what is deeper without a word.
        if all(token.level < MAX_NESTING - 1 for token in tokens):
            return str(md.renderer.render(tokens, md.options, env))
    return f"<pre>{escape(text)}</pre>"


def foreign_html(html: str) -> str:
    """Sanitise HTML from a tool: a table stays a table, without its styles.

    Return "" for HTML that is nested deeper than any table.
    """
    tags = _TAGS - {"hr", "pre"} | {"caption", "b", "i", "sub", "sup", "tfoot"}
    spans = {"colspan", "rowspan"}
    pieces = re.split(r"(<[^>]*>)", _sanitised(html, tags, {"td": spans, "th": spans}))
    depths = accumulate(_ELEMENT_STEP.get(tag[:2], 1) for tag in pieces[1::2] if tag not in _VOID)
    if max(depths, default=0) > MAX_HTML_DEPTH:
        return ""
    pieces[::2] = [MATHJAX.sub(r"<span>\g<0></span>", text) for text in pieces[::2]]
    return "".join(pieces)


def _sanitised(html: str, tags: set[str], attributes: dict[str, set[str]]) -> str:
    import nh3

    cleaned: str = nh3.clean(
        mend_surrogates(html),  # which nh3, in Rust, cannot encode
        tags=tags,
        attributes=attributes | {"a": {"href"}},
        attribute_filter=_attribute,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer",
    )
    return clean(cleaned)  # entities have become characters


def _attribute(_tag: str, name: str, value: str) -> str | None:
    """Keep the styles that are made here, and links to other hosts.

    nh3 by itself keeps relative links, which could act on the Jupyter server, and title and lang.
    """
    if name == "style":
        ours = value == CODE_STYLE or value in INKS.values() or _ALIGNED.fullmatch(value)
        return value if ours else None
    if name == "href":
        # nh3 leaves brackets in: readers that look for the end of the tag would stop at them.
        return value.replace(">", "%3E").replace("<", "%3C") if _LINK.match(value) else None
    return None if name in {"title", "lang"} else value


@cache
def parser() -> MarkdownIt:
    """Return the parser for what models write: CommonMark, tables, ~~strike~~, and maths."""
    md = _grammar()
    md.core.ruler.before("inline", "too_many_brackets", _leave_brackets)
    md.inline.ruler.before("escape", "math_brackets", _math_brackets)
    md.validateLink = lambda url: _LINK.match(url) is not None  # type: ignore[method-assign]
    rules: dict[str, Callable[..., str]] = {
        "text": lambda _self, tokens, i, *_: plain_html(tokens[i].content),
        "image": _image,
        "fence": _fence,
        "code_block": _fence,
        "math_inline": _math_rule("{}", "$"),
        "math_inline_double": _math_rule("{}", "$$"),
        "math_block": _math_rule("<p>{}</p>\n", "$$"),
        "th_open": _cell,
        "td_open": _cell,
    }
    for name, rule in rules.items():
        md.add_render_rule(name, rule)
    return md


def _grammar() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    md = MarkdownIt("commonmark", {"html": False, "maxNesting": MAX_NESTING})
    md.enable(["table", "strikethrough"])
    md.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    dollarmath_plugin(
        md,
        allow_labels=False,
        allow_space=False,  # or a price would begin a formula
        allow_digits=False,
        allow_blank_lines=False,  # TeX allows none either
        double_inline=True,
    )
    return md


def _table(state: StateBlock, start: int, end: int, silent: bool) -> bool:  # noqa: FBT001 - so too
    """Parse a table, unless the cells that fill up its short rows would be a flood."""
    from markdown_it.rules_block import table

    if not silent and table(state, start, end, True):  # noqa: FBT003 - the parser's form
        columns, row, filled = _pipes(state, start), start + 2, 0
        while row < end and not state.isEmpty(row):
            filled += max(columns - _pipes(state, row), 0)
            row += 1
        if filled > MAX_FILLED_CELLS:
            return False
    return table(state, start, end, silent)


def _pipes(state: StateBlock, line: int) -> int:
    return state.src.count("|", state.bMarks[line], state.eMarks[line])


def _leave_brackets(state: StateCore) -> None:
    """Take no bracket for a link if there are very many: the search for their ends is quadratic."""
    for token in state.tokens:
        if token.type == "inline" and token.content.count("[") > MAX_BRACKETS:
            token.type = "text"


def _math_rule(form: str, dollars: str) -> Callable[..., str]:
    return lambda _self, tokens, i, *_: form.format(_math(tokens[i].content, dollars))


def _math(tex: str, dollars: str) -> str:
    tex = clean(tex).strip()  # before the check: what is dropped could split a command's name
    if not is_typeset(tex):
        return f"<code>{escape(tex)}</code>"
    return f"{dollars}{escape(tex)}{dollars}"


def _math_brackets(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - the parser's form
    r"""Read ``\(…\)`` and ``\[…\]``, which CommonMark takes for escaped brackets."""
    start = state.pos
    opening = state.src[start : start + 2]
    closing = {r"\(": r"\)", r"\[": r"\]"}.get(opening)
    end = state.src.find(closing, start + 2, state.posMax) if closing else -1
    if end < 0 or not state.src[start + 2 : end].strip():
        return False
    if not silent:
        token = state.push("math_inline" if opening == r"\(" else "math_inline_double", "math", 0)
        token.content = state.src[start + 2 : end]
        token.markup = opening
    state.pos = end + 2
    return True


def _image(_self: Any, tokens: Sequence[Token], i: int, *_: Any) -> str:
    """Link to an image instead of loading it: its address could carry data to a server."""
    label = plain_html(f"Image: {tokens[i].content or tokens[i].attrs.get('src', '')}")
    opened = sum({"link_open": 1, "link_close": -1}.get(token.type, 0) for token in tokens[:i])
    if opened:
        return label
    return f'<a href="{escape(str(tokens[i].attrs.get("src", "")))}">{label}</a>'


def _fence(_self: Any, tokens: Sequence[Token], i: int, *_: Any) -> str:
    language = (tokens[i].info.split() or [""])[0]
    return code_html(tokens[i].content, language)


def _cell(_self: Any, tokens: Sequence[Token], i: int, *_: Any) -> str:
    # JupyterLab aligns table cells to the right unless told otherwise.
    style = str(tokens[i].attrs.get("style", "")) or "text-align:left"
    return f'<{tokens[i].tag} style="{escape(style)}">'


class Blocks:
    """Splits Markdown into top-level blocks while it arrives.

    A block is finished when a later top-level token exists, fenced code when its fence is closed.
    The blocks and the open tail are slices of the text: joined they are the text again.
    """

    # Up to this many characters the open tail is parsed at each new line. A longer one is parsed
    # when it has grown by a quarter, which keeps the work proportional to the text.
    EAGER = 1000

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._parse_at = 0

    @property
    def tail(self) -> str:
        """The text that is not finished."""
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def feed(self, text: str) -> list[str]:
        """Take more text and return the blocks that it finishes."""
        self._pieces.append(text)
        self._length += len(text)
        if "\n" not in text or self._length < self._parse_at:
            return []
        tail = self.tail
        # A last line without its end may still turn into something else: "1" into "1. item".
        blocks = _split(tail[: tail.rfind("\n") + 1])
        done = next((i for i, block in enumerate(blocks) if _may_become_maths(block)), -1)
        if done < 0:
            done = len(blocks) - (not _is_closed_code(blocks[-1]))
        blocks = blocks[:done]
        self._keep(tail[sum(map(len, blocks)) :])
        return blocks

    def finish(self) -> list[str]:
        """Return the blocks that are left when the text is complete."""
        blocks = _split(self.tail)
        self._keep("")
        return blocks

    def _keep(self, tail: str) -> None:
        self._pieces = [tail]
        self._length = len(tail)
        self._parse_at = self._length * 5 // 4 if self._length > self.EAGER else 0


def _may_become_maths(block: str) -> bool:
    """Return True if a later ``$$`` may turn this and what follows into one formula."""
    text = block.lstrip()
    return text.startswith("$$") and "$$" not in text[2:] and not block.endswith("\n\n")


def _is_closed_code(block: str) -> bool:
    """Return True for fenced code with its closing fence: nothing that follows belongs to it."""
    first, _, rest = block.rstrip().partition("\n")
    opening, closing = _FENCE.match(first), _FENCE.fullmatch(rest.rpartition("\n")[2])
    return opening is not None and closing is not None and closing[1].startswith(opening[1])


def _split(text: str) -> list[str]:
    starts = [
        token.map[0] for token in _block_parser().parse(text) if token.level == 0 and token.map
    ]
    if len(starts) < 2:
        return [text] if text else []
    lines = text.split("\n")
    bounds = [0, *starts[1:], len(lines)]
    blocks = ["\n".join(lines[a:b]) + "\n" for a, b in pairwise(bounds)]
    blocks[-1] = blocks[-1][:-1]
    return blocks


@cache
def _block_parser() -> MarkdownIt:
    """Return a parser of the same grammar without its costly inline rules."""
    md = _grammar()
    md.core.ruler.enableOnly(["normalize", "block"])
    return md
