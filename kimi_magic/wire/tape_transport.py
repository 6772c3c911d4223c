"""The two transports of a tape: one plays a recording, one carries a request and notes what comes.

All above the bytes is the same as for a request that is sent: decoding, faults, views.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kimi_magic.wire.protocols import (
    Arrival,
    Carriage,
    Deliver,
    Recorded,
    Refused,
    Request,
    Status,
    Transport,
)
from kimi_magic.wire.tape_file import KEPT_HEADERS, Recording

__all__ = ["Player", "Recorder"]

SLICE = 65_536  # bytes that are handed on together where all are there at once
REFUSED = 400


class Player:
    """Plays one recording in the place of a server; it never sends anything.

    ``speed`` says how many times faster than it was recorded; 0: all at once.
    """

    connected = True

    def __init__(self, recording: Recording, speed: float = 0.0) -> None:
        self._recording = recording
        self._speed = speed
        self._stopped = threading.Event()

    def send(
        self,
        request: Request,  # noqa: ARG002 - it is not sent
        deliver: Deliver,
        connect_timeout: float,  # noqa: ARG002
    ) -> Player:
        if self._speed:
            threading.Thread(
                target=self._play, args=(deliver,), name="kimi-magic tape", daemon=True
            ).start()
            return self
        body = self._recording.body
        for item in (self._head(), *(body[at : at + SLICE] for at in range(0, len(body), SLICE))):
            deliver(Arrival(time.monotonic(), item))
        if not self._is_refused:
            deliver(Arrival(time.monotonic(), None))
        return self

    def get(self, path: str, timeout: float) -> Any:  # noqa: ARG002 - nothing is sent
        """Refuse: what is not on the tape is not asked for."""
        raise LookupError(path)

    def end(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        """Do nothing: there is no connection."""

    @property
    def _is_refused(self) -> bool:
        return self._recording.status >= REFUSED

    def _head(self) -> Status | Refused:
        """Return what comes first; of a refusal, it is all."""
        own = self._recording
        if self._is_refused:
            return Refused(own.status, own.headers, own.body)
        times = Recorded(own.seconds, own.first_token, own.first_answer)
        return Status(own.status, own.headers, times)

    def _play(self, deliver: Deliver) -> None:
        """In a thread of its own: hand on each piece at its time."""
        began, own = time.monotonic(), self._recording
        pieces = () if self._is_refused else own.pieces
        first = pieces[0][0] if pieces else own.seconds
        items = [(first, self._head()), *pieces, (own.seconds, None)]
        for at, item in items:
            late = began + at / self._speed - time.monotonic()
            if self._stopped.wait(max(late, 0.0)):
                return
            deliver(Arrival(time.monotonic(), item))


@dataclass
class Recorder:
    """Carries one request by another transport, and notes what comes.

    Attributes
    ----------
    status : int
        0 as long as nothing came.
    headers : mapping
    pieces : list of (float, bytes)
        With the seconds since the request went out.
    """

    inner: Transport
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: list[tuple[float, bytes]] = field(default_factory=list)

    def send(self, request: Request, deliver: Deliver, connect_timeout: float) -> Carriage:
        sent = time.monotonic()

        def noting(arrival: Arrival) -> None:
            item, seconds = arrival.item, round(arrival.time - sent, 3)
            if isinstance(item, Refused):
                self.status, self.headers = item.status, item.headers
                self.pieces.append((seconds, item.body))
            elif isinstance(item, int):
                self.status, self.headers = int(item), getattr(item, "headers", {})
            elif isinstance(item, bytes) and item:
                self.pieces.append((seconds, item))
            deliver(arrival)

        return self.inner.send(request, noting, connect_timeout)

    def get(self, path: str, timeout: float) -> Any:
        return self.inner.get(path, timeout)

    def close(self) -> None:
        """Do nothing: the connection belongs to others."""

    @property
    def kept_headers(self) -> dict[str, str]:
        """The headers that belong on a tape."""
        return {name: self.headers[name] for name in KEPT_HEADERS if name in self.headers}
