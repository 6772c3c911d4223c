"""The records of models: which one an id means, and what it asks of a request."""

from __future__ import annotations

import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import ConfigError, KimiError
from kimi_magic.core.messages import Usage
from kimi_magic.session import Session, current
from kimi_magic.wire.connector import Connector
from kimi_magic.wire.endpoints import BUILT_IN, Endpoint
from kimi_magic.wire.models import ModelCatalogue, newest


@pytest.mark.parametrize(
    ("model_id", "name"),
    [
        ("kimi-k3", "kimi-k3"),
        ("moonshotai/Kimi-K3:free", "kimi-k3"),
        ("moonshotai/kimi-k3-20260716", "kimi-k3"),
        ("~moonshotai/kimi-k3", "kimi-k3"),
        ("kimi-k3.1-pro-highspeed", "kimi-k3.1-pro-highspeed"),
        ("moonshotai/Kimi-K2-Thinking", "kimi-k2-thinking"),
        ("kimi-k2-thinking-turbo", "kimi-k2-thinking-turbo"),
        ("/models/Kimi-K2.6", "kimi-k2.6"),
    ],
)
def test_the_record_of_an_id(model_id: str, name: str) -> None:
    assert ModelCatalogue().get(model_id).name == name


def test_a_model_that_is_not_listed_is_left_to_its_server() -> None:
    models = ModelCatalogue()
    other, later = models.get("qwen3-32b"), models.get("moonshotai/kimi-k4")
    assert (other.name, other.system, other.temperature, other.max_tokens) == (
        *("qwen3-32b", None),
        *(None, None),
    )
    assert later.system == models.get("kimi-k3").system
    assert (later.temperature, later.max_tokens) == (None, None)


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (["kimi-k2.6", "kimi-k3", "kimi-k3-highspeed"], "kimi-k3"),
        (["moonshotai/kimi-k3.1-pro", "moonshotai/kimi-k3", "gpt-x"], "moonshotai/kimi-k3.1-pro"),
        (["kimi-k2.7-code", "kimi-k2.6"], "kimi-k2.6"),
        (["moonshotai/Kimi-K2-Instruct-0905", "moonshotai/Kimi-K2-Thinking"],
         "moonshotai/Kimi-K2-Thinking"),
        (["kimi-k2-turbo"], "kimi-k2-turbo"),
        (["kimi-k10", "kimi-k3"], "kimi-k10"),
        (["/models/qwen"], "/models/qwen"),
        (["a", "b"], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_the_newest_kimi_of_a_list(listed: list[str], found: str) -> None:
    assert newest(listed) == newest(listed[::-1]) == found


THINKING = {"thinking": {"type": "enabled"}}


@pytest.mark.parametrize(
    ("model", "endpoint", "effort", "fields"),
    [
        ("kimi-k3", "moonshot", "low", {"reasoning_effort": "low"}),
        ("kimi-k3", "moonshot-cn", "max", {"reasoning_effort": "max"}),
        ("kimi-k3.1-pro", "vllm", "high", {"reasoning_effort": "high"}),
        ("moonshotai/kimi-k3", "nvidia", "low",
         {"reasoning_effort": "low", "chat_template_kwargs": {"thinking": True}}),
        ("kimi-k2.6", "moonshot", "low", {"thinking": {"type": "disabled"}}),
        ("kimi-k2.6", "moonshot-cn", "max", THINKING),
        ("kimi-k2.6", "vllm", "low", {"chat_template_kwargs": {"thinking": False}}),
        ("kimi-k2.6", "openrouter", "low", {"reasoning": {"enabled": False}}),
        ("moonshotai/kimi-k2.6", "openrouter", "max", {"reasoning": {"enabled": True}}),
        ("openai/gpt-oss-120b", "vllm", "high", {"reasoning_effort": "high"}),
        ("kimi-k2-thinking", "moonshot", "high", "has no levels of effort"),
    ],
)  # fmt: skip
def test_an_effort(model: str, endpoint: str, effort: str, fields: dict[str, object] | str) -> None:
    connector = Connector()
    target = connector.target(connector.catalogue.get(endpoint), model)
    if isinstance(fields, str):
        with pytest.raises(KimiError, match=fields) as refused:
            target.record.effort(effort, target.endpoint)
        assert len(str(refused.value).splitlines()) == 1
    else:
        assert target.record.effort(effort, target.endpoint) == fields


@pytest.mark.parametrize(
    ("endpoint", "named", "model"),
    [
        ("moonshot", None, "kimi-k3"),
        ("moonshot-cn", None, "kimi-k3"),
        ("nvidia", None, "moonshotai/kimi-k3"),
        ("nvidia", "kimi-k2-thinking", "moonshotai/kimi-k2-thinking"),
        ("openrouter", "kimi-k3", "moonshotai/kimi-k3"),
        ("together", "kimi-k2-thinking", "moonshotai/Kimi-K2-Thinking"),
        ("vllm", "kimi-k3", "kimi-k3"),
        ("nvidia", "moonshotai/kimi-k2-thinking", "moonshotai/kimi-k2-thinking"),
    ],
)
def test_the_id_that_an_endpoint_knows(endpoint: str, named: str | None, model: str) -> None:
    connector = Connector()
    assert connector.target(connector.catalogue.get(endpoint), named).model == model


def test_what_an_endpoint_sets_goes_before_what_the_model_has() -> None:
    connector = Connector()
    lab = Endpoint("lab", "http://127.0.0.1:9/v1", context_window=8192, max_tokens=512)
    record = connector.target(lab, "kimi-k3").record
    assert (record.context_window, record.max_tokens) == (8192, 512)
    assert connector.target(BUILT_IN[1], "kimi-k3").record.context_window == 1_048_576


def test_costs_go_by_model_and_endpoint() -> None:
    connector = Connector()
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=500_000, completion_tokens=100_000)

    def cost(endpoint: str, model: str) -> float:
        target = connector.target(connector.catalogue.get(endpoint), model)
        return target.record.priced(usage, target.endpoint).cost

    assert cost("moonshot", "kimi-k3") == pytest.approx(1.5 + 0.15 + 1.5)
    assert cost("moonshot", "kimi-k2-thinking") == pytest.approx(0.3 + 0.075 + 0.25)
    assert cost("vllm", "kimi-k3") == 0


def test_a_model_of_ones_own(session: Session) -> None:
    added = kimi.add_model(name="our-model", context_window=32_768, prices=(1.0, 2.0))
    connector = current().connector
    assert connector.target(Endpoint("lab", "http://127.0.0.1:9/v1"), "our-model").record == added
    assert kimi.add_model(kimi.Model("our-model")).context_window == 262_144
    for wrong in ({"name": ""}, {"name": "m", "prices": (1.0,)}):
        with pytest.raises(ConfigError):
            kimi.add_model(**wrong)
