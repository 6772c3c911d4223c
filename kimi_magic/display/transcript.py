"""A chat or a program as one static output."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Protocol

from kimi_magic.core.reply import Reply
from kimi_magic.display.html.code import code_html
from kimi_magic.display.html.markdown import plain_html, to_html
from kimi_magic.display.record import Bundle, details, pre
from kimi_magic.display.segments import clean
from kimi_magic.display.size_budget import cut_note

__all__ = ["show_chat", "show_code"]

_PROMPT = "margin:1em 0 .5em;font-weight:600;white-space:pre-wrap"
_ASIDE = "opacity:.65"
LEAST = 2000  # characters of a turn
EMPTY = "The chat is empty."
ASIDE = "Set aside by cells that were run again"


def show_code(code: str, language: str) -> Bundle:
    """Show a program, with its colours."""
    code = clean(code)
    return Bundle({"text/plain": code, "text/html": code_html(code, language)}, {})


class Turn(Protocol):
    """What is shown of a turn."""

    @property
    def prompt(self) -> str: ...
    @property
    def reply(self) -> Reply: ...


def show_chat(
    turns: Iterable[Turn], set_aside: Iterable[Turn] = (), *, max_chars: int = 200_000
) -> Bundle:
    """Show the turns of a chat, one after the other, and below them those that were set aside.

    Of a long chat each turn shows its beginning.
    """
    kept, out = list(turns), list(set_aside)
    most = max(max_chars // (len(kept) + len(out) or 1), LEAST)
    html = [_html(turn, most) for turn in kept] or [f"<p>{EMPTY}</p>"]
    text = [_text(turn, most) for turn in kept] or [EMPTY]
    if out:
        aside = [_html(turn, most) for turn in out]
        html += [f'<div style="{_ASIDE}"><p>{ASIDE}:</p>', *aside, "</div>"]
        text += [f"[{ASIDE}:]", *(_text(turn, most) for turn in out)]
    page = "\n".join(["<div>", *html, "</div>"])
    return Bundle({"text/plain": "\n\n".join(text), "text/html": page}, {})


def _html(turn: Turn, most: int) -> str:
    reply = turn.reply
    pieces = [f'<div style="{_PROMPT}">{plain_html(_shown(turn.prompt, most // 4))}</div>']
    if reply.reasoning:
        pieces.append(details("Reasoning", pre(escape(_shown(reply.reasoning, most // 4)))))
    pieces += [f"<div>{to_html(_shown(reply.text, most // 2))}</div>", f"<div>{_end(reply)}</div>"]
    return "\n".join(pieces)


def _text(turn: Turn, most: int) -> str:
    prompt, answer = _shown(turn.prompt, most // 4), _shown(turn.reply.text, most // 2)
    return f"> {prompt}\n\n{answer}\n{_end(turn.reply)}".rstrip()


def _shown(text: str, most: int) -> str:
    missing = len(text) - most
    return clean(text) if missing <= 0 else f"{clean(text[:most])}\n\n{cut_note(missing)}"


def _end(reply: Reply) -> str:
    """How many tools were called, and how it ended if it did not end well."""
    facts = []
    if calls := len(reply.tool_calls):
        facts.append(f"{calls} tool call{'' if calls == 1 else 's'}")
    if reply.error is not None:
        facts.append(type(reply.error).__name__)
    return f"[{', '.join(facts)}]" if facts else ""
