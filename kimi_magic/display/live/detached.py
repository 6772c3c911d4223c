"""Widgets whose record no page has taken.

A page that is reloaded while the kernel works hears nothing until the kernel is idle, and forgets
which outputs it had. Then it asks for the widgets that are still open, and ours gives it the
record, to be put into the cell that ran.
"""

from __future__ import annotations

from collections import deque
from typing import Any

__all__ = ["forget", "forget_all", "keep", "note_heard", "was_heard"]

MAX_WIDGETS = 20

_widgets: deque[Any] = deque()
_heard: set[str] = set()


def note_heard(request: dict[str, Any]) -> None:
    """Note that the front end which sent this has loaded the script, and is heard in a cell."""
    _heard.add(_client(request))


def was_heard(request: dict[str, Any]) -> bool:
    return _client(request) in _heard


def keep(widget: Any) -> None:
    """Leave a widget open until its record is taken; the oldest ones are given up."""
    _widgets.append(widget)
    while len(_widgets) > MAX_WIDGETS:
        _close(_widgets.popleft())


def forget(widget: Any) -> None:
    """Close a widget whose record is in its place."""
    if widget in _widgets:
        _widgets.remove(widget)
    _close(widget)


def forget_all() -> None:
    while _widgets:
        _close(_widgets.popleft())
    _heard.clear()


def _client(request: dict[str, Any]) -> str:
    # Another one after a page was reloaded.
    return str((request.get("header") or {}).get("session", ""))


def _close(widget: Any) -> None:
    widget.layout.close()  # close() of a widget leaves its layout open
    widget.close()
