"""The live view: what goes over the wire, and what stays when it ends."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_magic.errors import TurnInterrupted
from kimi_magic.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    RequestStarted,
    TurnFinished,
    TurnStarted,
)
from kimi_magic.messages import Reply
from kimi_magic.view import ViewOptions, live
from kimi_magic.view.record import Bundle, make_record
from kimi_magic.view.timeline import Timeline

OPENING: tuple[Event, ...] = (TurnStarted("kimi-k2-thinking", "moonshot"), RequestStarted(1))
STOP = TurnFinished(Reply("x", finish_reason="stop"))


class Stage:
    """A live view with a clock of ours, its messages, and what it publishes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.outputs: list[tuple[Bundle, str | None, bool]] = []
        self.sent: list[list[dict[str, Any]]] = []
        monkeypatch.setattr(live, "publish", self._publish)
        monkeypatch.setattr(live.TurnWidget, "send", self._send)
        self.view = live.LiveView(ViewOptions(), clock=lambda: self.now)

    def _publish(
        self, bundle: Bundle, display_id: str | None = None, *, update: bool = False
    ) -> None:
        self.outputs.append((bundle, display_id, update))

    def _send(self, content: dict[str, Any], buffers: object = None) -> None:
        self.sent.append(content["ops"])

    def play(self, *events: Event, gap: float = 0.0) -> None:
        for event in events:
            self.view.handle(event)
            self.now += gap
            self.view.tick()

    @property
    def texts(self) -> list[str]:
        """The parts as the browser rebuilds them; offsets must fit."""
        texts: list[str] = []
        for op in (op for ops in self.sent for op in ops):
            if op["op"] == "reset":
                texts = [part["text"] for part in op["parts"]]
            elif op["op"] == "part":
                texts.append("")
            elif op["op"] == "append":
                assert op["at"] == len(texts[op["part"]])
                texts[op["part"]] += op["text"]
        return texts


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_the_first_message_goes_at_once(stage: Stage) -> None:
    stage.view.handle(OPENING[0])
    assert [op["op"] for op in stage.sent[0]] == ["head", "state"]


def test_a_thousand_deltas_a_second_are_twenty_messages(stage: Stage) -> None:
    stage.play(*OPENING, *(ReasoningDelta(f"{i} ") for i in range(500)), gap=0.001)
    stage.play(*(ContentDelta(f"{i} ") for i in range(500)), gap=0.001)
    stage.play(STOP, gap=0.1)
    assert 19 <= len(stage.sent) <= 22
    numbers = "".join(f"{i} " for i in range(500))
    assert stage.texts == [numbers, numbers]
    sent = sum(len(op.get("text", "")) for ops in stage.sent for op in ops)
    assert sent < 2 * len(numbers) + 200, "nothing is sent twice"


def test_a_pause_shows_the_last_words(stage: Stage) -> None:
    stage.play(*OPENING, ContentDelta("wait for"), ContentDelta(" it"))
    assert stage.texts == []
    stage.now += 0.05
    stage.view.tick()
    assert stage.texts == ["wait for it"]


def test_a_gap_is_mended_by_the_whole(stage: Stage) -> None:
    stage.play(*OPENING, ContentDelta("lost "), gap=0.1)
    stage.sent.clear()
    stage.view._widget._handle_custom_msg({"resync": True}, [])
    assert stage.sent == [], "the request comes in another thread and only sets a flag"
    stage.play(ContentDelta("and found"), gap=0.1)
    assert [op["op"] for op in stage.sent[0]] == ["append", "open", "reset"]
    assert stage.texts == ["lost and found"]


@pytest.mark.parametrize(
    "ending", [STOP, TurnFinished(Reply("x", error=TurnInterrupted("Stopped."))), None]
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
    assert shown_as is not None
    assert (first, update, frozen_as) == (False, True, shown_as)
    assert widget.comm is None
    assert widget.layout.comm is None
    timeline = Timeline()
    for event in events:
        timeline.apply(event)
    timeline.end()
    assert record == make_record(timeline)


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


def test_the_script_travels_with_the_widget(stage: Stage) -> None:
    state = stage.view._widget.get_state()
    assert "initialize" in state["_esm"]
    assert len(state["_esm"]) + len(state["_css"]) < 40_000
    for sink in ("innerHTML", "insertAdjacentHTML", "outerHTML", "document.write", "import "):
        assert sink not in state["_esm"]


def test_messages_of_the_browser_come_in_while_the_cell_runs() -> None:
    class Comm:
        def _reply_subshell_for(self, data: object, default: str | None) -> str | None:
            return None

    comm = Comm()
    live._listen_at_once(comm)
    assert comm._reply_subshell_for({}, "subshell-1") == "subshell-1"
    other = object()
    live._listen_at_once(other)  # an older kernel has nothing to mend
