"""Results of tools as safe HTML and as plain text.

Nothing that a tool returns is trusted: HTML keeps its plain elements, PNG and JPEG images are
shown, and all else (scripts, widgets, SVG) is shown as its text.
"""

from __future__ import annotations

import base64
import re
import struct
from html import escape
from textwrap import dedent
from typing import NamedTuple

from kimi_magic.core.messages import INTERRUPTED, NOT_MADE, Output, ToolResult
from kimi_magic.core.text import clean
from kimi_magic.display.html.code import MONOSPACE, mixed
from kimi_magic.display.html.markdown import foreign_html, to_html

__all__ = ["IMAGES", "OUTCOMES", "has_image", "result_html", "result_text", "shown_as"]

IMAGES = ("image/png", "image/jpeg")
MAX_PIXELS = 100_000_000
_PRE = (
    "margin:.3em 0;white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal;"
    f"line-height:1.4;overflow:hidden;contain:paint;{MONOSPACE}"
)
_ERROR = f"{_PRE};padding:.1em 0 .1em .8em;border-left:2px solid "
_IMAGE = (
    "max-width:100%;height:auto;max-height:2000px;object-fit:contain;object-position:0 0;"
    "background-color:#fff"
)
_FOLDED = "cursor:pointer;font-size:90%;opacity:.8"
_IN_WORDS = {
    NOT_MADE: "Not made: the turn was stopped before.",
    INTERRUPTED: "Stopped before its end.",
}
_CHAINED = re.compile(r"^Traceback \(most recent call last\):\n", re.MULTILINE)
_FRAME = re.compile(
    r"^  (?:File \"(?P<file>[^\"\n]+)\"|Cell [^\n]+?), line \d+, in .*\n(?:    .*\n)*", re.MULTILINE
)
_OF_LIBRARY = re.compile(
    r"<frozen |[\\/](?:site|dist)-packages[\\/]|[\\/]lib(?:64)?/python3\.\d+/|\\Lib\\"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/\n]+={0,2}\n?")
_PNG = struct.Struct(">8x4x4sII")  # signature, length, the chunk's name, width, height


class _Look(NamedTuple):
    """A mark, a word and a colour, each of which tells how a call ended."""

    mark: str
    word: str
    colour: str
    terminal: str  # the colour's name there

    @property
    def ink(self) -> str:
        """The colour as a style of text, legible on light and on dark pages."""
        return mixed(self.colour)


# live.css has the same colours.
OUTCOMES = {
    "done": _Look("✓", "done", "#34893b", "green"),
    "failed": _Look("✗", "failed", "#ce4f3b", "red"),
    "declined": _Look("⊘", "declined", "#a96b00", "yellow"),
    "stopped": _Look("■", "stopped", "#b847ca", "magenta"),
}


def result_html(result: ToolResult) -> str:
    """Show a result as HTML: the error, printed text, outputs, and the whole traceback."""
    lead, rest = _failure(result)
    pieces = [_pre(lead, f"{_ERROR}{OUTCOMES[result.outcome].colour}")] if lead else []
    pieces += [_pre(result.stdout)] if result.stdout.strip() else []
    pieces += [_output_html(output) for output in result.outputs]
    if rest:
        title = f'<summary style="{_FOLDED}">Whole traceback</summary>'
        pieces.append(f"<details>{title}\n{_pre(rest)}</details>")
    return "\n".join(pieces) or _pre(result.content)


def result_text(result: ToolResult) -> str:
    """Show a result as plain text."""
    lead, rest = _failure(result)
    pieces = [lead, result.stdout.rstrip(), *map(_output_text, result.outputs), rest]
    return clean("\n".join(filter(None, pieces)) or result.content)


def has_image(result: ToolResult) -> bool:
    return any(shown_as(output)[0] in IMAGES for output in result.outputs)


def shown_as(output: Output) -> tuple[str, str]:
    """Return the MIME type in which an output is shown, and its content of that type."""
    data = output.data
    for kind in (*IMAGES, "text/html", "text/markdown"):
        content = data.get(kind)
        if isinstance(content, str) and (kind not in IMAGES or _is_image(content)):
            return kind, content
    return "text/plain", _output_text(output)


def _is_image(content: str) -> bool:
    """Return True for base64, unless it decodes to an image that would fill a browser's memory."""
    width, height = _png_size(content) or (0, 0)
    return _BASE64.fullmatch(content) is not None and width * height <= MAX_PIXELS


def _failure(result: ToolResult) -> tuple[str, str]:
    """Return the innermost line of the user's code with the error, and the traceback if longer."""
    error = (result.error or "").strip()
    error = _IN_WORDS.get(error, error)
    traceback = result.traceback.rstrip()
    if not (error and traceback):
        return error or traceback, ""
    # Of chained exceptions the last is the one that was raised.
    frames = list(_FRAME.finditer(_CHAINED.split(f"{traceback}\n")[-1]))
    own = [frame[0] for frame in frames if not _OF_LIBRARY.search(frame["file"] or "")]
    lead = f"{dedent(own[-1])}{error}" if own else error
    is_whole = len(frames) == len(own) == 1 and len(_CHAINED.findall(traceback)) == 1
    return lead, "" if is_whole or error == dedent(traceback) else traceback


def _output_html(output: Output) -> str:
    kind, content = shown_as(output)
    if kind in IMAGES:
        label = escape(clean(str(output.data.get("text/plain", "Image"))), quote=True)
        source = f"data:{kind};base64,{content}"
        return f'<img alt="{label}"{_size(output, kind)} src="{source}" style="{_IMAGE}">'
    html = ""
    if kind == "text/html":
        html = foreign_html(content)
    elif kind == "text/markdown":
        html = to_html(clean(content))
    return f"<div>{html}</div>" if html else _pre(_output_text(output))


def _size(output: Output, kind: str) -> str:
    """Return an image's size as attributes, "" if unknown: without it the page jumps later."""
    given = output.metadata.get(kind)
    if isinstance(given, dict) and all(_is_size(given.get(side)) for side in ("width", "height")):
        width, height = given["width"], given["height"]
    elif png := _png_size(output.data[kind]):
        width, height = png
    else:
        return ""
    return f' width="{int(width)}" height="{int(height)}"'


def _png_size(content: str) -> tuple[int, int] | None:
    try:
        name, width, height = _PNG.unpack(base64.b64decode(content[:32]))
    except (ValueError, struct.error):
        return None
    return (width, height) if name == b"IHDR" else None


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < 100_000


def _output_text(output: Output) -> str:
    data = output.data
    text = data.get("text/plain", data.get("text/markdown"))
    return text if isinstance(text, str) else f"({', '.join(data)})"


def _pre(text: str, style: str = _PRE) -> str:
    return f'<pre style="{style}">{escape(clean(text).rstrip())}</pre>'
