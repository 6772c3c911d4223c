"""Clients are kept for the addresses in use, and no longer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from kimi_magic.config import Settings
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire import connector as connector_module
from kimi_magic.wire.client import Client, Exchange
from kimi_magic.wire.connection import HTTPTransport
from kimi_magic.wire.connector import MOST_CLIENTS, Connector
from kimi_magic.wire.endpoints import Endpoint
from tests.wire.exchanges import deltas_of

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


def client_of(connector: Connector, endpoint: Endpoint) -> Client:
    return connector.connect(endpoint, None, None, Settings(), print).client


def finish(exchange: Exchange) -> None:
    for _ in deltas_of(exchange):
        pass


def idle(client: Client) -> int:
    assert isinstance(client.transport, HTTPTransport)
    return len(client.transport._idle)


def test_the_clients_of_many_addresses_are_closed() -> None:
    connector = Connector()
    with ScriptedServer() as server:
        made = []
        for number in range(3 * MOST_CLIENTS):
            endpoint = Endpoint(f"lab-{number}", server.base_url)
            client = client_of(connector, endpoint)
            made.append(client)
            assert client.models() == ["kimi-k2-thinking"]
            assert client_of(connector, endpoint) is client
        assert [idle(client) for client in made[:-MOST_CLIENTS]] == [0] * 2 * MOST_CLIENTS
        assert [idle(client) for client in made[-MOST_CLIENTS:]] == [1] * MOST_CLIENTS
        assert list(connector._clients.values()) == made[-MOST_CLIENTS:]
        connector.close()
        assert sum(map(idle, made)) == 0


def test_a_client_that_is_not_used_any_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    connector = Connector()
    with ScriptedServer() as server:
        old, busy = (client_of(connector, Endpoint(name, server.base_url)) for name in "ab")
        old.models()
        server.reply("OK")
        monkeypatch.setattr(connector_module, "UNUSED_SECONDS", 0.0)
        with busy.chat(BODY) as exchange:
            newest = client_of(connector, Endpoint("c", server.base_url))
            assert idle(old) == 0
            assert list(connector._clients.values()) == [busy, newest]
            finish(exchange)
        connector.close()


def test_an_address_that_takes_over_a_name_ends_the_others_client() -> None:
    connector = Connector()
    with ScriptedServer() as one, ScriptedServer() as other:
        first = client_of(connector, Endpoint("lab", one.base_url))
        first.models()
        second = client_of(connector, Endpoint("lab", other.base_url))
        assert second is not first
        assert idle(first) == 0


def test_a_variable_of_a_header_that_changes_makes_another_client(
    monkeypatch: pytest.MonkeyPatch, scripted_server: ScriptedServer
) -> None:
    connector = Connector()
    endpoint = Endpoint("lab", scripted_server.base_url, headers={"X-Team": "${TEAM}"})
    for value in ("one", "two"):
        monkeypatch.setenv("TEAM", value)
        client = client_of(connector, endpoint)
        scripted_server.reply("OK")
        with client.chat(BODY) as exchange:
            finish(exchange)
        assert scripted_server.requests[-1].headers["X-Team"] == value
    connector.close()


def test_turns_that_begin_at_once_ask_for_one_list() -> None:
    connector, said = Connector(), list[str]()
    with ScriptedServer(models=["llama-3"]) as server, ThreadPoolExecutor(20) as threads:
        endpoint = Endpoint("lab", server.base_url)

        def connect(_: int) -> str:
            resolved = connector.connect(endpoint, None, None, Settings(), said.append)
            return resolved.target.model

        assert set(threads.map(connect, range(100))) == {"llama-3"}
        assert [request.method for request in server.requests] == ["GET"]
        connector.close()


@pytest.mark.parametrize("odd", ["", "  ", " a", "a\n", "\x1b[31mred", "x" * 400])
def test_ids_that_nobody_could_ask_for(odd: str) -> None:
    connector = Connector()
    with ScriptedServer(models=[odd, "llama-3"]) as server:
        endpoint = Endpoint("lab", server.base_url)
        assert connector.models(endpoint, None, Settings(), print) == ["llama-3"]
        assert connector.default_model(endpoint) == "llama-3"
        connector.close()
