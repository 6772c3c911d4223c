"""Tool calls in a line, at length, and how they ended."""

from __future__ import annotations

import json
import sys
from html import unescape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.errors import ToolInterrupted
from kimi_magic.core.events import (
    ApprovalAnswered,
    ApprovalAsked,
    Envelope,
    Event,
    ToolCallDelta,
    ToolCallStarted,
    ToolFinished,
    ToolStarted,
)
from kimi_magic.core.messages import ToolCall, ToolResult
from kimi_magic.display.calls import arguments_html, call_line, call_text
from kimi_magic.display.html.tool_results import OUTCOMES, result_html, result_text
from kimi_magic.display.live.page import Page
from kimi_magic.display.record import make_record
from kimi_magic.display.segments import Segment
from kimi_magic.display.timeline import Timeline
from kimi_magic.display.view import ViewOptions
from kimi_magic.tools.decorator import tool
from kimi_magic.tools.toolset import Toolset
from tests.hostile import Checked
from tests.turns import OPENING


def of(arguments: str, name: str = "f") -> Segment:
    segment = Segment("tool", name)
    segment.append(arguments)
    return segment


def shown(segment: Segment) -> str:
    return Checked(f"<pre>{arguments_html(segment)}</pre>").text


@pytest.mark.parametrize(
    ("arguments", "line", "at_length"),
    [
        ('{"a": true, "b": [null, 1.5], "c": "true"}', 'f(a=True, b=[None, 1.5], c="true")', ""),
        ("{}", "f()", ""),
        ("", "f()", ""),
        ('{"a": {"b": false}}', 'f(a={"b": False})', ""),
        ('{"a": "x  y"}', 'f(a="x y")', 'a = "x  y"'),
        ('{"a b": 1}', 'f("a b"=1)', ""),
        ('{"a": "\\u200b"}', 'f(a="⟨U+200B⟩")', ""),
        ('{"a": [true, "tru', 'f({"a": [True, "tru)', '{"a": [True, "tru'),
        (
            json.dumps({"a": "x" * 100, "b": None}),
            f'f(a="{"x" * 66}…)',
            f'a = "{"x" * 100}"\nb = None',
        ),
    ],
)
def test_arguments_look_like_python_and_are_told_once(
    arguments: str, line: str, at_length: str
) -> None:
    assert call_line(of(arguments)) == line
    assert shown(of(arguments)) == at_length


@pytest.mark.parametrize(
    ("code", "line", "at_length"),
    [
        ("x = 1", "run_python: x = 1", ""),
        ("\nx = 1\n\ny = 2\n", "run_python: x = 1 … 2 more lines", "\nx = 1\n\ny = 2"),
        ("x" * 90, f"run_python: {'x' * 69}…", "x" * 90),
    ],
)
def test_a_call_that_runs_code_shows_its_first_line(code: str, line: str, at_length: str) -> None:
    segment = of(json.dumps({"code": code}), "run_python")
    assert call_line(segment) == line
    assert shown(segment) == at_length


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "true"]), JSON, min_size=1))
def test_what_is_shown_is_the_arguments(arguments: dict[str, Any]) -> None:
    segment = of(json.dumps(arguments))
    found: dict[str, Any] = {}
    names = {"inf": float("inf")}
    if text := shown(segment):
        exec(text, names, found)
    else:
        exec(f"def f(**given): found.update(given)\n{call_line(segment)}", names | {"found": found})
    # What cannot be seen is told by its number in a line.
    assert found == arguments or "⟨U+" in call_line(segment)


@given(st.text(alphabet='"\\truefalsn ,[]{}:'))
def test_no_text_in_place_of_json_is_lost(arguments: str) -> None:
    assert len(call_text(of(arguments))) >= len("Tool call: f()")


# How a call ends


@tool(confirm=True)
def asked(month: int) -> int:
    """Return the month."""
    return month


def stopped(month: int) -> int:
    """Stop."""
    raise KeyboardInterrupt(month)


def failing(month: int) -> Any:
    """Fail."""
    return json.loads(f"{{{month}")


def called(function: Any) -> ToolResult:
    toolset = Toolset([function])
    try:
        return toolset.call(toolset.tools[0].name, '{"month": 4}', approve=lambda *_: False)
    except ToolInterrupted as interrupt:
        return interrupt.result


RESULTS = {
    "done": lambda: ToolResult("f", "4"),
    "failed": lambda: called(failing),
    "declined": lambda: called(asked),
    "stopped": lambda: called(stopped),
}


