"""The live view: what goes over the wire, what comes back, and what stays when it ends."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import ipywidgets
import pytest

from kimi_magic.core.errors import TurnInterrupted
from kimi_magic.core.events import (
    ContentDelta,
    Envelope,
    Event,
    ReasoningDelta,
    ToolStarted,
    TurnFinished,
)
from kimi_magic.core.messages import ToolCall
from kimi_magic.display.live import detached
from kimi_magic.display.live import live_view as live
from kimi_magic.display.live.widget import SCRIPT, TurnWidget, listen_at_once
from kimi_magic.display.record import Bundle, make_record
from kimi_magic.display.timeline import Timeline
from kimi_magic.display.view import Answer, ViewOptions
from tests.turns import OPENING, STOP, make_reply

CALL = ToolCall("functions.order:0", "order", '{"amount": 130}')
PARENT = {"header": {"session": "lab-1"}, "metadata": {"cellId": "cell-7"}}


class Stage:
    """A live view with a clock of ours, its messages, and what it publishes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.is_there = False
        self.outputs: list[tuple[Bundle, str | None, bool]] = []
        self.messages: list[dict[str, Any]] = []
        monkeypatch.setattr(live, "publish", self._publish)
        monkeypatch.setattr(live, "request", lambda: PARENT)
        monkeypatch.setattr(live, "HERE_WITHIN", 0.01)
        monkeypatch.setattr(TurnWidget, "send", self._send)
        self.open()

    def open(self) -> None:
        self.view = live.LiveView(ViewOptions(), clock=lambda: self.now)

    def _publish(
        self, bundle: Bundle, display_id: str | None = None, *, update: bool = False
    ) -> None:
        self.outputs.append((bundle, display_id, update))

    def _send(self, content: dict[str, Any], buffers: object = None) -> None:
        self.messages.append(content)
        if content.get("here") and self.is_there:
            self.hears(here=True)

    def hears(self, **content: Any) -> None:
        """A message of the page."""
        self.view._widget._handle_custom_msg(content, [])

    def play(self, *events: Event, gap: float = 0.0) -> None:
        for event in events:
            self.view.handle(Envelope(self.now, event))
            self.now += gap
            self.view.tick()

    @property
    def sent(self) -> list[list[dict[str, Any]]]:
        return [message["ops"] for message in self.messages]

    @property
    def texts(self) -> list[str]:
        """The segments as the browser rebuilds them; offsets must fit."""
        texts: list[str] = []
        for op in (op for ops in self.sent for op in ops):
            if op["op"] == "reset":
                texts = [segment["text"] for segment in op["segments"]]
            elif op["op"] == "segment":
                texts.append("")
            elif op["op"] == "append":
                assert op["at"] == len(texts[op["segment"]])
                texts[op["segment"]] += op["text"]
            elif op["op"] == "block":  # what of it was not sent comes as HTML only
                texts[op["segment"]] = texts[op["segment"]].ljust(op["to"], "…")
        return texts

    def shown(self, kind: str) -> list[dict[str, Any]]:
        return [op for ops in self.sent for op in ops if op["op"] == kind]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    yield Stage(monkeypatch)
    detached.forget_all()


def test_the_first_message_goes_at_once(stage: Stage) -> None:
    stage.view.handle(Envelope(0.0, OPENING[0]))
    assert [op["op"] for op in stage.sent[0]] == ["head", "state"]


def test_a_thousand_deltas_a_second_are_twenty_messages(stage: Stage) -> None:
    stage.hears(ready="page-1")
    stage.messages.clear()
    stage.play(*OPENING, *(ReasoningDelta(f"{i} ") for i in range(500)), gap=0.001)
    stage.play(*(ContentDelta(f"{i} ") for i in range(500)), gap=0.001)
    stage.play(STOP, gap=0.1)
    assert 19 <= len(stage.sent) <= 22
    numbers = "".join(f"{i} " for i in range(500))
    reasoning, answer = stage.texts
    assert reasoning == numbers
    assert len(answer) == len(numbers)
    assert numbers.strip() in stage.shown("block")[-1]["html"]
    sent = sum(len(op["text"]) for op in stage.shown("append"))
    assert sent <= 2 * len(numbers), "no text is sent twice"
    assert [message["number"] for message in stage.messages] == list(range(len(stage.sent)))


