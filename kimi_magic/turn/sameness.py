"""The facts that identify a question in any kernel, so that its kept answer is found again.

Their hash is in the journals and in the files of maps that users have: a change of their form loses
those answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kimi_magic.turn.request import first

if TYPE_CHECKING:
    from kimi_magic.turn.runner import PreparedTurn

__all__ = ["facts_of"]

# Named by the request, else by a setting.
_CHOSEN = "system effort temperature top_p max_tokens max_steps approve".split()


def facts_of(turn: PreparedTurn) -> dict[str, Any]:
    """Return what a turn asks beside its prompt, and whom, as JSON data."""
    request, settings, endpoint = turn.request, turn.settings, turn.endpoint
    chosen = {name: first(getattr(request, name), getattr(settings, name)) for name in _CHOSEN}
    return {
        **chosen,
        "stop": request.stop,
        "endpoint": [endpoint.name, endpoint.base_url],
        # As it was named: which model a server lists is not known before it is asked.
        "model": turn.model or endpoint.model,
        "schema": turn.schema and [turn.schema.name, turn.schema.json_schema],
        "tools": turn.toolset and turn.toolset.schemas(),
    }
