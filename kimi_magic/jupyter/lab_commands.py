"""The verbs of the reasoning lab: turns by their names, compared or played back."""

from __future__ import annotations

from collections.abc import Iterator

from kimi_magic.core.errors import MagicError
from kimi_magic.core.reply import Reply
from kimi_magic.jupyter.notebook import Notebook

__all__ = ["compare_turns", "step_through"]

WHICH = (
    "{!r:.60} is no turn: name a variable that holds a reply, CHAT:N for a turn of a chat, or the "
    "number of a turn of the journal."
)


def compare_turns(notebook: Notebook, words: list[str]) -> None:
    """Show the named turns side by side; one with trajectories stands for these."""
    from kimi_magic.display.record import publish
    from kimi_magic.lab.comparison import compare

    named = [(name, reply) for word in words for name, reply in _turns(notebook, word)]
    if len(named) == 1 and (attempts := named[0][1].trajectories):
        named = [(f"trajectory {number}", each) for number, each in enumerate(attempts, 1)]
    if len(named) < 2:
        raise MagicError(
            "Which turns? `%kimi compare A B` takes two or more, or one with trajectories."
        )
    names = [name for name, _ in named]
    publish(compare(*(reply for _, reply in named), names=names).bundle())


def step_through(notebook: Notebook, word: str) -> None:
    """Play a turn back, by default the latest one."""
    from kimi_magic.display.view import ViewOptions
    from kimi_magic.lab.replay_view import replay

    settings = notebook.settings
    found = list(_turns(notebook, word)) if word else [("", notebook.find_reply())]
    if len(found) != 1:
        raise MagicError(f"{word} holds {len(found)} replies: step through one of them.")
    options = ViewOptions(keep_reasoning=True, max_chars=settings.max_output_chars)
    replay(found[0][1], settings.view, options)


def _turns(notebook: Notebook, word: str) -> Iterator[tuple[str, Reply]]:
    """Yield the replies that a word of a line means, each with a name."""
    chat, colon, number = word.rpartition(":")
    if word.isdecimal():
        yield word, _of_journal(notebook, int(word))
    elif colon and number.isdecimal():
        yield word, notebook.find_reply(chat or None, int(number))
    else:
        value = notebook.variables.get(word)
        replies = value if isinstance(value, list | tuple) else [value]
        if not replies or not all(isinstance(reply, Reply) for reply in replies):
            raise MagicError(WHICH.format(word))
        for place, reply in enumerate(replies, 1):
            yield word if reply is value else f"{word} {place}", reply


def _of_journal(notebook: Notebook, number: int) -> Reply:
    """Return the turn of that number of the journal."""
    return notebook.session.journal.turn(number).reply()