def test_a_pause_shows_the_last_words(stage: Stage) -> None:
    stage.play(*OPENING, ContentDelta("wait for"), ContentDelta(" it"))
    assert stage.texts == []
    stage.now += 0.05
    stage.view.tick()
    assert stage.texts == ["wait for it"]


def play_paragraphs(stage: Stage) -> None:
    stage.play(*OPENING)
    stage.play(*(ContentDelta(f"paragraph {i}\n\n") for i in range(20)), ContentDelta("the rest"))
    stage.now += 0.05
    stage.view.tick()


def test_who_reads_the_text_alone_misses_nothing(stage: Stage) -> None:
    play_paragraphs(stage)
    said = "".join(f"paragraph {i}\n\n" for i in range(20)) + "the rest"
    assert "".join(op["text"] for op in stage.shown("append")) == said


def test_text_that_is_html_before_it_was_sent_is_not_sent(stage: Stage) -> None:
    stage.hears(ready="page-1")
    play_paragraphs(stage)
    (block,) = stage.shown("block")
    assert block["html"].count("<p>") == 19
    assert [op["text"] for op in stage.shown("append")] == ["paragraph 19\n\nthe rest"]
    stage.hears(copy=True)
    assert stage.messages[-1]["copied"].startswith("paragraph 0\n\nparagraph 1")


def test_a_gap_is_mended_by_the_whole(stage: Stage) -> None:
    stage.play(*OPENING, ContentDelta("lost "), gap=0.1)
    stage.messages.clear()
    stage.hears(resync=True)
    assert stage.sent == [], "the request comes in another thread and only sets a flag"
    stage.play(ContentDelta("and found"), gap=0.1)
    append, reset = stage.sent[0]
    assert append["op"] == "append", "who has missed nothing goes on with what is new"
    assert reset["segments"][0]["text"] == "lost and found"


def test_a_page_that_cannot_ask_is_sent_the_whole_now_and_then(stage: Stage) -> None:
    stage.play(*OPENING, *(ContentDelta("word ") for _ in range(300)), gap=0.05)
    assert len(stage.shown("reset")) == 3


def test_a_page_that_is_heard_gets_its_buttons_at_once_and_nothing_twice(stage: Stage) -> None:
    stage.hears(ready="page-1")
    assert stage.sent == [[{"op": "clicks", "cell": "cell-7"}]]
    stage.play(*OPENING, *(ContentDelta("word ") for _ in range(300)), gap=0.05)
    assert stage.shown("reset") == []


@pytest.mark.parametrize(
    "ending", [STOP, TurnFinished(make_reply("x", error=TurnInterrupted("Stopped."))), None]
)
def test_the_record_takes_the_place_of_the_widget(
    stage: Stage, ending: TurnFinished | None
) -> None:
    events = (*OPENING, ReasoningDelta("hm"), ContentDelta("yes"), *([ending] if ending else []))
    stage.play(*events)
    widget = stage.view._widget
    stage.view.close()
    (mounted, shown_as, first), (record, frozen_as, update) = stage.outputs
    assert "application/vnd.jupyter.widget-view+json" in mounted.data
    assert "view" in mounted.data["text/plain"], "without widgets it says how to see more"
    assert shown_as is not None
    assert (first, update, frozen_as) == (False, True, shown_as)
    assert widget.comm is None
    assert widget.layout.comm is None
    timeline = Timeline()
    for event in events:
        timeline.apply(event)
    timeline.end()
    assert record == make_record(timeline)


def test_what_the_reader_opened_is_open_in_the_record(stage: Stage) -> None:
    stage.play(*OPENING, ReasoningDelta("hm"), ContentDelta("yes"), STOP)
    stage.hears(open=[0, True])
    stage.hears(open=[9, True])  # of a page that knows more than there is
    stage.view.close()
    assert "<details open" in stage.outputs[-1][0].data["text/html"]


