"""Approval of tool calls: by a setting, by a person, or by what a person said before."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kimi_magic.core.events import ApprovalAnswered, ApprovalAsked
from kimi_magic.core.frontend import has_kernel, running_shell
from kimi_magic.core.interrupts import uninterrupted
from kimi_magic.core.text import clip
from kimi_magic.display.live.approval_form import as_fields
from kimi_magic.display.view import Answer, AsksPerson, View

if TYPE_CHECKING:
    from kimi_magic.tools.tool import Tool
    from kimi_magic.tools.toolset import Toolset

__all__ = ["Approval", "Approved", "AskPerson", "ask_with_input", "asking", "with_approval"]

Approved = set[tuple[Any, ...]]
"""Tools that a person approved for a chat, by name and identity."""

MAX_LABEL = 30  # characters of an argument's name that stand before its value

AskPerson = Callable[["Tool", dict[str, Any], Callable[[dict[str, Any]], str]], Answer]
"""Takes the tool, the arguments, and a function that says what is wrong with edited ones."""


class Approval:
    """Decides on the calls of a turn that need confirmation.

    Approvals for the chat are looked up in ``approved`` and added to it. Otherwise ``ask`` asks a
    person, and ``announce`` gets an event before that and one after.
    """

    def __init__(
        self,
        namespace: Mapping[str, Any],
        approved: Approved,
        ask: AskPerson,
        announce: Callable[[ApprovalAsked | ApprovalAnswered], None],
    ) -> None:
        self._namespace = namespace
        self._approved = approved
        self._ask = ask
        self._announce = announce

    def __call__(self, tool: Tool, arguments: dict[str, Any]) -> bool | dict[str, Any]:
        """Return True if the call may be made, or the arguments to make it with."""
        same = (tool.name, tool.identity())
        if same in self._approved:
            return True
        self._announce(ApprovalAsked(tool.name, json.dumps(arguments, ensure_ascii=False)))
        answer = self._ask(tool, arguments, lambda edited: self._problem(tool, edited))
        edited = json.dumps(answer, ensure_ascii=False) if isinstance(answer, dict) else ""
        self._announce(ApprovalAnswered(tool.name, answer != "no", edited))
        if answer == "chat":
            self._approved.add(same)
        return answer if isinstance(answer, dict) else answer != "no"

    def _problem(self, tool: Tool, arguments: dict[str, Any]) -> str:
        from kimi_magic.schema.problems import ArgumentsError

        try:
            tool.bind(arguments, self._namespace)
        except ArgumentsError as error:
            return str(error)
        return ""


def with_approval(toolset: Toolset, approve: str) -> Toolset:
    """Return the same tools, with confirmation as the setting ``approve`` says."""
    from kimi_magic.tools.toolset import Toolset

    if approve == "auto":
        return toolset
    confirm = approve != "yes"
    tools = [tool.variant(options=replace(tool.options, confirm=confirm)) for tool in toolset.tools]
    return Toolset(tools, namespace=toolset.namespace)


def asking(view: View) -> AskPerson:
    """Return a function that asks in the view where it can, else at an ``input()`` prompt."""

    def ask(
        tool: Tool, arguments: dict[str, Any], problem: Callable[[dict[str, Any]], str]
    ) -> Answer:
        with uninterrupted():  # the view lets them through where it waits
            answer = view.ask_person(arguments, problem) if isinstance(view, AsksPerson) else None
        return ask_with_input(tool, arguments, problem) if answer is None else answer

    return ask


def ask_with_input(
    tool: Tool, arguments: dict[str, Any], problem: Callable[[dict[str, Any]], str]
) -> Answer:
    """Ask at an ``input()`` prompt, which every front end has; an empty answer means no."""
    text = f"{tool.name} wants to run with:\n{_shown(arguments)}\n"
    while True:
        # The name once more: long arguments may have moved the first line out of sight.
        said = _input(text, f"Run {tool.name}? [y]es, for this [c]hat, [e]dit, [N]o: ")
        if said in ("y", "yes"):
            return "once"
        if said in ("c", "chat"):
            return "chat"
        if said not in ("e", "edit"):
            return "no"
        edited = input("The arguments, as a JSON object: ")
        try:
            new = json.loads(edited)
            wrong = problem(new) if isinstance(new, dict) else "they must be a JSON object"
        except (ValueError, RecursionError) as error:
            wrong = f"they are no JSON: {error}"
        if not wrong:
            return dict(new)
        text = f"These do not fit: {wrong}\n"


def _input(text: str, question: str) -> str:
    """Ask, and return the answer in lower case.

    In a terminal the text is printed in reverse: no text of a model or a tool can look so, as its
    escape sequences are taken out.
    """
    if not has_kernel(running_shell()) and sys.stdout is not None and sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        title, _, rest = text.partition("\n")
        console = Console(force_jupyter=False)
        console.print(Text(f" {title} ", "reverse"), soft_wrap=True)
        console.print(Text(rest, "bold"), end="", soft_wrap=True)
        text = ""
    return input(text + question).strip().lower()


def _shown(arguments: dict[str, Any]) -> str:
    """Write the arguments out for a person to read.

    A bar before each row of a longer text keeps it from passing for something else.
    """
    shown = []
    for (name, text, whole), value in zip(
        as_fields(arguments), [*arguments.values()], strict=False
    ):
        is_text = whole and isinstance(value, str) and "\n" not in text
        lines = (json.dumps(text, ensure_ascii=False) if is_text else text).split("\n")
        label = clip(name, MAX_LABEL)
        rows = _rows(f"name: {name}") if label != name else []
        rows += [row for line in lines for row in _rows(line)]
        line = f"  {label} = {lines[0]}"
        if len(rows) > 1 or len(_rows(line)) > 1:
            line = "\n".join([f"  {label} =", *(f"  │ {row}" for row in rows)])
        shown.append(line)
    return "\n".join(shown) or "  no arguments"


def _rows(line: str) -> list[str]:
    """Break a line as a display would, which would begin a row without a bar."""
    from rich.cells import chop_cells

    first, *more = chop_cells(line.expandtabs(4), _width()) or [""]
    return [first, *(f"… {row}" for row in more)]


def _width() -> int:
    """Return the columns for a row; pages of front ends have room for as many as a terminal."""
    columns = shutil.get_terminal_size().columns
    return max(columns - len("  │ … "), MAX_LABEL) - 1
