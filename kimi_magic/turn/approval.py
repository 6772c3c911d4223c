"""Approval of tool calls: by a setting, by a person, or by what a person said before."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kimi_magic.core.events import ApprovalAnswered, ApprovalAsked
from kimi_magic.core.frontend import can_answer, has_kernel, running_shell
from kimi_magic.core.interrupts import interruptible, uninterrupted
from kimi_magic.core.text import clip, reveal
from kimi_magic.display.live.approval_form import (
    ALWAYS,
    Problem,
    about_call,
    as_fields,
    problem_of_size,
)
from kimi_magic.display.view import Answer, AsksPerson, View
from kimi_magic.tools.tool import TellsPerson

if TYPE_CHECKING:
    from kimi_magic.tools.tool import Tool
    from kimi_magic.tools.toolset import Toolset

__all__ = [
    "Approval",
    "Approved",
    "AskPerson",
    "agreed_by_person",
    "approval_key",
    "ask_with_input",
    "asking",
    "with_approval",
]

DEFAULT_TOKENS = 200
ALWAYS_THIS_CODE = "Run, and do not ask again for this same code in this chat"
COVERS = "«Do not ask again» covers later calls of {} in this chat, whatever their arguments."
COVERS_CODE = "«Do not ask again» covers this very code in this chat, and no other."

Approved = set[tuple[Any, ...]]
"""The calls that a person approved for a chat, by `approval_key`."""

MAX_LABEL = 30  # characters of an argument's name that stand before its value

AskPerson = Callable[["Tool", dict[str, Any], Problem, Mapping[str, str]], Answer]
"""Takes the tool, the arguments, a function that says what is wrong with edited ones, and the
defaults that apply as text."""


class Approval:
    """Decides on the calls of a turn that need confirmation.

    Approvals for the chat are looked up in ``approved`` and added to it. Otherwise ``ask`` asks a
    person, and ``announce`` gets an event before that and one after. ``redact`` keeps keys out of
    the defaults that are shown.
    """

    def __init__(
        self,
        namespace: Mapping[str, Any],
        approved: Approved,
        ask: AskPerson,
        announce: Callable[[ApprovalAsked | ApprovalAnswered], None],
        redact: Callable[[str], str] = str,
    ) -> None:
        self._namespace = namespace
        self._approved = approved
        self._ask = ask
        self._announce = announce
        self._redact = redact

    def __call__(self, tool: Tool, arguments: dict[str, Any]) -> bool | dict[str, Any]:
        """Return True if the call may be made, or the arguments to make it with.

        Raises ArgumentsError for a call that is too large to be shown to a person.
        """
        from kimi_magic.schema.problems import ArgumentsError

        same = approval_key(tool, arguments)
        if same in self._approved:
            return True
        if too_large := problem_of_size(arguments):
            raise ArgumentsError({(): too_large})
        text = json.dumps(arguments, ensure_ascii=False)
        defaults = {n: self._redact(d) for n, d in shown_defaults(tool, arguments).items()}
        question = isinstance(tool, TellsPerson) and tool.is_question
        self._announce(ApprovalAsked(tool.name, text, tuple(defaults.items()), question))
        answer = self._ask(tool, arguments, lambda edited: self._problem(tool, edited), defaults)
        edited = json.dumps(answer, ensure_ascii=False) if isinstance(answer, dict) else ""
        edited = "" if question else edited  # what is sent to a server stays out of the record
        self._announce(ApprovalAnswered(tool.name, answer != "no", edited, question))
        if answer == "chat":
            self._approved.add(same)
        return answer if isinstance(answer, dict) else answer != "no"

    def _problem(self, tool: Tool, arguments: dict[str, Any]) -> str:
        from kimi_magic.schema.problems import ArgumentsError

        if too_large := problem_of_size(arguments):
            return too_large
        try:
            tool.bind(arguments, self._namespace)
        except ArgumentsError as error:
            return str(error)
        return ""


def approval_key(tool: Tool, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what must stay equal for an approval to hold for the rest of a chat.

    That is the tool's identity and what the model is told of it, the variables of the moment left
    out. For a tool that runs code, it is the code as well.
    """
    offer = json.dumps(tool.at_moment({}).schema(), sort_keys=True, default=repr)
    code = json.dumps(arguments, sort_keys=True) if tool.languages else ""
    return tool.name, tool.identity(), offer, code