def test_an_interrupt_while_freezing_still_freezes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.play(*OPENING, ContentDelta("yes"), STOP)
    calls = []

    def interrupted(*args: Any) -> Bundle:
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return make_record(*args)

    monkeypatch.setattr(live, "make_record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.view.close()
    assert "yes" in stage.outputs[-1][0].data["text/plain"]
    assert stage.view._widget.comm is None


def test_stop_interrupts_the_turn_and_nothing_after_it(stage: Stage) -> None:
    stage.hears(ready="page-1")
    stage.play(*OPENING)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it comes while the thread waits
        clicked = threading.Timer(0.05, stage.hears, kwargs={"stop": True})
        clicked.start()
        threading.Event().wait(10)
    stage.is_there = True
    stage.view.close()
    stage.hears(stop=True)
    threading.Event().wait(0.05)


def ask(stage: Stage, *answers: dict[str, Any]) -> Answer | None:
    """What a person says with the buttons, one answer after the other."""
    stage.play(*OPENING, ToolStarted(0, CALL), gap=0.1)
    for answer in answers:
        stage.hears(answer=answer)
    return stage.view.ask_person(
        {"amount": 130}, lambda new: "" if new["amount"] > 0 else "Too few"
    )


def test_a_click_answers_when_a_page_was_heard(stage: Stage) -> None:
    stage.hears(ready="page-1")
    assert ask(stage, {"number": 1, "say": "chat", "fields": ["130"]}) == "chat"


def test_a_click_twice_answers_one_question(stage: Stage) -> None:
    stage.hears(ready="page-1")
    no = {"number": 2, "say": "no", "fields": ["130"]}
    assert ask(stage, {"number": 1, "say": "once", "fields": ["130"]}) == "once"
    assert ask(stage, {"number": 1, "say": "once", "fields": ["130"]}, no) == "no"


def test_arguments_are_asked_for_until_they_fit(stage: Stage) -> None:
    def clock() -> float:
        stage.now += 0.1
        return stage.now

    stage.view._throttle._clock = clock
    stage.hears(ready="page-1")
    answers = [{"number": 1, "say": "once", "fields": [text]} for text in ("lots", "-1", "50")]
    assert ask(stage, *answers) == {"amount": 50}
    first, no_json, too_few = stage.shown("form")
    assert "wrong" not in first
    assert "no JSON" in no_json["wrong"]
    assert too_few["wrong"] == "Too few"


def test_without_a_page_that_is_heard_the_view_does_not_ask(stage: Stage) -> None:
    stage.now = live.READY_WITHIN + 1
    assert ask(stage) is None


def test_a_page_that_was_closed_says_no(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "GONE_AFTER", 0.1)
    stage.hears(ready="page-1")
    stage.hears(ready="page-2")
    stage.hears(leaving="page-1")
    assert ask(stage, {"number": 1, "say": "once", "fields": ["130"]}) == "once"
    stage.hears(leaving="page-2")
    assert ask(stage) == "no"
    assert "closed" in stage.view._page.timeline.segments[-1].text


def test_the_record_waits_for_a_page_that_went(stage: Stage) -> None:
    stage.hears(ready="page-1")
    stage.play(*OPENING, ContentDelta("yes"), STOP)
    stage.view.close()
    widget = stage.view._widget
    assert widget.comm is not None
    stage.hears(ready="page-2")
    given = stage.messages[-1]["record"]
    assert given["cell"] == "cell-7"
    assert given["mount"] == widget.model_id
    assert given["age"] == stage.now, "an older page had it as it happened"
    assert "yes" in given["data"]["text/html"]
    stage.hears(placed=True)
    assert widget.comm is None
    assert widget.layout.comm is None


def test_a_page_that_is_there_takes_the_record(stage: Stage) -> None:
    stage.hears(ready="page-1")
    stage.is_there = True
    stage.play(*OPENING, ContentDelta("yes"), STOP)
    stage.view.close()
    assert stage.messages[-1]["here"]
    assert stage.view._widget.comm is None


def test_a_page_that_comes_after_a_fast_turn_is_there(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    detached.note_heard(PARENT)
    monkeypatch.setattr(live, "HERE_WITHIN", 10)
    stage.play(*OPENING, ContentDelta("yes"), STOP)
    threading.Timer(0.05, stage.hears, kwargs={"ready": "page-1"}).start()
    stage.view.close()
    assert stage.view._widget.comm is None


@pytest.mark.parametrize("heard", [True, False], ids=["seen", "unseen"])
def test_after_500_turns_next_to_nothing_is_left(stage: Stage, heard: bool) -> None:
    stage.view.close()
    before = len(ipywidgets.widgets.widget._instances)
    stage.is_there = heard
    for _ in range(500):
        stage.open()
        stage.play(*OPENING, ContentDelta("yes"), STOP)
        if heard:
            stage.hears(ready="page-1")
        stage.view.close()
    assert len(ipywidgets.widgets.widget._instances) <= before
    assert len(detached._widgets) <= detached.MAX_WIDGETS


def test_the_script_travels_with_the_widget(stage: Stage) -> None:
    state = stage.view._widget.get_state()
    assert "initialize" in state["_esm"]
    assert len(state["_esm"]) < 2000
    assert len(state["script"]) < 18_000
    unpacked = json.loads(zlib.decompress(state["script"]))
    assert ".kimi-turn" in unpacked["style"]
    for script in (state["_esm"], unpacked["script"]):
        for sink in ("innerHTML", "insertAdjacentHTML", "outerHTML", "document.write", "import "):
            assert sink not in script


def test_a_page_that_has_the_script_is_not_sent_it_again(stage: Stage) -> None:
    assert stage.view._widget.script == SCRIPT
    stage.hears(ready="page-1")
    stage.is_there = True
    stage.view.close()
    stage.open()
    assert stage.view._widget.script == b""
    stage.hears(script=True)
    assert stage.view._widget.script == SCRIPT, "another window asks for it"


def test_a_page_that_was_not_heard_is_sent_the_script_each_time(stage: Stage) -> None:
    stage.view.close()
    stage.open()
    assert stage.view._widget.script == SCRIPT


def test_html_is_drawn_once_a_page_listens_or_will_not_tell(stage: Stage) -> None:
    stage.play(*OPENING, ContentDelta("one\n\ntwo\n\n"), gap=0.1)
    assert stage.shown("block") == []
    stage.now = live.READY_WITHIN + 0.1
    stage.view.tick()
    assert "<p>one</p>" in stage.shown("block")[0]["html"]


def test_durations_come_from_the_envelopes(stage: Stage) -> None:
    for seconds, event in enumerate((*OPENING, ReasoningDelta("hm"), ContentDelta("yes"))):
        stage.view.handle(Envelope(3.0 * seconds, event))
    stage.now += 0.1
    stage.view.tick()
    assert stage.shown("done")[0]["seconds"] == 3.0


def test_messages_of_the_browser_come_in_while_the_cell_runs() -> None:
    class Comm:
        def _reply_subshell_for(self, data: object, default: str | None) -> str | None:
            return None

    comm = Comm()
    listen_at_once(comm)
    assert comm._reply_subshell_for({}, "subshell-1") == "subshell-1"
    other = object()
    listen_at_once(other)  # an older kernel has nothing to mend


def test_a_page_that_comes_late_gets_the_record_when_the_turn_ends(stage: Stage) -> None:
    stage.hears(ready="page-1", late=True)
    stage.is_there = True
    stage.play(*OPENING, ContentDelta("yes"), STOP)
    stage.view.close()
    given = stage.messages[-1]
    assert given["late"], "pages that were there have it as an update of their output"
    assert given["record"]["mount"]
    assert stage.view._widget.comm is None
    assert detached.has_late(PARENT), "the next turn of the cell is announced to it"


def test_the_record_waits_for_one_of_two_pages(stage: Stage) -> None:
    detached.note_heard(PARENT)
    for page in ("page-1", "page-2"):
        stage.hears(ready=page)
    stage.hears(leaving="page-2")
    stage.is_there = True
    stage.play(*OPENING, ContentDelta("yes"), STOP)
    stage.view.close()
    assert stage.view._widget.comm is not None
