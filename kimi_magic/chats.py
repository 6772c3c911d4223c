"""Conversations: what was said, turn by turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kimi_magic.messages import Message, Reply, Usage

__all__ = ["Chat", "ChatTurn"]


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """A turn of a chat.

    Attributes
    ----------
    prompt : str
    reply : Reply
    messages : tuple of Message
        The prompt and all that came of it, as they go out with the next request.
    cell_id : str or None
        The notebook cell that made it, where the front end names it.
    """

    prompt: str
    reply: Reply
    messages: tuple[Message, ...]
    cell_id: str | None = None


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
    """

    def __init__(self, name: str, ask: Callable[..., Reply]) -> None:
        self.name = name
        self.approved: dict[Any, Any] = {}
        self._ask = ask
        self._turns: list[ChatTurn] = []

    def ask(self, prompt: Any, **options: Any) -> Reply:
        """Ask in this chat: takes what ``kimi.ask`` takes but ``chat``."""
        return self._ask(prompt, chat=self.name, **options)

    @property
    def turns(self) -> tuple[ChatTurn, ...]:
        return tuple(self._turns)

    @property
    def history(self) -> tuple[Message, ...]:
        """All that was said, without a system prompt."""
        return tuple(message for turn in self._turns for message in turn.messages)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as the API knows it, the latest turn's system prompt included."""
        return list(self._turns[-1].reply.messages) if self._turns else []

    @property
    def usage(self) -> Usage:
        return sum((turn.reply.usage for turn in self._turns), Usage())

    def append(self, turn: ChatTurn) -> None:
        self._turns.append(turn)

    def reset(self) -> None:
        """Forget all turns, and what was approved."""
        self._turns.clear()
        self.approved.clear()

    def __repr__(self) -> str:
        return f"<Chat {self.name!r}: {len(self._turns)} turns, {self.usage.total_tokens:,} tokens>"
