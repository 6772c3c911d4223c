"""The options of ``%%kimi`` and the verbs of ``%kimi``, in one table.

The parser, the help, the tab key and the README's tables are made from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kimi_magic.config import APPROVE

__all__ = ["OPTIONS", "VERBS", "Option", "Verb", "help_text"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the ``%%kimi`` line.

    Parameters
    ----------
    flags : tuple of str
        Short first where there is one.
    help : str
        One line for the reader.
    value : str
        What to write after it, in help; empty for a switch.
    type : callable
        Text → value.
    choices : tuple of str
        The values there are; empty: any.
    repeat : bool
        Whether it may be given several times.
    completes : str
        What tab completes after it: ``chats``, ``endpoints``, ``models``, ``callables``,
        ``variables``, ``verbs``, ``forms``.
    """

    flags: tuple[str, ...]
    help: str
    value: str = ""
    type: type = str
    choices: tuple[str, ...] = ()
    repeat: bool = False
    completes: str = ""

    @property
    def name(self) -> str:
        return self.flags[-1].removeprefix("--").replace("-", "_")

    @property
    def usage(self) -> str:
        return ", ".join(self.flags) + (f" {self.value}" if self.value else "")


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb of ``%kimi``."""

    name: str
    usage: str
    help: str
    example: str
    completes: str = ""


OPTIONS = (
    Option(("-m", "--model"), "ask this model", "ID", completes="models"),
    Option(
        ("-e", "--endpoint"), "ask at this endpoint: a name or a URL", "NAME", completes="endpoints"
    ),
    Option(("-s", "--system"), 'system prompt of this cell; "" for none', "TEXT"),
    Option(
        ("-c", "--chat"),
        "go on with this chat instead of the current one",
        "NAME",
        completes="chats",
    ),
    Option(
        ("-T", "--tool"),
        "offer these functions of the notebook (repeat, or commas); `run_python` is built in",
        "NAMES",
        repeat=True,
        completes="callables",
    ),
    Option(("--no-tools",), "offer none, not even those of @kimi.tool"),
    Option(
        ("-v", "--var"),
        "send summaries of these variables along (repeat, or commas)",
        "NAMES",
        repeat=True,
        completes="variables",
    ),
    Option(
        ("-o", "--out"),
        "put the reply into this variable; `NAME <<` does the same",
        "NAME",
        completes="variables",
    ),
    Option(
        ("-f", "--format"),
        "show the answer rendered, as it came, as data, or as code for the next cell",
        "markdown|text|json|code",
        choices=("markdown", "text", "json", "code"),
    ),
    Option(
        ("--schema",),
        "hold the answer to a class of the notebook, or to fields: 'name, age int, tags list'",
        "TYPE|FIELDS",
        completes="callables",
    ),
    Option(("-R", "--hide-reasoning"), "show the answer alone"),
    Option(("-u", "--usage"), "show the tokens below the answer"),
    Option(("-h", "--help"), "show these options"),
    Option(("--temperature",), "0 is steady, 1 is what Kimi's makers recommend", "NUMBER", float),
    Option(("--top-p",), "sample from the likeliest tokens of this share", "NUMBER", float),
    Option(("--max-tokens",), "limit for reasoning and answer together", "N", int),
    Option(("--seed",), "repeat the same sampling, where the server can", "N", int),
    Option(("--stop",), "end the answer at this text (may be repeated)", "TEXT", repeat=True),
    Option(("--cells",), "send these earlier cells and their outputs along", "3-5"),
    Option(("--var-tokens",), "the longest summary of a variable", "N", int),
    Option(("--raw",), "leave `{{ … }}` as it is"),
    Option(("--dry-run",), "show what would be sent, and send nothing"),
    Option(("--allow-secrets",), "send also what looks like a key"),
    Option(("--fresh",), "start the chat anew with this cell"),
    Option(("--no-history",), "ask outside of any chat: nothing of it goes along or is kept"),
    Option(("--no-stream",), "ask for the answer in one piece"),
    Option(
        ("--max-steps",), "after so many rounds of tool calls the model must conclude", "N", int
    ),
    Option(
        ("--approve",),
        "who says yes to tool calls: auto asks for confirm=True, ask always, yes and no never",
        "|".join(APPROVE),
        choices=APPROVE,
    ),
)

VERBS = (
    Verb(
        "ask",
        "ask PROMPT",
        "ask one line; all that follows is the prompt",
        "%kimi ask What is 7 × 8?",
    ),
    Verb(
        "fix",
        "fix",
        "explain the last error, and put the corrected cell below",
        "%kimi fix",
    ),
    Verb(
        "snippet",
        "snippet [FORM] [--turn N] [-c CHAT] [--out FILE]",
        "a turn as a program: python, langchain, node or curl",
        "%kimi snippet curl",
        completes="forms",
    ),
    Verb("explain", "explain [N]", "explain the last cell, or In[N]", "%kimi explain"),
    Verb(
        "continue",
        "continue [CHAT]",
        "go on with a turn that was stopped, cut or failed",
        "%kimi continue",
        completes="chats",
    ),
    Verb("chats", "chats", "list the chats with their turns and tokens", "%kimi chats"),
    Verb(
        "chat",
        "chat NAME [--all]",
        "make a chat the current one and show it; --all: with what was set aside",
        "%kimi chat review",
        completes="chats",
    ),
    Verb(
        "reset",
        "reset [CHAT]",
        "forget a chat (the current one by default)",
        "%kimi reset",
        completes="chats",
    ),
    Verb(
        "tools",
        "tools [add|remove NAME]",
        "list what is offered to every cell, or change it",
        "%kimi tools add forecast",
        completes="callables",
    ),
    Verb(
        "tool",
        "tool NAME [ARGUMENTS]",
        "show a function as the model will see it, or call it as the model would",
        '%kimi tool forecast {"days": 3}',
        completes="callables",
    ),
    Verb(
        "models",
        "models [ENDPOINT]",
        "list the models that the server offers",
        "%kimi models nvidia",
        completes="endpoints",
    ),
    Verb(
        "endpoints", "endpoints", "list the endpoints and whose key is present", "%kimi endpoints"
    ),
    Verb("help", "help [VERB]", "show this, or one verb", "%kimi help reset", completes="verbs"),
)


def help_text(verb: str = "") -> str:
    """The help of all verbs and options, or of one verb of the table."""
    if verb:
        known = next(known for known in VERBS if known.name == verb)
        return f"%kimi {known.usage}\n    {known.help}\n    for example: {known.example}"
    verbs = [(f"%kimi {known.usage}", known.help) for known in VERBS]
    options = [(option.usage, option.help) for option in OPTIONS]
    return "\n".join(
        [
            "%%kimi [options]: the cell's text is the prompt, the chat goes on from cell to cell.",
            *_columns(options),
            "",
            *_columns(verbs),
            "",
            "Settings: %config KimiMagics. In Python: kimi.ask, kimi.chat, kimi.last.",
        ]
    )


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(left) for left, _ in rows)
    return [f"  {left:{width}}  {right}" for left, right in rows]
