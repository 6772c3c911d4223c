"""How the calls of a turn's steps are made: what is offered, who says yes, what stays secret."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import ToolInterrupted
from kimi_magic.core.events import Event, ToolFinished
from kimi_magic.core.messages import ToolCall
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.redact import Redactor
from kimi_magic.turn.approval import confirming

if TYPE_CHECKING:
    from kimi_magic.tools.call import Approve
    from kimi_magic.tools.toolset import Toolset

__all__ = ["caller", "offered_tools"]


def offered_tools(tools: Any, approve: str) -> Toolset | None:
    """What a question offers, with confirmation as ``approve`` wants it; None for nothing.

    Raises
    ------
    KimiError
        Something cannot be a tool.
    """
    if tools is None:
        return None
    from kimi_magic.tools.toolset import Toolset

    toolset = Toolset(tools)
    return confirming(toolset, approve) if toolset else None


def caller(
    toolset: Toolset | None, approve: Approve | None, keys: Callable[[], Sequence[Key]]
) -> Callable[[tuple[ToolCall, ...]], Iterator[Event | None]]:
    """Make the function that makes the calls of a step.

    Parameters
    ----------
    approve : callable or None
        Who is asked; None where nobody can answer.
    keys : callable
        The keys that are known by then; no result holds one of them.
    """

    def call(calls: tuple[ToolCall, ...]) -> Iterator[Event | None]:
        from kimi_magic.tools.step_calls import run_batch

        assert toolset is not None, "only what was offered is called"
        try:
            for event in run_batch(toolset, calls, approve):
                if isinstance(event, ToolFinished):
                    yield replace(event, result=Redactor(keys()).value(event.result))
                else:
                    yield event
        except ToolInterrupted as interrupt:
            raise ToolInterrupted(Redactor(keys()).value(interrupt.result)) from None

    return call
