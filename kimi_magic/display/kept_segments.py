"""The parts of a turn, as far as a notebook keeps them, and the operations that tell of them."""

from __future__ import annotations

from kimi_magic.core.text import clean, without_blank_lines
from kimi_magic.display.segments import Op, Segment
from kimi_magic.display.size_budget import SizeBudget, cut_note

__all__ = ["KeptSegments"]


class KeptSegments:
    """The parts of a turn, for which there is only so much room.

    Attributes
    ----------
    parts : list of Segment
    room : SizeBudget
    left_out : str
        Which parts had none, "" where all had.
    """

    def __init__(self, max_chars: int) -> None:
        self.parts: list[Segment] = []
        self.room = SizeBudget(max_chars)
        self.left_out = ""

    def admit(self, part: Segment, ops: list[Op]) -> int | None:
        """Begin a part if it has room; its number."""
        if self.room.admits(part.kind):
            return self.begin(part, ops)
        self.left_out = self.room.left_out()
        ops.append({"op": "cut", "text": self.left_out})
        return None

    def begin(self, part: Segment, ops: list[Op]) -> int:
        """Begin a part in any case; its number."""
        self.parts.append(part)
        index = len(self.parts) - 1
        ops.append({"op": "part", "part": index, "kind": part.kind, "title": part.title})
        return index

    def append(self, index: int, text: str, ops: list[Op]) -> None:
        """Add as much of a text as there is room for."""
        part = self.parts[index]
        most = part.most - part.length
        kept = text[:most] if part.assured else self.room.take(part.kind, text, most)
        if kept:
            ops.append({"op": "append", "part": index, "at": part.append(kept), "text": kept})
        if len(kept) < len(text):
            part.missing += len(text) - len(kept)
            ops.append({"op": "cut", "part": index, "text": cut_note(part.missing)})

    def complete(self, index: int, text: str, ops: list[Op]) -> None:
        """Add what is not yet there of a text, if what is there is its beginning."""
        part = self.parts[index]
        known = part.length + part.missing
        if known < len(text) and text.startswith(part.text):
            self.append(index, text[known:], ops)

    def finish(self, index: int, ops: list[Op]) -> None:
        self.parts[index].done = True
        ops.append({"op": "done", "part": index})

    def keep_last_answer(self, text: str, ops: list[Op]) -> None:
        """Whatever earlier answers have taken, there is room for the last one."""
        text = without_blank_lines(clean(text))[: self.room.of_the_last_answer]
        answers = [i for i, part in enumerate(self.parts) if part.kind == "answer"]
        last = self.parts[answers[-1]] if answers else None
        if last and last.missing and text.startswith(last.text):
            index = answers[-1]
        elif self.room.lacks("answer") and text:
            index = self.begin(Segment("answer"), ops)
        else:
            return
        part = self.parts[index]
        if rest := text[part.length :]:
            part.missing = max(part.missing - len(rest), 0)
            ops.append({"op": "append", "part": index, "at": part.append(rest), "text": rest})
            ops.append({"op": "cut", "part": index, "text": cut_note(part.missing)})
            self.finish(index, ops)
