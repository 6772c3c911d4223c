"""The journal's verbs: what was asked before, shown, gone on with, forgotten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from textwrap import indent
from typing import Any

from kimi_magic.chats.chat import Chat
from kimi_magic.chats.journal import Journal, StoredTurn
from kimi_magic.chats.journal_search import Query, moment
from kimi_magic.core.errors import KimiError, MagicError, TurnLost
from kimi_magic.core.frontend import has_kernel, notebook_path, takes_questions
from kimi_magic.core.processes import has_ended
from kimi_magic.core.reply import Reply
from kimi_magic.core.text import clean, clip, columns, count, cut, reveal
from kimi_magic.display.view import ViewOptions
from kimi_magic.jupyter.notebook import Notebook

__all__ = [
    "HEAD",
    "MOST_WORDS",
    "forget",
    "heading",
    "latest",
    "log",
    "offer",
    "resume",
    "show",
]

SHOWN = 20  # turns, unless the user wants more
HEAD = ("turn", "when", "state", "chat", "notebook", "prompt", "answer")
MOST_WORDS = 1000
MAX_NAME, MAX_TEXT, MAX_PROMPT = 24, 44, 4000
READ = 2000  # characters of a text, of which the first line is shown


def log(notebook: Notebook, words: Sequence[str], options: dict[str, Any]) -> None:
    """List turns, the newest last."""
    journal = _journal(notebook)
    query = Query.of(
        words,
        chat=options["chat"],
        since=moment(options["since"]) if options["since"] else None,
        notebook=notebook_path() if options["here"] else None,
    )
    turns, more = latest(journal, query, options["last"], every=options["all"])
    if not turns:
        nothing = "No turn fits." if query != Query() else "The journal is empty."
        notebook.say(f"{nothing} It is {journal.path}.")
        return
    notebook.say(listing(turns, more))


def latest(
    journal: Journal, query: Query, most: int | None = None, *, every: bool = False
) -> tuple[list[StoredTurn], int]:
    """Return the latest turns that a query names, and how many others there are."""
    most = SHOWN if most is None else most
    if most < 1:
        raise MagicError(f"-n takes a number of at least 1; got {most}.")
    numbers = journal.find(query)
    shown = numbers if every else numbers[-most:]
    return list(journal.numbered(shown)), len(numbers) - len(shown)


def listing(turns: Sequence[StoredTurn], more: int) -> str:
    """Return turns as a table, and how many there are before them."""
    table = columns([HEAD, *map(_row, turns)])
    earlier = f"\n{count(more, 'earlier turn')}: -n N shows more, --all shows all."
    return table + (earlier if more else "")


def _row(turn: StoredTurn) -> tuple[str, ...]:
    try:
        texts = [_first_line(text) for text in turn.texts()]
    except KimiError as error:
        texts = [f"({_first_line(str(error))})", ""]
    chat, path = _name(turn.chat or ""), _name(Path(turn.notebook).name)
    return (str(turn.number), _when(turn.started), turn.state, chat, path, *texts)


def show(notebook: Notebook, number: str) -> None:
    """Show a turn as its record."""
    from kimi_magic.display.record import publish, record_of

    if not number.isdecimal():
        raise MagicError("Which turn? `%kimi show N` takes its number in `%kimi log`.")
    turn = _journal(notebook).turn(int(number))
    reply = turn.reply()
    notebook.say(heading(turn, reply))
    options = ViewOptions(max_chars=notebook.session.settings.max_output_chars)
    publish(record_of(reply, options))


def heading(turn: StoredTurn, reply: Reply) -> str:
    """Return the facts of a turn, and its prompt."""
    facts = [f"Turn {turn.number}", _when(turn.started), _name(Path(turn.notebook).name)]
    facts += [f"chat {_name(turn.chat)}"] if turn.chat else []
    facts += [turn.state] if turn.state != "done" else []
    prompt = cut(clean(reply.record.prompt).strip(), MAX_PROMPT)
    return f"{' · '.join(facts)}\n{indent(prompt, '> ', lambda _: True)}"


def resume(notebook: Notebook, name: str) -> None:
    """Go on with a chat of an earlier kernel."""
    chat = notebook.session.resume(name or notebook.current_chat)
    notebook.say(_goes_on(chat))


def forget(notebook: Notebook, chat: str | None, before: str | None, number: int | None) -> None:
    """Delete turns for good."""
    if sum(given is not None for given in (chat, before, number)) != 1:
        raise MagicError("Forget what? A CHAT of this notebook, --before DATE, or --turn N.")
    journal = _journal(notebook)
    turn = None if number is None else journal.turn(number)
    query = Query(
        chat=chat,
        notebook=None if chat is None else notebook_path(),
        before=None if before is None else moment(before),
        number=number,
    )
    gone = journal.forget(query)
    size = f"{gone.bytes / 1000:,.1f} kB" if gone.bytes < 1e6 else f"{gone.bytes / 1e6:,.1f} MB"
    lines = [f"Deleted for good: {count(gone.turns, 'turn')}, {count(gone.chats, 'chat')}, {size}."]
    held = [
        _name(each.name)
        for each in notebook.session.chats
        if any(_names(query, turn, each.name, t.reply) for t in (*each.turns, *each.set_aside))
    ]
    if gone.turns and held:
        lines.append(f"This kernel holds it still, until `%kimi reset CHAT`: {', '.join(held)}.")
    if gone.under_way:
        lines.append(f"{count(gone.under_way, 'turn')} under way stayed.")
    if not gone.is_clean:
        lines.append(
            "Traces may be in the file still, which another program reads: run this line again."
        )
    notebook.say("\n".join(lines))


def _names(query: Query, turn: StoredTurn | None, chat: str, reply: Reply) -> bool:
    """Return True if a turn that this kernel holds is one of those that are to be deleted."""
    if turn is not None:
        return (turn.chat, turn.started) == (chat, reply.record.started)
    return query.chat == chat or reply.record.started < (query.before or 0.0)


def offer(notebook: Notebook) -> None:
    """Say in one line that a chat of an earlier kernel can go on, or let it."""
    session = notebook.session
    # Of two kernels in one folder, neither is offered what the other is at.
    found = [c for c in session.resumable() if has_ended(c.kernel, c.latest, math.inf)]
    if not found:
        return
    if session.settings.resume == "always":
        print("\n".join(_goes_on(session.resume(chat.name)) for chat in found))
        return
    if has_kernel(notebook.shell) and not takes_questions():
        return  # `jupyter execute`: nobody is there, and a notebook that runs again stays the same
    newest, others = found[0], len(found) - 1
    facts = f"{count(newest.turns, 'turn')} from {_when(newest.latest)}"
    name = "" if newest.name == session.chats.current else f" {_name(newest.name)}"
    more = f" ({count(others, 'more chat')})" if others else ""
    print(f"{_name(newest.name)}: {facts} - `%kimi resume{name}` goes on with it{more}")


def _journal(notebook: Notebook) -> Journal:
    journal = notebook.session.journal
    if journal.path is None:
        raise MagicError("No turns are kept: the setting journal is off.")
    return journal


def _goes_on(chat: Chat) -> str:
    """Return the line on a chat that was resumed."""
    name = _name(chat.name)
    line = f"{name}: {count(len(chat.turns), 'turn')}"
    if chat.turns:
        line += f" from {_when(chat.turns[-1].reply.record.started)}"
    line += " is back" if len(chat.turns) == 1 else " are back"
    if chat.unanswered is not None:
        return f"{line}; the prompt after that had no answer: `%kimi continue` asks it again."
    if chat.turns and isinstance(chat.turns[-1].reply.error, TurnLost):
        return f"{line}; the last ended with its kernel: `%kimi continue` goes on with it."
    return f"{line}."


def _when(time: float) -> str:
    """Return a time of the day, with its date where that is not today's."""
    try:
        local = datetime.fromtimestamp(time).astimezone()
    except (ValueError, OverflowError, OSError):
        return "?"
    today = local.date() == datetime.now().astimezone().date()
    return f"{local:%H:%M}" if today else f"{local:%Y-%m-%d %H:%M}"


def _name(text: str) -> str:
    return clip(reveal(" ".join(text.split())), MAX_NAME)


def _first_line(text: str) -> str:
    """Return the first line that is not blank, short and without what is unseen."""
    lines = (" ".join(line.split()) for line in text[:READ].splitlines())
    return clip(reveal(next(filter(None, lines), "")), MAX_TEXT)
