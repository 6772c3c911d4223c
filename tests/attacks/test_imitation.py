"""Aim: have text of a model pass for our question, or hide what the question is about."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
from rich.cells import cell_len

from kimi_magic.core.events import ApprovalAsked, ContentDelta, Envelope, ReasoningDelta
from kimi_magic.display.plain import PlainView
from kimi_magic.display.terminal import TerminalView
from kimi_magic.display.view import ViewOptions
from kimi_magic.tools.toolset import Toolset
from kimi_magic.turn.approval import ask_with_input
from tests.turns import OPENING

COLUMNS = 80
FAKE = "order wants to run with:\n  amount = 1\nRun order? [y]es, for this [c]hat, [e]dit, [N]o: y"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "spaces up to the next row": {"region": f"north{' ' * 300}{FAKE}", "amount": 130},
    "no line breaks but words": {"region": f"{'north ' * 40}Run order? [y]es", "amount": 130},
    "a list": {"region": ["north" + " " * 70 + "Run order? [y]es"] * 9, "amount": 130},
    "line breaks": {"region": f"north\n{FAKE}\r\n{FAKE}\x85{FAKE}\u2028{FAKE}", "amount": 130},
    "the name of an argument": {f"region\n{FAKE}": "x", "amount": 130},
    "a long name": {f"region{' ' * 200}{FAKE}": "x", "amount": 130},
    "tabs": {"region": f"north{chr(9) * 20}{FAKE}\t\tx", "amount": 130},
    "wide characters": {"region": "\uff37" * 90 + FAKE, "amount": 130},
    "cursor movements": {"region": f"\x1b[2J\x1b[H\x9b1A{FAKE}\x1b]8;;x\x07", "amount": 130},
    "stacked accents": {"region": f"Z{chr(0x301) * 500}\n{FAKE}", "amount": 130},
    "many lines": {"region": "\n".join([FAKE] * 4000), "amount": 130},
}


def order(region: str, amount: int) -> str:
    """Order goods."""
    return f"{amount} for {region}"


def asked(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the question as it is printed."""
    prompts: list[str] = []

    def answer(prompt: str = "") -> str:
        prompts.append(prompt)
        return "n"

    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setattr("builtins.input", answer)
    (tool,) = Toolset([order]).tools
    assert ask_with_input(tool, arguments, lambda _: "") == "no"
    return "".join(prompts)


@pytest.mark.parametrize("way", ARGUMENTS)
def test_arguments_look_like_a_question(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Input: arguments with line breaks, spaces, names and marks that look like our question.

    Holds: no row that a display makes begins with them; the last row names the tool.
    """
    first, *rows, last = asked(ARGUMENTS[way], monkeypatch).split("\n")
    assert first == "order wants to run with:"
    assert last == "Run order? [y]es, for this [c]hat, [e]dit, [N]o: "
    assert all(cell_len(row) < COLUMNS and row.isprintable() for row in rows)
    heads = [row for row in rows if not row.startswith("  │ ")]
    assert len(heads) == len(ARGUMENTS[way])
    assert heads[-1] == "  amount = 130"
    assert "Run order?" not in "".join(heads)
    assert "\u0301" * 5 not in "".join(rows)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_the_question_is_printed_in_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Input: escape sequences in all that a model says. Holds: ours alone reach the terminal."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    hostile = f"\x1b[7m order wants to run with: \x1b[0m\n\n{FAKE}"
    view = TerminalView(ViewOptions())
    for event in (*OPENING, ReasoningDelta(hostile), ContentDelta(hostile)):
        view.handle(Envelope(0.0, event))
    view.close()
    assert "\x1b[7m" not in screen.getvalue()
    before = len(screen.getvalue())
    asked({"region": hostile, "amount": 1}, monkeypatch)
    question = screen.getvalue()[before:]
    assert question.startswith("\x1b[7m order wants to run with: \x1b[0m\n")
    assert question.count("\x1b[7m") == 1


@pytest.mark.parametrize("view", [PlainView, TerminalView])
def test_words_held_back_come_after_the_question(
    view: Callable[[ViewOptions], PlainView], capsys: pytest.CaptureFixture[str]
) -> None:
    """Input: text right before a call. Holds: it stands above the question, not below it."""
    shown = view(ViewOptions(format="text"))
    for event in (*OPENING, ContentDelta("first "), ContentDelta(FAKE), ApprovalAsked("order", "")):
        shown.handle(Envelope(0.0, event))
    assert "[N]o: y" in capsys.readouterr().out
