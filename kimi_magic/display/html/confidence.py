"""An answer's tokens by how likely each was: marked in its text, and the least likely in a table.

The marks differ in their lines, not in their colours alone. A pointer that rests on a token shows
its probability and what else could have stood there. The table tells the same of those that matter
to readers without a pointer: thousands of places to tab through would be of no use to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from kimi_magic.core.likelihoods import TokenLogprob
from kimi_magic.core.text import clean, clip, count, reveal
from kimi_magic.display.html.markdown import plain_html

__all__ = ["MOST_ROWS", "confidence_html", "confidence_text"]


class _Level(NamedTuple):
    """A mark, for tokens less likely than ``below``; its tint suits light and dark pages."""

    below: float
    style: str
    label: str


# The least likely first.
LEVELS = (
    _Level(
        0.2, "border-bottom:4px double;background-color:rgba(213,60,40,.24)", "double: below 20 %"
    ),
    _Level(
        0.5, "border-bottom:2px dashed;background-color:rgba(230,120,0,.2)", "dashed: 20 to 50 %"
    ),
    _Level(
        0.8, "border-bottom:2px dotted;background-color:rgba(230,170,0,.16)", "dotted: 50 to 80 %"
    ),
)
SURE = LEVELS[-1].below
PLAIN = "no line: 80 % or more"
MOST_ROWS, MOST_NAMED = 20, 3
LONGEST_TOKEN, CONTEXT = 40, 30
SHOWN_FROM = 0.005  # the probability from which an alternative is named
_TEXT = (
    "margin:.6em 0;white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal;line-height:1.9;"
    "font-family:inherit;font-size:inherit;overflow:hidden;contain:paint"
)
_LEGEND = "font-size:90%;line-height:1.9"
_SUMMARY = "cursor:pointer;font-size:90%"
_HEAD = "text-align:left;vertical-align:top"
_CELL = f"{_HEAD};overflow-wrap:anywhere"
SETTING = "(setting max_output_chars)"


def confidence_html(
    tokens: Sequence[TokenLogprob], max_chars: int, *, rows: int = MOST_ROWS
) -> str:
    """Return a legend, the marked text, and the table of so many rows at most.

    ``max_chars`` is the length of the text.
    """
    pieces: list[str] = []
    left, shown = max_chars, 0
    for token in tokens:
        piece = _token_html(token)
        left -= len(piece)
        if left < 0:
            break
        pieces.append(piece)
        shown += 1
    cut = []
    if more := len(tokens) - shown:
        cut = [f'<div style="{_LEGEND}">… {count(more, "more token")} {SETTING} …</div>']
    text = f'<pre style="{_TEXT}">{"".join(pieces)}</pre>'
    return "\n".join([_legend(), text, *cut, *_table(tokens, rows)])


def confidence_text(tokens: Sequence[TokenLogprob]) -> str:
    """Return one line on the least likely tokens."""
    known = sum(token.logprob is not None for token in tokens)
    unsure = [tokens[place] for place in _least_likely(tokens)][:MOST_NAMED]
    if not unsure:
        return f"Each of {count(known, 'token')} was at least {_percent(SURE)} likely."
    named = "; ".join(_said(token) for token in unsure)
    return f"Least likely of {count(known, 'token')}: {named}"


def _legend() -> str:
    marks = [f'<span style="{level.style}">{level.label}</span>' for level in reversed(LEVELS)]
    words = " · ".join([PLAIN, *marks])
    return f'<div style="{_LEGEND}">How likely each token was: {words}</div>'


def _token_html(token: TokenLogprob) -> str:
    text, level = clean(token.token), _level(token)
    if level and not text.strip():  # a line below nothing is not seen
        text = text.replace("\n", "↵\n") if "\n" in text else "␣" * len(text)
    title = f' title="{escape(_odds(token))}"' if token.logprob is not None else ""
    style = f' style="{level.style}"' if level else ""
    return f"<span{title}{style}>{escape(text)}</span>"


def _table(tokens: Sequence[TokenLogprob], most: int) -> Iterator[str]:
    """Yield a folded table of the least likely tokens; nothing where all are likely."""
    unsure = _least_likely(tokens)
    if not unsure:
        return
    heads = "".join(
        f'<th scope="col" style="{_HEAD}">{name}</th>'
        for name in ("Token", "After", "Probability", "Alternatives")
    )
    rows = []
    for place in unsure[:most]:
        token = tokens[place]
        cells = (
            f"<code>{escape(_named(token.token))}</code>",
            plain_html(_before(tokens, place)),
            _percent(token.probability),
            plain_html(", ".join(_alternatives(token))),
        )
        rows.append("".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    title = f"The least likely of {count(len(tokens), 'token')}"
    yield (
        f'<details><summary style="{_SUMMARY}">{title}</summary>\n'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></details>"
    )


def _level(token: TokenLogprob) -> _Level | None:
    likely = token.probability
    if likely is None:
        return None
    return next((level for level in LEVELS if likely < level.below), None)


def _least_likely(tokens: Sequence[TokenLogprob]) -> list[int]:
    """Return the places of the tokens that have a mark, the least likely first."""
    likely = {
        place: known
        for place, token in enumerate(tokens)
        if token.token and (known := token.probability) is not None and known < SURE
    }
    return sorted(likely, key=lambda place: likely[place])


def _before(tokens: Sequence[TokenLogprob], place: int) -> str:
    """Return the end of the text that stands before a token."""
    text, at = "", place
    while at and len(text) < CONTEXT:
        at -= 1
        text = tokens[at].token[-CONTEXT:] + text
    cut = at > 0 or len(text) > CONTEXT
    return ("…" if cut else "") + _visible(text[-CONTEXT:])


def _odds(token: TokenLogprob) -> str:
    others = ", ".join(_alternatives(token))
    return f"{_percent(token.probability)}{f'; else {others}' if others else ''}"


def _said(token: TokenLogprob) -> str:
    others = _alternatives(token)[:1]
    return f"{_named(token.token)} {_percent(token.probability)}" + "".join(
        f" (else {other})" for other in others
    )


def _alternatives(token: TokenLogprob) -> list[str]:
    """Return the likeliest tokens that were not taken, each with its probability."""
    others = [
        (other.token, likely)
        for other in token.alternatives
        if (other.token, other.logprob) != (token.token, token.logprob)
        and other.token != token.token
        and (likely := other.probability) is not None
        and likely >= SHOWN_FROM
    ]
    return [f"{_named(text)} {_percent(likely)}" for text, likely in others]


def _named(text: str) -> str:
    return f"“{_visible(clip(text, LONGEST_TOKEN))}”"


def _visible(text: str) -> str:
    return reveal(text).replace("\n", "↵").replace("\t", "⇥")


def _percent(likely: float | None) -> str:
    if likely is None:
        return "not known"
    if 0 < likely < 0.001:
        return "below 0.1 %"
    digits = 1 if likely < 0.01 else 0
    return f"{likely * 100:.{digits}f} %"
