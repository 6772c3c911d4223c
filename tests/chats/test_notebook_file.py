"""Chats in notebook files: saved, loaded, and what is no such file."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat as nbformat_typed
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kimi_magic as kimi
from kimi_magic import session as session_module
from kimi_magic.chats.chat import NOWHERE, Chat, ChatTurn, Place
from kimi_magic.chats.notebook_file import read_turns
from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import Message, ReasoningPart, Step, ToolCall, ToolResult, Usage
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import VERSION, EndpointFacts, Failure, TurnRecord
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.testing.checks import check_messages

nbformat: Any = nbformat_typed  # half typed
TEXTS = st.text(max_size=30)
WORDS = TEXTS.filter(str.strip)


def carrying(*turns: Any, cell: Any = "a-cell") -> dict[str, Any]:
    """A notebook whose one cell carries turns."""
    outputs = [
        {
            "output_type": "display_data",
            "data": {"text/plain": "x", "text/html": "<script>pwn()</script>"},
            "metadata": {"kimi_magic": {"turn": turn}},
        }
        for turn in turns
    ]
    code = {
        "cell_type": "code",
        "id": cell,
        "metadata": {},
        "source": "%%kimi\nx",
        "execution_count": 1,
        "outputs": outputs,
    }
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [code]}


def a_turn(prompt: str = "Hi", text: str = "Hello.", **fields: Any) -> dict[str, Any]:
    messages = (Message("user", prompt), Message("assistant", text))
    record = TurnRecord((Step(text),), messages, 1, chat="main", prompt=prompt)
    return replace(record, **fields).to_dict()


def write(path: Path, notebook: Any) -> Path:
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def take_turns(server: ScriptedServer) -> Chat:
    """A chat of three turns: one with a tool, one with options, one that was cut."""

    def forecast(month: str) -> str:
        """Forecast."""
        return f"rain in {month}"

    asked = [{"name": "forecast", "arguments": {"month": "May"}}]
    server.reply("", reasoning="I look.", tool_calls=asked)
    server.reply("It rains.", reasoning="So it is.")
    server.reply("Oui.")
    server.reply("One, two,", finish_reason="length")
    chat = kimi.chat("main")
    chat.ask("And {{ May }}?", tools=[forecast], show=False)
    chat.ask("Yes?", system='Speak "French".', temperature=0.25, stop=["END"], show=False)
    chat.ask(">>> 1\nCount.", max_tokens=77, show=False)
    return chat


def said(turn: ChatTurn) -> tuple[Any, ...]:
    """All that a reader knows of a turn."""
    reply, record = turn.reply, turn.reply.record
    return (
        turn.prompt,
        reply.text,
        reply.reasoning,
        [(call.name, call.arguments) for call in reply.tool_calls],
        [(result.content, result.error) for result in reply.tool_results],
        reply.finish_reason,
        reply.model,
        str(reply.error),
        record.fresh,
        [(m.role, m.content, m.reasoning_text) for m in record.exchange],
    )


def test_a_chat_goes_to_a_notebook_and_comes_back(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = take_turns(server)
    path = kimi.save(tmp_path / "chat.ipynb")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells] == [
        "%load_ext kimi_magic\nimport kimi_magic as kimi",
        "%%kimi -m kimi-k2-thinking -T forecast --raw\nAnd {{ May }}?",
        "%%kimi -m kimi-k2-thinking -s 'Speak \"French\".' --temperature 0.25 --stop END\nYes?",
        "kimi.chat('main').ask(\n    '>>> 1\\nCount.',\n"
        "    model='kimi-k2-thinking',\n    max_tokens=77,\n)",
    ]
    assert "It rains." in notebook.cells[1].outputs[0].data["text/html"]
    before = [said(turn) for turn in chat.turns]
    sent = chat.history()
    monkeypatch.setattr(session_module, "_current", Session())
    (again,) = kimi.load(path)
    assert [said(turn) for turn in again.turns] == before
    assert again.history() == sent
    assert again.messages == chat.messages
    assert [turn.place for turn in again.turns] == [
        Place(cell.id, "") for cell in notebook.cells[1:]
    ]
    options = [turn.request for turn in again.turns]
    assert [o.temperature for o in options] == [None, 0.25, None]  # type: ignore[union-attr]
    assert [o.max_tokens for o in options] == [None, None, 77]  # type: ignore[union-attr]
    second = kimi.save(tmp_path / "second.ipynb")
    sources = [cell.source for cell in nbformat.read(second, as_version=4).cells]
    assert sources == [cell.source for cell in notebook.cells]
    # It goes on: what was cut is continued, and a cell that is run again goes back.
    server.reply("three.")
    here = session_module.current()
    assert here.ask(here.to_continue("main"), show=False).text == "three."
    assert server.requests[-1].body["messages"][1]["content"] == "And {{ May }}?"
    assert "functions.forecast:0" in kimi.snippet(again.turns[1].reply, chat=True)
    place = Place(notebook.cells[2].id, "a run of this kernel")
    assert [turn.prompt for turn in again.before(place)] == ["And {{ May }}?"]


def test_the_same_chat_gives_the_same_file(server: ScriptedServer, tmp_path: Path) -> None:
    take_turns(server)
    first, second = (kimi.save(tmp_path / name) for name in ("1.ipynb", "2.ipynb"))
    assert first.read_bytes() == second.read_bytes()


@st.composite
def turns(draw: st.DrawFn) -> TurnRecord:
    """A turn as the loop makes them, of any texts."""
    messages = [Message("user", draw(WORDS))]
    steps = []
    names = st.sampled_from(["forecast", "run_python", "größe"])
    for number in range(draw(st.integers(0, 2))):
        call = ToolCall(f"call_{number}", draw(names), json.dumps({"x": draw(TEXTS)}))
        result = ToolResult(call.name, draw(TEXTS), error=draw(st.none() | TEXTS), call_id=call.id)
        parts = (ReasoningPart(draw(TEXTS)),)
        steps.append(Step(draw(TEXTS), parts, (call,), (result,), Usage(draw(st.integers(0, 99)))))
        messages += [
            Message("assistant", steps[-1].text or None, parts, tool_calls=(call,)),
            Message("tool", result.content, tool_call_id=call.id, name=call.name),
        ]
    text = draw(WORDS)
    last = draw(st.none() | TEXTS)
    own = None if last is None else (ReasoningPart(last),)
    steps.append(Step(text, own or ()))
    messages.append(Message("assistant", text, own))
    failure = draw(st.none() | st.builds(Failure, st.just("KimiError"), WORDS))
    return TurnRecord(
        tuple(steps),
        tuple(messages),
        1,
        finish_reason=draw(st.sampled_from(["stop", "length"])),
        model="kimi-k2-thinking",
        chat=draw(st.sampled_from(["main", "my review", "a\"b'c"])),
        parameters={"model": "kimi-k2-thinking", "stream": draw(st.booleans())},
        endpoint=EndpointFacts("moonshot", "https://api.moonshot.ai/v1"),
        failure=failure,
        prompt=messages[0].text,
        fresh=draw(st.booleans()),
    )


@given(st.lists(turns(), min_size=1, max_size=4))
def test_any_chat_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, records: list[TurnRecord]
) -> None:
    folder = tmp_path_factory.mktemp("chats")
    records = [replace(record, chat="main") for record in records]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "_current", Session())
        chat = kimi.chat("main")
        for record in records:
            chat.append(ChatTurn(record.prompt, Reply.of(record), NOWHERE), fresh=record.fresh)
        path = kimi.save(folder / "chat.ipynb", chat)
        nbformat.validate(nbformat.read(path, as_version=4))
        before = [said(turn) for turn in chat.turns]
        patch.setattr(session_module, "_current", Session())
        (again,) = kimi.load(path)
        assert [said(turn) for turn in again.turns] == before
        assert [turn.reply.usage for turn in again.turns] == [
            sum((step.usage for step in turn.reply.steps), Usage()) for turn in chat.turns
        ]


def test_several_chats_and_one_offs(session: Session, tmp_path: Path) -> None:
    made = [
        a_turn("1"),
        a_turn("2", chat="review"),
        a_turn("3", chat=None),
        a_turn("4", fresh=True),
        a_turn("5"),
        a_turn("failed", chat="review", messages=(Message("user", "failed"),), steps=()),
    ]
    notebook = carrying(*made[:3])
    notebook["cells"] += carrying(*made[3:], cell="another")["cells"]
    main, review = kimi.load(write(tmp_path / "x.ipynb", notebook))
    assert (main.name, review.name) == ("main", "review")
    assert [turn.prompt for turn in main.turns] == ["4", "5"]
    assert [turn.prompt for turn in main.set_aside] == ["1"]
    assert [turn.prompt for turn in review.turns] == ["2"]
    assert review.unanswered is not None
    assert main.turns[0].place == main.turns[1].place == Place("another", "")
    assert kimi.chat("review") is review


def test_a_chat_that_has_turns_is_left_alone(server: ScriptedServer, tmp_path: Path) -> None:
    path = write(tmp_path / "x.ipynb", carrying(a_turn("1", chat="new"), a_turn("2")))
    server.reply("OK")
    kimi.chat("main").ask("Hi", show=False)
    with pytest.raises(KimiError, match=r"^The chat main has 1 turn here: `%kimi reset main`.*$"):
        kimi.load(path)
    assert [chat.name for chat in session_module.current().chats] == ["main"]
    assert [turn.prompt for turn in kimi.chat("main").turns] == ["Hi"]
    kimi.chat("main").reset()
    held = kimi.chat("main")
    kimi.load(path)
    assert [turn.prompt for turn in held.turns] == ["2"]


def test_a_notebook_without_turns(session: Session, tmp_path: Path) -> None:
    path = write(tmp_path / "x.ipynb", carrying(a_turn(chat=None)))
    with pytest.raises(KimiError, match=r"^x\.ipynb carries no turns of a chat\.$"):
        kimi.load(path)


def test_cells_without_ids(session: Session, tmp_path: Path) -> None:
    notebook = carrying(a_turn("1"), a_turn("2"), cell="not a cell's id: " + "x" * 99)
    (chat,) = kimi.load(write(tmp_path / "x.ipynb", notebook))
    assert [turn.place for turn in chat.turns] == [NOWHERE, NOWHERE]


def test_the_endpoint_is_this_kernels_own(session: Session, tmp_path: Path) -> None:
    """Of a file that somebody else wrote, no address is believed."""
    asked = EndpointFacts("moonshot", "https://evil.example/v1", "AWS_SECRET_ACCESS_KEY")
    parameters = {"model": "m", "stream": True}
    turn = a_turn(endpoint=asked, parameters=parameters)
    other = a_turn(endpoint=replace(asked, name="evil"), parameters=parameters)
    (chat,) = kimi.load(write(tmp_path / "x.ipynb", carrying(turn, other)))
    known, unknown = (turn.reply.record.endpoint for turn in chat.turns)
    assert known is not None
    assert (known.base_url, known.key_env) == ("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY")
    assert unknown == EndpointFacts("evil")
    for turn_of in chat.turns:
        assert turn_of.request.endpoint is None  # type: ignore[union-attr]
        assert "evil.example" not in kimi.snippet(turn_of.reply)


class TestFaults:
    """A file that is no notebook, or a turn that is none, gives one line and changes nothing."""

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "not JSON"),
            (b'{"nbformat": 4, "cells": [', "not whole"),
            (b"\xff\xfe\x00", "not JSON"),
            (b"[1]", "is no notebook"),
            (b"null", "is no notebook"),
            (b'{"nbformat": true}', "is no notebook"),
            (b'{"nbformat": 3, "worksheets": []}', "version 3; kimi-magic reads version 4"),
            (b'{"nbformat": 5, "cells": []}', "version 5"),
            (b'{"nbformat": 4, "cells": {}}', "has no cells"),
            (b'{"nbformat": 4, "cells": [5]}', "has no cells"),
            (b'{"nbformat": 4, "cells": []}', "carries no turns"),
            (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "nested too deeply"),
            (b'{"nbformat": ' + b"9" * 5000 + b"}", "not JSON"),
            (b"[" * 2_000_001, "more than 2,000,000 lists"),
        ],
        ids=lambda value: None if isinstance(value, str) else repr(value[:30]),
    )
    def test_a_file(self, session: Session, tmp_path: Path, data: bytes, words: str) -> None:
        path = tmp_path / "x.ipynb"
        path.write_bytes(data)
        self.refused(path, words)

    def test_a_file_of_500_megabytes(self, session: Session, tmp_path: Path) -> None:
        path = tmp_path / "x.ipynb"
        with path.open("wb") as file:
            file.truncate(500_000_000)
        self.refused(path, "larger than 200 MB")

    def test_no_file(self, session: Session, tmp_path: Path) -> None:
        self.refused(tmp_path / "none.ipynb", "No such file")
        self.refused(tmp_path, "cannot be read")
        os.mkfifo(tmp_path / "pipe")
        held = threading.Thread(target=lambda: (tmp_path / "pipe").open("wb").close())
        held.start()
        self.refused(tmp_path / "pipe", "is not a file")
        held.join(30)

    @pytest.mark.parametrize(
        ("turn", "words"),
        [
            (5, "no record of a turn: it is no object"),
            ({}, "no version"),
            (a_turn() | {"version": VERSION + 1}, rf"newer kimi-magic.*version {VERSION + 1};"),
            (a_turn() | {"steps": [{"text": 5}]}, r"steps\.0\.text does not fit"),
            (a_turn() | {"sent": 10**30}, "sent does not fit"),
            (a_turn() | {"sent": -1}, "sent does not fit"),
            (a_turn() | {"sent": 2}, "in no order"),
            (a_turn() | {"chat": "x" * 1000}, "name of its chat"),
            (a_turn() | {"messages": [{"role": "user"}, {"role": "tool"}]}, "in no order"),
            (a_turn() | {"messages": [{"role": "user"}, {"role": "system"}]}, "in no order"),
            (a_turn() | {"messages": [{"role": "user"}, {"step": 99}]}, "messages does not fit"),
            (a_turn() | {"endpoint": {"name": "x", "headers": {"a\nb\n" * 99: 5}}}, "a b a b"),
            (a_turn() | {"version": 10**400}, r"newer kimi-magic"),
            (a_turn(text="x" * 10**6) | {"messages": [{"step": 0}] * 99}, "does not fit|too long"),
        ],
        ids=range(14),
    )
    def test_a_turn(self, session: Session, tmp_path: Path, turn: Any, words: str) -> None:
        path = write(tmp_path / "x.ipynb", carrying(a_turn(), turn))
        self.refused(path, words)

    def refused(self, path: Path, words: str) -> None:
        with pytest.raises(KimiError, match=f"(?s){words}") as caught:
            kimi.load(path)
        assert len(str(caught.value).splitlines()) <= 2
        assert list(session_module.current().chats) == []


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**25)
    | st.floats()
    | st.sampled_from(["", "x", "user", "tool", "step", "main", "code"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    items: Any = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for name, inner in items:
        yield from places(inner, (*path, name))


def a_whole_notebook() -> dict[str, Any]:
    call = ToolCall("c", "f", "{}")
    steps = (Step("", (ReasoningPart("why"),), (call,), (ToolResult("f", "r", call_id="c"),)),)
    messages = (
        Message("system", "s"),
        Message("user", "p"),
        Message("assistant", None, (ReasoningPart("why"),), tool_calls=(call,)),
        Message("tool", "r", tool_call_id="c", name="f"),
        Message("assistant", "t"),
    )
    facts = EndpointFacts("moonshot")
    options = {"temperature": 0.5, "stop": ["x"], "stream": True, "model": "m", "tools": []}
    whole = a_turn(
        steps=(*steps, Step("t")),
        messages=messages,
        sent=2,
        endpoint=facts,
        failure=Failure("KimiError", "no"),
        parameters=options,
        data={"a": 1},
        fresh=True,
    )
    return carrying(a_turn(), whole)


WHOLE = a_whole_notebook()


@given(st.lists(st.tuples(st.sampled_from(list(places(WHOLE))), JSON), max_size=3))
def test_a_notebook_that_was_changed_at_any_place(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    notebook = json.loads(json.dumps(WHOLE))
    for path, value in changes:
        if not path:
            notebook = value
            continue
        try:
            place = notebook
            for name in path[:-1]:
                place = place[name]
            place[path[-1]] = value
        except (TypeError, LookupError):
            continue
    file = write(tmp_path_factory.getbasetemp() / "changed.ipynb", notebook)
    with pytest.MonkeyPatch.context() as patch:
        own = Session()
        patch.setattr(session_module, "_current", own)
        chats, refused = [], ""
        try:
            chats = kimi.load(file)
        except KimiError as error:
            refused = str(error)
        assert len(refused.splitlines()) <= 2
        assert list(own.chats) == chats
        for chat in chats:
            chat.history()
            repr((chat, chat.usage, chat.messages))
        if kimi.chat("main").turns:
            kimi.save(file.with_name("again.ipynb"), force=True)


class TestSave:
    def test_nothing_is_replaced_unless_it_is_asked_for(
        self, session: Session, tmp_path: Path
    ) -> None:
        chat = kimi.load(write(tmp_path / "in.ipynb", carrying(a_turn())))[0]
        path = tmp_path / "out.ipynb"
        path.write_text("mine")
        path.chmod(0o640)
        with pytest.raises(KimiError, match=r"out\.ipynb exists already; --force"):
            kimi.save(path)
        assert path.read_text() == "mine"
        link = tmp_path / "link.ipynb"
        link.symlink_to(path)
        assert kimi.save(link, chat, force=True) == link
        assert link.is_symlink()
        assert read_turns(path)[0].prompt == "Hi"
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert {p.name for p in tmp_path.iterdir()} == {"in.ipynb", "out.ipynb", "link.ipynb"}

    @pytest.mark.parametrize("force", [False, True])
    def test_never_half_a_file(
        self, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
    ) -> None:
        kimi.load(write(tmp_path / "in.ipynb", carrying(a_turn())))
        path = tmp_path / "out.ipynb"
        if force:
            path.write_text("mine")

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(KimiError, match="the disk is full"):
            kimi.save(path, force=force)
        assert path.exists() == force
        assert not force or path.read_text() == "mine"
        assert not list(tmp_path.glob(".*"))

    def test_where_there_are_no_hard_links(
        self, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        kimi.load(write(tmp_path / "in.ipynb", carrying(a_turn())))
        kimi.save(tmp_path / "out.ipynb")
        with pytest.raises(KimiError, match="exists already"):
            kimi.save(tmp_path / "out.ipynb")
        assert len(read_turns(tmp_path / "out.ipynb")) == 1

    def test_what_is_no_notebook_or_no_chat(self, session: Session, tmp_path: Path) -> None:
        with pytest.raises(KimiError, match=r"ends with \.ipynb"):
            kimi.save(tmp_path / "data.csv", force=True)
        with pytest.raises(KimiError, match="has no turns"):
            kimi.save(tmp_path / "x.ipynb")
        with pytest.raises(KimiError, match="No chat is named 'other'"):
            kimi.save(tmp_path / "x.ipynb", "other")
        kimi.load(write(tmp_path / "in.ipynb", carrying(a_turn())))
        with pytest.raises(KimiError, match="cannot be written: No such file"):
            kimi.save(tmp_path / "no folder" / "x.ipynb")

    def test_no_key_is_saved(
        self, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secret = "-".join(["den", "0123456789abcdefghijklmnop"])
        server.reply(f"It is {secret}.", reasoning=secret)
        kimi.chat("main").ask(f"My key is {secret}", system=f"Not {secret}", show=False)
        assert secret in kimi.save(tmp_path / "x.ipynb").read_text()
        monkeypatch.setenv("NVIDIA_API_KEY", secret)  # from now on it is known to be a key
        path = kimi.save(tmp_path / "x.ipynb", force=True)
        assert secret not in path.read_text()
        assert "[masked]" in path.read_text()


@pytest.mark.parametrize("dialect", ["moonshot", "moonshot-k3"])
def test_calls_of_several_turns_keep_apart(
    dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn counts its calls from 0 in the file; in a chat no two calls have the same id."""

    def add(a: int) -> int:
        """Add."""
        return a + 1

    with ScriptedServer(dialect) as server:
        monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
        chat = kimi.chat("main")
        for number in range(3):
            server.reply(tool_calls=[{"name": "add", "arguments": {"a": number}}] * 2)
            server.reply("Done.")
            chat.ask(f"{number}?", tools=[add], model=server.models[0], show=False)
        path = kimi.save(tmp_path / "chat.ipynb")
        monkeypatch.setattr(session_module, "_current", Session())
        (again,) = kimi.load(path)
        for turn in again.turns:
            ids = [call.id for message in turn.reply.record.messages for call in message.tool_calls]
            answered = [m.tool_call_id for m in turn.reply.record.messages if m.role == "tool"]
            assert len(set(ids)) == len(ids) == len(answered) == 2 + 2 * again.turns.index(turn)
            assert answered == ids
            own = [call.id for step in turn.reply.steps for call in step.tool_calls]
            assert own == ids[-2:]
            assert [result.call_id for result in turn.reply.tool_results] == own
        second = kimi.save(tmp_path / "second.ipynb")
        assert second.read_bytes() == kimi.save(tmp_path / "third.ipynb").read_bytes()
        server.reply("Good.")
        again.ask("And?", show=False)
        assert check_messages(server.requests[-1].body["messages"], dialect=dialect) == []


def test_what_the_settings_chose_is_spelled_out(server: ScriptedServer, tmp_path: Path) -> None:
    settings = session_module.current().settings
    settings.system, settings.temperature = "Be brief.", 0.5
    server.reply("Yes.")
    kimi.chat("main").ask("Is it?", show=False)
    settings.system = settings.temperature = None
    (_, cell) = nbformat.read(kimi.save(tmp_path / "chat.ipynb"), as_version=4).cells
    assert cell.source == '%%kimi -m kimi-k2-thinking -s "Be brief." --temperature 0.5\nIs it?'
