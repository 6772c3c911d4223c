"""The options of ``%%kimi`` and the verbs of ``%kimi``, in one table.

The parser, the help and the README's tables are made from it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from keyword import iskeyword
from typing import Any, NoReturn

from kimi_magic.config import APPROVE
from kimi_magic.errors import MagicError

__all__ = [
    "OPTIONS",
    "VERBS",
    "Option",
    "Verb",
    "help_text",
    "parse_line",
    "parse_snippet",
    "split_verb",
]


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
        ``variables``.
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

_TOKEN = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*'|["'])+""")
_QUOTED = re.compile(r""""([^"]*)"|'([^']*)'""")
_KEY = re.compile(r"--?(api[-_]?)?key\b|.*\b(nvapi-|sk-|hf_)[\w-]{12,}", re.IGNORECASE)
NO_KEYS = (
    "A key does not belong on the magic line, where it would be saved with the notebook. "
    "Set the endpoint's environment variable (`%kimi endpoints` names it)."
)
_INTO = re.compile(r"^\s*([^\W\d]\w*)\s*<<(?:\s|$)")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise MagicError(f"{message[:1].upper()}{message[1:]}. `%%kimi -h` lists the options.")


def parse_line(line: str) -> dict[str, Any]:
    """Read the line of a ``%%kimi`` cell.

    Returns
    -------
    dict
        Each option by its long name with ``_`` for ``-``; None or False where it was not given.

    Raises
    ------
    MagicError
        An unknown option, a value that does not fit, a key, or text that is no option.
    """
    into = _INTO.match(line)
    words = _split(line[into.end() :] if into else line)
    if any(_KEY.match(word) for word in words):
        raise MagicError(NO_KEYS)
    given, rest = _parser().parse_known_args(_joined(words))
    if rest:
        raise MagicError(_complaint(rest[0]))
    found = vars(given)
    if into:
        found["out"] = into[1]
    if found["tool"]:
        found["tool"] = [name for names in found["tool"] for name in _listed(names)]
    for complaint in _complaints(found):
        raise MagicError(complaint)
    return found


def _complaints(found: dict[str, Any]) -> Iterator[str]:
    """What does not fit of options that are well formed, each for itself or together."""
    out = found["out"]
    if out and (not out.isidentifier() or iskeyword(out)):
        yield f"-o takes the name of a variable; {out!r} is none."
    for name in ("temperature", "top_p"):
        if found[name] is not None and not 0 <= found[name] <= 2:
            yield f"--{name.replace('_', '-')} is a number from 0 on; not {found[name]}."
    if found["max_steps"] is not None and found["max_steps"] < 1:
        yield f"--max-steps is at least 1; not {found['max_steps']}."
    if found["tool"] and found["no_tools"]:
        yield "-T offers tools and --no-tools none: leave one of them out."
    if found["var_tokens"] is not None and found["var_tokens"] < 1:
        yield f"--var-tokens is at least 1; not {found['var_tokens']}."
    if found["no_history"] and (found["chat"] or found["fresh"]):
        yield "--no-history asks outside of any chat: leave out -c and --fresh."


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def split_verb(line: str) -> tuple[str, str]:
    """Split a ``%kimi`` line into its verb and the raw rest; the rest keeps quotes and all.

    Raises
    ------
    MagicError
        There is no such verb; the message names the nearest.
    """
    if not line.strip():
        return "help", ""
    verb, *more = line.split(None, 1)
    rest = more[0] if more else ""
    names = [known.name for known in VERBS]
    if verb in names:
        return verb, rest.strip()
    if verb in ("-h", "--help"):
        return "help", rest.strip()
    near = get_close_matches(verb, names, n=1)
    guess = f"Did you mean `%kimi {near[0]}`?" if near else "To ask one line: `%kimi ask …`."
    raise MagicError(f"%kimi has no verb {verb!r}. {guess} `%kimi help` lists them.")


def parse_snippet(words: str) -> dict[str, Any]:
    """Read what follows ``%kimi snippet``: ``form``, ``turn``, ``chat`` and ``out``.

    Raises
    ------
    MagicError
        It is something else.
    """
    parser = _Parser(add_help=False, allow_abbrev=False, prog="%kimi snippet")
    parser.add_argument("form", nargs="?", default="python")
    parser.add_argument("--turn", type=int)
    parser.add_argument("-c", "--chat")
    parser.add_argument("-o", "--out")
    return vars(parser.parse_args(_split(words)))


def help_text(verb: str = "") -> str:
    """The help of all verbs and options, or of one verb.

    Raises
    ------
    MagicError
        There is no such verb.
    """
    if verb:
        name, _ = split_verb(verb)
        known = next(known for known in VERBS if known.name == name)
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


def _parser() -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False, prog="%%kimi")
    for option in OPTIONS:
        if option.value:
            parser.add_argument(
                *option.flags,
                dest=option.name,
                type=option.type,
                choices=option.choices or None,
                action="append" if option.repeat else "store",
            )
        else:
            parser.add_argument(*option.flags, dest=option.name, action="store_true")
    return parser


def _split(line: str) -> list[str]:
    """Words of the line: quotes group, backslashes are plain, ``# …`` is a comment.

    ``shlex`` would raise on an apostrophe and drop the backslashes of a path.
    """
    words = []
    for word in _TOKEN.findall(line):
        if word.startswith("#"):
            break
        words.append(_QUOTED.sub(lambda found: found[1] or found[2] or "", word))
    return words


def _joined(words: Sequence[str]) -> list[str]:
    """Tie each value to its flag: argparse takes a value that begins with ``-`` for a flag."""
    taking = {flag: option.flags[-1] for option in OPTIONS if option.value for flag in option.flags}
    joined, rest = [], iter(words)
    for word in rest:
        value = next(rest, None) if word in taking else None
        joined.append(word if value is None else f"{taking[word]}={value}")
    return joined


def _complaint(word: str) -> str:
    if not word.startswith("-"):
        return (
            f"{word!r} is no option: the prompt goes into the cell's body, below the %%kimi line."
        )
    name = word.partition("=")[0]
    near = get_close_matches(name, [flag for option in OPTIONS for flag in option.flags], n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    return f"%%kimi has no option {name}.{guess} `%%kimi -h` lists them."