def events_of(result: ToolResult) -> tuple[Event, ...]:
    arguments = '{"month": 4}'
    return (
        *OPENING,
        ToolCallStarted(0, "f"),
        ToolCallDelta(0, arguments),
        ToolStarted(0, ToolCall("c1", "f", arguments)),
        ApprovalAsked("f", arguments),
        ApprovalAnswered("f", True),
        ToolFinished(0, result),
    )


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_calls_are_told_apart_by_word_colour_and_mark(outcome: str) -> None:
    result = RESULTS[outcome]()
    look = OUTCOMES[outcome]
    assert result.outcome == outcome
    timeline, page = Timeline(), Page(ViewOptions(), lambda: 0.0)
    ops = []
    for event in events_of(result):
        timeline.apply(event)
        ops += page.apply(Envelope(0.0, event))
    assert [op["state"] for op in ops if op["op"] == "result"] == [outcome], "for live.css"
    timeline.end()
    record = make_record(timeline)
    html = record.data["text/html"]
    summary = html.partition("</summary>")[0]
    assert (
        f"{look.mark}\N{NO-BREAK SPACE}{look.word}"
        in Checked(f"{summary}</summary></details></div>").text
    ), "also when it is folded"
    assert f"border-left:3px solid {look.colour}" in summary
    assert f"color:{look.colour};" in summary
    assert f"Tool call ({look.mark} {look.word}): f(month=4)" in record.data["text/plain"]
    assert "{" not in Checked(html).text.partition("f(month=4)")[2][:40], "not as JSON besides"


def test_the_looks_differ_in_each_way() -> None:
    for name in ("mark", "word", "colour", "terminal"):
        assert len({getattr(look, name) for look in OUTCOMES.values()}) == len(OUTCOMES)


def test_what_a_tool_says_is_no_outcome_of_ours() -> None:
    class The(Exception):
        pass

    The.__qualname__ = The.__name__ = "The user declined this call"

    def liar() -> None:
        """Lie."""
        raise The("so it seems")

    assert called_plain(liar).outcome == "failed"


def called_plain(function: Any) -> ToolResult:
    return Toolset([function]).call(function.__name__, "{}")


def test_a_failure_leads_with_the_line_of_the_user() -> None:
    result = RESULTS["failed"]()
    line = failing.__code__.co_firstlineno + 2
    text = result_text(result).splitlines()
    assert text[0] == f'File "{__file__}", line {line}, in failing'
    assert text[1].strip() == 'return json.loads(f"{{{month}")'
    at = next(i for i, each in enumerate(text) if each.startswith("json.decoder.JSONDecodeError"))
    assert at <= 3, "and with the error"
    assert text[at + 1].startswith("Traceback"), "the rest is below"
    html = result_html(result)
    assert html.startswith("<pre")
    assert unescape(html).index("in failing") < html.index("<details>") < html.index("Traceback")


def test_the_line_of_a_cell_is_found() -> None:
    library = f'  File "{sys.prefix}/lib/python3.12/json/x.py", line 1, in f\n    x\n'
    own = "  Cell In[3], line 2, in f(x)\n    g(x)\n    ~^^^\n"
    traceback = f"Traceback (most recent call last):\n{own}{library}E: m"
    text = result_text(ToolResult("f", "c", error="E: m", traceback=traceback))
    assert text == f"Cell In[3], line 2, in f(x)\n  g(x)\n  ~^^^\nE: m\n{traceback}"


def test_a_failure_of_one_line_is_told_once() -> None:
    def short() -> None:
        """Fail."""
        raise ValueError("no")

    text = result_text(called_plain(short))
    assert text.count("ValueError: no") == 1
    assert "Traceback" not in text
    assert "<details>" not in result_html(called_plain(short))


def test_of_chained_errors_the_last_one_leads() -> None:
    def chained() -> None:
        """Fail twice."""
        try:
            int("x")
        except ValueError as error:
            raise RuntimeError("second") from error

    lead, _, rest = result_text(called_plain(chained)).partition("RuntimeError: second\n")
    assert 'raise RuntimeError("second") from error' in lead
    assert "int(" not in lead
    assert "ValueError" in rest


@pytest.mark.parametrize(
    "traceback",
    [
        "",
        "Traceback (most recent call last):\n",
        "no traceback at all",
        f'Traceback (most recent call last):\n  File "{sys.prefix}/lib/python3.12/json/x.py", '
        "line 1, in f\n    x\nE: m",
        '  + Exception Group Traceback (most recent call last):\n  |   File "a", line 1, in f\n',
    ],
)
def test_other_tracebacks_are_shown_below_the_error(traceback: str) -> None:
    text = result_text(ToolResult("f", "c", error="E: m", traceback=traceback))
    assert text.startswith("E: m")
    assert traceback.strip() in text