def shown_defaults(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the defaults that apply in a call as text, by the names of the parameters."""
    from kimi_magic.tools.tool import defaults_of

    found = {}
    for name, value in defaults_of(tool, arguments).items():
        try:
            found[name] = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            from kimi_magic.context.summaries.summary import summarize

            found[name] = summarize(value, tokens=DEFAULT_TOKENS)
    return found


def with_approval(toolset: Toolset, approve: str) -> Toolset:
    """Return the same tools, with confirmation as the setting ``approve`` says."""
    from kimi_magic.tools.toolset import Toolset

    if approve == "auto":
        return toolset
    confirm = approve != "yes"
    tools = [tool.variant(options=replace(tool.options, confirm=confirm)) for tool in toolset.tools]
    made = Toolset(tools, namespace=toolset.namespace)
    made.left_out |= toolset.left_out
    return made


def asking(view: View, redact: Callable[[str], str] = str) -> AskPerson:
    """Return a function that asks in the view where it can, else at an ``input()`` prompt.

    ``redact`` keeps keys out of what is shown of the tool itself.
    """

    def ask(
        tool: Tool, arguments: dict[str, Any], problem: Problem, defaults: Mapping[str, str]
    ) -> Answer:
        lasting = ALWAYS_THIS_CODE if tool.languages else ALWAYS
        covers = COVERS_CODE if tool.languages else COVERS.format(reveal(tool.name))
        if isinstance(tool, TellsPerson) and tool.is_question:
            lasting = covers = ""
        parameters = tool.schema()["function"].get("parameters") or {}
        description = tool.about if isinstance(tool, TellsPerson) else tool.description
        about = about_call(arguments, parameters, tool.languages, redact(description))
        about["covers"] = covers
        with uninterrupted():  # the view lets them through where it waits
            answer = (
                view.ask_person(arguments, problem, defaults=defaults, lasting=lasting, about=about)
                if isinstance(view, AsksPerson)
                else None
            )
        if answer is None:
            return ask_with_input(tool, arguments, problem, defaults, redact=redact)
        return answer

    return ask


def ask_with_input(
    tool: Tool,
    arguments: dict[str, Any],
    problem: Problem,
    defaults: Mapping[str, str] | None = None,
    *,
    redact: Callable[[str], str] = str,
) -> Answer:
    """Ask at an ``input()`` prompt, which every front end has; an empty answer means no.

    ``redact`` keeps keys out of what is shown of the tool itself.
    """
    shown = _shown(arguments, defaults)
    if isinstance(tool, TellsPerson) and tool.is_question:
        return _answer_with_input(redact(tool.said), shown, problem)
    text = f"{reveal(tool.name)} wants to run with:\n{shown}\n"
    if isinstance(tool, TellsPerson):
        text += f"{reveal(redact(tool.said))}\n"
    lasting = "this same code in this [c]hat" if tool.languages else "for this [c]hat"
    while True:
        # The name once more: long arguments may have moved the first line out of sight.
        name = reveal(tool.name)
        said = _input(text, f"Run {name}? [y]es, {lasting}, [e]dit, [N]o: ")
        if said in ("y", "yes"):
            return "once"
        if said in ("c", "chat"):
            return "chat"
        if said not in ("e", "edit"):
            return "no"
        new, wrong = _edited("The arguments, as a JSON object: ", problem)
        if not wrong:
            return new
        text = f"These do not fit: {reveal(wrong)}\n"


def _answer_with_input(question: str, shown: str, problem: Problem) -> Answer:
    """Ask for the answer to a question of the running call."""
    text = f"{reveal(question)}\n{shown}\n"
    while True:
        said = _input(text, "Send this? [y]es, [e]dit, [N]o: ")
        if said in ("y", "yes"):
            return "once"
        if said not in ("e", "edit"):
            return "no"
        new, wrong = _edited("The values, as a JSON object: ", problem)
        if not wrong:
            return new
        text = f"These do not fit: {reveal(wrong)}\n"


def _edited(question: str, problem: Problem) -> tuple[dict[str, Any], str]:
    """Return what a person types, and what is wrong with it."""
    try:
        new = json.loads(input(question))
    except (ValueError, RecursionError) as error:
        return {}, f"they are no JSON: {error}"
    if not isinstance(new, dict):
        return {}, "they must be a JSON object"
    return new, problem(new)


def agreed_by_person(question: str, shown: Mapping[str, str]) -> bool | None:
    """Ask a person to agree to what is shown, before a turn; None where nobody can answer.

    At an ``input()`` prompt: a page has no form outside of a turn, and no text of a model or of a
    server stands above the question.
    """
    if not can_answer():
        return None
    text = f"{reveal(question)}\n{_shown(dict(shown))}\n"
    with interruptible():
        return _input(text, "Agree? [y]es, [N]o: ") in ("y", "yes")


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


def _shown(arguments: dict[str, Any], defaults: Mapping[str, str] | None = None) -> str:
    """Write the arguments out for a person to read, and the defaults that apply beside them.

    A bar before each row of a longer text keeps it from passing for something else.
    """
    shown = []
    for (name, text, whole), value in zip(
        as_fields(arguments, defaults), [*arguments.values(), *(defaults or {})], strict=True
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
