"""The verbs of ``%kimi``.

A verb is one function under ``@verb``: the magic, the help, tab completion and the README's table
read `REGISTRY`, where they stand in the order of this file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kimi_magic.config import TAPE_MODES
from kimi_magic.core.errors import ConfigError, MagicError
from kimi_magic.core.frontend import notebook_path
from kimi_magic.core.reply import Reply
from kimi_magic.core.text import clip, columns, count, why_not_written
from kimi_magic.jupyter.line_parser import Prompt, parse_prompt, parse_verb
from kimi_magic.jupyter.notebook import Notebook
from kimi_magic.jupyter.options import OPTIONS, TAPE_CHOICES, Option
from kimi_magic.jupyter.overview import overview

__all__ = ["REGISTRY", "Verb", "help_text", "run_verb", "split_verb"]

Run = Callable[[Notebook, str], Reply | None]
Ask = Callable[[Notebook, dict[str, Any], str], Reply | None]
HELP = Option(("-h", "--help"), "show the help of this verb")
MAX_QUOTED = 80
_ONE_CELL = re.compile(r"(?:In\s*\[(\d{1,9})\]|(\d{1,9}))(?=\s|$)", re.ASCII)
_SEVERAL_CELLS = re.compile(r"\d[\d\s,-]*[,-][\d\s,-]*$", re.ASCII)
_TOOL = re.compile(r"""(["']?[^\s("'{]+(?:\s*\([^)]*\)?)?["']?)\s*(.*)""", re.DOTALL)
_ENDS_OPTIONS = re.compile(r"^--\s+")


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb of ``%kimi``."""

    name: str
    usage: str  # the verb with placeholders for what follows it
    help: str  # one line, for the README as well
    example: str  # a whole line to try
    completes: Sequence[str]  # by place: a kind as in `Option.completes`, or words with | between
    options: Sequence[Option]
    run: Run  # gets the rest of the line as it was typed
    prompt: Prompt = ""  # the place of a prompt on the line


REGISTRY: dict[str, Verb] = {}


def verb(
    usage: str,
    summary: str,
    example: str = "",
    *,
    completes: Sequence[str] = (),
    options: Sequence[Option] = (),
    prompt: Prompt = "",
) -> Callable[[Run], Run]:
    """Register the decorated function as a verb.

    The first word of ``usage`` is its name and, without another, the example. A verb with a
    ``prompt`` takes all options of ``%%kimi``.
    """

    def register(run: Run) -> Run:
        name = usage.partition(" ")[0]
        example_line = f"%kimi {example or name}"
        known = OPTIONS if prompt else options
        REGISTRY[name] = Verb(name, usage, summary, example_line, completes, known, run, prompt)
        return run

    return register


def prompt_verb(usage: str, summary: str, example: str, *, place: Prompt) -> Callable[[Ask], Ask]:
    """Register the decorated function as a verb that gets its options and its prompt."""
    name = usage.partition(" ")[0]

    def register(ask: Ask) -> Ask:
        @verb(usage, summary, example, prompt=place)
        def run(notebook: Notebook, line: str) -> Reply | None:
            options, prompt = parse_prompt(name, line, place=place)
            if options["help"]:
                print(help_text(name))
                return None
            return ask(notebook, options, prompt)

        return ask

    return register


def run_verb(notebook: Notebook, line: str) -> Reply | None:
    """Run a ``%kimi`` line, or show the help that it asks for.

    Raises
    ------
    MagicError
        There is no such verb, or it has no such option; nothing was sent or changed.
    """
    name, rest = split_verb(line)
    known = REGISTRY[name]
    if not known.prompt:  # which reads its options itself
        words = rest.partition("{")[0]  # a tool's arguments are JSON
        most = 0 if known.usage == name else sys.maxsize
        wanted, _ = parse_verb(name, words, (*known.options, HELP), most)
        if wanted["help"]:
            print(help_text(name))
            return None
        if not known.options:
            rest = _ENDS_OPTIONS.sub("", rest)
    return known.run(notebook, rest)


