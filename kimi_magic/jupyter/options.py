"""The options of ``%%kimi``.

The parser, the help, tab completion and the README's table are generated from this one table. An
option whose name is a field of ``TurnRequest`` is handed on without further code.
"""

from __future__ import annotations

from dataclasses import dataclass

from kimi_magic.config import APPROVE, EFFORTS

__all__ = ["OPTIONS", "Option"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of ``%%kimi``, or of a verb of ``%kimi``."""

    flags: tuple[str, ...]  # the short one first, if there is one
    help: str  # one line, for the README as well
    value: str = ""  # placeholder in the help; empty for a switch
    type: type[str | int | float] = str
    choices: tuple[str, ...] = ()  # empty for any value
    repeat: bool = False  # collect the values of all occurrences in a list
    listed: bool = False  # accept several values with commas between them, too
    default: str = ""  # of the value, which may then be missing
    completes: str = ""  # kind of names that tab completion offers, a key of `completion.Names`

    @property
    def name(self) -> str:
        """The long flag as a Python name."""
        return self.flags[-1].lstrip("-").replace("-", "_")

    @property
    def usage(self) -> str:
        """The flags and the placeholder, as the help shows them."""
        return ", ".join(self.flags) + (f" {self.value}" if self.value else "")


TAPE_CHOICES = (
    Option(("--strict",), "of a tape, play no answer to the same prompt with other inputs"),
    Option(("--frozen-tools",), "take the results of tools from the tape: they do not run"),
)

OPTIONS = (
    Option(("-m", "--model"), "ask this model", "ID", completes="models"),
    Option(
        ("-e", "--endpoint"), "ask this endpoint, a name or a URL", "NAME", completes="endpoints"
    ),
    Option(("-s", "--system"), 'system prompt for this cell; "" for none', "TEXT"),
    Option(
        ("-c", "--chat"), "continue this chat instead of the current one", "NAME", completes="chats"
    ),
    Option(
        ("-T", "--tool"),
        "offer these functions of the notebook (repeat, or commas), `f(a, b)` with a part of its "
        "parameters, `mcp:NAME` or `mcp:NAME[tool]` of an MCP server; `run_python` is built in",
        "NAMES",
        repeat=True,
        listed=True,
        completes="callables",
    ),
    Option(("--no-tools",), "offer no tools, not even those of @kimi.tool"),
    Option(
        ("-v", "--var"),
        "attach summaries of these variables (repeat, or commas); `df:schema` sends no values",
        "NAMES",
        repeat=True,
        listed=True,
        completes="variables",
    ),
    Option(
        ("-o", "--out"),
        "store the reply in this variable; `NAME <<` does the same",
        "NAME",
        completes="variables",
    ),
    Option(
        ("-f", "--format"),
        "show the answer rendered, as plain text, as data, or as code for the next cell",
        "markdown|text|json|code",
        choices=("markdown", "text", "json", "code"),
    ),
    Option(
        ("--schema",),
        "require an answer of this class, or with these fields: 'name, age int, tags list', "
        "'list[name, age int]'",
        "TYPE|FIELDS",
        completes="callables",
    ),
    Option(("-R", "--hide-reasoning"), "show only the answer"),
    Option(("-u", "--usage"), "show the token counts below the answer"),
    Option(("-h", "--help"), "show these options"),
    Option(
        ("--effort",),
        "how hard the model reasons, where it has levels",
        "|".join(EFFORTS),
        choices=EFFORTS,
    ),
    Option(
        ("--heavy",),
        "ask N times at once (8), then have the answers aggregated into one",
        "[N]",
        int,
        default="8",
    ),
    Option(
        ("--map",),
        "ask the prompt for each row of this frame, in which `{{ column }}` is the row's value",
        "NAME",
        completes="variables",
    ),
    Option(("--judge",), "aggregate with this model", "MODEL[@ENDPOINT]", completes="models"),
    Option(("--until-agree",), "stop when so many came to the same answer", "K", int),
    Option(
        ("--temperature",), "0 for the likeliest tokens; Kimi's makers recommend 1", "NUMBER", float
    ),
    Option(
        ("--top-p",),
        "sample only from the likeliest tokens that add up to this share",
        "NUMBER",
        float,
    ),
    Option(("--max-tokens",), "token limit for reasoning and answer together", "N", int),
    Option(("--seed",), "repeat the same sampling, if the server supports it", "N", int),
    Option(("--stop",), "end the answer at this text (may be repeated)", "TEXT", repeat=True),
    Option(("--cells",), "attach these earlier cells with their outputs", "3-5"),
    Option(
        ("--image",),
        "attach this image file, for a model that sees (may be repeated)",
        "FILE",
        repeat=True,
        completes="files",
    ),
    Option(("--var-tokens",), "token limit for the summary of each variable", "N", int),
    Option(("--var-rows",), "rows of each table; 0 for names, types and counts alone", "N", int),
    Option(("--raw",), "leave `{{ … }}` unexpanded"),
    Option(("--dry-run",), "show what would be sent, and send nothing"),
    Option(("--allow-secrets",), "send what looks like a key, too, instead of masking it"),
    Option(("--fresh",), "restart the chat with this cell"),
    Option(("--no-history",), "ask outside of any chat; nothing is sent from it or added to it"),
    Option(("--no-stream",), "request the answer in one piece"),
    Option(("--max-steps",), "rounds of tool calls after which the model must answer", "N", int),
    Option(
        ("--approve",),
        "approval of tool calls: auto asks for confirm=True, ask always, yes and no never",
        "|".join(APPROVE),
        choices=APPROVE,
    ),
    Option(("--logprobs",), "mark each token of the answer by how likely it was"),
    Option(
        ("--tape",),
        "play the answers on this tape, and record those that are not on it",
        "FILE",
        completes="files",
    ),
    *TAPE_CHOICES,
    Option(
        ("--again",), "ask anew, and put the answers in the place of those that were kept or taped"
    ),
)
