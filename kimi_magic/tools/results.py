"""Write what a call gave: bounded text for the model, outputs for the reader, failures for both."""

from __future__ import annotations

import base64
import json
import math
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import islice
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from kimi_magic.context.cell_errors import name_cells, trimmed
from kimi_magic.context.summaries.libraries.registry import is_known
from kimi_magic.context.summaries.own_words import has_own_words
from kimi_magic.context.summaries.reprs import bounded_repr
from kimi_magic.context.summaries.summary import summarize
from kimi_magic.context.walker import (
    BRACKETS,
    MAX_BITS,
    DoesNotFit,
    Members,
    Walker,
    fields_of,
    in_order,
    type_name,
)
from kimi_magic.core import interrupts, time_limit
from kimi_magic.core.errors import ToolInterrupted
from kimi_magic.core.frontend import running_shell
from kimi_magic.core.installed import library_paths
from kimi_magic.core.messages import Output, ToolResult
from kimi_magic.core.text import clip, cut
from kimi_magic.core.time_limit import USER_ERRORS
from kimi_magic.tools import shell_state
from kimi_magic.tools.capture import capturing
from kimi_magic.tools.invocation import MAX_ITEMS, Drained

__all__ = [
    "Failure",
    "as_outputs",
    "compose",
    "describe",
    "encodable",
    "fit_for_notebooks",
    "is_image",
    "to_text",
    "with_pictures",
]

# For the model, in characters
HINT = "call again for a smaller part to see the rest"
LEAST = 200
MAX_KEY = 60
LEAST_KEYS, MAX_KEYS = 30, 200  # of the keys of members that are left out
LEAF_TOKENS = 100
MAX_DISPLAYS = 5
MAX_DISPLAY = 1000
# For the reader
MAX_TEXT = 100_000
MAX_CONTENT = 5_000_000
# Of a failure
MAX_TRACEBACK = 20_000
MAX_MESSAGE = 1500
MAX_INNER = 5

_SIGNATURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
_BYTES = (str, bytes, bytearray, memoryview)
_SCALARS = (Decimal, Fraction, date, time, timedelta, UUID, PurePath)
_UNKNOWN = object()


# Text for the model


