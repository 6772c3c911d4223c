"""The facts by which a question is the same in another kernel: answers that were kept hold for it.

Their form is hashed into what users have on disk, in journals and in files of maps: a change of it
loses those answers.
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
        # As it was named: the model that a server lists is not known before it was asked.
        "model": turn.model or endpoint.model,
        "schema": turn.schema and [turn.schema.name, turn.schema.json_schema],
        "tools": turn.toolset and turn.toolset.schemas(),
    }
