"""The HTTP transport: connections that can be stopped from outside at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import socket
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any

from kimi_magic.core.text import is_json_bomb
from kimi_magic.wire.addresses import is_this_machine
from kimi_magic.wire.protocols import (
    Arrival,
    BadProxy,
    Deliver,
    Redirected,
    Refused,
    Request,
    Status,
    TooMuch,
)

if TYPE_CHECKING:
    import ssl

    import httpx2

__all__ = ["Connection", "HTTPTransport"]

POLL_SECONDS = 0.5
# As many as the threads of a busy pool; a connection at rest is a socket and a parked thread, so
# those that a burst leaves behind are closed by and by.
MOST_IDLE, IDLE_SECONDS = 32, 30.0
MOST_REDIRECTS = 5
NO_ADDRESS = "to an address that is none"
# A refusal's words are at its beginning.
MOST_OF_A_REFUSAL = 1_000_000
MOST_OF_A_DOCUMENT = 16_000_000
WAIT_SECONDS = 0.05  # on Windows, a wait can be interrupted only at its end
_REQUEST_ID = re.compile(r"[\w-]{1,64}")


class HTTPTransport:
    """Carries requests to one base URL; connections are used again.

    ``headers`` is called at the first request, as it may import the SDK. ``max_body`` says how many
    bytes a document may have. The HTTP client is that of an ``sdk``, with its defaults.
    """

    def __init__(
        self,
        base_url: str,
        headers: Callable[[], Mapping[str, str]],
        max_body: Callable[[], int] = lambda: MOST_OF_A_DOCUMENT,
        sdk: str = "openai",
    ) -> None:
        self._base_url = base_url
        self._headers = cache(headers)
        self._max_body = max_body
        self._sdk = sdk
        self._idle_by_process: defaultdict[int, list[Connection]] = defaultdict(list)
        self._closed = False

    @property
    def _idle(self) -> list[Connection]:
        # A forked process must not touch its parent's connections: they share their sockets.
        return self._idle_by_process[os.getpid()]

    def send(self, request: Request, deliver: Deliver, connect_timeout: float) -> Connection:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._new_connection()
        connection.send("POST", request, deliver, connect_timeout)
        return connection

    def get(self, path: str, timeout: float) -> Any:
        document = _Document(self._max_body())
        # A server may close an idle connection at this moment, and nobody asks for a list again.
        connection = self._new_connection()
        connection.send("GET", Request(path, b""), document.deliver, timeout)
        try:
            body = document.wait(timeout)
            if is_json_bomb(body):
                raise ValueError("too many objects in one document")
            return json.loads(body)
        finally:
            connection.end()

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _new_connection(self) -> Connection:
        return Connection(self.http_client(self._headers()), self._base_url, self._rest)

    def _rest(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= MOST_IDLE:
            connection.close()
            return
        now = connection.resting_since = time.monotonic()
        self._idle.append(connection)
        with contextlib.suppress(IndexError):  # another thread was faster
            while self._idle[0].resting_since < now - IDLE_SECONDS:
                self._idle.pop(0).close()

    def http_client(self, headers: Mapping[str, str]) -> httpx2.Client:
        """Return a client with one connection, which adds these headers to each request.

        Raises
        ------
        BadProxy
            The environment names a proxy that cannot be used.
        """
        import httpx2

        sdk = import_module(self._sdk)
        # A proxy of the environment has no business with this machine's own servers.
        trust_env = not is_this_machine(self._base_url)
        certificates = [os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")]
        options: dict[str, Any] = {
            "headers": headers,
            # A cookie would tie requests together, and be one more thing that goes out.
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            "follow_redirects": False,
            "limits": httpx2.Limits(max_connections=1, max_keepalive_connections=1),
            "verify": _tls(trust_env, *certificates),
        }
        try:
            client: httpx2.Client = sdk.DefaultHttpxClient(trust_env=trust_env, **options)
            return client
        except ImportError as error:
            raise BadProxy("a SOCKS proxy needs `pip install socksio`") from error
        except (ValueError, httpx2.InvalidURL) as error:  # its words may hold the password
            raise BadProxy("the environment names a proxy that is none") from error


class Connection:
    """One HTTP client with one socket, and the thread that reads from it.

    Closing a response does not wake a thread that reads from it, nor one that waits for headers;
    shutting its socket down does. The HTTP library names a socket only when it connects, so each
    connection remembers its own.
    """

    def __init__(
        self, http: httpx2.Client, base_url: str, rest: Callable[[Connection], None]
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._urls: dict[str, httpx2.URL] = {}
        self._rest = rest
        self.resting_since = 0.0
        self._socket: socket.socket | None = None
        self._stopped = threading.Event()
        self._reusable = True
        # A parked thread takes a third of the time that a new one takes to start. Between requests
        # it knows no connection, so that one which is forgotten ends it.
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(
            target=_work, args=(self._jobs, http.close), name="kimi-magic reader", daemon=True
        ).start()
        self._end_reader = weakref.finalize(self, self._jobs.put, None)
        self._end_reader.atexit = False

    @property
    def connected(self) -> bool:
        return self._socket is not None

    def send(self, method: str, request: Request, deliver: Deliver, connect_timeout: float) -> None:
        """Have the reader send a request.

        Only connecting has a time limit: whoever waits for the bytes judges silence.
        """
        self._reusable = False
        self._jobs.put(partial(self._carry, method, request, deliver, connect_timeout))

    def end(self) -> None:
        """Rest until the next request, or wake the reader and close where one is under way."""
        if self._reusable:
            self._rest(self)
        else:
            self.close()

    def close(self) -> None:
        self._stopped.set()
        self._shut_down()
        self._end_reader()

    def _carry(
        self, method: str, request: Request, deliver: Deliver, connect_timeout: float
    ) -> None:
        """In the reader's thread: send a request and deliver what comes."""
        import httpx2

        limits = httpx2.Timeout(None, connect=connect_timeout)
        end: Exception | None = None
        try:
            with contextlib.closing(self._open(method, request.path, limits, request.body)) as got:
                name = got.headers.get("nvcf-reqid", "") if got.status_code == 202 else ""
                if not (pending := _REQUEST_ID.fullmatch(name)):
                    self._deliver(got, deliver)
            if pending:
                self._poll(name, deliver, limits)
            self._reusable = True
        except Exception as error:  # noqa: BLE001 - it is mapped where the turn runs
            end = error
        deliver(Arrival(time.monotonic(), end))

    def _poll(self, name: str, deliver: Deliver, limits: httpx2.Timeout) -> None:
        # NVIDIA answers 202 while the result is pending and gives it, in one piece, at /status.
        while not self._stopped.wait(POLL_SECONDS):
            with contextlib.closing(self._open("GET", f"/status/{name}", limits)) as got:
                if got.status_code != 202:
                    self._deliver(got, deliver)
                    return

    def _deliver(self, response: httpx2.Response, deliver: Deliver) -> None:
        body = response.iter_bytes()
        first = next(body, b"")  # the status alone would wake the driver for nothing
        deliver(Arrival(time.monotonic(), Status(response.status_code, response.headers)))
        for data in chain((first,), body):
            # What was received already may decode to a thousand times as much.
            if self._stopped.is_set():
                return
            deliver(Arrival(time.monotonic(), data))

    def _open(
        self, method: str, path: str, limits: httpx2.Timeout, body: bytes = b""
    ) -> httpx2.Response:
        """Send a request; follow its redirects within the origin, and no others."""
        import httpx2

        # Parsed once: a URL costs a sixth of a short request.
        if path not in self._urls:
            self._urls[path] = httpx2.URL(self._base_url + path)
        url = self._urls[path]
        for _ in range(MOST_REDIRECTS + 1):
            request = self._http.build_request(
                method,
                url,
                content=body or None,
                timeout=limits,
                extensions={"trace": self._trace},
            )
            if self._stopped.is_set():
                raise ConnectionAbortedError("it was stopped")
            try:
                response = self._http.send(request, stream=True)
            except (httpx2.InvalidURL, httpx2.RemoteProtocolError) as error:
                # Before 2.16 the library reads the target of a redirect that it does not follow.
                if isinstance(error, httpx2.InvalidURL) or "location header" in str(error):
                    raise Redirected(reason=NO_ADDRESS) from None
                raise
            if not response.has_redirect_location:
                return _checked(response)
            response.close()
            url = _redirect_target(response)
        raise Redirected(response.status_code, reason="that goes round in circles")

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


