"""The answer of a page while a cell runs: the one way to know that a click would arrive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kimi_magic.core.frontend import request
from kimi_magic.core.interrupts import waiting
from kimi_magic.display.live import detached
from kimi_magic.display.live.clicks import READY_WITHIN
from kimi_magic.display.live.widget import SCRIPT, TurnWidget, listen_at_once, mount
from kimi_magic.display.record import publish

__all__ = ["heard_within"]


def heard_within(
    display_id: str, on_shown: Callable[[], None], seconds: float = READY_WITHIN
) -> float | None:
    """Return the seconds until a page answers; None if none does in that time.

    ``on_shown`` is called when the widget stands in the output ``display_id``; the caller has to
    replace it.
    """
    widget = TurnWidget(script=b"" if detached.was_heard(request()) else SCRIPT)
    ready = threading.Event()

    def receive(_widget: TurnWidget, content: object, _buffers: object) -> None:
        if not isinstance(content, dict):
            return
        if "script" in content:
            widget.send_script()
        if "ready" in content:
            ready.set()

    widget.on_msg(receive)
    listen_at_once(widget.comm)
    began = time.monotonic()
    try:
        publish(mount(widget), display_id)
        on_shown()
        with waiting():
            is_heard = ready.wait(seconds)
        return time.monotonic() - began if is_heard else None
    finally:
        widget.layout.close()
        widget.close()
