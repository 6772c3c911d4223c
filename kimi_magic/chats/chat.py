"""Chats: named conversations, each turn tied to the notebook cell that made it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol

from kimi_magic.chats.context_window import Calibration
from kimi_magic.chats.history import renumbered
from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import Message, Usage
from kimi_magic.core.reply import Reply
from kimi_magic.core.shown import Shown, short_html, short_repr
from kimi_magic.core.text import count

__all__ = ["NOWHERE", "Asked", "Chat", "ChatTurn", "Chats", "Place"]

MOST_SET_ASIDE = 200


class Place(NamedTuple):
    """The notebook cell in which a turn is made, and the run of that cell.

    A loop in a cell, two lines of one cell and a tool that asks share both; a cell that is run
    again has another run. Front ends that send no cell id leave it empty.
    """

    cell: str = ""
    run: str = ""

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        return short_html(self)


NOWHERE = Place()


class Asked(Protocol):
    """A turn's request, as far as a chat knows it."""

    @property
    def continues(self) -> bool:
        """True if it asks to continue an answer, not for a new one."""


@dataclass(frozen=True, slots=True, repr=False)
class ChatTurn(Shown):
    """A turn of a chat; from its request it can be asked again."""

    prompt: str
    reply: Reply
    place: Place = NOWHERE
    request: Asked | None = field(default=None, repr=False)


