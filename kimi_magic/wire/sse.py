"""Server-sent events: bytes in any split → the data of each event.

The format is WHATWG HTML, section 9.2.6: lines end in LF, CR or CRLF, a blank line ends an event,
``data`` lines of one event are joined by LF, lines that begin with a colon are comments. Event
names, ids and retry times carry nothing in this API and are left out.
"""

from __future__ import annotations

import re

from kimi_magic.wire.protocols import TooMuch

__all__ = ["SSEDecoder"]

MOST_BYTES = 12_000_000
LINE_BYTES = 10  # an empty line of data takes room, too

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")


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
        self._at_start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take bytes; return the data of each event that they complete."""
        if not chunk:
            return []
        if not self._pending and not self._data and (events := _plain_events(chunk)):
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
            data, self._data = self._data, []
            self._data_bytes = 0
            return b"\n".join(data) if data else None
        if line.startswith(b"data:"):
            value = line[5:]
            self._data.append(value[1:] if value.startswith(b" ") else value)
            self._data_bytes += len(value) + LINE_BYTES
            self._bound()
        return None

    def _bound(self) -> None:
        if self._pending_bytes + self._data_bytes > self._most:
            self._pending, self._data = [], []
            raise TooMuch("max_line_bytes")


def _plain_events(chunk: bytes) -> list[bytes]:
    """Split whole events of one line each, as nearly every read is; empty for all others."""
    if not chunk.endswith(b"\n\n") or b"\r" in chunk:
        return []
    events = chunk[:-2].split(b"\n\n")
    if all(event.startswith(b"data: ") and b"\n" not in event for event in events):
        return [event[6:] for event in events]
    return []