def split_verb(line: str) -> tuple[str, str]:
    """Split a ``%kimi`` line into its verb and the rest, whose quotes and backslashes stay."""
    name, *more = line.split(None, 1) or ["help"]
    rest = more[0].strip() if more else ""
    if name in REGISTRY:
        return name, rest
    if name in ("-h", "--help"):
        return "help", rest
    asked = clip(" ".join(line.split()), MAX_QUOTED)
    guess = f"To ask one line: `%kimi ask {asked}`."
    near = get_close_matches(name.lower(), REGISTRY, n=1)
    if name.startswith("-"):
        guess = f"Options stand behind a verb: `%kimi ask {name:.60} …`."
    elif near and REGISTRY[near[0]].prompt and rest:
        guess = f"Did you mean `%kimi {near[0]} {clip(rest, MAX_QUOTED)}`? {guess}"
    elif near and len(rest.split()) <= len(REGISTRY[near[0]].completes):
        guess = f"Did you mean `%kimi {near[0]}`? {guess}"
    raise MagicError(f"%kimi has no verb {name!r:.60}. {guess} `%kimi help` lists the verbs.")


def _parse(name: str, line: str) -> tuple[dict[str, Any], list[str]]:
    """Return a verb's options and words, as many at most as it completes."""
    return parse_verb(name, line, REGISTRY[name].options, len(REGISTRY[name].completes))


def help_text(name: str = "") -> str:
    """Return the help for one verb, or for all options and verbs."""
    if name:
        known = REGISTRY[name]
        options = columns([(f"    {option.usage}", option.help) for option in known.options])
        lines = [f"%kimi {known.usage}", f"    {known.help}", options]
        return "\n".join([*filter(None, lines), f"    for example: {known.example}"])
    return overview(OPTIONS, REGISTRY)


@prompt_verb(
    "ask [options] PROMPT",
    "ask one line; behind the options of %%kimi, all of it is the prompt",
    "ask What is 7 × 8?",
    place="behind",
)
def _ask(notebook: Notebook, options: dict[str, Any], prompt: str) -> Reply | None:
    from kimi_magic.jupyter.cell_request import run_line

    if not prompt:
        raise MagicError("What do you want to ask? `%kimi ask Why is the sky blue?`")
    return run_line(notebook, options, prompt)


@prompt_verb(
    "fix [options] [WORDS]",
    "explain the last error, and put the corrected cell below; WORDS say how to correct it",
    "fix use polars",
    place="between",
)
def _fix(notebook: Notebook, options: dict[str, Any], words: str) -> Reply | None:
    from kimi_magic.jupyter.cell_request import run_question
    from kimi_magic.jupyter.fix_explain import FIX, about

    failed = notebook.cell_errors.latest
    if failed is None:
        raise MagicError("No cell has failed since the extension was loaded.")
    return run_question(notebook, options, about(notebook, failed, FIX, words), puts_code=True)


@prompt_verb(
    "explain [options] [N] [WORDS]",
    "explain the last cell, or In[N]; WORDS say how",
    "explain 3 in two sentences",
    place="between",
)
def _explain(notebook: Notebook, options: dict[str, Any], words: str) -> Reply | None:
    from kimi_magic.jupyter.cell_request import run_question
    from kimi_magic.jupyter.fix_explain import EXPLAIN, about

    latest = len(notebook.shell.history_manager.input_hist_raw) - 2  # the last one is this cell
    if named := _ONE_CELL.match(words):
        chosen, words = int(named[1] or named[2]), words[named.end() :].strip()
    elif words == "last" or _SEVERAL_CELLS.match(words):
        raise MagicError(
            "Which cell? `%kimi explain` takes the number of one, or none for the last one; "
            "--cells 3-5 attaches others."
        )
    elif latest < 1:
        raise MagicError("No cell has run before this one.")
    else:
        chosen = latest
    question = about(notebook, chosen, EXPLAIN, words)
    return run_question(notebook, options, question, puts_code=False)


@verb("continue [CHAT]", "continue a turn that was stopped, cut off or failed", completes=["chats"])
def _continue(notebook: Notebook, chat: str) -> Reply:
    return notebook.ask(notebook.session.to_continue(chat or notebook.current_chat))


