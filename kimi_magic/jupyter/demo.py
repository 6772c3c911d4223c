"""``kimi-magic demo``: run a notebook in a real kernel and show the run in the terminal.

This is a front end of its own: nbclient runs the cells, the live view sends its operations here as
it does to a browser, and they are printed as they arrive.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from kimi_magic.core.errors import KimiError
from kimi_magic.core.text import why_not_written
from kimi_magic.wire.local.process import available

__all__ = ["Plan", "make_plan", "open_lab", "run"]

QUICKSTART = Path("notebooks") / "quickstart.ipynb"
# Overrides keys and settings, so that the practice model answers.
ENVIRONMENT = {"KIMI_ENDPOINT": "local", "KIMI_LOCAL_MODEL": ""}
CELL_SECONDS = 600
WIDGET = "application/vnd.jupyter.widget-view+json"
STYLES = {"reasoning": "dim", "answer": "", "notice": "yellow", "tool": "magenta"}


@dataclass(frozen=True, slots=True)
class Plan:
    """A notebook, the folder it runs in, and the file for the result."""

    notebook: Path
    folder: Path
    output: Path


def make_plan(
    notebook: Path | None = None, output: Path | None = None, *, lab: bool = False
) -> Plan:
    """Choose the notebook and the output file, and check that everything needed is installed.

    The notebook is by default the quickstart of the clone or of the installed package. The output
    is ``NAME.executed.ipynb`` beside the notebook, or in the current folder if the notebook is the
    package's own or its folder is read-only.
    """
    wanted = ["ipykernel", "jupyterlab"] if lab else ["ipykernel"]
    missing = [name for name in wanted if not find_spec(name)]
    if not available():
        missing.append("xllamacpp")
    if missing:
        raise KimiError(
            f"The demo needs {' and '.join(missing)}, which is not installed.\n"
            'Install it with `pip install "kimi-magic[demo]"`.'
        )
    package = Path(__file__).resolve().parents[1]
    if notebook is None:
        packaged = package / QUICKSTART
        notebook = packaged if packaged.is_file() else package.parent / QUICKSTART
    if not notebook.is_file():
        raise KimiError(f"There is no notebook {notebook}. Name another with --notebook.")
    folder = Path.cwd() if package in notebook.resolve().parents else notebook.resolve().parent
    if output is None:
        place = folder if os.access(folder, os.W_OK) else Path.cwd()
        output = place / f"{notebook.stem}.executed.ipynb"
    if not output.absolute().parent.is_dir():
        raise KimiError(f"There is no folder {output.parent}. Name another file with --output.")
    return Plan(notebook, folder, output)


def run(plan: Plan, console: Console) -> int:
    """Run the notebook, print it as it runs, and save it, after Ctrl-C as well.

    The exit code is 1 after a failed cell.
    """
    try:
        notebook = nbformat.read(plan.notebook, as_version=4)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise KimiError(f"{plan.notebook} cannot be read as a notebook: {error}") from None
    opening = (
        f"Running {_short(plan.notebook)} with the practice model: a small model on this machine, "
        "often wrong. No key is used."
    )
    console.print(opening, markup=False, soft_wrap=True, style="bold")
    screen = _Screen(console, len(notebook.cells))
    client = _Client(notebook, screen)
    failure = ""
    with _log() as log:  # the kernel's own, shown only when it dies
        options: dict[str, Any] = {"cwd": str(plan.folder), "stderr": log}
        try:
            asyncio.run(client.async_execute(env=os.environ | ENVIRONMENT, **options))
        except CellExecutionError:
            failure = "A cell failed; the notebook stops there."
        except CellTimeoutError:
            failure = f"A cell ran for more than {CELL_SECONDS} seconds; the notebook stops there."
        except (DeadKernelError, RuntimeError, asyncio.CancelledError) as error:
            if client.stopped:
                raise KeyboardInterrupt from None
            failure = f"The kernel ended: {error}\n{_tail(log)}".strip()
        except OSError as error:  # Jupyter writes a file for each kernel
            failure = f"The kernel cannot be started: {why_not_written(error)}."
        finally:
            screen.end_line()
            _save(notebook, plan.output)
    if failure:
        console.print(f"\n{failure}", style="bold red", markup=False)
    console.print(f"\nSaved {_short(plan.output)}", markup=False, soft_wrap=True)
    words = [_short(Path(sys.executable)), "-m", "jupyterlab", _short(plan.output)]
    console.print(f"Open it: {subprocess.list2cmdline(words)}", markup=False, soft_wrap=True)
    return 1 if failure else 0


def open_lab(plan: Plan, console: Console) -> int:
    """Open the result in JupyterLab with this environment's kernel; return its exit code."""
    console.print("Opening JupyterLab. Press Ctrl-C here to stop it.")
    command = [sys.executable, "-m", "jupyterlab", str(plan.output.resolve())]
    # Otherwise a kernelspec of the same name in the user's folder takes precedence.
    return subprocess.call(command, env=os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"})


def _log() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise KimiError(
            f"No temporary file can be written: {why_not_written(error)}. TMPDIR names a folder."
        ) from None


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    return "\n".join(log.read().decode(errors="replace").splitlines()[-3:])


def _save(notebook: nbformat.NotebookNode, output: Path) -> None:
    try:
        nbformat.write(notebook, output)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise KimiError(
            f"{output} cannot be written: {why_not_written(error)}. Name another with --output."
        ) from None


def _short(path: Path) -> str:
    """Return the path as one would type it in the current folder."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows a venv's python
    here = Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


class _OwnKernel(KernelSpecManager):
    """Offers this environment's kernel, whichever kernelspecs the machine has."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:  # noqa: ARG002 - its interface
        from ipykernel.kernelspec import get_kernel_dict

        return KernelSpec(**get_kernel_dict())


class _Client(NotebookClient):
    """Runs cells as a front end with live views, and passes what they send to a screen."""

    def __init__(self, notebook: nbformat.NotebookNode, screen: _Screen) -> None:
        super().__init__(
            notebook,
            timeout=CELL_SECONDS,
            record_timing=False,
            store_widget_state=False,  # the live view is replaced by its frozen record
            on_cell_start=screen.show_cell,
        )
        self.stopped = False
        self._screen = screen

    def create_kernel_manager(self) -> AsyncKernelManager:
        self.km = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=_OwnKernel())
        return self.km

    @asynccontextmanager
    async def async_setup_kernel(self, **kwargs: Any) -> AsyncIterator[None]:
        async with super().async_setup_kernel(**kwargs):
            # The kernel shows a live view only to front ends that accept questions.
            kernel: Any = self.kc
            kernel.allow_stdin = True
            answering = asyncio.create_task(_answer_nothing(kernel))
            task = asyncio.current_task()
            assert task
            # nbclient's own handler kills the kernel and reports that it died.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._stop, task)
            try:
                yield
            finally:
                answering.cancel()

    def process_message(
        self, msg: dict[str, Any], cell: nbformat.NotebookNode, cell_index: int
    ) -> nbformat.NotebookNode | None:
        self._screen.show_message(msg["msg_type"], msg["content"])
        return super().process_message(msg, cell, cell_index)

    def _stop(self, task: asyncio.Task[Any]) -> None:
        self.stopped = True
        self.shutdown_kernel = "immediate"
        task.cancel()


