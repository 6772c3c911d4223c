"""Markdown from a model as HTML that is safe in a trusted notebook, where nothing is sanitised.

Raw HTML becomes text, images become links, and links are http, https or mailto. Code spans go
before maths, which keeps its dollars for the front end's MathJax. Every other ``$`` and ``\\`` gets
an element of its own, since MathJax looks for maths in unbroken runs of text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
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

    _InlineRule = Callable[[StateInline, bool], bool]

__all__ = ["Blocks", "foreign_html", "parser", "plain_html", "to_html"]

_LINK = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
_TAGS = set(
    "a blockquote br code del div em h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong"
    " sup table tbody td th thead tr ul".split()
)
_VOID = {"<br>", "<hr>"}
_ELEMENT_STEP = {"</": -1}
_HEADING = re.compile(r"<(/?)h[1-6]>")
_FENCE = re.compile(r" {0,3}(`{3,}+|~{3,}+)")
_ALIGNED = re.compile(r"text-align: ?(?:left|right|center)")
_SCROLLED = "overflow:auto"
_TASK, _TASK_MARKS = re.compile(r"\[([ xX])\](?=[ \t])"), {" ": "☐", "x": "☑", "X": "☑"}
_NO_BULLET = "list-style-type:none"
# Any other word in such brackets may be a regular expression's class: [^abc].
_FOOTNOTE = re.compile(r"\[\^(\d{1,4}|[A-Za-z_]\w{3,29})\]")
_NOTE_BEGINS = re.compile(rf" {{0,3}}{_FOOTNOTE.pattern}:")
_BACKTICKS = re.compile("`+")
_NUMBER = re.compile(
    r"[+\-−±~≈<>≤≥]{0,2} ?[$€£¥]? ?(?:\d{1,3}(?:[,'’ \u202f]\d{3})+|\d+)?(?:[.,]\d+)?"
    r"(?<=\d)(?:[eE][+\-−]?\d+)? ?[%‰$€£¥]?"
)
_DECORATION = str.maketrans("", "", "*_`~$\\")
_NO_VALUE = {"", "-", "–", "—", "n/a", "N/A"}

# Beyond these limits the parsers' time, or their output, is out of proportion to the text.
MAX_NESTING, MAX_BRACKETS, MAX_FILLED_CELLS = 24, 1000, 1000
MAX_HTML_DEPTH = 100


def to_html(text: str, *, light: bool = False) -> str:
    """Render Markdown; ``light`` keeps line breaks, and headings as large as the text."""
    styled = {tag: {"style"} for tag in ("li", "span", "td", "th")}
    styled |= {tag: {"style", "tabindex"} for tag in ("div", "pre")}
    return _sanitised(_rendered(text, light=light), _TAGS, styled | {"ol": {"start"}})


def _rendered(text: str, *, light: bool) -> str:
    """Render Markdown without sanitising it; text that is nested too deep stays as it is."""
    from markdown_it.utils import OptionsDict

    md = parser()
    env: dict[str, Any] = {}
    with suppress(RecursionError):
        tokens = md.parse(text, env)
        # The parser drops what is deeper without a word.
        if all(token.level < MAX_NESTING - 1 for token in tokens):
            options: Any = {**md.options, "breaks": light}
            html = str(md.renderer.render(tokens, OptionsDict(options), env))
            return _HEADING.sub(_as_strong, html) if light else html
    return f"<pre>{escape(text)}</pre>"


def _as_strong(heading: re.Match[str]) -> str:
    return "</strong></p>" if heading[1] else "<p><strong>"


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
        known = {CODE_STYLE, _SCROLLED, _NO_BULLET, *INKS.values()}
        return value if value in known or _ALIGNED.fullmatch(value) else None
    if name == "href":
        # nh3 leaves brackets in: readers that look for the end of the tag would stop at them.
        return value.replace(">", "%3E").replace("<", "%3C") if _LINK.match(value) else None
    return None if name in {"title", "lang"} else value


@cache
def parser() -> MarkdownIt:
    """Return the parser for what models write: CommonMark, tables, ~~strike~~, and maths."""
    md = _grammar()
    md.core.ruler.before("inline", "tasks", _mark_tasks)
    md.core.ruler.before("inline", "numbers", _align_numbers)
    md.core.ruler.before("inline", "too_many_brackets", _leave_brackets)
    md.inline.ruler.before("escape", "math_brackets", _after_code(_math_brackets))
    md.inline.ruler.before("link", "footnote", _footnote)
    md.validateLink = lambda url: _LINK.match(url) is not None  # type: ignore[method-assign]
    rules: dict[str, Callable[..., str]] = {
        "text": lambda _self, tokens, i, *_: plain_html(tokens[i].content),
        "image": _image,
        "fence": _fence,
        "code_block": _fence,
        "footnote": lambda _self, tokens, i, *_: f"<sup>[{escape(tokens[i].content)}]</sup>",
        "table_open": lambda *_: f'<div tabindex="0" style="{_SCROLLED}"><table>\n',
        "table_close": lambda *_: "</table></div>\n",
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
    from mdit_py_plugins.dollarmath.index import math_inline_dollar

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
    dollars = math_inline_dollar(allow_space=False, allow_digits=False, allow_double=True)
    md.inline.ruler.at("math_inline", _after_code(dollars))
    md.block.ruler.at("reference", _reference)
    return md


def _reference(state: StateBlock, start: int, end: int, silent: bool) -> bool:  # noqa: FBT001 - so too
    """Leave footnotes alone, which have the form of a link's definition."""
    from markdown_it.rules_block import reference

    is_note = _NOTE_BEGINS.match(state.src, state.bMarks[start])
    return not is_note and reference(state, start, end, silent)


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


