"""Widgets whose record no page has taken.

A page that is reloaded while the kernel works forgets which outputs it had. If the turn ends before
the page is back, the widget stays open: the page asks for those when the kernel is idle, and ours
gives it the record, to be put into the cell that ran.
"""

from __future__ import annotations

from collections import deque
from typing import Any

__all__ = ["forget", "forget_all", "has_late", "keep", "note_heard", "note_late", "was_heard"]

MAX_WIDGETS = 20

_widgets: deque[Any] = deque()
_heard: set[str] = set()
_late: deque[str] = deque(maxlen=MAX_WIDGETS)  # the runs of cells that a page has come late to


def note_heard(request: dict[str, Any]) -> None:
    """Note that the front end which sent this has loaded the script, and is heard in a cell."""
    _heard.add(_client(request))


def was_heard(request: dict[str, Any]) -> bool:
    return _client(request) in _heard


def note_late(request: dict[str, Any]) -> None:
    """Note that a page was loaded while the cell runs: it misses what the cell shows later."""
    _late.append(_run(request))


def has_late(request: dict[str, Any]) -> bool:
    return _run(request) in _late


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
    _late.clear()


def _client(request: dict[str, Any]) -> str:
    # Another one after a page was reloaded.
    return str((request.get("header") or {}).get("session", ""))


def _run(request: dict[str, Any]) -> str:
    return str((request.get("header") or {}).get("msg_id", ""))


def _close(widget: Any) -> None:
    widget.layout.close()  # close() of a widget leaves its layout open
    widget.close()
