"""The first request of a turn in outline: what went along with the prompt, and its size."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kimi_magic.core.messages import Message
from kimi_magic.core.text import clip, count, reveal

__all__ = ["CHARS_PER_TOKEN", "Attached", "Sent", "about_tokens", "estimate", "outline"]

CHARS_PER_TOKEN = 4
PER_MESSAGE = 4  # tokens for the role and its marks
MAX_NAME = 40
MOST_COLUMNS = 5  # of those that look like personal data, in one line
MOST_NAMED = 8  # attachments in one line


@dataclass(frozen=True, slots=True)
class Attached:
    """Something of the notebook that went along with a prompt.

    Attributes
    ----------
    kind : str
        ``variable``, ``expression``, ``cell`` or ``image``.
    name : str
    shown, of : int or None
        Rows of a table that were sent, of how many.
    note : str
        A few words on how it was sent, such as ``with its traceback``.
    personal : tuple of tuple of str
        Columns that look like personal data: name and kind.
    """

    kind: str
    name: str
    shown: int | None = None
    of: int | None = None
    note: str = ""
    personal: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        facts = [self.rows, self.note if self.kind != "cell" else "", self.warning]
        known = ", ".join(filter(None, facts))
        name = _word(self.name)
        if self.kind == "cell" and self.note:
            return f"{name} {_word(self.note)}"
        return f"{name} ({known})" if known else name

    @property
    def rows(self) -> str:
        """The rows that were sent, in words; "" for what has none."""
        if self.of is None or self.shown is None:
            return ""
        if self.shown == self.of:
            return count(self.of, "row")
        return f"{self.shown:,} of {count(self.of, 'row')}"

    @property
    def warning(self) -> str:
        """Words on columns that look like personal data; "" where none does."""
        if not self.personal:
            return ""
        names = [_word(name) for name, _ in self.personal[:MOST_COLUMNS]]
        more = len(self.personal) - len(names)
        return f"looks personal: {', '.join(names)}" + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True, repr=False)
class Sent:
    """The first request of a turn in outline; no value of the notebook is in it.

    Attributes
    ----------
    messages : int
    tokens : int
        An estimate.
    earlier : int
        Messages of earlier turns among them.
    tools : tuple of str
        Names of the tools that were offered.
    attached : tuple of Attached
        Variables, expressions, cells and images that went along.
    """

    messages: int = 0
    tokens: int = 0
    earlier: int = 0
    tools: tuple[str, ...] = ()
    attached: tuple[Attached, ...] = ()

    def __str__(self) -> str:
        return ", ".join(self._facts())

    def __repr__(self) -> str:
        return f"Sent({self})"

    @property
    def line(self) -> str:
        """The line that a record shows; "" where a prompt of its own was sent and nothing else."""
        return f"Sent: {self}" if self.attached or self.earlier else ""

    @property
    def details(self) -> list[str]:
        """Lines that say the same at length."""
        lines = [f"{each.kind}: {each}" for each in self.attached]
        own = self.messages - self.earlier
        if self.earlier:
            lines.append(f"messages: {self.earlier:,} of earlier turns, {own:,} of this one")
        lines += [f"tools: {', '.join(map(_word, self.tools))}"] if self.tools else []
        return lines + self.advice

    @property
    def advice(self) -> list[str]:
        """A line for each attachment that seems to hold personal data."""
        lines = []
        for each in self.attached:
            kinds = dict.fromkeys(kind for _, kind in each.personal)
            if kinds:
                lines.append(
                    f"{_word(each.name)} seems to hold {', '.join(kinds)}: "
                    "`:schema` behind its name, or --var-rows 0, sends names and types alone."
                )
        return list(dict.fromkeys(lines))

    def _facts(self) -> Iterator[str]:
        named = self.attached[:MOST_NAMED]
        yield from map(str, named)
        if more := len(self.attached) - len(named):
            yield f"{more:,} more"
        if self.tools:
            yield count(len(self.tools), "tool")
        yield count(self.messages, "message")
        yield about_tokens(self.tokens)


def outline(
    messages: Sequence[Message], tools: Sequence[dict[str, Any]], attached: Sequence[Attached]
) -> Sent:
    """Outline a request: its last message is the prompt."""
    own = sum(message.role == "system" for message in messages) + 1
    names = tuple(str(tool["function"]["name"]) for tool in tools)
    earlier = max(len(messages) - own, 0)
    return Sent(len(messages), estimate(messages, tools), earlier, names, tuple(attached))


def about_tokens(tokens: int) -> str:
    """Return an estimate in words, with two digits: more would pretend to be a count."""
    digits = 10 ** max(len(str(tokens)) - 2, 0)
    return f"about {count(round(tokens / digits) * digits, 'token')}"


def estimate(messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> int:
    """Return about how many tokens a request has, before a server has counted one."""
    chars = sum(map(_chars, messages))
    chars += len(json.dumps(tools)) if tools else 0
    return round(chars / CHARS_PER_TOKEN + PER_MESSAGE * len(messages))


def _chars(message: Message) -> int:
    """Return about how many characters a message has, each picture as many as its tokens make."""
    chars = len(message.text)
    if message.reasoning:
        chars += sum(len(part.text) for part in message.reasoning)
    if message.tool_calls:
        chars += sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    if not isinstance(message.content, str):
        chars += sum(CHARS_PER_TOKEN * image.tokens - len(image.text) for image in message.images)
    return chars


def _word(text: str) -> str:
    """Return a name in one line, bounded, with what is unseen by its number."""
    return clip(reveal(" ".join(text.split())), MAX_NAME)
