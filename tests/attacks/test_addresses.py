"""Aim: break a turn with an address, or have what stands in one told to whoever reads along."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import kimi_magic as kimi
from kimi_magic.core.errors import ConfigError, EndpointError, KimiError
from kimi_magic.session import Session
from kimi_magic.turn.request import make_request
from kimi_magic.wire.client import Client
from kimi_magic.wire.endpoints import Endpoint

WORD = "hunter2-0123456789"

NONE: list[Any] = [
    "",
    " ",
    "foo",
    "foo.example/v1",
    "localhost:8000",
    "http:",
    "http://",
    "http:///v1",
    "http://[",
    "http://[]/v1",
    "http://[::1",
    "http://::1/v1",
    "http://[::g]/v1",
    "http://[127.0.0.1]/v1",
    "http://a b/v1",
    "http://a/b c",
    "http://a\tb/v1",
    "http://a\nb/v1",
    "http://a\r\nX-B: c/v1",
    "http://a\0b/v1",
    "http://\ud800/v1",
    "http://a/\ud800",
    "http://a:/v1",
    "http://a:0/v1",
    "http://a:99999/v1",
    "http://a:-1/v1",
    "http://a:x/v1",
    "http://a:١/v1",
    "http://a:80:80/v1",
    "http://.../v1",
    "http://a..b/v1",
    "http://-a/v1",
    "http://%00/v1",
    "http://1.2.3.256/v1",
    "http://" + "a" * 64 + "/v1",
    "http://" + "a." * 200 + "b/v1",
    "http://a/" + "x" * 5000,
    "http://" + "/" * 100_000,
    "http://ⓛocalhost/v1",
    "http://１２７.０.０.１/v1",
    "http://日本\u202e/v1",
    "http://a\u2028b/v1",
    "http://a\\b/v1",
    "ftp://x",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "https//host/v1",
    "http://a/v1?x=1",
    "http://a/v1#x",
    None,
    5,
    b"http://a/v1",
    ["http://a/v1"],
]


@pytest.mark.parametrize("url", NONE, ids=lambda url: repr(url)[:40])
def test_an_address_that_is_none(session: Session, url: Any) -> None:
    """Input: texts that are no address, and no texts. Holds: a `ConfigError` of short lines."""
    for make in (Endpoint, kimi.add_endpoint):
        with pytest.raises(ConfigError) as raised:
            make(name="lab", base_url=url)
        said = str(raised.value)
        assert len(said.splitlines()) <= 3
        assert len(said) < 400


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{WORD}@host/v1",
        f"http://{WORD}@host/v1",
        f"//me:{WORD}@host/v1",
        f"me:{WORD}@host/v1",
        f"http:/me:{WORD}@host",
        f"ht!tp://me:{WORD}@host",
        f"http://me:{WORD}/with-a-slash@host/v1",
        f"http://me:{WORD}@[",
        f"https://me:{WORD}@host:99999/v1?x#y",
        f"  http://me:{WORD}@host",
    ],
)
def test_a_password_in_an_address_is_told_to_nobody(
    session: Session, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Input: a name and a password before a host, well-formed or not, through every door.

    Holds: it is refused in words that do not quote it.
    """
    doors: list[Callable[[], object]] = [
        lambda: Endpoint("lab", url),
        lambda: kimi.ask("Hi", endpoint=url, show=False),
        lambda: session.dry_run(make_request("Hi", endpoint=url)),
    ]
    for door in doors:
        with pytest.raises(ConfigError) as raised:
            door()
        assert WORD not in str(raised.value) + repr(raised.value)
    for name in ("KIMI_BASE_URL", "KIMI_ENDPOINT"):
        monkeypatch.setenv(name, url)
        with pytest.raises(ConfigError) as raised:
            kimi.ask("Hi", show=False)
        assert WORD not in str(raised.value)
        assert WORD not in session.connector.catalogue.problem
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "proxy", [f"http://me:{WORD}@[", f"foo://me:{WORD}@host", f"http://me:{WORD}@host:port"]
)
def test_a_proxy_that_is_none_keeps_its_password(
    session: Session, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    """Input: a proxy of the environment that is no address. Holds: our error, without a word."""
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    session.settings.retries = 0
    endpoint = Endpoint("lab", "http://lab.invalid/v1")
    for door in (
        lambda: kimi.ask("Hi", endpoint=endpoint, show=False),
        lambda: session.connector.models(endpoint, None, session.settings, print),
    ):
        with pytest.raises(EndpointError, match=r"(?i)proxy") as raised:
            door()
        assert WORD not in str(raised.value)


pieces = st.sampled_from(
    "http:// https:// HTTP:// // / : @ [ ] ? # % . - \\ localhost 127.0.0.1 ::1 xn-- é 日 / v1 "
    "chat/completions \x00 \n \ud800 \u202e １ 。".split(" ")
) | st.text(max_size=5)


@given(st.lists(pieces, max_size=8).map("".join) | st.text())
@example("http://xn--/v1")
@example("http://a/%")
@settings(max_examples=500)
def test_whatever_an_address_is(url: str) -> None:
    """Input: any text. Holds: a `ConfigError`, or an address that the HTTP library takes."""
    with suppress(ConfigError):
        endpoint = Endpoint("lab", url)
        import httpx2

        parsed = httpx2.URL(endpoint.base_url + "/chat/completions")
        assert parsed.scheme in ("http", "https")
        assert parsed.raw_host
        assert not parsed.userinfo
        assert not parsed.query
        assert parsed.netloc.isascii()
        client = Client(endpoint, endpoint.base_url, None)
        with suppress(KimiError):
            client.transport.http_client({}).close()  # type: ignore[attr-defined]
