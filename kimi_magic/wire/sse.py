"""Server-sent events: bytes in any split → the data of each event.

The format is WHATWG HTML, section 9.2.6: lines end in LF, CR or CRLF, a blank line ends an event,
``data`` lines of one event are joined by LF, lines that begin with a colon are comments, and an
event without data is none. Ids and retry times carry nothing in this API and are left out, and so
are events whose names say that they are a sign of life.
"""

from __future__ import annotations

import re
from typing import Self

from kimi_magic.wire.protocols import TooMuch

__all__ = ["NamedEvent", "SSEDecoder"]

MOST_BYTES, LONGEST_NAME = 12_000_000, 100
LINE_BYTES = 10  # an empty line of data takes room, too

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_SIGNS_OF_LIFE = (b"ping", b"heartbeat", b"keepalive", b"keep-alive")


class NamedEvent(bytes):
    """The data of an event that has a name, such as ``error``."""

    name: bytes

    def __new__(cls, data: bytes, name: bytes) -> Self:
        event = super().__new__(cls, data)
        event.name = name
        return event


class SSEDecoder:
    """Feeds on bytes as they arrive and gives back the events that became whole.

    Data is bytes, not text: the caller decodes whole events, so a code point that was split
    between two reads is whole again. A line, or an event, of more than ``most`` bytes is `TooMuch`.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = b""
        self._at_start = True

    @property
    def in_data(self) -> bool:
        """True in the middle of a line of data."""
        return b"".join(self._pending[:5]).startswith(b"data:")

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take bytes; return the data of each event that they complete."""
        if not chunk:
            return []
        idle = not (self._pending or self._data or self._name)
        if idle and len(chunk) <= self._most and (events := _plain_events(chunk)):
            self._at_start = False
            return events
        ends_in_cr = self._pending and self._pending[-1].endswith(b"\r")
        if b"\n" not in chunk and b"\r" not in chunk and not ends_in_cr:
            self._pending.append(chunk)  # joined once, when the line ends: a 1 MB line stays linear
            self._pending_bytes += len(chunk)
            self._bound()
            return []
        pieces, self._pending = [*self._pending, chunk], []
        text = b"".join(pieces)
        del pieces  # a long line is held no more often than need be
        # A CR at the very end may be the first half of a CRLF.
        held = b"\r" if text.endswith(b"\r") else b""
        *lines, rest = _LINE_END.split(text[: len(text) - len(held)])
        del text
        self._pending = [rest + held] if rest or held else []
        self._pending_bytes = len(rest)
        return [data for line in lines if (data := self._line(line)) is not None]

    def flush(self) -> list[bytes]:
        """The stream ended: return an event that lacks its blank line."""
        lines = _LINE_END.split(b"".join(self._pending))
        self._pending = []
        return [data for line in [*lines, b""] if (data := self._line(line)) is not None]

    def _line(self, line: bytes) -> bytes | None:
        if self._at_start:
            line = line.removeprefix(_BOM)
            self._at_start = False
        if not line:
            data, name = b"\n".join(self._data), self._name
            self._data, self._name = [], b""
            self._data_bytes = 0
            if not data or data.isspace() or name in _SIGNS_OF_LIFE:
                return None
            return NamedEvent(data, name) if name else data
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + LINE_BYTES
            self._bound()
        elif field == b"event":
            self._name = value[:LONGEST_NAME].strip().lower()
        return None

    def _bound(self) -> None:
        if self._pending_bytes + self._data_bytes > self._most:
            self._pending, self._data = [], []
            raise TooMuch("max_line_bytes")


def _plain_events(chunk: bytes) -> list[bytes]:
    """Split whole events of one line each, as nearly every read is; empty for all others."""
    if not (chunk.startswith(b"data: ") and chunk.endswith(b"\n\n")) or b"\r" in chunk:
        return []
    events = chunk[6:-2].split(b"\n\ndata: ")
    if chunk.count(b"\n") != 2 * len(events):  # of some other line
        return []
    return [event for event in events if event and not event.isspace()]
