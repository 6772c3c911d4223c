"""The catalogue: what is known can always be listed."""

from __future__ import annotations

import pytest

from kimi_magic.config import Settings
from kimi_magic.core.errors import ConfigError
from kimi_magic.wire.connector import Connector
from kimi_magic.wire.endpoints import BUILT_IN, Catalogue, Endpoint

BAD = ("localhost:8000", "ftp://host/v1", "http://me:word@host/v1", "http://host/v1?key=1", "http:")


@pytest.mark.parametrize("url", BAD)
def test_a_bad_address_of_the_environment_spoils_no_list(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_BASE_URL", url)
    connector = Connector()
    catalogue = connector.catalogue
    assert list(catalogue) == list(BUILT_IN)
    assert catalogue.problem.startswith("KIMI_BASE_URL: ")
    assert catalogue.get("nvidia").name == "nvidia"
    assert catalogue.get("http://127.0.0.1:8000/v1").name == "vllm"
    assert "kimi-k2-thinking" in connector.known_models()
    assert "KIMI_API_KEY" in catalogue.key_names
    with pytest.raises(ConfigError, match="No endpoint is named"):
        catalogue.get("nvidea")


@pytest.mark.parametrize("name", ["", "custom"])
def test_the_turn_that_would_use_a_bad_address_hears_of_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_BASE_URL", "localhost:8000")
    with pytest.raises(ConfigError, match=r"KIMI_BASE_URL: .*no address of a server"):
        Connector().choose(name, Settings())


def test_the_endpoint_of_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIMI_BASE_URL", "http://127.0.0.1:9/v1")
    catalogue = Catalogue()
    assert [endpoint.name for endpoint in catalogue][:2] == ["custom", "nvidia"]
    assert catalogue.problem == ""
    assert catalogue.get("custom") == catalogue.get("http://127.0.0.1:9/v1")


def test_an_added_endpoint_takes_the_place_of_its_name() -> None:
    catalogue = Catalogue()
    catalogue.add(Endpoint("vllm", "http://127.0.0.1:9/v1", "LAB_KEY"))
    assert [endpoint.name for endpoint in catalogue] == [endpoint.name for endpoint in BUILT_IN]
    assert catalogue.get("vllm").base_url == "http://127.0.0.1:9/v1"
    assert "LAB_KEY" in catalogue.key_names
