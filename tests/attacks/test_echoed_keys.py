"""Aim: get a key into what is shared, by a server or a model that repeats it."""

from __future__ import annotations

import contextlib
import copy
import html
import json
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest

import kimi_magic as kimi
from kimi_magic.core.events import Envelope, Event
from kimi_magic.core.text import clean
from kimi_magic.display.live import detached
from kimi_magic.display.plain import PlainView
from kimi_magic.display.terminal import TerminalView
from kimi_magic.display.view import ViewOptions
from kimi_magic.export import FORMS
from kimi_magic.secrets.escapes import Unescaped
from kimi_magic.secrets.keys import LEAK
from kimi_magic.session import Session
from kimi_magic.testing import DIALECTS, ScriptedServer
from kimi_magic.testing.dialects import error_body
from kimi_magic.wire.endpoints import Api
from tests.display.test_live_view import Stage
from tests.faulty import EVENTS, Answer, Asked, answering

SECRET = "-".join(["den", "0123456789/abcdefghijklmnop/QRSTUV"])  # no shape gives it away
Path = tuple[str | int, ...]
AS_JSON = "".join(f"\\u{ord(char):04x}" for char in SECRET)


class Form(NamedTuple):
    """A way to write the key into a field, and what becomes of the event as JSON."""

    value: str
    written: Callable[[str], str] = str
    split: bool = False


WAYS = {
    "plain": Form(SECRET),
    "escaped on the wire": Form(SECRET, lambda event: event.replace(SECRET, AS_JSON)),
    "escaped in the field": Form(AS_JSON),
    "slashes escaped": Form(SECRET.replace("/", "\\/")),
    "percent-encoded": Form("".join(f"%{ord(char):02X}" for char in SECRET)),
    "with what nobody sees": Form("\u200b".join(SECRET)),
    "HTML": Form("".join(f"&#{ord(char)};" for char in SECRET)),
    "split": Form(SECRET, split=True),
    "escaped and split": Form(AS_JSON, split=True),
}
WHOLE = {name: form for name, form in WAYS.items() if not form.split}
in_one_piece = pytest.mark.parametrize("form", WHOLE.values(), ids=WHOLE)
by_way = pytest.mark.parametrize("form", WAYS.values(), ids=WAYS)


