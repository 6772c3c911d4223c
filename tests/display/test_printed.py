"""The prints of a call, as views show them while it runs."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

from hypothesis import example, given
from hypothesis import strategies as st

from kimi_magic.core.events import (
    Envelope,
    Event,
    StepFinished,
    ToolFinished,
    ToolPrinted,
    ToolStarted,
)
from kimi_magic.core.messages import Step, ToolCall, ToolResult
from kimi_magic.core.text import clean, plain
from kimi_magic.display.plain import PlainView
from kimi_magic.display.printed import KEPT, Printed
from kimi_magic.display.view import Throttle, ViewOptions
from tests.turns import OPENING, STOP, pieces

TEXT = st.lists(
    st.sampled_from(["a", "b", " ", "\n", "\r", "\x1b[31m", "\x1b[0m", "\u202e", "%"])
).map("".join)
CUTS = st.lists(st.integers(0, 200), max_size=6)


@given(TEXT, CUTS)
@example("50%\r100%\r\nnext\x1b[31mred", [3, 4, 9, 16])
def test_pieces_add_up_to_what_a_terminal_leaves(text: str, cuts: list[int]) -> None:
    printed = Printed()
    finished = "".join(printed.feed(piece) for piece in pieces(text, cuts))
    assert printed.text == finished
    assert finished + printed.line == clean(plain(text))


def test_little_is_kept_of_a_flood() -> None:
    printed = Printed()
    for _ in range(100):
        printed.feed("a line of text\n" * 500)
    assert len(printed.text) <= KEPT
    assert printed.text.startswith("a line")
    for number in range(10_000):
        printed.feed(f"\r{number} of 10,000")
    assert printed.line == "9999 of 10,000"
    assert len(printed._raw) < KEPT
    assert printed.feed("", clears=True) == ""
    assert (printed.text, printed.line) == ("", "")


def shown(*events: Event) -> tuple[str, str]:
    """Return what a plain view writes, and what it had written before the last three events."""
    with redirect_stdout(io.StringIO()) as out:
        view = PlainView(ViewOptions(), Throttle(float("inf")))
        for event in events[:-3]:
            view.handle(Envelope(0.0, event))
        before = out.getvalue()
        for event in events[-3:]:
            view.handle(Envelope(0.0, event))
        view.close()
    return out.getvalue(), before


CALL = ToolCall("1", "work", '{"n": 1}')
OTHER = ToolCall("0", "other", "{}")


def turn(text: str, cuts: list[int], *, live: bool) -> tuple[str, str]:
    """Play a turn of two calls, the second of which prints."""
    printed = clean(plain(text))
    results = (ToolResult("other", "3"), ToolResult("work", f"{printed}\n1", stdout=printed))
    prints = [ToolPrinted(1, piece) for piece in pieces(text, cuts)] if live else []
    return shown(
        *OPENING,
        ToolStarted(0, OTHER),
        ToolFinished(0, results[0]),
        ToolStarted(1, CALL),
        *prints,
        ToolFinished(1, results[1]),
        StepFinished(Step("", (), (OTHER, CALL), results)),
        STOP,
    )


def played(text: str) -> str:
    """Return what the turn is at once, with the line of a call that was begun before its end."""
    whole, _ = turn(text, [], live=False)
    return whole.replace("Tool call (✓ done): work", "Tool call: work")


@given(st.text(st.sampled_from(["a", "b", " ", "\n"])), CUTS)
def test_plain_text_in_the_end_is_the_same(text: str, cuts: list[int]) -> None:
    assert turn(text, cuts, live=True)[0] == played(text)


def test_progress_bars_and_partial_lines() -> None:
    whole, before = turn("\r 1%\r 50%\r100%\nnow", [4, 9, 14], live=True)
    assert whole == played("100%\nnow")
    assert " 50%" not in whole
    assert before.endswith(
        "\nTool call (✓ done): other()\n  3\n\nTool call: work(n=1)\n  100%\n  now"
    )
    whole, _ = turn("half\rwhole\n", [4, 5], live=True)
    assert "  half\n  whole\n" in whole, "what was written cannot be taken back"
    assert "Tool call: work" in whole.partition("  whole\n")[2], "so the whole follows"
