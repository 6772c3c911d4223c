"""Kept answers: a tape that makes itself, beside the notebook.

A turn never fails because its answer cannot be kept: what goes wrong with the file is a notice,
told once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kimi_magic.core.errors import TapeError
from kimi_magic.core.messages import Usage
from kimi_magic.wire.recorded_answer import answer_in
from kimi_magic.wire.tape import Asked, OnTape, TapeUse
from kimi_magic.wire.tape_file import Recording

__all__ = ["FOLDER", "NOT_KEPT", "KeptAnswers", "kept_path"]

FOLDER = ".kimi"
NO_NOTEBOOK = "the kernel does not know which notebook it runs."
NOT_KEPT = "Answers are not kept: {}"
NOT_READ = "Kept answers cannot be used: {}"


def kept_path(notebook: str) -> Path:
    """Return the file of a notebook's kept answers.

    Raises
    ------
    TapeError
        There is no notebook, or what lies in the place of the file leads out of its folder.
    """
    path = Path(notebook)
    if not path.is_file():
        raise TapeError(NO_NOTEBOOK)
    file = path.parent / FOLDER / f"{path.stem}.tape"
    # Who opens a folder of somebody else's has not chosen where its links lead.
    if os.path.realpath(file) != os.path.join(os.path.realpath(path.parent), FOLDER, file.name):  # noqa: PTH118
        raise TapeError(f"{FOLDER}/{file.name} is a link to another place.")
    return file


@dataclass(eq=False)
class KeptAnswers(TapeUse):
    """A use of the tape of kept answers, which is made with ``strict``.

    What was asked with other data was not asked before.

    Attributes
    ----------
    notices : deque of str
        Lines for the reader that nobody has shown yet; each one comes once.
    played : list of Recording
        Those that answered in the place of a server.
    """

    leads: bool = False
    notices: deque[str] = field(default_factory=deque)
    played: list[Recording] = field(default_factory=list)
    _told: set[str] = field(default_factory=set)
    _may_record: bool = False

    def find(self, asked: Asked) -> OnTape | None:
        try:
            found = super().find(asked)
        except TapeError as error:
            self._tell(NOT_READ, error)
            return None
        if found is not None:
            self.played.append(found.recording)
        return found

    def begin_recording(self) -> None:
        self._may_record = False
        try:
            super().begin_recording()
            self._may_record = True
        except TapeError as error:
            self._tell(NOT_KEPT, error)

    def record(self, recording: Recording, asked: Asked) -> None:
        if not self._may_record:
            return
        try:
            super().record(recording, asked)
        except TapeError as error:
            self._tell(NOT_KEPT, error)

    @property
    def saved(self) -> Usage:
        """The tokens that the server would have counted again, as far as it told them."""
        found = (answer_in(recording.body) for recording in self.played)
        return sum((answer.usage for answer in found if answer), Usage())

    def news(self) -> Iterator[str]:
        """Yield the notices that nobody has shown yet."""
        while self.notices:
            yield self.notices.popleft()

    def _tell(self, what: str, error: TapeError) -> None:
        line = what.format(str(error).partition("\n")[0])
        if line not in self._told:
            self._told.add(line)
            self.notices.append(line)
