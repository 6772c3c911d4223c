"""The tapes of a session: the one that is on, and that of kept answers."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kimi_magic.config import Settings
from kimi_magic.core.errors import TapeError
from kimi_magic.core.frontend import notebook_path
from kimi_magic.core.interrupts import whole_imports

if TYPE_CHECKING:
    from kimi_magic.wire.kept_answers import KeptAnswers
    from kimi_magic.wire.tape import Tapes, TapeUse

__all__ = ["TapesInUse"]


class TapesInUse:
    """Says which tape is on.

    ``settings`` returns those that hold now. ``news`` are notices for the next turn.
    """

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self.news: deque[str] = deque()
        self._settings = settings
        self._tapes: Tapes | None = None  # none was put on yet
        self._kept: KeptAnswers | None = None
        self._kept_lock = threading.Lock()
        self._told: set[str] = set()

    @property
    def current(self) -> TapeUse | None:
        """The tape that is on, here and now; None for none."""
        settings = self._settings()
        settings.read_environment()
        found = None
        if self._tapes is not None or settings.tape:
            found = self._those_put_on().current(settings.tape_path, settings.tape_mode)
        return found or (self.kept if settings.keep else None)

    @property
    @whole_imports()
    def kept(self) -> KeptAnswers | None:
        """The kept answers of this notebook; None where there can be none, which is told once."""
        from kimi_magic.wire.kept_answers import NOT_KEPT, KeptAnswers, kept_path
        from kimi_magic.wire.tape import the_tape

        with self._kept_lock:
            try:
                tape = the_tape(kept_path(notebook_path()))
            except TapeError as error:
                if (line := NOT_KEPT.format(error)) not in self._told:
                    self._told.add(line)
                    self.news.append(line)
                return None
            if self._kept is None or self._kept.tape is not tape:
                if self._kept is not None:
                    self._kept.close()
                self._kept = KeptAnswers(tape, strict=True)
            return self._kept

    @whole_imports()
    def use_of(self, path: str | os.PathLike[str], mode: str = "new", **choices: Any) -> TapeUse:
        """Return a use of a tape; where the settings have another mode, ``new`` gives way to it.

        Raises
        ------
        TapeError
            It cannot be read, or an option of it is none.
        """
        from kimi_magic.wire.tape import use_of

        settings = self._settings()
        settings.read_environment()
        own = settings.tape_mode
        return use_of(path, own if mode == "new" else mode, **choices)

    def enter(self, use: TapeUse) -> Callable[[], None]:
        """Put a tape on for the code that runs now; return what takes it off."""
        return self._those_put_on().enter(use)

    def put_on(self, use: TapeUse) -> None:
        """Put a tape on that the settings name, as long as they do."""
        settings = self._settings()
        self._those_put_on().put_on(use, settings.tape_path, settings.tape_mode)

    def close(self) -> None:
        """Let go of the files."""
        if self._tapes is not None:
            self._tapes.close()
        if self._kept is not None:
            self._kept.close()

    @whole_imports()
    def _those_put_on(self) -> Tapes:
        if self._tapes is None:
            from kimi_magic.wire.tape import Tapes

            self._tapes = Tapes()
        return self._tapes
