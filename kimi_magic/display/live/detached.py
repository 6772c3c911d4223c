"""Records that no page has taken.

A page that is reloaded while the kernel works hears nothing until the kernel is idle, and forgets
which outputs it had. Then it asks for the widgets that are still there, and ours gives it the
record, to be put into the cell that ran.
"""

from __future__ import annotations

from collections import deque
from typing import Any

__all__ = ["client_of", "expects", "forget", "forget_all", "keep", "was_heard"]

KEPT = 20

_widgets: deque[Any] = deque()
_heard: set[str] = set()


def client_of(parent: dict[str, Any]) -> str:
    """The front end that asked for the cell."""
    return str((parent.get("header") or {}).get("session", ""))


def was_heard(client: str) -> None:
    """Note that this front end's pages are heard while a cell runs."""
    _heard.add(client)


def expects(client: str) -> bool:
    """Whether this front end's pages would be heard if they were there."""
    return client in _heard


def keep(widget: Any) -> None:
    """Leave a widget open until its record is taken, but not many of them."""
    _widgets.append(widget)
    while len(_widgets) > KEPT:
        _close(_widgets.popleft())


def forget(widget: Any) -> None:
    """The record has found its place."""
    if widget in _widgets:
        _widgets.remove(widget)
    _close(widget)


def forget_all() -> None:
    """Give up what no page has taken, and who was heard."""
    while _widgets:
        _close(_widgets.popleft())
    _heard.clear()


def _close(widget: Any) -> None:
    widget.layout.close()
    widget.close()