def compose(text: str, printed: str, displays: Sequence[Output], max_chars: int) -> str:
    """Compose the text of a result from what the call returned, printed and displayed."""
    max_chars = max(max_chars, LEAST)  # a lower limit would leave no room to say anything
    pieces = [text, *map(_display, displays[:MAX_DISPLAYS])]
    if len(displays) > MAX_DISPLAYS:
        pieces.append(f"{len(displays) - MAX_DISPLAYS:,} more outputs were shown to the user.")
    returned = encodable("\n\n".join(filter(None, pieces)))
    if not printed.strip():
        return cut(returned, max_chars, HINT)
    # The printed text gives way, but keeps a quarter of the room.
    title = "\n\nPrinted:\n"
    least = min(max_chars // 4, len(title) + len(printed))
    returned = cut(returned, max_chars - least, HINT)
    room = max(max_chars - len(returned), least) - len(title)
    return f"{returned}{title}{cut(encodable(printed.strip()), room, HINT)}".lstrip()


def _display(output: Output) -> str:
    if is_image(output):
        return "A figure was shown to the user."
    text = output.data.get("text/plain")
    # The text of IPython's HTML, Markdown and similar objects says nothing.
    if isinstance(text, str) and not text.startswith("<IPython.core."):
        return f"Shown to the user:\n{cut(text, MAX_DISPLAY, HINT)}"
    return f"Shown to the user: {', '.join(output.data)}."


def is_image(output: Output) -> bool:
    return any(kind.startswith("image/") for kind in output.data)


def to_text(value: object, max_chars: int) -> str:
    """Write a value for the model: a str unchanged, data as JSON, else its summary."""
    max_chars = max(max_chars, LEAST)
    walker = _Json(whole=True)
    if walker.members(value, max_chars) is None:
        scalar = _scalar(value)
        if scalar is _UNKNOWN:
            return encodable(summarize(value, tokens=max(max_chars // 4, 1)))
        text = scalar if isinstance(scalar, str) else json.dumps(scalar)
        return cut(encodable(text), max_chars, HINT)
    note = ""
    if isinstance(value, Drained) and not value.complete:
        note = f"The first {MAX_ITEMS:,} items; there are more, the generator was closed.\n"
    room = max_chars - len(note)
    try:
        text = walker.write(value, room)
    except DoesNotFit:
        tail = f"\n[Cut; {HINT}]"
        text = _Json().write(value, room - len(tail)) + tail
    return cut(encodable(f"{note}{text}"), max_chars, HINT)


def encodable(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, by their escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class _Json(Walker):
    """Writes data as JSON, and what JSON lacks as text."""

    max_depth = 30
    separator = ","

    def open(self, value: Any, room: int) -> Members | None:
        kind = type(value)
        # A library's object may be a mapping as well, such as a file of HDF5: that reads all of it.
        if issubclass(kind, (*_BYTES, Enum)) or has_own_words(kind) or is_known(kind):
            return None
        inner = value if issubclass(kind, Mapping) else _record(value)
        if inner is not None:
            spare = max(min(room // 4, MAX_KEYS), LEAST_KEYS)
            named = _named(_first(inner.items(), kind, room))
            return Members(named, len(inner), "{", "}", ":", spare)
        if issubclass(kind, AbstractSet):
            inner = in_order(iter(value), len(value))
        elif not issubclass(kind, Sequence):
            return None
        items = _first(value if inner is None else inner, kind, room)
        return Members(((None, item) for item in items), len(value), "[", "]")

    def mark(self, _value: object, reason: str) -> str:
        return json.dumps(f"… ({reason})", ensure_ascii=False)

    def note(self, members: Members, left: int, keys: Iterator[Any], room: int) -> str:
        text = f"{left:,} more"
        if not members.keys:
            return f'"… {text}"'
        names = clip(", ".join(islice(keys, MAX_KEYS)), min(room - len(text) - 10, MAX_KEYS))
        return f'"…":{_dumps(f"{text}: {names}")}'

    def key(self, key: str, room: int, _depth: int, separator: str) -> str:
        return self._fitting(key, max(room // 2, MAX_KEY)) + separator

    def leaf(self, value: object, room: int) -> str:
        scalar = _scalar(value)
        if scalar is _UNKNOWN:
            scalar = summarize(value, tokens=LEAF_TOKENS)
        return self._fitting(scalar, room) if isinstance(scalar, str) else _dumps(scalar)

    def _fitting(self, text: str, room: int) -> str:
        written = _dumps(text)
        if len(written) <= room or self.whole:
            return written
        # Escapes take more room than what they stand for.
        return _dumps(cut(text, max((room - 2) * len(text) // (len(written) - 2), 1)))


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _first(items: Iterable[Any], kind: type, room: int) -> Iterable[Any]:
    """Take as many items as there may be room for, while the time budget guards their own code."""
    return items if kind in BRACKETS else list(islice(items, room + 1))


def _record(value: Any) -> Mapping[str, Any] | None:
    """Name the fields of a dataclass, a named tuple, a pydantic model or a row of SQLite."""
    kind = type(value)
    if issubclass(kind, getattr(sys.modules.get("pydantic"), "BaseModel", ())):
        return dict(value)
    if issubclass(kind, getattr(sys.modules.get("sqlite3"), "Row", ())):
        return dict(zip(value.keys(), value, strict=True))
    return fields_of(value)


def _named(items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    """Name members as JSON does; other keys, and those of an equal name, by their repr."""
    names: set[str] = set()
    for key, item in items:
        scalar = _scalar(key)
        name = scalar if isinstance(scalar, str) else "" if scalar is _UNKNOWN else _dumps(scalar)
        if name in names or scalar is _UNKNOWN:
            name = bounded_repr(key, MAX_KEY)
        if name in names:
            name = f"{type_name(key)} {name}"
        names.add(name)
        yield name, item


def _scalar(value: Any) -> Any:
    """Return a value's JSON scalar, or ``_UNKNOWN``."""
    try:
        return _UNKNOWN if has_own_words(type(value)) else _to_scalar(value)
    except USER_ERRORS:
        return _UNKNOWN


def _to_scalar(value: Any) -> Any:
    value = _unboxed(value)
    kind = type(value)
    if value is None or kind is bool:
        return value
    if issubclass(kind, str):
        return str.__str__(value)  # a subclass may have a text of its own
    if issubclass(kind, int):
        big = abs(value).bit_length() > MAX_BITS
        return f"an integer of {value.bit_length():,} bits" if big else int(value)
    if issubclass(kind, float):
        # JSON has no NaN and no infinity; as texts they have JavaScript's names.
        constant = "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
        return float(value) if math.isfinite(value) else constant
    if issubclass(kind, _SCALARS):
        return value.isoformat() if issubclass(kind, date | time) else str(value)
    return _UNKNOWN


def _unboxed(value: Any) -> Any:
    """Take the value out of an Enum's member or a NumPy scalar."""
    if issubclass(type(value), Enum):
        value = value._value_  # not `value`, which may be a property of the class
    generic = getattr(sys.modules.get("numpy"), "generic", ())
    if issubclass(type(value), generic):
        item = value.item() if value.dtype.kind in "biufSU" else value
        # A long double is its own item.
        return str(item) if issubclass(type(item), generic) else item
    return value


# Outputs for the reader


def as_outputs(value: object) -> tuple[Output, ...]:
    """Show a value as Jupyter would, were it the last expression of a cell.

    A value that displays itself may give several outputs. Without IPython, the repr is the output.
    """
    if value is None:
        return ()
    shell = running_shell()
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    # Discards what a formatter or a repr prints, and keeps what the value itself displays.
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

    HTML and scripts stay as they came. None if nothing is left.
    """
    data = {str(kind): _content(str(kind), content) for kind, content in output.data.items()}
    data = {kind: content for kind, content in data.items() if content is not None}
    metadata = {str(key): entry for key, entry in output.metadata.items() if _is_json(entry)}
    return Output(data, metadata) if data else None


def _content(kind: str, content: Any) -> Any:
    if kind in _SIGNATURES:
        return _image(content, _SIGNATURES[kind])
    if kind == "text/plain":
        return cut(encodable(content), MAX_TEXT) if isinstance(content, str) else None
    if isinstance(content, str):
        return encodable(content) if len(content) <= MAX_CONTENT else None
    return content if _is_json(content) else None


def _image(content: Any, signature: bytes) -> str | None:
    """Encode an image in base64 anew; None for what is no such image."""
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


# Failures


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as the model and the reader see it."""

    message: str  # with its type
    place: str  # the line in the user's code; "" if there is none
    traceback: str  # Python's own text, from the user's function inwards


_OURS = (str(Path(__file__).parent), str(time_limit.__file__), str(interrupts.__file__))


def describe(error: BaseException) -> Failure:
    found = trimmed(error, _OURS)
    frames = list(found.stack)
    while frames and frames[-1].filename == shell_state.__file__:  # it raised: the user's called it
        frames.pop()
    found.stack = traceback.StackSummary.from_list(frames)
    text = cut(name_cells("".join(found.format())), MAX_TRACEBACK)
    return Failure(_message(error, MAX_MESSAGE), _place(list(found.stack)), text)


def _message(error: BaseException, limit: int) -> str:
    found = traceback.TracebackException.from_exception(error, limit=0)
    lines = ["".join(found.format_exception_only()).strip()]
    if isinstance(error, BaseExceptionGroup):
        inner = (_message(one, limit // MAX_INNER) for one in error.exceptions[:MAX_INNER])
        lines += [f"- {text}" for text in inner]
    return cut("\n".join(lines), limit)


def _place(frames: list[traceback.FrameSummary]) -> str:
    """Name the innermost line that is not a library's, or else the outermost line."""
    own = [frame for frame in frames if not frame.filename.startswith(library_paths())]
    for frame in own[-1:] or frames[:1]:
        code = f": {frame.line.strip()}" if frame.line else ""
        return f"in {frame.name}, line {frame.lineno}{cut(code, 300)}"
    return ""


def with_pictures(result: ToolResult) -> ToolResult:
    """Draw the figures that a tool returned, for a model that sees; outputs may show them."""
    if result.value is None:
        return result
    from kimi_magic.context.pictures import pictures_in, pngs

    if pngs(result.outputs):
        return result
    try:
        return replace(result, pictures=pictures_in(result.value))
    except KeyboardInterrupt:
        raise ToolInterrupted(result) from None