@verb("chats", "list the chats with their turns and tokens")
def _chats(notebook: Notebook, _: str) -> None:
    rows = [("", "chat", "turns", "tokens")]
    for chat in notebook.session.chats:
        mark = "→" if chat.name == notebook.current_chat else ""
        rows.append((mark, chat.name, str(len(chat.turns)), f"{chat.usage.total_tokens:,}"))
    notebook.say(columns(rows) if rows[1:] else "There is no chat yet: a %%kimi cell begins one.")


@verb(
    "map [status | cancel [BATCH]]",
    "list the maps whose answers are kept, with their batches under way; cancel a batch "
    "(BATCH is its id, or all)",
    "map status",
    completes=("status", "cancel"),
)
def _map(notebook: Notebook, line: str) -> None:
    from kimi_magic.jupyter.map_commands import cancel_batches, list_maps

    match line.split():
        case [] | ["status"]:
            list_maps(notebook)
        case ["cancel", *names] if len(names) < 2:
            cancel_batches(notebook, "".join(names))
        case _:
            raise MagicError(
                "`%kimi map status` lists maps and their batches, `%kimi map cancel [BATCH]` "
                "cancels a batch; `%%kimi --map df` asks a prompt for each row."
            )


@verb("usage", "list what this session used: tokens and cost, by chat and model")
def _usage(notebook: Notebook, _: str) -> None:
    from kimi_magic.jupyter.usage_list import describe_usage

    accounts = notebook.session.connector.spending.accounts()
    notebook.say(describe_usage(accounts, notebook.settings.most_spent))


@verb(
    "chat NAME [--all]",
    "switch to a chat and show it; --all includes turns that were set aside",
    "chat review",
    completes=["chats"],
    options=[Option(("--all",), "show the turns that were set aside, too")],
)
def _chat(notebook: Notebook, line: str) -> None:
    from kimi_magic.display.record import publish, show_chat

    options, names = _parse("chat", line)
    chats = notebook.session.chats
    chats.current = names[0] if names else chats.current
    chat = chats.get(chats.current)
    aside = chat.set_aside if options["all"] else ()
    publish(show_chat(chat.turns, aside, max_chars=notebook.session.settings.max_output_chars))


@verb("reset [CHAT]", "forget the turns of a chat, by default the current one", completes=["chats"])
def _reset(notebook: Notebook, name: str) -> None:
    chat = notebook.session.chats.known(name or notebook.current_chat)
    count = len(chat.turns)
    chat.reset()
    notebook.say(f"Chat {chat.name}: {count} turn{'' if count == 1 else 's'} forgotten.")


@verb(
    "resume [CHAT]",
    "go on with this notebook's chat of an earlier kernel",
    completes=["kept chats"],
)
def _resume(notebook: Notebook, chat: str) -> None:
    from kimi_magic.jupyter.journal_commands import resume

    resume(notebook, chat)


@verb(
    "log [WORDS] [--since 2d] [-c CHAT] [--here]",
    "list the turns of all notebooks that are kept; WORDS search them",
    "log forecast --since 2d",
    options=[
        Option(("--since",), "of the last hours or days, or since a date", "2d|3h|DATE"),
        Option(("-c", "--chat"), "turns of chats of this name", "CHAT", completes="kept chats"),
        Option(("--here",), "turns of this notebook"),
        Option(("-n", "--last"), "the last N turns; by default 20", "N", int),
        Option(("--all",), "every turn"),
    ],
)
def _log(notebook: Notebook, line: str) -> None:
    from kimi_magic.jupyter.journal_commands import MOST_WORDS, log

    options, words = parse_verb("log", line, REGISTRY["log"].options, MOST_WORDS)
    log(notebook, words, options)


@verb("show N", "show a turn of the log as its record", "show 12", completes=["kept turns"])
def _show(notebook: Notebook, number: str) -> None:
    from kimi_magic.jupyter.journal_commands import show

    show(notebook, number)


@verb(
    "forget CHAT | --before DATE | --turn N",
    "delete turns from the journal for good; a CHAT is one of this notebook",
    "forget main",
    completes=["kept chats"],
    options=[
        Option(("--before",), "turns of before a date, or older than days", "DATE|30d"),
        Option(("--turn",), "the turn of this number in the log", "N", int),
    ],
)
def _forget(notebook: Notebook, line: str) -> None:
    from kimi_magic.jupyter.journal_commands import forget

    options, names = _parse("forget", line)
    forget(notebook, names[0] if names else None, options["before"], options["turn"])