def leaks(told: object) -> str:
    """The place where the key stands in a text, or in what a decoder makes of it."""
    text = told if isinstance(told, str) else repr(told)
    for read in (text, clean(text), Unescaped(text).text, unquote(text), html.unescape(text)):
        for at in range(len(SECRET) - LEAK + 1):
            if (place := read.find(SECRET[at : at + LEAK])) >= 0:
                return read[max(place - 200, 0) : place + 100]
    return ""


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """The path of each text in JSON data, and of a further name in each object."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, Mapping):
        yield (*path, "")
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from leaves(item, (*path, place))


def inner(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def put(value: Any, path: Path, text: str) -> None:
    """Put a text at a path in JSON data; where that ends in "", as a name and as a text."""
    holder, last = inner(value, path[:-1]), path[-1]
    if last == "":
        holder[text] = {text: [text]}
    elif last == "arguments" and text:
        holder[last] = f'{{"text": "{text}", "{text}": "x"}}'
    else:
        holder[last] = text


def echo(chunks: list[Any], paths: set[Path], form: Form) -> list[str]:
    """The events of an answer with the key at these places, in each chunk that has them."""
    events: list[str] = []
    begun: set[object] = set()  # the calls that have their arguments
    for original in chunks:
        parts = [copy.deepcopy(original) for _ in range(2 if form.split else 1)]
        here = [path for path in leaves(original) if path in paths]
        for path in here:
            for part in parts:
                put(part, path, form.value)
            whole = inner(parts[0], path) if path[-1] else ""
            if path[-1] == "arguments":
                call = inner(original, path[:-2])
                whole = "" if call.get("index", call.get("id")) in begun else whole
                begun.add(call.get("index", call.get("id")))
            if path[-1]:
                half = len(whole) // 2 + 5 if form.split else len(whole)
                put_text = [whole[:half], whole[half:]]
                for part, text in zip(parts, put_text, strict=False):
                    inner(part, path[:-1])[path[-1]] = text
        parts = parts if here else parts[:1]
        events += (form.written(json.dumps(part)) for part in parts)
    return events


def each_place(chunks: list[Any]) -> list[set[Path]]:
    """The places for a key in an answer: each alone."""
    return [{path} for path in dict.fromkeys(path for chunk in chunks for path in leaves(chunk))]


def all_places(chunks: list[Any]) -> set[Path]:
    return set().union(*each_place(chunks))


def answer_of(dialect: str, **asked: Any) -> list[Any]:
    """The chunks with which a server of a dialect reasons, writes and makes two calls."""
    server = ScriptedServer(dialect)
    calls = [{"name": "save", "arguments": {"text": text}} for text in ("one", "two")]
    server.reply("I save it.", reasoning="So. Well.", tool_calls=calls)
    body = {"model": "kimi-k2-thinking", "stream": True, "stream_options": {"include_usage": True}}
    lines = b"".join(server.render(body | asked)).decode().splitlines()
    data = [line.removeprefix("data: ") for line in lines if line and line[0] != ":"]
    chunks = [json.loads(event) for event in data if event != "[DONE]"]
    for chunk in chunks:  # what servers may say beside
        for choice in chunk["choices"]:
            about = choice.get("delta") or choice.get("message") or {}
            about |= {"refusal": "no", "annotations": [{"url": "http://x"}], "name": "kimi"}
            choice["logprobs"] = {"content": [{"token": "a", "bytes": None}]}
    return chunks


def blocks_of(**asked: Any) -> list[Any]:
    """The events with which a server of Anthropic's API does the same."""
    server = ScriptedServer("anthropic")
    calls = [{"name": "save", "arguments": {"text": text}} for text in ("one", "two")]
    server.reply("I save it.", reasoning="So. Well.", tool_calls=calls, redacted="ZW5j")
    told = b"".join(server.render({"model": "kimi-k3", **asked})).decode()
    data = [line.removeprefix("data: ") for line in told.splitlines() if not line.startswith("ev")]
    return [json.loads(event) for event in data if event and "ping" not in event]


SAVED: list[str] = []


def save(text: str = "", **more: str) -> str:
    """Save a text."""
    SAVED.append(f"{text} {more}")
    print("Saved", text)
    return f"Saved {text}"


