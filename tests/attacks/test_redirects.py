"""Aim: have the prompt or the key go to another server than the one that was meant."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

import kimi_magic as kimi
from kimi_magic import session as session_module
from kimi_magic.core.errors import ConnectionFailed, EndpointError
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire import connection as connection_module
from kimi_magic.wire.addresses import is_this_machine
from tests.faulty import EVENTS, Answer, Asked, answering, listening

SECRET = "fake-key-0123456789abcdef"
EVENT = (
    b'data: {"choices":[{"delta":{"content":"9.9"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_KEY", SECRET)


def ask(url: str) -> kimi.Reply:
    endpoint = kimi.Endpoint("lab", url, "LAB_KEY", "kimi-k2-thinking")
    return kimi.ask("My prompt.", endpoint=endpoint, show=False)


def list_models(session: Session, url: str) -> list[str]:
    endpoint = kimi.Endpoint("lab", url, "LAB_KEY")
    key = session.find_key(endpoint)
    return session.connector.models(endpoint, key, session.settings, print)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_another_origin_is_sent_nothing(session: Session, status: int) -> None:
    """Input: redirects of every kind to another port, for a prompt and for the list of models.

    Holds: one line names the target, nothing is sent there, and nothing is tried again.
    """
    with answering(lambda _: Answer(200, EVENT, EVENTS)) as (other, there):
        moved = Answer(status, headers={"Location": f"{other}/chat/completions?a=b"})
        with answering(lambda _: moved) as (url, here):
            for door in (ask, lambda url: list_models(session, url)):
                with pytest.raises(ConnectionFailed) as raised:
                    door(url)
                said = str(raised.value)
                assert f"redirects to {other.removesuffix('/v1')}: nothing was sent" in said
                assert "\n" not in said
    assert [asked.method for asked in here] == ["POST", "GET"]
    assert there == []


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("https://127.0.0.1:{port}/v1/x", "https://127.0.0.1:{port}"),
        ("http://localhost:{port}/v1/x", "http://localhost:{port}"),
        ("//evil.example/v1/x", "http://evil.example"),
        ("http://me:word@evil.example/x", "http://evil.example"),
        (f"http://{SECRET}.example/", "http://[key].example"),
        ("http://127.0.0.1:{port}.evil.example/x", "an address that is none"),
        ("file:///etc/passwd", "file://"),
        ("javascript:alert(1)", ""),
        ("http://[", "http://%5b"),
        ("http://\xe9vil.example/", "http://xn--vil-9la.example"),
    ],
)
def test_what_looks_like_the_same_place_and_is_not(
    session: Session, target: str, named: str
) -> None:
    """Input: another scheme, name, or port; a name before the host; addresses that are none.

    Holds: the request ends there, and what is told of the target is its origin, without a key.
    """

    def answer(connection: socket.socket, _: bytes) -> None:
        location = target.format(port=port).encode("latin-1")
        connection.sendall(
            b"HTTP/1.1 307 X\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location
        )

    with listening(answer) as (port, requests), pytest.raises(ConnectionFailed) as raised:
        ask(f"http://127.0.0.1:{port}/v1")
    said = str(raised.value)
    assert named.format(port=port) in said
    assert not any(word in said for word in (SECRET, "word", "passwd", "alert"))
    assert len(requests) == 1


def moving(status: int, location: str) -> Callable[[Asked], Answer]:
    def answer(asked: Asked) -> Answer:
        if "/moved/" in asked.path:
            body = b'{"data": [{"id": "m"}]}' if asked.method == "GET" else EVENT
            return Answer(200, body, EVENTS)
        return Answer(status, b"see there", headers={"Location": location})

    return answer


@pytest.mark.parametrize("status", [307, 308])
def test_within_the_origin_the_same_request_follows(session: Session, status: int) -> None:
    """Input: 307 and 308 to another path, the second with a name that would replace the key.

    Holds: the prompt goes along, with the key and no other header.
    """
    with answering(moving(status, "/moved/x#part")) as (url, requests):
        assert ask(url).text == "9.9"
    assert [asked.method for asked in requests] == ["POST", "POST"]
    assert requests[0].headers == requests[1].headers

    def with_a_name(asked: Asked) -> Answer:
        return moving(status, f"http://a:b@{asked.headers['Host']}/moved/x")(asked)

    with answering(with_a_name) as (url, got):
        assert ask(url).text == "9.9"
    assert got[1].headers["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_drops_the_prompt_is_not_followed(session: Session, status: int) -> None:
    """Input: a redirect after which a POST becomes a GET. Holds: refused in words, for a GET not"""
    with answering(moving(status, "/moved/x")) as (url, requests):
        with pytest.raises(ConnectionFailed, match=rf"answered {status}, .* without the prompt"):
            ask(url)
        assert list_models(session, url) == ["m"]
    assert [asked.method for asked in requests] == ["POST", "GET", "GET"]


def test_circles_end(session: Session) -> None:
    """Input: a server that redirects to itself for ever. Holds: a few requests, then an error."""
    with answering(lambda asked: Answer(308, headers={"Location": asked.path})) as (url, requests):
        with pytest.raises(ConnectionFailed, match="circles"):
            ask(url)
        assert len(requests) == connection_module.MOST_REDIRECTS + 1
        with pytest.raises(ConnectionFailed, match="circles"):
            list_models(session, url)


HERE = (
    "localhost LOCALHOST localhost. sub.localhost a.b.LocalHost. 127.0.0.1 127.1 127.0.1 127.8.8.8 "
    "0x7f.1 0x7f000001 2130706433 017700000001 0177.1 0.0.0.0 0 127.0.0.1. [::1] [::] "
    "[0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:127.9.9.9] [::1%lo] "
    "ip6-localhost 127。0。0。1"
).split()
ELSEWHERE = (
    "localhost.example notlocalhost 128.0.0.1 127.0.0.1.example 10.0.0.1 [::2] [2001:db8::1] "
    "[::ffff:10.0.0.1] 1 localhostx 127 example"
).split()


@pytest.mark.parametrize("host", [host for host in HERE if host.isascii()])
def test_this_machine_is_asked_through_no_proxy(
    host: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: a proxy for everything, and loopback in each of its spellings.

    Holds: the proxy is asked nothing, whether or not the address can be reached.
    """

    def proxy(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with listening(proxy) as (port, asked):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        session.settings.retries = 0
        for scheme in ("http", "https", "HTTP"):
            with pytest.raises(EndpointError):
                ask(f"{scheme}://{host}:9/v1")
    assert asked == []


def test_what_this_machine_is() -> None:
    """Input: spellings of loopback, and names and numbers near them. Holds: told apart."""
    assert [host for host in HERE if not is_this_machine(f"http://{host}:80/v1")] == []
    assert [host for host in ELSEWHERE if is_this_machine(f"http://{host}:80/v1")] == []


def test_a_typed_key_stays_with_its_address(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: a key is typed for an endpoint, then another address takes over its name.

    Holds: the person is asked again, with the address, and each server gets its own key.
    """
    asked: list[str] = []

    def type_it(about: str) -> str:
        asked.append(about)
        return ["first-key-0123456789", "second-key-0123456789"][len(asked) - 1]

    monkeypatch.setattr(session_module, "can_answer", lambda: True)
    monkeypatch.setattr(session_module, "getpass", type_it)
    with ScriptedServer(strict=False) as one, ScriptedServer(strict=False) as other:
        for server in (one, one, other, one, other):
            kimi.add_endpoint(name="den", base_url=server.base_url, key_env="DEN_KEY")
            server.reply("OK")
            kimi.ask("Hi", endpoint="den", show=False)
    assert [about.split(" (")[0] for about in asked] == [
        f"DEN_KEY for den at {server.base_url}" for server in (one, other)
    ]
    assert {r.headers["Authorization"] for r in one.requests} == {"Bearer first-key-0123456789"}
    assert {r.headers["Authorization"] for r in other.requests} == {"Bearer second-key-0123456789"}
