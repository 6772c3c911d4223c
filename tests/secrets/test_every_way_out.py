"""No key leaves, wherever it was found and whichever way the text goes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress

import keyring
import pytest

import kimi_magic as kimi
from kimi_magic import session as session_module
from kimi_magic.display import record
from kimi_magic.display.record import Bundle
from kimi_magic.export import FORMS
from kimi_magic.secrets.keys import LEAK
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.turn.request import make_request

SECRET = "-".join(["den", "0123456789abcdefghijklmnop"])  # no shape gives it away
HELD = {"config": {"token": SECRET, SECRET: [SECRET]}}

Patch = pytest.MonkeyPatch
Found = Callable[[Patch, str], kimi.Endpoint | str | None]


def in_the_environment(monkeypatch: Patch, url: str) -> None:
    monkeypatch.setenv("KIMI_BASE_URL", url)
    monkeypatch.setenv("KIMI_API_KEY", SECRET)


def in_keyring(monkeypatch: Patch, url: str) -> str:
    kimi.add_endpoint(name="den", base_url=url, key_env="DEN_KEY")
    passwords = {"DEN_KEY": SECRET}
    monkeypatch.setattr(keyring, "get_password", lambda _, name: passwords.get(name))
    return "den"


def typed(monkeypatch: Patch, url: str) -> str:
    kimi.add_endpoint(name="den", base_url=url, key_env="DEN_KEY")
    type_it(monkeypatch, SECRET)
    return "den"


def unregistered(monkeypatch: Patch, url: str) -> kimi.Endpoint:
    monkeypatch.setenv("DEN_KEY", SECRET)
    return kimi.Endpoint("den", url, "DEN_KEY")


def unregistered_and_typed(monkeypatch: Patch, url: str) -> kimi.Endpoint:
    type_it(monkeypatch, SECRET)
    return kimi.Endpoint("den", url, "DEN_KEY")


def type_it(monkeypatch: Patch, answer: str) -> None:
    monkeypatch.setattr(session_module, "can_answer", lambda: True)
    monkeypatch.setattr(session_module, "getpass", lambda _: answer)


AT_HAND: list[Found] = [in_the_environment, in_keyring, unregistered]
WAYS: list[Found] = [*AT_HAND, typed, unregistered_and_typed]
by_way = pytest.mark.parametrize("found", WAYS, ids=lambda way: way.__name__)


@pytest.fixture
def den(session: Session) -> Iterator[ScriptedServer]:
    with ScriptedServer(key=SECRET) as server:
        yield server


def leaks(*texts: object) -> bool:
    told = "".join(map(str, texts))
    return any(SECRET[at : at + LEAK] in told for at in range(len(SECRET) - LEAK + 1))


def tell(key: str) -> str:
    """Tell the key."""
    print("It is", SECRET)
    return SECRET + key


def fail(key: str) -> str:
    """Tell the key, and fail."""
    raise ValueError(f"{SECRET} {key}")


@by_way
@pytest.mark.parametrize("variables", [None, HELD])
def test_the_first_prompt(
    den: ScriptedServer, monkeypatch: Patch, found: Found, variables: dict[str, object] | None
) -> None:
    endpoint = found(monkeypatch, den.base_url)
    den.reply("OK.")
    kimi.ask(
        f"My key is {SECRET}.",
        system=f"Not {SECRET}",
        stop=SECRET,
        variables=variables,
        endpoint=endpoint,
    )
    *lists, request = den.requests
    assert [asked.method for asked in lists] == ["GET"]
    assert "masked" in str(request.body)
    assert not leaks(request.body)


@pytest.mark.parametrize("found", AT_HAND, ids=lambda way: way.__name__)
def test_a_dry_run_that_comes_first(
    session: Session, den: ScriptedServer, monkeypatch: Patch, found: Found
) -> None:
    endpoint = found(monkeypatch, den.base_url)
    asked = make_request(f"It is {SECRET}.", variables=HELD, endpoint=endpoint)
    shown = session.dry_run(asked).text
    assert "[masked]" in shown
    assert not leaks(shown)


def take_a_turn(server: ScriptedServer) -> None:
    calls = [{"name": name, "arguments": {"key": SECRET}} for name in ("tell", "fail")]
    server.reply("", reasoning=f"I read {SECRET}.", tool_calls=calls)
    server.reply(f"Your key is {SECRET}.", reasoning=f"{SECRET}?")


@by_way
def test_all_that_a_turn_leaves_behind(
    session: Session,
    den: ScriptedServer,
    monkeypatch: Patch,
    found: Found,
    capsys: pytest.CaptureFixture[str],
) -> None:
    endpoint = found(monkeypatch, den.base_url)
    session.settings.view = "record"
    take_a_turn(den)
    chat = kimi.chat("den")
    question = f"Which one is {SECRET}?"
    reply = chat.ask(question, endpoint=endpoint, variables=HELD, tools=[tell, fail], show=True)
    assert not leaks(*(request.body for request in den.requests))
    shown = capsys.readouterr().out
    assert "[key]" in shown
    assert not leaks(shown)
    assert not leaks(reply, repr(reply), reply.text, reply.reasoning, reply.messages)
    for result in reply.tool_results:
        assert not leaks(result, result.content, result.error, result.stdout, result.traceback)
        assert not leaks(result.outputs)
    assert reply.tool_results[0].value == SECRET + "[key]", "the user's own object stays"
    assert not leaks(reply.steps, reply.record)
    assert not leaks(chat, repr(chat), chat.messages, chat.turns)
    assert not leaks(*(kimi.snippet(reply, form) for form in FORMS))
    asked_again = make_request(question, chat="den", endpoint=endpoint, variables=HELD)
    assert not leaks(session.dry_run(asked_again).text)


@pytest.mark.parametrize("key", [SECRET, "sk-" + "a1B2c3D4" * 6], ids=["known", "by its shape"])
@pytest.mark.parametrize("no_history", [False, True])
def test_names_that_are_keys(
    session: Session, den: ScriptedServer, monkeypatch: Patch, key: str, no_history: bool
) -> None:
    """A key in the place of a model or a chat, by a slip."""
    in_the_environment(monkeypatch, den.base_url)
    den.lenient = True
    session.settings.view = "record"
    found: list[Bundle] = []
    monkeypatch.setattr(record, "publish", found.append)
    den.reply("OK.")
    den.error(404, "no such model")
    for names in ({"chat": key}, {"chat": "main", "model": key}):
        request = make_request("Hi", no_history=no_history, **names)
        with suppress(kimi.KimiError):
            session.ask(request, show=True)
    assert len(found) == 2
    assert key not in str([bundle.metadata for bundle in found])
    assert not leaks(found)


@by_way
def test_the_events_of_a_stream(den: ScriptedServer, monkeypatch: Patch, found: Found) -> None:
    endpoint = found(monkeypatch, den.base_url)
    take_a_turn(den)
    events = list(kimi.stream(SECRET, endpoint=endpoint, variables=HELD, tools=[tell, fail]))
    assert "[key]" in str(events)
    assert not leaks(events)


@by_way
@pytest.mark.parametrize("status", [400, 401, 429])
def test_errors(
    session: Session, den: ScriptedServer, monkeypatch: Patch, found: Found, status: int
) -> None:
    endpoint = found(monkeypatch, den.base_url)
    session.settings.retries = 0
    den.error(status, f"No good: {SECRET[:-3]}…")
    with pytest.raises(kimi.EndpointError) as raised:
        kimi.ask(SECRET, endpoint=endpoint)
    error = raised.value
    assert "[key]" in str(error)
    assert not leaks(error, repr(error), error._render_traceback_(), vars(error), error.args)
    assert not leaks(pickle.dumps(error))
    ours = kimi.KimiError(f"From our own code: {SECRET}")
    assert not leaks(ours, repr(ours), pickle.dumps(ours))


def test_a_key_that_was_replaced_is_still_redacted(den: ScriptedServer, monkeypatch: Patch) -> None:
    den.key, den.lenient = None, True
    endpoint = kimi.Endpoint("den", den.base_url, "DEN_KEY")
    for key in (SECRET, "another-key-of-the-den"):
        monkeypatch.setenv("DEN_KEY", key)
        den.reply("OK.")
        kimi.ask("Hi", endpoint=endpoint)
    den.reply(f"It was {SECRET}.")
    assert kimi.ask(f"Was it {SECRET}?", endpoint=endpoint).text == "It was [key]."
    assert not leaks(den.requests[-1].body)


def test_a_typed_key_that_was_refused_is_still_redacted(
    den: ScriptedServer, monkeypatch: Patch
) -> None:
    wrong = "a-wrong-key-0123456789"
    endpoint = kimi.Endpoint("den", den.base_url, "DEN_KEY")
    type_it(monkeypatch, wrong)
    den.lenient = True
    with pytest.raises(kimi.KeyRefused):
        kimi.ask("Hi", endpoint=endpoint)
    type_it(monkeypatch, SECRET)
    den.reply("OK.")
    kimi.ask(f"Was it {wrong}?", endpoint=endpoint)
    assert wrong not in str(den.requests[-1].body)