class Chat:
    """A named conversation.

    Parameters
    ----------
    name : str
    ask : callable
        ``(prompt, *, chat, **options) -> Reply``: how the session asks.
    forgotten : callable, optional
        Called with the name when the chat is reset.

    Attributes
    ----------
    approved : set
        What a person approved for this chat.
    calibrations : dict
        Corrections of the token estimates, by endpoint and model.
    unanswered : Asked or None
        The request of a turn that failed before anything came.
    set_aside : list of ChatTurn
        Turns that a cell which was run again took out of the conversation, oldest first.
    """

    def __init__(
        self,
        name: str,
        ask: Callable[..., Reply],
        forgotten: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.approved: set[Any] = set()
        self.calibrations: dict[tuple[str, str], Calibration] = {}
        self.unanswered: Asked | None = None
        self.set_aside: list[ChatTurn] = []
        self._ask = ask
        self._forgotten = forgotten
        self._turns: list[ChatTurn] = []
        # The run of each cell, and what was approved before it.
        self._approved_before: dict[str, tuple[str, frozenset[Any]]] = {}

    def ask(self, prompt: Any, **options: Any) -> Reply:
        """Ask in this chat: takes everything that ``kimi.ask`` takes, except ``chat``."""
        return self._ask(prompt, chat=self.name, **options)

    @property
    def turns(self) -> tuple[ChatTurn, ...]:
        return tuple(self._turns)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as the API knows it, with the latest turn's system prompt."""
        return list(self._turns[-1].reply.messages) if self._turns else []

    @property
    def usage(self) -> Usage:
        return sum((turn.reply.usage for turn in self._turns), Usage())

    def before(self, place: Place = NOWHERE, *, fresh: bool = False) -> tuple[ChatTurn, ...]:
        """Return the turns that come before one at this place."""
        return tuple(self._turns[: self._start(place, fresh=fresh)])

    def history(
        self, place: Place = NOWHERE, *, fresh: bool = False, keep_ids: bool = False
    ) -> tuple[Message, ...]:
        """Return the messages before a turn at this place, without a system prompt.

        ``keep_ids`` leaves the ids of calls that are unique as they are.
        """
        turns = self.before(place, fresh=fresh)
        exchanges = (message for turn in turns for message in turn.reply.record.exchange)
        return renumbered(exchanges, keep=keep_ids)

    def displaced_by(self, place: Place, *, fresh: bool = False) -> int:
        """Return how many turns of other cells a turn at this place sets aside."""
        out = self._split(place, fresh=fresh)[1]
        return sum(1 for turn in out if not _same_cell(turn.place, place))

    def begin(self, place: Place, *, fresh: bool = False) -> None:
        """End the approvals that do not hold for a turn at this place.

        A chat that starts anew has none. A cell that is run again takes back what was approved
        in its earlier run, and in the cells after it.
        """
        if fresh:
            self._end_approvals()
        if not place.cell:
            return
        run, before = self._approved_before.get(place.cell, (place.run, None))
        if run != place.run and before is not None:
            self.approved &= before
            self._approved_before.pop(place.cell)
        self._approved_before.setdefault(place.cell, (place.run, frozenset(self.approved)))

    def append(self, turn: ChatTurn, *, fresh: bool = False) -> None:
        """Add a turn; if its cell was run again, it takes the place of the cell's earlier one."""
        self.unanswered = None
        own, out = self._split(turn.place, fresh=fresh)
        self.set_aside = [*self.set_aside, *out][-MOST_SET_ASIDE:]
        self._turns[self._start(turn.place, fresh=fresh) :] = [*own, turn]

    def take_over(self, other: Chat) -> None:
        """Take the turns of another chat in the place of one's own."""
        self._turns[:] = other.turns
        self.unanswered, self.set_aside = other.unanswered, [*other.set_aside]

    def reset(self) -> None:
        """Forget all turns, and the approvals."""
        self._turns.clear()
        self.unanswered = None
        self.set_aside.clear()
        self._end_approvals()
        self.calibrations.clear()
        if self._forgotten is not None:
            self._forgotten(self.name)

    def _end_approvals(self) -> None:
        self.approved.clear()
        self._approved_before.clear()

    def _split(self, place: Place, *, fresh: bool) -> tuple[list[ChatTurn], list[ChatTurn]]:
        """Split the turns from this place on: those that its own run made (its tools may have
        asked in this chat), and those that give way."""
        after = self._turns[self._start(place, fresh=fresh) :]
        own = [turn for turn in after if place.run and turn.place.run == place.run]
        return own, [turn for turn in after if turn not in own]

    def _start(self, place: Place, *, fresh: bool) -> int:
        """Return how many turns come before one at this place."""
        if fresh:
            return 0
        made = (i for i, t in enumerate(self._turns) if _same_cell(t.place, place))
        earlier = (i for i in made if self._turns[i].place.run != place.run)
        return next(earlier, len(self._turns))

    def __repr__(self) -> str:
        turns = count(len(self._turns), "turn")
        return f"<Chat {self.name!r}: {turns}, {self.usage.total_tokens:,} tokens>"


class Chats:
    """The chats of a session; ``current`` names the one that cells without ``-c`` belong to.

    ``forgotten`` is called with the name of a chat that is reset.
    """

    def __init__(
        self, ask: Callable[..., Reply], forgotten: Callable[[str], None] | None = None
    ) -> None:
        self.current = "main"
        self._ask = ask
        self._forgotten = forgotten
        self._lock = threading.Lock()
        self._chats: dict[str, Chat] = {}

    def get(self, name: str) -> Chat:
        """Return the chat of that name; make it if there is none."""
        with self._lock:
            return self._made(name)

    def peek(self, name: str) -> Chat:
        """Return the chat of that name, or an empty one that is not kept."""
        return self._chats.get(name) or Chat(name, self._ask)

    def known(self, name: str) -> Chat:
        """Return the chat of that name.

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

    def restore(self, chats: Iterable[Chat]) -> list[Chat]:
        """Take over the turns of chats that were rebuilt, each by its name, or of none of them.

        Raises
        ------
        KimiError
            One of them has turns already.
        """
        rebuilt = {chat.name: chat for chat in chats}
        with self._lock:
            for name in rebuilt:
                if name in self._chats and (here := len(self._chats[name].turns)):
                    raise KimiError(
                        f"The chat {name} has {count(here, 'turn')} here: "
                        f"`%kimi reset {name}` forgets them, then load again."
                    )
            # Whoever holds the chat of that name sees the turns.
            restored = [self._made(name) for name in rebuilt]
            for chat in restored:
                chat.take_over(rebuilt[chat.name])
        return restored

    def _made(self, name: str) -> Chat:
        if name not in self._chats:
            self._chats[name] = Chat(name, self._ask, self._forgotten)
        return self._chats[name]

    def __iter__(self) -> Iterator[Chat]:
        """Iterate in the order in which the chats began."""
        return iter(list(self._chats.values()))

    def clear(self) -> None:
        """Forget all chats."""
        for name in self._chats:
            if self._forgotten is not None:
                self._forgotten(name)
        self._chats.clear()
        self.current = "main"


def _same_cell(one: Place, other: Place) -> bool:
    return bool(one.cell) and one.cell == other.cell
