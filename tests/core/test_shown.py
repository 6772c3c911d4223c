"""Short reprs of the values that users meet."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter

from kimi_magic.chats.chat import ChatTurn, Place
from kimi_magic.chats.journal import Forgotten, StoredChat, StoredTurn
from kimi_magic.core import errors
from kimi_magic.core import events as all_events
from kimi_magic.core import messages as all_messages
from kimi_magic.core.likelihoods import TokenLogprob
from kimi_magic.core.messages import (
    ImagePart,
    Message,
    Output,
    ReasoningPart,
    Step,
    TextPart,
    ToolCall,
    ToolResult,
    Usage,
)
from kimi_magic.core.reply import CodeBlock, Reply
from kimi_magic.core.shown import HTML_CHARS, REPR_CHARS, Shown
from kimi_magic.core.turn_record import EndpointFacts, Failure, TurnRecord
from kimi_magic.turn.agreement import Group, Vote
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.models import BUILT_IN, Model

HOSTILE = st.text(max_size=200) | st.sampled_from(
    [
        "<script>alert(1)</script>" * 40,
        '"><img src=x onerror=alert(1)>',
        "\x1b]0;title\x07\x1b[2J\r\n\t\x00\x9b31m",
        "\u202eright to left\u2066",
        "e" + "\u0301" * 60,
        "$\\require{html}\\style{position:fixed}{x}$",
        "\U000e0041hidden",
        "\ud800",
        "A" * 100_000,
        "data:image/png;base64," + "iVBORw0KGgo" * 9000,
        "line\n" * 5000,
    ]
)


class Foreign:
    """Runs code wherever it is shown or compared."""

    def ran(self, *_: Any) -> Any:
        raise AssertionError("foreign code ran")

    __repr__ = __str__ = __eq__ = __len__ = __bool__ = __iter__ = ran
    __hash__ = object.__hash__


@st.composite
def steps(draw: st.DrawFn) -> Step:
    texts = HOSTILE
    calls = tuple(
        ToolCall(draw(texts), draw(texts), draw(texts)) for _ in range(draw(st.integers(0, 9)))
    )
    results = tuple(
        ToolResult(
            call.name,
            draw(texts),
            value=Foreign(),
            error=draw(st.none() | texts),
            stdout=draw(texts),
            outputs=(
                Output({"image/png": "A" * 90_000, "text/html": draw(texts)}, {draw(texts): 1}),
            ),
        )
        for call in calls
    )
    return Step(
        draw(texts),
        (ReasoningPart(draw(texts)),),
        calls,
        results,
        Usage(draw(st.integers(0, 10**30)), 1, seconds=draw(st.floats(0, 1e9))),
        draw(st.none() | texts),
        logprobs=(TokenLogprob(draw(texts), -0.1),),
    )


@st.composite
def values(draw: st.DrawFn) -> Any:
    step, text = draw(steps()), draw(HOSTILE)
    message = Message("user", (TextPart(text), ImagePart("B" * 90_000, instead=text)))
    record = TurnRecord((step,), (message,), 1, step.usage, text, text, text, data=text)
    reply = Reply.of(record)
    image = step.tool_results[0] if step.tool_results else None
    vote = Vote(tuple(Group(text, (n,)) for n in range(30)))
    everything = [
        *(step, message, record, reply, vote, step.usage, ChatTurn(text, reply, Place(text))),
        *(CodeBlock(text, text), StoredTurn(1, text, text, text, 1.0, text), Failure(text, text)),
        *(StoredChat(1, text, 2, 0.5, text), Forgotten(1, 2, 3, 4, is_clean=True)),
        *(Model("m" + "x" * 500, system=text, ids={text: text}), EndpointFacts(text, text)),
        *(all_events.Notice(text), all_events.TurnFinished(reply), all_events.StepFinished(step)),
        *([image, image.outputs[0]] if image else []),
        dataclasses.replace(reply, data=Foreign(), error=errors.KimiError(text)),
    ]
    return draw(st.sampled_from(everything))


def formatted(value: Any) -> Any:
    formatter: Any = DisplayFormatter()
    return formatter.format(value)[0]


@given(values())
def test_a_repr_is_one_short_line(value: Any) -> None:
    shown = repr(value)
    assert len(shown) < REPR_CHARS + 100
    assert shown.isprintable()
    assert shown.startswith(f"{type(value).__name__}(")
    assert shown.endswith(")")
    assert shown == repr(value)
    assert not re.search(r"[A-Za-z0-9+/]{80}", shown) or type(value) is Model


@given(values())
def test_html_is_bounded_and_escaped(value: Any) -> None:
    page = value._repr_html_()
    assert page == value._repr_html_()
    tags = re.findall(r"<[^>]*>", page)
    assert {re.split(r"[ >]", tag)[0].strip("</") for tag in tags} <= set(
        "div table tbody tr th td span".split()
    )
    outside = re.sub(
        r"<[^>]*>", "", page.replace("<span>$</span>", "").replace("<span>\\</span>", "")
    )
    assert "<" not in outside
    assert "$" not in outside
    assert "\\" not in outside
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    assert len(page) < 24 * (HTML_CHARS * 15 + 400)
    page.encode()


@given(steps())
def test_pickles_copies_and_equality_are_those_of_the_fields(step: Step) -> None:
    plain = dataclasses.replace(
        step, tool_results=tuple(dataclasses.replace(r, value=None) for r in step.tool_results)
    )
    for again in (pickle.loads(pickle.dumps(plain)), copy.copy(plain), copy.deepcopy(plain)):
        assert again == plain
        assert hash(again.usage) == hash(plain.usage)
        assert repr(again) == repr(plain)


@pytest.mark.parametrize(
    "kind",
    [
        value
        for module in (all_messages, all_events)
        for name in module.__all__
        if dataclasses.is_dataclass(value := getattr(module, name))
    ],
)
def test_every_public_value_has_them(kind: Any) -> None:
    assert kind.__repr__ is Shown.__repr__
    assert "__dict__" not in dir(kind)


def test_the_steps_of_a_reply_are_readable_in_a_cell() -> None:
    call = ToolCall("a", "plot", '{"month": "April"}')
    picture = Output({"image/png": "A" * 50_000, "text/plain": "<Figure>"}, {})
    result = ToolResult("plot", "A figure.", outputs=(picture,), call_id="a")
    first = Step(
        "", (ReasoningPart("Let me plot."),), (call,), (result,), Usage(10, 5), "tool_calls"
    )
    reply = Reply(TurnRecord((first, Step("Done.", finish_reason="stop"))))
    assert formatted(reply.steps) == {
        "text/plain": (
            "(Step('', reasoning='Let me plot.', "
            'tool_calls=[plot({"month": "April"})], tool_results=[A figure.], tokens=15, '
            "finish_reason='tool_calls'),\n Step('Done.', finish_reason='stop'))"
        )
    }
    assert repr(result.outputs[0]) == "Output(image/png=50,000 characters, text/plain='<Figure>')"
    assert "A figure." in formatted(result)["text/html"]


def test_a_known_key_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_redact", lambda text: text.replace("sk-secret", "[masked]"))
    for value in (Step("my sk-secret"), ToolCall("1", "f", '{"key": "sk-secret"}')):
        assert "[masked]" in repr(value)
        assert "sk-secret" not in repr(value) + value._repr_html_()


def test_headers_are_named_and_their_values_are_not() -> None:
    endpoint = Endpoint("lab", "http://localhost:1/v1", headers={"X-Team": "open-sesame-1234567"})
    assert "open-sesame" not in repr(endpoint) + endpoint._repr_html_()


def test_every_model_fits() -> None:
    assert all(len(repr(model)) < 500 and model._repr_html_() for model in BUILT_IN)
