"""The widget of a turn, and the way its script gets into the page.

A widget's traits are sent with each instance. The script and the style sheet are too large for
that, so they travel compressed, once a page: ``loader.js`` keeps them there and asks for them where
they are missing (a second window, a page that was reloaded).
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from kimi_magic.display.record import Bundle

__all__ = ["SCRIPT", "TurnWidget", "listen_at_once", "mount", "read"]

_HERE = Path(__file__).parent
WITHOUT_WIDGETS = (
    "A turn is running; its record will stand here when it ends. This front end shows no widgets: "
    '%config KimiMagics.view = "plain" shows text as it comes.'
)


# No string in our files holds " // ".
_COMMENTS = re.compile(
    r"(?m)^\s*/\*(?:(?!\*/)[\s\S])*\*/[ \t]*\n|^\s*//.*\n|^\s+|[ \t]+// .*$"
    r"|/\*\* @(?:(?!\*/).)*\*/ "
)


def read(name: str) -> str:
    """Return a file without its comments and its indentation."""
    return _COMMENTS.sub("", (_HERE / name).read_text("utf-8"))


SCRIPT = zlib.compress(
    json.dumps({"script": read("live.js"), "style": read("live.css")}).encode(), level=9
)
"""``live.js`` and ``live.css``; browsers inflate this with ``DecompressionStream``."""
_LOADER = read("loader.js")


class TurnWidget(anywidget.AnyWidget):
    """The browser's side of a live view: it draws operations."""

    # As text: anywidget watches a path for changes, and thereby keeps each widget for ever.
    _esm = _LOADER.replace("{version}", f"{zlib.crc32(SCRIPT):08x}")
    script = traitlets.Bytes().tag(sync=True)  # SCRIPT, or nothing for a page that has it

    def send_script(self) -> None:
        """Send the script and the style sheet to a page that asks for them."""
        if self.script:  # a trait that has its value already is not sent
            self.send_state("script")
        else:
            self.script = SCRIPT


def listen_at_once(comm: Any) -> None:
    """Let the browser's messages in while the cell runs.

    ipykernel 7.4 hands them to the shell that last sent on the comm, which the cell keeps busy;
    the subshell that the front end asks for is free.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, default: default  # noqa: SLF001 - no public way


def mount(widget: TurnWidget) -> Bundle:
    """Return the output that shows the widget."""
    data, metadata = widget._repr_mimebundle_() or ({}, {})
    return Bundle(data | {"text/plain": WITHOUT_WIDGETS}, metadata)
