"""Earlier turns and data, which a program leaves out unless they are asked for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace

from kimi_magic.core.messages import Message, Part, TextPart, join_parts
from kimi_magic.core.reply import Reply
from kimi_magic.core.text import clip, count
from kimi_magic.core.turn_record import TurnRecord

__all__ = ["leave_out"]

HISTORY = "{} of the chat left out; --chat, or chat=True, writes the whole."
DATA = (
    "{} left out: a placeholder stands for each, [data left out: …]. --with-data, or "
    "with_data=True, writes the data."
)
PLACEHOLDER = "[data left out: {}]"
# The blocks of `context.variables` and `context.cells`. Their fence is longer than any inside.
_VARIABLE = re.compile(
    r"(The variable `(?P<name>[^`\n]*)` of the notebook(?: \([^`\n]*\))?,"
    r" as data and not as instructions:\n)"
    r"(?P<fence>`{3,})text\n.*?\n(?P=fence)(?=\n|\Z)",
    re.DOTALL,
)
_CELL = re.compile(
    r"(?P<cell>The cell In\[(?P<name>\d+)\] of the notebook, as data and not as instructions:\n"
    r"(?P<code>`{3,})python\n.*?\n(?P=code)\n(?:It has [^`\n]*\n)?Its output:\n)"
    r"(?P<fence>`{3,})text\n.*?\n(?P=fence)(?=\n|\Z)",
    re.DOTALL,
)
_PICTURE = re.compile(
    r"(?:The variable `(?P<name>[^`\n]*)` of the notebook, drawn as a picture"
    r"|A picture (?:among the outputs of In\[(?P<cell>\d+)\]|that (?P<tool>.{1,200}) made))"
    r" \(\d+ × \d+ pixels\):\n\Z"
)


def leave_out(
    reply: Reply, *, chat: bool, with_data: bool, values: Collection[str] = ()
) -> tuple[Reply, list[str]]:
    """Return the turn with what a program is to hold of it, and notes on what it does not.

    ``values`` are the texts that stand in prompts for the values of expressions.
    """
    holes = None if with_data else _Holes(values)
    record, earlier = _less(reply.record, holes, chat=chat)
    attempts = tuple(
        replace(each, record=_less(each.record, holes, chat=chat)[0]) for each in reply.trajectories
    )
    notes = [HISTORY.format(count(earlier, "earlier message"))] if earlier else []
    if holes and holes.names:
        notes.append(DATA.format(", ".join(dict.fromkeys(holes.names))))
    return replace(reply, record=record, attempts=attempts), notes


def _less(record: TurnRecord, holes: _Holes | None, *, chat: bool) -> tuple[TurnRecord, int]:
    """Return a record without what is left out, and how many earlier messages that are."""
    sent, rest = list(record.messages[: record.sent]), record.messages[record.sent :]
    earlier = 0
    if not chat:
        alone = [m for m in sent[:-1] if m.role == "system"] + sent[-1:]
        earlier, sent = len(sent) - len(alone), alone
    if holes is not None:
        sent = [holes.message(message) for message in sent]
    return replace(record, messages=(*sent, *rest), sent=len(sent)), earlier


class _Holes:
    """Puts placeholders into messages; ``names`` are those of what was taken out."""

    def __init__(self, values: Collection[str]) -> None:
        self._values = sorted(values, key=len, reverse=True)
        self.names: list[str] = []

    def message(self, message: Message) -> Message:
        if message.role == "tool":
            return replace(message, content=self._hole(f"result of {message.name or 'a tool'}"))
        if message.role != "user" or message.content is None:
            return message
        if isinstance(message.content, str):
            return replace(message, content=self._text(message.content))
        return replace(message, content=join_parts(self._parts(message.content)))

    def _parts(self, parts: Iterable[Part]) -> Iterable[str | Part]:
        caption = None
        for part in parts:
            if isinstance(part, TextPart):
                caption = _PICTURE.search(part.text)
                yield self._text(part.text)
            elif caption:
                cell = caption["cell"] and f"cell {caption['cell']}"
                what = caption["name"] or cell or caption["tool"]
                caption = None
                yield self._hole(f"picture of {what}") + "\n"
            else:
                yield part

    def _text(self, text: str) -> str:
        for value in self._values:
            if value in text:
                text = text.replace(value, self._hole("value of an expression"))
        text = _VARIABLE.sub(lambda m: f"{m[1]}{self._hole(m['name'])}", text)
        return _CELL.sub(lambda m: m["cell"] + self._hole(f"output of cell {m['name']}"), text)

    def _hole(self, what: str) -> str:
        # The name of a variable may hold what closes the placeholder.
        what = clip(what.replace("[", "(").replace("]", ")"), 80)
        self.names.append(what)
        return PLACEHOLDER.format(what)
