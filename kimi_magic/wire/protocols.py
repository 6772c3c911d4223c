"""The two seams of the wire: a ``Wire`` speaks a server's API, a ``Transport`` moves its bytes.

The client knows these protocols only. An API is added as a `Wire`, another source of bytes (a
recording, say) as a `Transport`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

from kimi_magic.core.events import ContentDelta, ReasoningDelta, ToolCallDelta, ToolCallStarted
from kimi_magic.core.messages import Completion
from kimi_magic.secrets.keys import Key

Delta = ReasoningDelta | ContentDelta | ToolCallStarted | ToolCallDelta


class Request(NamedTuple):
    """A request as it goes out: its path below the base URL, and its body as bytes of JSON."""

    path: str
    body: bytes


class ServerError(NamedTuple):
    """An error in a server's own words; ``code`` is a status, where the body holds one."""

    words: str
    type: str = ""
    code: int | None = None


class Fold(Protocol):
    """One answer under construction. All state of a stream lives here, none in the wire."""

    finish_reason: str | None

    @property
    def started(self) -> bool:
        """True once a first token has arrived."""

    @property
    def logprob_bytes(self) -> int:
        """Bytes of memory that the logarithms of its tokens take."""

    def drop_logprobs(self) -> None:
        """Do without these: there are too many."""

    def add(self, chunks: Sequence[Mapping[str, Any]]) -> list[Delta]:
        """Fold in chunks that arrived together; return what they add."""

    def finish(self) -> list[Delta]:
        """Return the text that was held back; no more chunks follow."""

    def completion(self, seconds: float = 0.0) -> Completion:
        """Return what has arrived so far, at any moment."""


class Wire(Protocol):
    """The API of a kind of server. Without state: one object serves all exchanges."""

    models_path: str

    def headers(self, key: Key | None) -> Mapping[str, str]:
        """Return the headers of every request, with those that carry the key."""

    def request(self, body: Mapping[str, Any]) -> Request:
        """Encode a chat request, or raise what ``json.dumps`` raises where it cannot."""

    def fold(self, keys: Sequence[Key] = ()) -> Fold:
        """Begin an answer; ``keys`` are masked in it."""

    def is_end(self, data: bytes) -> bool:
        """Return True for the event that ends a stream."""

    def is_error(self, chunk: Mapping[str, Any]) -> bool:
        """Return True for a chunk that reports an error."""

    def read_error(self, body: object) -> ServerError:
        """Read an error from a chunk or from the body of a refusal, as JSON or text."""

    def read_models(self, body: Any) -> list[str]:
        """Read the ids from the list of models."""


class Refused(Exception):
    """The server answered with an error status; of a long body, the beginning is enough."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"answered {status}")
        self.status, self.headers, self.body = status, headers, body


class Redirected(Exception):
    """The server sends a request where it must not go.

    ``target`` is the other origin; it is empty within the same one, where ``reason`` says why.
    """

    def __init__(self, status: int | None = None, target: str = "", reason: str = "") -> None:
        super().__init__(f"redirected with {status}")
        self.status, self.target, self.reason = status, target, reason


class BadProxy(Exception):
    """The environment names a proxy that cannot be used."""


class TooMuch(Exception):
    """More arrived than a setting allows; ``setting`` is its name."""

    def __init__(self, setting: str) -> None:
        super().__init__(f"more than {setting} allows")
        self.setting = setting


class Recorded(NamedTuple):
    """The times of an answer that is played: until its end, its first token, its first text."""

    seconds: float
    first_token: float | None = None
    first_answer: float | None = None


class Status(int):
    """The status of an answer, with the headers that came with it.

    ``recorded`` are its times where it is played.
    """

    headers: Mapping[str, str]
    recorded: Recorded | None

    def __new__(
        cls, status: int, headers: Mapping[str, str], recorded: Recorded | None = None
    ) -> Self:
        own = super().__new__(cls, status)
        own.headers, own.recorded = headers, recorded
        return own


class Arrival(NamedTuple):
    """Something that a transport delivers, and when, in seconds of ``time.monotonic``.

    The status comes first, a `Status` where there are headers, then the body in pieces, then None
    at its end; an exception ends all.
    """

    time: float
    item: int | bytes | Exception | None


Deliver = Callable[[Arrival], None]
"""Takes what arrived, in the order in which it did.

It may wait until there is room; what it raises ends the request, and is delivered as its end.
"""


class Carriage(Protocol):
    """One request under way."""

    @property
    def connected(self) -> bool:
        """True once the server, or the proxy before it, was reached."""

    def end(self) -> None:
        """Stop at once what is not at its end; called once for each request."""


class Transport(Protocol):
    """Carries requests to one server, any number at a time."""

    def send(self, request: Request, deliver: Deliver, connect_timeout: float) -> Carriage:
        """Send a request; ``deliver`` gets what arrives, in a thread of the transport's own."""

    def get(self, path: str, timeout: float) -> Any:
        """Fetch a JSON document, within ``timeout`` seconds."""

    def close(self) -> None:
        """Close what is idle."""
