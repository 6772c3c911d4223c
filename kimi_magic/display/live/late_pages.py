"""Pages that are loaded while the cell runs, as by a reload in mid-stream.

Such a page asks for the widgets that are open by the shell channel, and a kernel reads that when it
is idle. It hears what the kernel sends, though, and a kernel reads the control channel at any time.
So the turn is announced to it, with a widget whose module (``late_page.js``) makes the turn's own
widget and lets it send by the control channel. A page that has the turn does nothing with it.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import comm
from ipywidgets.widgets.widget import __protocol_version__

from kimi_magic.core.frontend import running_shell
from kimi_magic.display.live.clicks import Clicks
from kimi_magic.display.live.widget import TurnWidget, mount, read

__all__ = ["LatePages", "listen_on_control"]

EVERY = 0.25  # seconds between two looks
MOST_PAUSE = 5.0  # between two announcements while a page may be waiting
QUIET_PAUSE = 10.0  # otherwise: a browser that crashes says nothing, nor does a second window
_MODULE = read("late_page.js")


class LatePages:
    """Announces a turn now and then, and often while a page may be waiting for it.

    A thread does it: a tool may keep the turn's own busy for long. ``resend`` sends the whole turn,
    if a page has asked for it and got no answer.
    """

    def __init__(
        self, widget: TurnWidget, asked: dict[str, Any], clicks: Clicks, resend: Callable[[], None]
    ) -> None:
        self._widget = widget
        self._asked = asked
        self._clicks = clicks
        self._resend = resend
        self._over = threading.Event()
        self._comm: Any = None
        self._thread: threading.Thread | None = None
        if listen_on_control():
            run = contextvars.copy_context().run
            self._thread = threading.Thread(
                target=run, args=(self._work,), name="kimi-magic late pages", daemon=True
            )
            with suppress(RuntimeError):  # no more threads
                self._thread.start()

    def end(self) -> None:
        self._over.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        if self._comm is not None:
            self._comm.close(deleting=True)  # or it would be looked for in the kernel's list

    def _work(self) -> None:
        announced_at = time.monotonic()
        unanswered = False
        while not self._over.wait(EVERY):
            awaited = self._clicks.awaited_for()
            pause = QUIET_PAUSE if awaited is None else min(1 + awaited / 10, MOST_PAUSE)
            if (now := time.monotonic()) - announced_at >= pause:
                announced_at = now
                self._announce()
            if unanswered and self._clicks.resync:
                self._resend()
            unanswered = self._clicks.resync

    def _announce(self) -> None:
        state = self._widget.get_state()
        # What is referred to does not exist in the page; the script is asked for.
        state = {name: value for name, value in state.items() if name not in ("layout", "script")}
        missing = {
            "id": self._widget.model_id,
            "cell": (self._asked.get("metadata") or {}).get("cellId"),
            "run": (self._asked.get("header") or {}).get("msg_id"),
            "data": mount(self._widget).data,
            "state": state,
        }
        if self._comm is None:
            # It never comes to the kernel's list of comms: pages ask for the state of those.
            self._comm = comm.create_comm(target_name="jupyter.widget", primary=False)
        self._comm.publish_msg(
            "comm_open",
            data={"state": state | {"_esm": _MODULE, "missing": missing}, "buffer_paths": []},
            metadata={"version": __protocol_version__},
            target_name="jupyter.widget",
            target_module=None,
        )


def listen_on_control() -> bool:
    """Let messages of widgets in by the control channel, which is read while a cell runs.

    Return False if this kernel has none that is known.
    """
    kernel = getattr(running_shell(), "kernel", None)
    handlers = getattr(kernel, "control_handlers", None)
    manager = getattr(kernel, "comm_manager", None)
    if not isinstance(handlers, dict) or manager is None:
        return False
    handlers.setdefault("comm_msg", manager.comm_msg)
    return True
