"""What a tool gave → safe HTML for the reader, and the same as text.

Nothing that a tool returns is trusted: of HTML the plain elements stay, of images PNG and JPEG,
and whatever else it is (scripts, widgets, SVG) is shown as its text.
"""

from __future__ import annotations

import base64
import struct
from html import escape

from kimi_magic.messages import Output, ToolResult
from kimi_magic.view.markdown import MONOSPACE, foreign_html, to_html
from kimi_magic.view.parts import clean

__all__ = ["has_image", "result_html", "result_text"]

_IMAGES = ("image/png", "image/jpeg")
_PRE = (
    "margin:.3em 0;white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal;"
    f"line-height:1.4;{MONOSPACE}"
)
_ERROR = f"{_PRE};padding:.1em 0 .1em .8em;border-left:2px solid #d0342c"
_IMAGE = "max-width:100%;height:auto;background-color:#fff"
_PNG = struct.Struct(">8x4x4sII")  # signature, length, the chunk's name, width, height


def result_html(result: ToolResult) -> str:
    """Show what it printed, what it displayed and gave, or how it failed."""
    pieces = [_pre(result.stdout)] if result.stdout.strip() else []
    pieces += [_output_html(output) for output in result.outputs]
    if result.error:
        pieces.append(_pre(_error(result), _ERROR))
    return "\n".join(pieces) or _pre(result.content)


def result_text(result: ToolResult) -> str:
    """The same in plain text."""
    pieces = [result.stdout.rstrip()] if result.stdout.strip() else []
    pieces += [_output_text(output) for output in result.outputs]
    if result.error:
        pieces.append(_error(result))
    return clean("\n".join(pieces) or result.content)


def has_image(result: ToolResult) -> bool:
    return any(kind in output.data for output in result.outputs for kind in _IMAGES)


def _error(result: ToolResult) -> str:
    return result.traceback.rstrip() or result.error or ""


def _output_html(output: Output) -> str:
    data = output.data
    for kind in _IMAGES:
        if kind in data:
            label = escape(clean(str(data.get("text/plain", "Image"))), quote=True)
            size = _size(output, kind)
            return (
                f'<img alt="{label}"{size} src="data:{kind};base64,{data[kind]}" style="{_IMAGE}">'
            )
    if isinstance(data.get("text/html"), str):
        return f"<div>{foreign_html(data['text/html'])}</div>"
    if isinstance(data.get("text/markdown"), str):
        return f"<div>{to_html(clean(data['text/markdown']))}</div>"
    return _pre(_output_text(output))


def _size(output: Output, kind: str) -> str:
    """An image's size as attributes, so that nothing jumps when it is decoded; "" if unknown."""
    given = output.metadata.get(kind)
    if isinstance(given, dict) and all(_is_size(given.get(side)) for side in ("width", "height")):
        width, height = given["width"], given["height"]
    elif kind == "image/png":
        try:
            name, width, height = _PNG.unpack(base64.b64decode(output.data[kind][:32]))
        except (ValueError, TypeError, struct.error):
            return ""
        if name != b"IHDR":
            return ""
    else:
        return ""
    return f' width="{int(width)}" height="{int(height)}"'


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < 100_000


def _output_text(output: Output) -> str:
    data = output.data
    text = data.get("text/plain", data.get("text/markdown"))
    return text if isinstance(text, str) else f"({', '.join(data)})"


def _pre(text: str, style: str = _PRE) -> str:
    return f'<pre style="{style}">{escape(clean(text).rstrip())}</pre>'