class Den:
    """A turn with a server that echoes, and every way out of it."""

    def __init__(self, stage: Stage, logged: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        self.left: list[Answer] = []
        self.url = ""
        self.wire: Api = "chat"
        self._stage, self._logged, self._capsys = stage, logged, capsys

    def answer(self, asked: Asked) -> Answer:
        done = DONE if self.wire == "chat" else DONE_IN_BLOCKS
        answer = self.left.pop(0) if self.left else Answer(200, done, EVENTS)
        return replace(answer, headers={"X-Echo": SECRET, **answer.headers})

    def ways_out(self) -> Iterator[tuple[str, object]]:
        """Take a turn and show it in every view; yield what can be shared of it."""
        SAVED.clear()
        self._stage.outputs.clear()
        self._stage.messages.clear()
        self._stage.open()
        endpoint = kimi.Endpoint("den", self.url, "DEN_KEY", "kimi-k2-thinking", wire=self.wire)
        events: list[Event] = []
        reply, error = None, None
        try:
            options: dict[str, Any] = {"tools": [save], "endpoint": endpoint, "max_steps": 2}
            events.extend(kimi.stream("Save it.", **options))
        except kimi.KimiError as failure:
            error = failure
        reply = kimi.last
        assert reply is not None
        yield "events", events
        self._stage.play(*events)
        self._stage.view.close()
        yield "messages of the live view", self._stage.messages
        yield "bundles and metadata", self._stage.outputs
        for view in (PlainView(ViewOptions()), TerminalView(ViewOptions(usage=True))):
            for event in events:
                view.handle(Envelope(0.0, event))
            view.close()
        yield "prints", "".join(self._capsys.readouterr())
        yield "saved by the tool", SAVED
        yield "repr", repr(reply)
        yield "record", json.dumps(reply.record.to_dict(), ensure_ascii=False)
        yield "record, escaped", json.dumps(reply.to_dict())
        yield "pickle", pickle.dumps(reply).decode("latin-1")
        yield "values", (reply.steps, reply.messages, reply.usage, reply.model, reply.finish_reason)
        for form in FORMS:
            with contextlib.suppress(kimi.KimiError):
                yield f"snippet {form}", kimi.snippet(reply, form)
        if error is not None:
            yield "error", (str(error), repr(error), error.args, error._render_traceback_())
            yield "attributes", {k: v for k, v in vars(error).items() if k != "reply"}
            yield "pickled error", pickle.dumps(error).decode("latin-1")
        yield "log", "\n".join(self._logged)
        self._logged.clear()

    def check(self, where: object) -> None:
        for way, told in self.ways_out():
            if found := leaks(told):
                raise AssertionError(f"{where}: the key is in the {way}: …{found}…")


DONE = b'data: {"choices":[{"delta":{"content":"OK."},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'

DONE_IN_BLOCKS = (
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"OK."}}\n\n'
    b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
    b'data: {"type":"message_stop"}\n\n'
)


@pytest.fixture
def den(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Den]:
    monkeypatch.setenv("DEN_KEY", SECRET)
    session.settings.retries = 0
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    made = Den(Stage(monkeypatch), logged, capsys)
    with answering(made.answer) as (url, _):
        made.url = url
        yield made
    root.removeHandler(handler)
    root.setLevel(level)
    detached.forget_all()


def as_stream(events: list[str]) -> Answer:
    body = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])
    return Answer(200, body.encode(), EVENTS)


@by_way
def test_a_key_in_any_field_of_a_stream(den: Den, form: Form) -> None:
    """Input: the key as each text and name of a chunk. Holds: it is in nothing that is shared."""
    chunks = answer_of("moonshot")
    for place in each_place(chunks):
        den.left = [as_stream(echo(chunks, place, form))]
        den.check(place)


@by_way
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_key_in_all_fields_at_once(den: Den, dialect: str, form: Form) -> None:
    """Input: the key everywhere, in each dialect. Holds: it is in nothing that is shared."""
    chunks = answer_of(dialect)
    den.left = [as_stream(echo(chunks, all_places(chunks), form))]
    den.check(dialect)
    (document,) = answer_of(dialect, stream=False)
    (whole, *_) = echo([document], all_places([document]), form)
    den.left = [Answer(200, whole.encode())]
    den.check((dialect, "in one piece"))


@pytest.mark.parametrize("name", ["escaped and split"])
def test_a_key_in_any_block(den: Den, name: str) -> None:
    """Input: the key in each text of the Messages API, signatures too. Holds: it is not shared."""
    den.wire, form = "messages", WAYS[name]
    chunks = blocks_of(stream=True)
    alone = [{path} for path in all_places(chunks) if path[-1] in ("signature", "data")]
    texts = ("thinking", "text", "partial_json", "id", "name", "model", "")
    both = {path for path in all_places(chunks) if path[-1] in texts}
    for place in [*alone, both, both.union(*alone)]:
        den.left = [as_stream(echo(chunks, place, form))]
        den.check(place)
    (document,) = blocks_of()
    (whole, *_) = echo([document], all_places([document]), form)
    den.left = [Answer(200, whole.encode())]
    den.check("in one piece")
    error = {"type": "error", "error": {"type": "api_error", "message": SECRET}, "request_id": "x"}
    for event in echo([error], all_places([error]), form):
        headers = {"request-id": form.value}
        den.left = [as_stream([event]), Answer(529, event.encode(), headers=headers)]
        den.check("an error in the stream")
        den.check("an error")