@lru_cache(maxsize=8)
def _tls(trust_env: bool, *_: str | None) -> ssl.SSLContext:  # noqa: FBT001 - a key
    """Load the certificates, which takes 20 ms; anew where the environment names others."""
    import httpx2

    return httpx2.create_ssl_context(trust_env=trust_env)


def _work(jobs: queue.SimpleQueue[Callable[[], None] | None], close: Callable[[], None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job
    close()


def _checked(response: httpx2.Response) -> httpx2.Response:
    """Raise what is no success, with the beginning of its body."""
    if response.is_success:
        return response
    body = bytearray()
    with contextlib.closing(response):
        for data in response.iter_bytes():
            body += data[: MOST_OF_A_REFUSAL - len(body)]
            if len(body) >= MOST_OF_A_REFUSAL:
                break
    raise Refused(response.status_code, response.headers, bytes(body))


def _redirect_target(response: httpx2.Response) -> httpx2.URL:
    """Return the place where a request may follow a redirect, or raise why it may not.

    RFC 9110, section 15.4, lets a client turn a POST into a GET at 301, 302 and 303; only 307 and
    308 ask for the same request again.
    """
    import httpx2

    asked, status = response.request, response.status_code
    try:
        target = asked.url.join(response.headers["Location"])
    except (httpx2.InvalidURL, ValueError):
        raise Redirected(status, reason=NO_ADDRESS) from None
    if _origin(target) != _origin(asked.url):
        host = target.raw_host.decode("ascii")  # no letters that look like others
        host = f"[{host}]" if ":" in host else host
        port = f":{target.port}" if target.port else ""
        raise Redirected(status, f"{target.scheme}://{host}{port}")
    if asked.method != "GET" and status not in (307, 308):
        raise Redirected(status, reason="which would ask again without the prompt")
    # A name in the address would become an Authorization in the place of ours.
    return target.copy_with(username=None, password=None, fragment=None)


def _origin(url: httpx2.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port


class _Document:
    """A body that is wanted as a whole; it is put together in the reader's thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._body = bytearray()
        self._end: Exception | None = None
        self._ended = threading.Event()

    def deliver(self, arrival: Arrival) -> None:
        if isinstance(arrival.item, bytes):
            self._body += arrival.item
            if len(self._body) > self._most:
                raise TooMuch("max_body_bytes")
        elif not isinstance(arrival.item, int):
            self._end = arrival.item
            self._ended.set()

    def wait(self, seconds: float) -> bytes:
        import httpx2

        deadline = time.monotonic() + seconds
        while not self._ended.wait(WAIT_SECONDS):
            if time.monotonic() > deadline:
                raise httpx2.ReadTimeout(f"no answer within {seconds:g} seconds")
        if self._end:
            raise self._end
        return bytes(self._body)
