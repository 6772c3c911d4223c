"""The text that a call has printed so far, as a terminal leaves it."""

from __future__ import annotations

import re

from kimi_magic.core.text import clean, plain

__all__ = ["Printed", "Transcript"]

KEPT = 20_000  # characters: a page that has missed something gets the last of them
MAX_LINE = 2000
MAX_TRANSCRIPT = 200_000
_OPEN_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*|\][^\x07\x1b]*\x1b?)?$")


class Printed:
    """Folds pieces of text into finished lines, which stay, and the line under way.

    Attributes
    ----------
    text : str
        The last of the finished lines.
    line : str
        The line under way, which a carriage return may begin anew.
    moves : bool
        One has: there is no telling what of the line will stay.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.text = self.line = self._raw = ""
        self.moves = False

    def feed(self, text: str, *, clears: bool = False) -> str:
        """Take more text; return the lines that it finishes."""
        if clears:
            self._forget()
        before, end, self._raw = (self._raw + text).rpartition("\n")
        finished = clean(plain(before + end))
        if finished:
            self.text = _last_lines(self.text + finished)
            self.moves = False
        escape = _OPEN_ESCAPE.search(self._raw)
        whole = self._raw[: escape.start()] if escape else self._raw
        self.moves = self.moves or "\r" in whole.rstrip("\r")
        self.line = clean(plain(whole))[-MAX_LINE:]
        if len(self._raw) > 2 * MAX_LINE:  # a progress bar never ends its line
            kept = self._raw.rstrip("\r").rpartition("\r")[2]
            self._raw = kept[-MAX_LINE:] + self._raw[len(self._raw.rstrip("\r")) :]
        return finished


class Transcript:
    """A call's text while it grows, where nothing that was written can be taken back.

    Lines are indented as in the text of the whole call, which follows: what was written is then
    its beginning, unless the call has overwritten some of it.

    Attributes
    ----------
    text : str
        What was written so far.
    """

    def __init__(self, call: str) -> None:
        self.text = call
        self._blank = "\n"  # waits for something visible: the end of the text has no blank lines
        self._line = ""  # what was written of the line under way

    def grow(self, finished: str, line: str = "") -> str:
        """Return what is to be written now for finished lines, and for the one under way."""
        *lines, _ = finished.split("\n")
        written = "".join(self._write(each, ends=True) for each in lines) + self._write(line)
        if len(self.text) < MAX_TRANSCRIPT:
            self.text += written
        return written

    def rest(self, whole: str) -> str:
        """Return what is to be written for the whole call to stand there."""
        written = self.text.rstrip()
        return whole[len(written) :] if whole.startswith(written) else f"\n{whole}"

    def _write(self, line: str, *, ends: bool = False) -> str:
        shown, written = line.rstrip(), ""
        if shown:
            if not shown.startswith(self._line):  # overwritten
                self._blank, self._line = self._blank or "\n", ""
            lead = "" if self._line else f"{self._blank}  "
            written = lead + shown[len(self._line) :]
            self._blank, self._line = "", shown
        if ends:
            self._blank, self._line = f"{self._blank}{line[len(shown) :]}\n", ""
        return written


def _last_lines(text: str) -> str:
    if len(text) <= KEPT:
        return text
    text = text[-KEPT:]
    return text.partition("\n")[2] or text
