"""The vote of several trajectories: which of them came to the same answer."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.interrupts import interruptible
from kimi_magic.core.reply import Reply
from kimi_magic.core.shown import Shown
from kimi_magic.core.text import clip, vote_line

__all__ = ["Group", "Vote", "final_answer", "normalised", "take_vote"]

MAX_SHOWN = 80
# Behind the colon only blanks and marks of Markdown are skipped: a sign belongs to the answer.
_SAID = re.compile(
    r"^\W*(?:the )?(?:final )?answer(?: is\b)?[\s*_`]*(?:[:=]|(?<=is)\s)[\s*_`]*(.+)$",
    re.IGNORECASE,
)
_MARKS = re.compile(r"[*_`$]|\\[(\[)\]]|\\(?:text|mathrm|mathbf)\b")
# Commas only between groups of three digits: others separate numbers.
_NUMBER = re.compile(
    r"(?<![\d.])(?P<sign>[-+]?)(?P<whole>\d{1,3}(?:,\d{3})+(?![\d,])|\d+|(?=\.\d))(?:\.(?P<part>\d+))?(?!\.?\d)"
)
_WORD = re.compile(r"[^\W\d]{2}")
_BEGINS, _ENDS = " ,;:?\"'", " .,;:?\"'"  # .5 is a number
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True, repr=False)
class Group(Shown):
    """Trajectories with the same answer, by their numbers."""

    answer: str
    lanes: tuple[int, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Vote(Shown):
    """The distinct answers, the one that most trajectories came to first."""

    groups: tuple[Group, ...] = ()

    @property
    def most(self) -> int:
        """The number of trajectories that came to the first answer."""
        return len(self.groups[0].lanes) if self.groups else 0

    def __str__(self) -> str:
        return vote_line((group.answer, len(group.lanes)) for group in self.groups)


def take_vote(
    replies: Mapping[int, Reply],
    equal: Callable[[Any, Any], bool] | None = None,
    known: dict[tuple[int, int], bool] | None = None,
) -> Vote:
    """Group numbered replies by their answers.

    Answers as data are equal if their data are, texts if their final answers are, letter by letter
    but for case, spaces, marks of Markdown and the way a number is written. ``equal`` compares two
    of them instead: the data where there are any, else the texts. What it said earlier of two
    replies is in ``known``, to which it adds.

    Raises
    ------
    KimiError
        ``equal`` failed.
    """
    said = {} if known is None else known
    groups: list[tuple[Any, str, list[int]]] = []
    for number, reply in replies.items():
        value, shown = _compared(reply, whole=equal is not None)
        for first, _, lanes in groups:
            two = lanes[0], number
            if two not in said:
                said[two] = _same(first, value, equal)
            if said[two]:
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
    text = _MARKS.sub("", unicodedata.normalize("NFKC", answer).casefold()).replace("\u2212", "-")
    text = " ".join(text.split()).lstrip(_BEGINS).rstrip(_ENDS)
    if _WORD.search(text):  # 5! and n! are factorials
        text = text.rstrip("!" + _ENDS)
    # Around one value; around several, brackets tell an interval from another.
    while "," not in text and text[1:] and _BRACKETS.get(text[0]) == text[-1]:
        text = text[1:-1].lstrip(_BEGINS).rstrip(_ENDS)
    return _NUMBER.sub(_number, text)


def _number(found: re.Match[str]) -> str:
    """Return a number without its leading and last zeros; no digit is rounded away."""
    whole = found["whole"].replace(",", "").lstrip("0") or "0"
    part = (found["part"] or "").rstrip("0")
    sign = "-" if found["sign"] == "-" else ""
    return f"{sign}{whole}.{part}" if part else f"{sign}{whole}"


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
