"""The JSON in an answer: all of it, or what stands in a fence or in prose.

JSON is read as it stands. Of what is broken nothing is mended or passed over: an inner part, or an
example that stood before it, could be taken for the answer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from kimi_magic.schema.problems import Misfit

__all__ = ["json_values"]

MAX_SHOWN = 30
_FENCE = re.compile(r"^[ \t]*```([^\n`]*)\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
# A bracket in prose begins a value when what follows may be its first member.
# [0, 1) and [ ] are none.
_OPENING = re.compile(r"\{(?=\s*[\"'}])|\[(?=\s*[\[{\"])")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[][{}]', re.DOTALL)


def json_values(text: str) -> Iterator[Any]:
    """Yield what may be the answer, the likeliest first.

    What is fenced goes before prose, objects before arrays, later ones before earlier ones.

    Raises
    ------
    Misfit
        The next one is broken, or the answer ends in the middle of one.
    """
    try:
        whole = _loads(text)
    except Misfit:
        pass
    else:
        yield whole
        return
    fences = [m.span(2) for m in _FENCE.finditer(text) if re.match(r"\s*(json|$)", m[1].lower())]

    def rank(span: tuple[int, int]) -> tuple[bool, bool, int]:
        start, _ = span
        return not any(a <= start < b for a, b in fences), text[start] == "[", -start

    spans = sorted(_spans(text), key=rank)
    for start, end in reversed(fences):
        with suppress(Misfit):
            yield _loads(text[start:end])
    for start, end in spans:
        yield _loads(text[start:end])


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the outermost values stand."""
    end = 0
    while opening := _OPENING.search(text, end):
        start = opening.start()
        end = _end(text, start)
        if not end:
            _loads(text[start:])  # says where it is cut off
            return
        yield start, end


def _end(text: str, start: int) -> int:
    """Where the bracket at `start` is closed; 0: nowhere."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if not depth:
            return token.end()
    return 0


def _loads(text: str) -> Any:
    try:
        # A line break inside a string, which strict JSON wants escaped, has one meaning only.
        return json.loads(
            text,
            strict=False,
            object_pairs_hook=_once,
            parse_constant=_refuse,
            parse_float=_finite,
        )
    except json.JSONDecodeError as error:
        raise Misfit({(): _broken(error)}) from None
    except ValueError:  # sys.set_int_max_str_digits
        raise Misfit({(): "got an integer of more than 4,300 digits"}) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Misfit({(): f'got "{name}" more than once in one object, want it once'})
        found[name] = value
    return found


def _refuse(constant: str) -> None:
    raise Misfit({(): f"got {constant}, which JSON does not have, want a number or null"})


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise Misfit({(): f"got {digits}, which is beyond all floats, want a smaller number"})
    return number


def _broken(error: json.JSONDecodeError) -> str:
    text, at = error.doc.rstrip(), error.pos
    reason = error.msg.removesuffix(" at").removesuffix(" starting")
    if at >= len(text) or reason == "Unterminated string":
        return f"got JSON that is cut off after «{text[-MAX_SHOWN:]}» ({reason})"
    near = text[max(at - MAX_SHOWN // 2, 0) : at + MAX_SHOWN // 2]
    return f"got text that is not JSON ({reason}, near «{near}»)"