@verb(
    "tools [add|remove NAME]",
    "list the tools that are offered to every cell, and the MCP servers; or change the tools",
    "tools add forecast",
    completes=["add|remove", "callables"],
)
def _tools(notebook: Notebook, change: str) -> None:
    from kimi_magic.jupyter.tool_commands import change_offer, list_offered

    notebook.say(change_offer(change, notebook.variables) if change else list_offered())


@verb(
    "tool NAME [ARGUMENTS]",
    "show a function as the model sees it, or call it as the model would; `mcp:NAME` starts an MCP "
    "server and shows its tools",
    'tool forecast {"days": 3}',
    completes=["callables"],
)
def _tool(notebook: Notebook, line: str) -> None:
    from kimi_magic.jupyter.tool_commands import call_tool, describe_tool

    if not line:
        raise MagicError("Which function? `%kimi tool NAME` shows it, `%kimi tools` lists.")
    found = _TOOL.match(line)  # spaces may stand between parameters in parentheses
    name, arguments = found.groups() if found else (line, "")
    name = name.strip("\"'")
    if arguments:
        call_tool(notebook, name, arguments)
    else:
        notebook.say(describe_tool(name, notebook.variables))


@verb(
    "models [ENDPOINT]",
    "list the models that the server offers, and those it does not, with what is known of them",
    "models nvidia",
    completes=["endpoints"],
)
def _models(notebook: Notebook, endpoint: str) -> None:
    from kimi_magic.jupyter.model_list import describe_models

    session = notebook.session
    connector = session.connector
    chosen = connector.choose(endpoint, session.settings)
    offered = connector.models(chosen, session.find_key(chosen), session.settings, print)
    rows, rules = describe_models(connector, chosen, offered, session.settings.model)
    notebook.say("\n".join([columns(rows), *rules]))


@verb("endpoints", "list the endpoints, and which keys are present")
def _endpoints(notebook: Notebook, _: str) -> None:
    connector, settings = notebook.session.connector, notebook.session.settings
    chosen = None
    with suppress(ConfigError):  # nobody to ask yet, or a bad variable: the list helps out of both
        chosen = connector.choose(None, settings)
    rows = [("", "endpoint", "key", "model", "address")]
    for endpoint in connector.catalogue:
        key = "none needed"
        if endpoint.key_env:
            try:
                present = "yes" if connector.key_at_hand(endpoint) else "no"
            except ConfigError:
                present = "unusable"
            key = f"{endpoint.key_env}: {present}"
        mark = "→" if endpoint == chosen else ""
        model = connector.default_model(endpoint) or "as it lists"
        rows.append((mark, endpoint.name, key, model, endpoint.base_url or "embedded"))
    notebook.say("\n".join(filter(None, [columns(rows), connector.catalogue.problem])))


@verb(
    "snippet [FORM] [--turn N] [-c CHAT] [--chat] [--with-data] [--out FILE]",
    "write a turn as a program: python, langchain, node or curl",
    "snippet curl",
    completes=["forms"],
    options=[
        Option(("--turn",), "the turn, counted from 1; by default the latest", "N", int),
        Option(("-c",), "the chat of the turn", "CHAT", completes="chats"),
        Option(("--chat",), "write the whole conversation, not the one turn"),
        Option(("--with-data",), "write the data that was sent, not placeholders"),
        Option(("-o", "--out"), "write the program to this file", "FILE"),
    ],
)
def _snippet(notebook: Notebook, line: str) -> None:
    from kimi_magic.display.record import publish, show_code
    from kimi_magic.export import FORMS

    options, words = _parse("snippet", line)
    form = words[0] if words else "python"
    reply = notebook.find_reply(options["c"], options["turn"])
    how = {name: options[name] for name in ("chat", "with_data")}
    code = notebook.session.snippet(reply, form, **how)
    if options["out"]:
        try:
            Path(options["out"]).expanduser().write_text(code, "utf-8", newline="\n")
        except OSError as error:
            why = why_not_written(error)
            raise MagicError(f"{options['out']} cannot be written: {why}.") from None
        notebook.say(f"Written to {options['out']}.")
        return
    publish(show_code(code, FORMS[form].language))
    if FORMS[form].suffix == ".py":
        notebook.put_in_next_cell(code)


