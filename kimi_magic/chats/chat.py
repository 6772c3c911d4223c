"""Conversations: what was said, turn by turn, each turn tied to the cell that made it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

from kimi_magic.chats.context_window import Learnt
from kimi_magic.chats.history import numbered
from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import Message, Reply, Usage

__all__ = ["NOWHERE", "Chat", "ChatTurn", "Chats", "Place"]

MOST_SET_ASIDE = 200


class Place(NamedTuple):
    """Where a turn is made: the notebook's cell, and the run of it.

    A loop in a cell, two lines of one cell and a tool that asks share both; a cell that is run
    again has another run. Front ends that send no cell id leave it empty.
    """

    cell: str = ""
    run: str = ""


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """A turn of a chat.

    Attributes
    ----------
    prompt : str
    reply : Reply
    messages : tuple of Message
        The prompt and all that came of it, as they go out with the next request.
    place : Place
        Where it was made.
    question : any
        All that was asked, and how.
    """

    prompt: str
    reply: Reply
    messages: tuple[Message, ...]
    place: Place = NOWHERE
    question: Any = field(default=None, repr=False)


class Chat:
    """A named conversation.

    Parameters
    ----------
    name : str
    ask : callable
        ``(prompt, *, chat, **options) -> Reply``: how a session asks.

    Attributes
    ----------
    approved : dict
        The tools that a person approved for this chat.
    learnt : dict
        What the servers taught of the tokens of its texts, by endpoint and model.
    unanswered : any
        The question of a turn that failed before anything came.
    set_aside : list of ChatTurn
        What a cell that was run again has taken out of the conversation, oldest first.
    """

    def __init__(self, name: str, ask: Callable[..., Reply]) -> None:
        self.name = name
        self.approved: dict[Any, Any] = {}
        self.learnt: dict[tuple[str, str], Learnt] = {}
        self.unanswered: Any = None
        self.set_aside: list[ChatTurn] = []
        self._ask = ask
        self._turns: list[ChatTurn] = []

    def ask(self, prompt: Any, **options: Any) -> Reply:
        """Ask in this chat: takes what ``kimi.ask`` takes but ``chat``."""
        return self._ask(prompt, chat=self.name, **options)

    @property
    def turns(self) -> tuple[ChatTurn, ...]:
        return tuple(self._turns)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as the API knows it, the latest turn's system prompt included."""
        return list(self._turns[-1].reply.messages) if self._turns else []

    @property
    def usage(self) -> Usage:
        return sum((turn.reply.usage for turn in self._turns), Usage())

    def before(self, place: Place = NOWHERE, *, fresh: bool = False) -> tuple[ChatTurn, ...]:
        """The turns that come before one at this place."""
        return tuple(self._turns[: self._start(place, fresh=fresh)])

    def history(self, place: Place = NOWHERE, *, fresh: bool = False) -> tuple[Message, ...]:
        """All that was said before a turn at this place, without a system prompt."""
        kept = self.before(place, fresh=fresh)
        return numbered(message for turn in kept for message in turn.messages)

    def append(self, turn: ChatTurn, *, fresh: bool = False) -> int:
        """Add a turn; one of a cell that is run again takes the place of the cell's earlier one.

        Returns
        -------
        int
            How many turns of other cells were set aside with it.
        """
        self.unanswered = None
        start = self._start(turn.place, fresh=fresh)
        run = turn.place.run
        own = [t for t in self._turns[start:] if run and t.place.run == run]  # asked by its tools
        out = [t for t in self._turns[start:] if t not in own]
        self.set_aside = [*self.set_aside, *out][-MOST_SET_ASIDE:]
        self._turns[start:] = [*own, turn]
        return sum(1 for other in out if not _same_cell(other.place, turn.place))

    def reset(self) -> None:
        """Forget all turns, and what was approved."""
        self._turns.clear()
        self.unanswered = None
        self.set_aside.clear()
        self.approved.clear()
        self.learnt.clear()

    def _start(self, place: Place, *, fresh: bool) -> int:
        """How many turns come before one at this place."""
        if fresh:
            return 0
        made = (i for i, t in enumerate(self._turns) if _same_cell(t.place, place))
        earlier = (i for i in made if self._turns[i].place.run != place.run)
        return next(earlier, len(self._turns))

    def __repr__(self) -> str:
        return f"<Chat {self.name!r}: {len(self._turns)} turns, {self.usage.total_tokens:,} tokens>"


class Chats:
    """The chats of a session.

    Parameters
    ----------
    ask : callable
        How a session asks; each chat gets it.

    Attributes
    ----------
    current : str
        The chat that cells go on with when they name none.
    """

    def __init__(self, ask: Callable[..., Reply]) -> None:
        self.current = "main"
        self._ask = ask
        self._lock = threading.Lock()
        self._chats: dict[str, Chat] = {}

    def get(self, name: str) -> Chat:
        """The chat of that name, made where there is none."""
        with self._lock:
            if name not in self._chats:
                self._chats[name] = Chat(name, self._ask)
            return self._chats[name]

    def find(self, name: str) -> Chat | None:
        """Return the chat of that name, or None; nothing is created."""
        return self._chats.get(name)

    def known(self, name: str) -> Chat:
        """The chat of that name.

        Raises
        ------
        KimiError
            There is none; the message names the nearest.
        """
        if name in self._chats or name == self.current:
            return self.get(name)
        near = get_close_matches(name, self._chats, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        raise KimiError(f"No chat is named {name!r}.{guess} `%kimi chats` lists them.")

    def __iter__(self) -> Iterator[Chat]:
        """In the order in which they began."""
        return iter(list(self._chats.values()))

    def clear(self) -> None:
        """Forget all of them."""
        self._chats.clear()
        self.current = "main"


def _same_cell(one: Place, other: Place) -> bool:
    return bool(one.cell) and one.cell == other.cell
