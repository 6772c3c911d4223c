"""The notebook as the magics see it: a shell with its variables and cells, and our session."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from kimi_magic.config import Settings
from kimi_magic.context.cell_errors import CellErrors
from kimi_magic.core.errors import MagicError
from kimi_magic.core.reply import Reply
from kimi_magic.display.view import ViewOptions
from kimi_magic.session import Session
from kimi_magic.turn.request import TurnRequest

if TYPE_CHECKING:
    from kimi_magic.context.cells import Cell
    from kimi_magic.context.template import Expression

__all__ = ["Notebook"]


class Notebook:
    """The place where cells, variables and templates are read and turns are shown.

    Parameters
    ----------
    shell : InteractiveShell
    session : Session
    cell_errors : CellErrors
        Tracebacks of the cells that failed.
    """

    def __init__(self, shell: Any, session: Session, cell_errors: CellErrors) -> None:
        self.shell = shell
        self.session = session
        self.cell_errors = cell_errors

    @property
    def variables(self) -> MutableMapping[str, Any]:
        """The namespace in which cells run."""
        variables: MutableMapping[str, Any] = self.shell.user_ns
        return variables

    @property
    def settings(self) -> Settings:
        """The settings, with changes of the environment applied.

        Raises
        ------
        ConfigError
            The text of a variable does not fit its setting.
        """
        self.session.settings.read_environment()
        return self.session.settings

    @property
    def current_chat(self) -> str:
        """Name of the chat that cells continue when they name none."""
        return self.session.chats.current

    def ask(self, request: TurnRequest, view: ViewOptions | None = None) -> Reply:
        """Run a turn and show it."""
        return self.session.ask(request, show=True, options=view)

    def dry_run(self, request: TurnRequest) -> str:
        """Return what a turn would send; nothing is sent and no state changes."""
        return self.session.dry_run(request)

    def find_reply(self, chat: str | None = None, turn: int | None = None) -> Reply:
        """Return the reply of a turn of a chat, counted from 1; by default the latest of all.

        Raises
        ------
        KimiError
            There is no such chat or turn.
        """
        if chat is None and turn is None:
            if self.session.last is None:
                raise MagicError("There is no turn yet: a %%kimi cell makes one.")
            return self.session.last
        turns = self.session.chats.known(chat or self.current_chat).turns
        number = len(turns) if turn is None else turn
        if not 1 <= number <= len(turns):
            raise MagicError(f"That chat has {len(turns)} turns; --turn counts from 1.")
        return turns[number - 1].reply

    def say(self, text: str) -> None:
        """Print a text without the keys that a name in it, or a server's answer, may hold."""
        print(self.session.redact(text))

    def read_cells(self, numbers: Iterable[int]) -> tuple[Cell, ...]:
        """Return earlier cells with their outputs and errors.

        Raises
        ------
        PromptError
            A number belongs to no cell that has run.
        """
        from kimi_magic.context.cells import read_cell

        return tuple(read_cell(number, self.shell, self.cell_errors) for number in numbers)

    def fill_template(self, template: Iterable[str | Expression], tokens: int) -> str:
        """Evaluate the expressions of a prompt as a cell would, each once.

        Raises
        ------
        PromptError
            An expression failed.
        """
        from kimi_magic.context.template import fill, in_namespace

        return fill(template, in_namespace(self.variables, Err=self.cell_errors), tokens=tokens)

    def put_in_next_cell(self, code: str) -> None:
        """Write code into the next cell, in front ends that support it."""
        if code:
            self.shell.set_next_input(code)