@verb(
    "load [NOTEBOOK]",
    "rebuild the chats that a notebook carries, by default this one",
    "load lesson.ipynb",
    completes=["files"],
)
def _load(notebook: Notebook, line: str) -> None:
    _, words = _parse("load", line)
    path = words[0] if words else notebook_path()
    if Path(path).is_dir():
        raise MagicError("Which notebook? This front end does not tell: `%kimi load NAME.ipynb`.")
    chats = notebook.session.load(path)
    loaded = [f"{chat.name}: {count(len(chat.turns), 'turn')}" for chat in chats]
    notebook.say(f"Loaded {', '.join(loaded)}.")


@verb(
    "save NOTEBOOK [-c CHAT] [--force]",
    "write a chat as a notebook, by default the current one; --force replaces a file",
    "save chat.ipynb",
    completes=["files"],
    options=[
        Option(("-c", "--chat"), "the chat to write", "CHAT", completes="chats"),
        Option(("--force",), "replace a file of that name"),
    ],
)
def _save(notebook: Notebook, line: str) -> None:
    options, words = _parse("save", line)
    if not words:
        raise MagicError("Under which name? `%kimi save chat.ipynb`")
    chat = options["chat"] or notebook.current_chat
    file = notebook.session.save(words[0], chat, force=options["force"])
    notebook.say(f"Written to {file}.")


@verb(
    "compare TURN…",
    "put turns side by side: variables with replies, CHAT:N, or one turn with trajectories",
    "compare first second",
    completes=["variables"] * 8,
)
def _compare(notebook: Notebook, line: str) -> None:
    from kimi_magic.jupyter.lab_commands import compare_turns

    compare_turns(notebook, line.split())


@verb(
    "step [TURN]",
    "play a turn back step by step, its answer when you ask for it",
    "step main:2",
    completes=["variables"],
)
def _step(notebook: Notebook, word: str) -> None:
    from kimi_magic.jupyter.lab_commands import step_through

    step_through(notebook, word)


@verb(
    "tape [FILE|off] [--mode new|none|all] [--speed real|4|max]",
    "play recorded answers, and record the others; alone: say what was played",
    "tape lesson.tape",
    completes=["tapes"],
    options=[
        Option(
            ("--mode",),
            "new: record what is not on it; none: send nothing; all: record anew",
            "|".join(TAPE_MODES),
            choices=TAPE_MODES,
        ),
        Option(("--speed",), "as it was, so many times faster, or at once (max)", "real|4|max"),
        *TAPE_CHOICES,
    ],
)
def _tape(notebook: Notebook, line: str) -> None:
    from kimi_magic.jupyter.tape_commands import change_tape, describe_tape

    options, words = _parse("tape", line)
    if words:
        change_tape(notebook, words[0], options)
    elif any(options.values()):
        raise MagicError("Which tape? `%kimi tape lesson.tape` puts it on, with these options.")
    else:
        describe_tape(notebook)


@verb(
    "keep [on|off]",
    "keep answers beside the notebook and ask nothing twice; alone: say what that saved",
    "keep on",
    completes=["on|off"],
)
def _keep(notebook: Notebook, word: str) -> None:
    from kimi_magic.jupyter.tape_commands import keep

    keep(notebook, word)


@verb(
    "doctor [ENDPOINT] [--yes] [--offline] [--json] [--report]",
    "say what is wrong on this machine and, if you agree to a few requests, at an endpoint",
    "doctor moonshot",
    completes=["endpoints"],
    options=[
        Option(("--yes",), "send the short requests to the endpoint without asking"),
        Option(("--offline",), "send nothing"),
        Option(("--json",), "print JSON, as docs/doctor.md describes it"),
        Option(("--report",), "print Markdown for a bug report, without secrets or names"),
    ],
)
def _doctor(notebook: Notebook, line: str) -> None:
    from kimi_magic.jupyter.doctor import run_doctor

    options, words = _parse("doctor", line)
    run_doctor(notebook, words[0] if words else "", options)


@verb("help [VERB]", "show this help, or that of one verb", "help reset", completes=["verbs"])
def _help(_: Notebook, name: str) -> None:
    print(help_text(split_verb(name)[0] if name else ""))
