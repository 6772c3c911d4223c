"""The vote of several trajectories: which of them came to the same answer."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.interrupts import interruptible
from kimi_magic.core.reply import Reply
from kimi_magic.core.text import clip

__all__ = ["Group", "Vote", "final_answer", "normalised", "take_vote"]

MAX_SHOWN = 80
_SAID = re.compile(r"^\W*(?:the )?(?:final )?answer(?: is)?\W*[:=]\W*(.+)$", re.IGNORECASE)
_MARKS = re.compile(r"[*_`$]|\\[(\[)\]]|\\(?:text|mathrm|mathbf)\b")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?|[-+]?\.\d+")


@dataclass(frozen=True, slots=True)
class Group:
    """Trajectories with the same answer, by their numbers."""

    answer: str
    lanes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Vote:
    """The distinct answers, the one that most trajectories came to first."""

    groups: tuple[Group, ...] = ()

    @property
    def most(self) -> int:
        """How many trajectories came to the first answer."""
        return len(self.groups[0].lanes) if self.groups else 0

    def __str__(self) -> str:
        count = sum(len(group.lanes) for group in self.groups)
        said = [f"{len(group.lanes)} of {count}: {group.answer}" for group in self.groups[:3]]
        more = len(self.groups) - len(said)
        return "; ".join([*said, *([f"{more} other answers"] if more else [])])


def take_vote(
    replies: Mapping[int, Reply], equal: Callable[[Any, Any], bool] | None = None
) -> Vote:
    """Group numbered replies by their answers.

    Answers as data are equal if their data are, texts if their final answers are, letter by letter
    but for case, spaces, marks of Markdown and the way a number is written. ``equal`` compares two
    of them instead: the data where there are any, else the texts.

    Raises
    ------
    KimiError
        ``equal`` failed.
    """
    groups: list[tuple[Any, str, list[int]]] = []
    for number, reply in replies.items():
        value, shown = _compared(reply, whole=equal is not None)
        for known, _, lanes in groups:
            if _same(known, value, equal):
                lanes.append(number)
                break
        else:
            groups.append((value, shown, [number]))
    ordered = sorted(groups, key=lambda group: -len(group[2]))  # stable: the earlier first
    names: dict[str, int] = {}
    made = []
    for _, shown, lanes in ordered:
        names[shown] = names.get(shown, 0) + 1
        name = f"{shown} ({names[shown]})" if names[shown] > 1 else shown
        made.append(Group(name, tuple(lanes)))
    return Vote(tuple(made))


def final_answer(text: str) -> str:
    r"""Return the answer at the end of a text.

    That is what stands in the last ``\boxed{…}``, after the last «answer:», else the last line of
    the text.
    """
    if (boxed := _boxed(text)) is not None:
        return boxed
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    for line in reversed(lines):
        if found := _SAID.match(line):
            return found[1].strip()
    return lines[-1] if lines else ""


def _compared(reply: Reply, *, whole: bool) -> tuple[Any, str]:
    """Return what is compared of a reply, and its answer as it is shown."""
    if reply.record.data is not None:
        data = reply.record.data
        shown = json.dumps(data, ensure_ascii=False, sort_keys=True)
        return (reply.data if whole else data), clip(shown, MAX_SHOWN)
    answer = final_answer(reply.text)
    shown = clip(" ".join(_MARKS.sub("", answer).split()) or "(empty)", MAX_SHOWN)
    return (reply.text if whole else normalised(answer)), shown


def _same(one: Any, other: Any, equal: Callable[[Any, Any], bool] | None) -> bool:
    if equal is None:
        return bool(one == other)
    try:
        with interruptible():
            return bool(equal(one, other))
    except Exception as error:  # noqa: BLE001 - the function is the user's
        raise KimiError(f"equal= failed: {type(error).__name__}: {error!s:.200}") from None


def normalised(answer: str) -> str:
    """Return an answer without case, outer punctuation, marks of Markdown and ways of writing.

    Spaces become one each, and ``1,200.0`` becomes ``1200``.
    """
    text = _MARKS.sub("", unicodedata.normalize("NFKC", answer).casefold())
    text = " ".join(text.split()).strip(" .,;:!?\"'{}()[]")
    return _NUMBER.sub(lambda found: _number(found[0]), text)


def _number(text: str) -> str:
    try:
        return f"{Decimal(text.replace(',', '')).normalize():f}"
    except InvalidOperation:
        return text


def _boxed(text: str) -> str | None:
    """Return what stands between the braces of the last ``\\boxed{…}``, braces in it included."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if not depth:
            return text[start:place].strip()
    return None
