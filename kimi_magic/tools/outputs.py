"""What a function returned or displayed → outputs for the reader."""

from __future__ import annotations

import base64
import json
from typing import Any

from kimi_magic.context.summaries.reprs import bounded_repr
from kimi_magic.core.messages import Output
from kimi_magic.core.text import cut
from kimi_magic.tools.capture import capturing, current_shell
from kimi_magic.tools.results import encodable

__all__ = ["as_outputs", "fit_for_notebooks"]

MAX_TEXT = 100_000
MAX_CONTENT = 5_000_000

_SIGNATURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}


def as_outputs(value: object) -> tuple[Output, ...]:
    """Show a value as Jupyter would, were it the last expression of a cell.

    Returns
    -------
    tuple of Output
        None for None, several where a value displays itself. Without IPython the repr.
    """
    if value is None:
        return ()
    shell = current_shell()
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    # What a formatter or a repr prints is nobody's output; what a value displays is its own.
    with capturing() as own:
        if shell is not None:
            data, metadata = shell.display_formatter.format(value)
            if not data and own.outputs:
                return own.outputs
        if not data:
            data = {"text/plain": bounded_repr(value, MAX_TEXT)}
    return (Output(data, metadata),)


def fit_for_notebooks(output: Output) -> Output | None:
    """Keep what a notebook can hold: JSON of a bounded size, and images that are images.

    HTML and scripts stay as they came. None where nothing is left.
    """
    data = {str(kind): _content(str(kind), content) for kind, content in output.data.items()}
    kept = {kind: content for kind, content in data.items() if content is not None}
    metadata = {str(key): entry for key, entry in output.metadata.items() if _is_json(entry)}
    return Output(kept, metadata) if kept else None


def _content(kind: str, content: Any) -> Any:
    if kind in _SIGNATURES:
        return _image(content, _SIGNATURES[kind])
    if kind == "text/plain":
        return cut(encodable(content), MAX_TEXT) if isinstance(content, str) else None
    if isinstance(content, str):
        return encodable(content) if len(content) <= MAX_CONTENT else None
    return content if _is_json(content) else None


def _image(content: Any, signature: bytes) -> str | None:
    """Write an image in base64 of our own making; None for what is no such image."""
    try:
        raw = content if isinstance(content, bytes) else base64.b64decode(content)
    except (TypeError, ValueError):
        return None
    return base64.b64encode(raw).decode("ascii") if raw.startswith(signature) else None


def _is_json(content: Any) -> bool:
    try:
        return len(json.dumps(content, allow_nan=False)) <= MAX_CONTENT
    except (TypeError, ValueError, RecursionError):
        return False
