"""A chat or a program as one static output."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Protocol

from kimi_magic.messages import Reply
from kimi_magic.view.code import code_html
from kimi_magic.view.markdown import plain_html, to_html
from kimi_magic.view.parts import clean
from kimi_magic.view.record import Bundle, details, pre

__all__ = ["show_chat", "show_code"]

_PROMPT = "margin:1em 0 .5em;font-weight:600;white-space:pre-wrap"
_ASIDE = "opacity:.65"
EMPTY = "The chat is empty."
ASIDE = "Set aside by cells that were run again"


def show_code(code: str, language: str) -> Bundle:
    """Show a program, with its colours."""
    return Bundle({"text/plain": code, "text/html": code_html(clean(code), language)}, {})


class Turn(Protocol):
    """What is shown of a turn."""

    @property
    def prompt(self) -> str: ...
    @property
    def reply(self) -> Reply: ...


def show_chat(turns: Iterable[Turn], set_aside: Iterable[Turn] = ()) -> Bundle:
    """Show the turns of a chat, one after the other, and below them those that were set aside."""
    kept, out = list(turns), list(set_aside)
    html = [_html(turn) for turn in kept] or [f"<p>{EMPTY}</p>"]
    text = [_text(turn) for turn in kept] or [EMPTY]
    if out:
        html += [f'<div style="{_ASIDE}"><p>{ASIDE}:</p>', *map(_html, out), "</div>"]
        text += [f"[{ASIDE}:]", *map(_text, out)]
    page = "\n".join(["<div>", *html, "</div>"])
    return Bundle({"text/plain": "\n\n".join(text), "text/html": page}, {})


def _html(turn: Turn) -> str:
    reply = turn.reply
    pieces = [f'<div style="{_PROMPT}">{plain_html(clean(turn.prompt))}</div>']
    if reply.reasoning:
        pieces.append(details("Reasoning", pre(escape(clean(reply.reasoning)))))
    pieces += [f"<div>{to_html(clean(reply.text))}</div>", f"<div>{_end(reply)}</div>"]
    return "\n".join(pieces)


def _text(turn: Turn) -> str:
    return clean(f"> {turn.prompt}\n\n{turn.reply.text}\n{_end(turn.reply)}").rstrip()


def _end(reply: Reply) -> str:
    """How many tools were called, and how it ended if it did not end well."""
    facts = []
    if calls := len(reply.tool_calls):
        facts.append(f"{calls} tool call{'' if calls == 1 else 's'}")
    if reply.error is not None:
        facts.append(type(reply.error).__name__)
    return f"[{', '.join(facts)}]" if facts else ""
