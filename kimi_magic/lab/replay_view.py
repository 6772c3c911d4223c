"""The replay of a turn: in the live view's widget, or by pages of text.

The widget gets the whole turn at once and plays it by itself, so that it works while the kernel is
busy with something else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.frontend import can_answer, has_kernel, is_captured, request, running_shell
from kimi_magic.core.reply import Reply
from kimi_magic.display.record import Bundle, publish, record_of
from kimi_magic.display.view import ViewOptions, suitable_kind
from kimi_magic.lab.replay_steps import Moment, moments_of, page_moments, text_pages

__all__ = ["read_pages", "replay"]

MAX_WIDGETS = 20
NOTHING = "There is nothing to step through: nothing had arrived in that turn."
KEYS = "Enter: on · b: back · a: answer · q: quit "
HIDDEN = "[The answer is hidden: a shows it.]"

_widgets: deque[Any] = deque()


def replay(reply: Reply, kind: str = "auto", options: ViewOptions | None = None) -> None:
    """Show a turn that is over step by step, its answer last.

    Parameters
    ----------
    reply : Reply
        Nothing is asked of any endpoint: it is drawn from its record.
    kind : str
        One of ``config.VIEWS``: ``live`` in a widget, all else by pages of text.

    Raises
    ------
    KimiError
        Nothing had arrived in the turn.
    """
    if not reply.record.steps and not reply.record.trajectories:
        raise KimiError(NOTHING)
    options = options or ViewOptions()
    moments = moments_of(reply)
    shell = running_shell()
    kind = suitable_kind(shell) if kind == "auto" else kind
    if kind == "live" and has_kernel(shell) and not is_captured(shell):
        try:
            _show_widget(reply, moments, options)
            return
        except ImportError:  # a trimmed installation without widgets
            pass
    read_pages(*text_pages(moments, options))


def _show_widget(reply: Reply, moments: Sequence[Moment], options: ViewOptions) -> None:
    from kimi_magic.display.live import detached
    from kimi_magic.display.live.widget import SCRIPT, TurnWidget, listen_at_once, mount

    asked = request()
    whole = page_moments(moments, options)
    widget = TurnWidget(script=b"" if detached.was_heard(asked) else SCRIPT)

    def receive(_widget: TurnWidget, content: object, _buffers: object) -> None:
        if not isinstance(content, dict):
            return
        if "script" in content:
            widget.script = SCRIPT
        if "ready" in content:
            widget.send({"replay": whole, "mount": widget.model_id})

    widget.on_msg(receive)
    listen_at_once(widget.comm)
    mounted = mount(widget)
    # The record for whoever opens the file without this kernel.
    publish(Bundle(mounted.data | record_of(reply, options).data, mounted.metadata))
    _widgets.append(widget)
    while len(_widgets) > MAX_WIDGETS:
        oldest = _widgets.popleft()
        oldest.layout.close()
        oldest.close()


def read_pages(pages: Sequence[str], before_answer: int) -> None:
    """Show pages one by one where somebody can press a key, else all of them.

    Those after ``before_answer`` show the answer, and come when it is asked for.
    """
    if not can_answer():
        print("".join(pages))
        return
    at, shows = 0, False
    print(pages[0], flush=True)
    while at < len(pages) - 1:
        try:
            said = input(KEYS).strip().lower()[:1]
        except (EOFError, KeyboardInterrupt):
            return
        if said == "q":
            return
        if said == "a":
            at, shows = max(at, before_answer - 1), True
        last = len(pages) - 1 if shows else before_answer - 1
        if said == "b":
            at = max(at - 1, 0)
        elif at >= last:
            print(HIDDEN)
            continue
        else:
            at += 1
        print(pages[at], flush=True)
