"""The operations that a page draws: blocks of HTML, calls, results, times."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.events import (
    ApprovalAnswered,
    ApprovalAsked,
    ContentDelta,
    Envelope,
    Event,
    ReasoningDelta,
    RequestStarted,
    StepFinished,
    ToolCallDelta,
    ToolCallStarted,
    ToolFinished,
    ToolStarted,
)
from kimi_magic.core.messages import Output, Step, ToolCall, ToolResult, Usage
from kimi_magic.display.html.markdown import to_html
from kimi_magic.display.live.page import MAX_OPEN, Page
from kimi_magic.display.record import make_record
from kimi_magic.display.view import ViewOptions
from tests.turns import OPENING, STOP

CALL = ToolCall("functions.forecast:0", "forecast", '{"month": "April"}')
GIVEN = ToolResult("forecast", "430", 430, outputs=(Output({"text/plain": "430"}, {}),), seconds=2)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def played(page: Page, *events: Event, seconds: float = 0.0) -> list[dict[str, Any]]:
    """The operations, each event sent for itself."""
    envelopes = (Envelope(seconds, event) for event in events)
    return [op for envelope in envelopes for op in (*page.apply(envelope), *page.draw())]


def of(ops: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [op for op in ops if op["op"] in kinds]


def test_a_block_is_html_once_when_a_later_one_has_begun() -> None:
    page = Page(ViewOptions())
    ops = played(page, *OPENING, ContentDelta("# *One*\n\ntwo\n"))
    (block,) = of(ops, "block")
    assert block["html"] == to_html("# *One*\n")
    assert block["to"] == len("# *One*\n\n")
    (rest,) = of(played(page, STOP), "block")
    assert page.draw() == []
    assert rest["html"] == to_html("two\n")
    assert rest["to"] == page.timeline.segments[0].length


THOUGHT = "# So\n**a**\nb: $x_1$\n\n```python\nx = 1\n```\n<b>c</b>"


def test_reasoning_is_html_once_when_it_has_ended() -> None:
    page = Page(ViewOptions())
    ops = played(page, *OPENING, *map(ReasoningDelta, THOUGHT))
    assert of(ops, "thought") == []
    assert "".join(op["text"] for op in of(ops, "append")) == THOUGHT, "one text while it grows"
    ops = played(page, ContentDelta("yes"), STOP)
    (thought,) = of(ops, "thought")
    assert page.snapshot()["segments"][0]["thought"] == thought["html"]
    record = make_record(page.timeline)
    assert thought["html"] in record.data["text/html"], "the record has the same"
    assert THOUGHT in record.data["text/plain"]
    for html in ("<p><strong>So</strong></p>", "<br>", "$x_1$", '<pre tabindex="0"', "&lt;b&gt;c"):
        assert html in thought["html"]


def test_reasoning_beside_an_answer_that_is_text_is_text() -> None:
    page = Page(ViewOptions(format="text"))
    ops = played(page, *OPENING, ReasoningDelta(THOUGHT), ContentDelta("yes"), STOP)
    assert of(ops, "thought") == []
    record = make_record(page.timeline, ViewOptions(format="text")).data["text/html"]
    assert "<strong>" not in record


def test_the_open_block_is_drawn_anew_twice_a_second_while_it_is_small() -> None:
    clock = Clock()
    page = Page(ViewOptions(), clock)
    played(page, *OPENING, ContentDelta("some **bold"))
    drawn = []
    for tick in range(1, 41):
        clock.now = tick / 20
        drawn += of(played(page, ContentDelta("!")), "open")
    assert len(drawn) == 4
    played(page, ContentDelta("**\n"))
    clock.now += 1
    assert page.wants_drawing
    assert "<strong>" in page.draw()[0]["html"]
    clock.now += 1
    assert not page.wants_drawing
    assert page.draw() == [], "nothing new, nothing drawn"
    page.apply(Envelope(0.0, ContentDelta("x" * MAX_OPEN)))
    assert not page.wants_drawing
    assert page.draw() == []


def test_plain_text_has_no_blocks() -> None:
    page = Page(ViewOptions(format="text"))
    ops = played(page, *OPENING, ContentDelta("# One\n\ntwo\n"), STOP)
    assert of(ops, "block", "open") == page.draw() == []
    assert of(ops, "segment")[0]["plain"]


def test_a_call_shows_its_arguments_then_what_it_gave_and_how_long_it_took() -> None:
    page = Page(ViewOptions())
    ops = played(
        page,
        *OPENING,
        ToolCallStarted(0, "forecast"),
        ToolCallDelta(0, CALL.arguments),
        ToolStarted(0, CALL),
        ToolFinished(0, GIVEN),
    )
    run, result = of(ops, "run", "result")
    assert run["call"] == 'forecast(month="April")'
    assert "430" in result["html"]
    assert (result["seconds"], result["state"], result["shows"]) == (2, "done", False)


def test_arguments_that_the_person_changed_take_the_place_of_the_models() -> None:
    page = Page(ViewOptions())
    ops = played(
        page,
        *OPENING,
        ToolStarted(0, CALL),
        ApprovalAsked("forecast", CALL.arguments),
        ApprovalAnswered("forecast", agreed=True, arguments='{"month": "May"}'),
    )
    asked, again = of(ops, "ask", "run")[-2:]
    assert asked["op"] == "ask"
    assert again["call"] == 'forecast(month="May")'
    assert again["edited"]
    assert page.timeline.state == "Calling forecast…"


def test_reasoning_says_how_long_and_how_much_it_was() -> None:
    page = Page(ViewOptions(keep_reasoning=True), Clock())
    ops = played(page, *OPENING, ReasoningDelta("hm"))
    assert of(ops, "segment")[0]["keep"]
    done = of(played(page, ContentDelta("yes"), seconds=12.0), "done")[0]
    assert done["seconds"] == 12
    usage = Usage(90, 50, reasoning_tokens=40)
    ops = played(page, StepFinished(Step(usage=usage)))
    assert of(ops, "tokens") == [{"op": "tokens", "segment": 0, "tokens": 40}]
    assert of(ops, "usage") == [{"op": "usage", "steps": 1, "in": 90, "out": 50}]


def test_a_count_for_several_stretches_belongs_to_none() -> None:
    page = Page(ViewOptions())
    events = (ReasoningDelta("a"), ContentDelta("b"), ReasoningDelta("c"))
    ops = played(page, *OPENING, *events, StepFinished(Step(usage=Usage(9, 9, 9))))
    assert of(ops, "tokens") == []


HAPPENINGS: list[tuple[Event, ...]] = [
    (ReasoningDelta("r 😀"),),
    (ContentDelta("a *b*\n\n"),),
    (ContentDelta("```\nx\n"),),
    (ToolCallStarted(0, "forecast"), ToolCallDelta(0, CALL.arguments)),
    (ToolStarted(0, CALL),),
    (ToolFinished(0, GIVEN),),
    (StepFinished(Step(usage=Usage(9, 9))), RequestStarted(2)),
]


@given(st.lists(st.sampled_from(HAPPENINGS)))
def test_who_heard_everything_and_who_asks_for_the_whole_see_the_same(
    happenings: list[tuple[Event, ...]],
) -> None:
    page = Page(ViewOptions(), Clock())
    segments: list[dict[str, Any]] = []
    for op in played(page, *OPENING, *(event for events in happenings for event in events)):
        if op["op"] == "segment":
            segments.append({"text": "", "blocks": "", "to": 0, "run": None, "result": None})
            continue
        if "segment" not in op:
            continue
        segment = segments[op["segment"]]
        if op["op"] == "append":
            segment["text"] += op["text"]
        elif op["op"] == "block":
            segment["blocks"] += op["html"]
            segment["to"] = op["to"]
        elif op["op"] in ("run", "result"):
            segment[op["op"]] = op
            segment["run"] = op.get("given", segment["run"])
    whole = page.snapshot()["segments"]
    assert len(whole) == len(segments)
    for mine, theirs in zip(segments, whole, strict=True):
        assert mine["text"] == theirs["text"]
        assert mine["blocks"] == theirs.get("blocks", "")
        assert mine["to"] == theirs.get("to", 0)
        for key in ("run", "result"):
            assert (mine[key] or {}).get("html") == (theirs.get(key) or {}).get("html")