def _mark_tasks(state: StateCore) -> None:
    """Draw the boxes of task lists."""
    for item, _, token in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        if item.type == "list_item_open" and token.type == "inline":
            found = _TASK.match(token.content)
            if found and item.markup in {"-", "*", "+"}:
                token.content = _TASK_MARKS[found[1]] + token.content[found.end() :]
                item.attrSet("style", _NO_BULLET)


def _align_numbers(state: StateCore) -> None:
    """Align columns of numbers to the right, unless the table says otherwise."""
    columns: list[list[Token]] = []
    numbers: list[set[bool]] = []
    place = 0
    for i, token in enumerate(state.tokens):
        if token.type == "table_open":
            columns, numbers = [], []
        elif token.type == "tr_open":
            place = 0
        elif token.type == "th_open":
            columns.append([token])
            numbers.append(set())
        elif token.type == "td_open":
            columns[place].append(token)
            text = state.tokens[i + 1].content.translate(_DECORATION).strip()
            if text not in _NO_VALUE:
                numbers[place].add(_NUMBER.fullmatch(text) is not None)
            place += 1
        elif token.type == "table_close":
            for cells, found in zip(columns, numbers, strict=True):
                for cell in cells if found == {True} else ():
                    cell.attrs.setdefault("style", "text-align:right")


def _footnote(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - the parser's form
    """Read ``[^1]``, and ``[^1]:`` where a line begins.

    Blocks are drawn one by one: a note is shown where it stands, whether it is referred to or not.
    """
    found = _FOOTNOTE.match(state.src, state.pos, state.posMax)
    following = state.src[found.end() : found.end() + 1] if found else "("
    if not found or following == "(":
        return False
    before = state.src[max(state.pos - 4, 0) : state.pos].rstrip(" ")
    begins = following == ":" and (before.endswith("\n") or not (before or state.pos > 3))
    if not silent:
        if begins and not state.pending and state.tokens and state.tokens[-1].type == "softbreak":
            state.tokens[-1].type = "hardbreak"  # each note begins a line
        state.push("footnote", "sup", 0).content = found[1]
    state.pos = found.end() + begins
    return True


def _after_code(rule: _InlineRule) -> _InlineRule:
    """Return a rule that reads no formula in which a code span begins."""

    def outside_code(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - the parser's form
        start = state.pos
        if not rule(state, True):  # noqa: FBT003 - without tokens
            return False
        end, state.pos = state.pos, start
        spans = _code_spans(state)
        place = bisect_left(spans, start)
        if place < len(spans) and spans[place] < end:
            return False
        return rule(state, silent)

    return outside_code


def _code_spans(state: StateInline) -> list[int]:
    """Return where the code spans of a text begin."""
    known: list[int]
    text, known = state.env.get("code_spans", (None, []))
    if text is state.src:
        return known
    runs = [(run.start(), len(run[0])) for run in _BACKTICKS.finditer(state.src)]
    places: dict[int, list[int]] = {}
    for start, length in runs:
        places.setdefault(length, []).append(start)
    spans: list[int] = []
    end = 0
    for start, length in runs:
        backslashes = 0
        while backslashes < start and state.src[start - backslashes - 1] == "\\":
            backslashes += 1
        opening, size = start + backslashes % 2, length - backslashes % 2
        same = places.get(size, [])
        closing = bisect_left(same, opening + size)
        if opening >= end and size and closing < len(same):
            spans.append(opening)
            end = same[closing] + size
    state.env["code_spans"] = (state.src, spans)
    return spans


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