async def _answer_nothing(kernel: Any) -> None:
    """Answer every question with an empty line, so that no cell waits for a person."""
    while True:
        await kernel.get_stdin_msg(timeout=None)
        kernel.input("")


class _Screen:
    """Prints cells, operations of the live view and ordinary output as they arrive."""

    def __init__(self, console: Console, cells: int) -> None:
        self._console = console
        self._cells = cells
        self._kinds: dict[tuple[str, int], str] = {}
        self._mid_line = False

    def show_cell(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        """Print the cell that runs next."""
        self.end_line()
        if cell.cell_type == "markdown":
            self._console.print()
            self._console.print(Markdown(cell.source))
        elif cell.cell_type == "code" and cell.source.strip():
            self._console.rule(f"{cell_index + 1} of {self._cells}", align="left", style="cyan")
            self._console.out(cell.source, style="bold cyan", highlight=False)
            self._console.print()

    def show_message(self, kind: str, content: dict[str, Any]) -> None:
        """Print the visible content of a message from the kernel."""
        if kind == "comm_msg" and content["data"].get("method") == "custom":
            message = content["data"].get("content")
            for op in message.get("ops", []) if isinstance(message, dict) else []:
                self._show_op(content["comm_id"], op)
        elif kind == "stream":
            self._ansi(content["text"], end="")
        elif kind == "error":
            self.end_line()
            self._ansi("\n".join(content["traceback"]))
        elif kind in {"display_data", "execute_result"} and WIDGET not in content["data"]:
            self.end_line()
            self._ansi(content["data"].get("text/plain", ""))

    def end_line(self) -> None:
        """Start a new line unless the current one is empty."""
        if self._mid_line:
            self._console.print()
            self._mid_line = False

    def _show_op(self, view: str, op: dict[str, Any]) -> None:
        match op:
            case {"op": "head", "text": text}:
                self._line(f"— {text} —", "dim bold")
            case {"op": "state", "text": text} if text != "Done":
                self._line(text, "dim italic")
            case {"op": "segment", "segment": index, "kind": kind}:
                self._kinds[view, index] = kind
                self.end_line()
                if op.get("title"):
                    self._line(op["title"], "bold magenta")
            case {"op": "append", "segment": index, "text": text}:
                style = STYLES.get(self._kinds.get((view, index), "")) or None
                self._console.out(text, style=style, highlight=False, end="")
                self._mid_line = not text.endswith("\n")
            case {"op": "done"}:
                self.end_line()

    def _line(self, text: str, style: str) -> None:
        self.end_line()
        self._console.out(text, style=style, highlight=False)

    def _ansi(self, text: str, end: str = "\n") -> None:
        """Print text from the kernel with its colours, but no other terminal sequences."""
        end = "\n" if text.endswith("\n") else end
        self._console.print(Text.from_ansi(text.removesuffix("\n")), end=end, soft_wrap=True)
        self._mid_line = not end
