"""One connection to a server, which can be stopped from outside at any moment."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kimi_magic.secrets.keys import Key

if TYPE_CHECKING:
    import httpx2
    import openai

__all__ = ["LOOPBACK", "Connection"]

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
POLL_EVERY = 0.5
_REQUEST_ID = re.compile(r"[\w-]{1,64}")


class Connection:
    """One SDK client with one connection, used by one exchange at a time.

    Closing a response does not wake a thread that reads from it, nor one that waits for headers;
    shutting its socket down does. The HTTP library names a connection's socket only when it
    connects, so each line remembers its own.
    """

    def __init__(self, base_url: str, key: Key | None) -> None:
        import httpx2
        import openai

        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._read_out = False
        self._sdk: openai.OpenAI = openai.OpenAI(
            base_url=base_url,
            api_key=key.value if key else "none",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(
                limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1),
                event_hooks={"request": [self._watch]},
                # A proxy of the environment has no business with this machine's own servers.
                trust_env=httpx2.URL(base_url).host not in LOOPBACK,
            ),
        )

    @property
    def connected(self) -> bool:
        """Whether the server, or the proxy before it, was ever reached."""
        return self._socket is not None

    def ask(self, body: Mapping[str, Any], timeout: float, put: Callable[[Any], None]) -> None:
        """Send a chat request; hand on the status of the answer, then its bytes.

        Only connecting has a time limit, ``timeout``: whoever waits for the bytes judges silence.
        """
        import httpx2

        limits = httpx2.Timeout(None, connect=timeout)
        create = self._sdk.chat.completions.with_streaming_response.create
        # What the SDK takes as messages it walks and copies piece by piece: 60 ms for 600 of them.
        # The extra body goes out as it is.
        about: Any = {name: body.get(name) for name in ("model", "stream")}
        with create(**about, messages=[], extra_body=dict(body), timeout=limits) as response:
            name = response.headers.get("nvcf-reqid", "")
            if response.status_code != 202 or not _REQUEST_ID.fullmatch(name):
                put(response.status_code)
                for data in response.iter_bytes():
                    put(data)
                return
        # NVIDIA answers 202 while the result is pending and gives it, in one piece, at /status.
        while not self._stopped.wait(POLL_EVERY):
            result = self._sdk.get(
                f"/status/{name}", cast_to=httpx2.Response, options={"timeout": limits}
            )
            if result.status_code != 202:
                put(result.status_code)
                put(result.content)
                return

    def models(self, timeout: float) -> list[str]:
        """The ids that the server offers (``GET /models``), sorted."""
        return sorted(model.id for model in self._sdk.models.list(timeout=timeout) if model.id)

    def stop(self) -> None:
        """Wake the reader, wherever it is, and make the line useless."""
        with self._lock:
            self._stopped.set()
            closes = self._read_out
        self._shut_down()
        if closes:
            self.close()

    def read_out(self) -> None:
        """The reader is done; of it and ``stop`` the later one closes what is left."""
        with self._lock:
            self._read_out = True
            closes = self._stopped.is_set()
        if closes:
            self.close()

    def reuse(self) -> None:
        self._read_out = False

    def close(self) -> None:
        self._sdk.close()

    def _watch(self, request: httpx2.Request) -> None:
        request.extensions["trace"] = self._trace

    def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        # The first part of the name differs for direct, proxied and SOCKS connections.
        if name.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            if self._stopped.is_set():
                self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it is closed already
                self._socket.shutdown(socket.SHUT_RDWR)