@in_one_piece
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_key_in_errors(den: Den, dialect: str, form: Form) -> None:
    """Input: the key in errors, of any status and inside a stream. Holds: no error tells it."""
    headers = {"msh-request-id": form.value, "x-request-id": form.value, "retry-after": SECRET}
    for status in (400, 401, 500):
        error = error_body(dialect, status, "It is no good.", None)
        inside = error.get("error", error)
        about = {"code": "bad_key", "param": "key", "metadata": {"raw": "no"}}
        inside |= about | {name: inside[name] for name in about if name in inside}
        for place in (
            (*each_place([error]), all_places([error])) if status == 400 else [set(leaves(error))]
        ):
            (document,) = echo([error], place, form)
            den.left = [Answer(status, document.encode(), headers=headers)]
            den.check((status, place))
        for event in (document, f"\n\nevent: error\ndata: {document}"):
            den.left = [as_stream([event])]
            den.check((status, "in the stream"))


@by_way
def test_a_key_that_no_json_holds(den: Den, form: Form) -> None:
    """Input: the key in pages and broken bodies. Holds: no error tells it."""
    bodies = [form.value, f"<html><title>{form.value}</title>", f"data: {{{form.value}\n\n"]
    for body in [*bodies, f"event: error\ndata: {form.value}\n\n"]:
        for status in (200, 502):
            den.left = [Answer(status, body.encode(), "text/html")]
            den.check((status, body[:20]))


def test_arguments_stay_json_and_the_tool_gets_what_is_recorded(den: Den) -> None:
    """Input: the key in arguments. Holds: they stay JSON; the call that runs is that recorded."""
    chunks = answer_of("moonshot")
    place = next(place for place in each_place(chunks) if "arguments" in str(place))
    for form in WAYS.values():
        den.left = [as_stream(echo(chunks, place, form))]
        den.check(place)
        reply = kimi.last
        assert reply is not None
        arguments = [json.loads(call.arguments) for call in reply.tool_calls]
        assert [f"{given.pop('text')} {given}" for given in arguments] == SAVED
        assert len(SAVED) == 2
        assert all(said.startswith("[key] ") for said in SAVED)


def test_models_that_are_named_by_the_key(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: a list of models with the key. Holds: neither the list nor an error tells it."""
    monkeypatch.setenv("DEN_KEY", SECRET)
    listing = json.dumps({"data": [{"id": f"k2-{SECRET}"}, {"id": "kimi-k2"}]}).encode()

    def answer(asked: Asked) -> Answer:
        return Answer(200, listing) if asked.method == "GET" else Answer(404, b"{}")

    with answering(answer) as (url, _):
        endpoint = kimi.Endpoint("den", url, "DEN_KEY")
        key = session.find_key(endpoint)
        models = session.connector.models(endpoint, key, session.settings, print)
        assert models == ["k2-[key]", "kimi-k2"]
        with pytest.raises(kimi.NotFound) as raised:
            kimi.ask("Hi", endpoint=endpoint)
    assert not leaks(str(raised.value))


def test_a_list_of_models(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Input: models called like the endpoint's key, another endpoint's, and its own header's value.

    Holds: neither the list nor tab completion, which offers it, has one of them.
    """
    values = {
        "DEN_KEY": SECRET,
        "DEN_HEADER": SECRET[::-1],
        "NVIDIA_API_KEY": "nv/1a2b3c4d5e6f7g8h9i",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    body = json.dumps({"data": [{"id": f"m-{value}"} for value in values.values()]}).encode()
    with answering(lambda _: Answer(200, body)) as (url, _):
        den = kimi.Endpoint("den", url, "DEN_KEY", headers={"X-Den": "${DEN_HEADER}"})
        listed = session.connector.models(den, session.find_key(den), session.settings, print)
    assert len(listed) == 3
    told = " ".join([*listed, *session.connector.known_models()])
    assert not any(value in told for value in values.values())
