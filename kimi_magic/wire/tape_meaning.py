"""A request by its meaning, in canonical form, and where two of them differ.

The order of keys, white space in schemas and in the arguments of calls, the ids of calls and
whether the answer is streamed do not matter. Pictures are named by their hash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import SequenceMatcher
from hashlib import sha256
from itertools import zip_longest
from typing import Any

from kimi_magic.core.text import clip, count, mend_surrogates

__all__ = [
    "cue_of",
    "difference",
    "fingerprint",
    "frame_of",
    "is_deep",
    "likeness",
    "meaning_of",
    "nearest",
]

STREAMING = ("stream", "stream_options")
PROSE = ("description", "title")  # of a schema: its white space is for the eye
_PICTURE = re.compile(r"data:(image/[\w.+-]+);base64,([A-Za-z0-9+/]{40,}={0,2})")
_ID_KEYS = ("tool_call_id", "tool_use_id")
MOST_LEVELS = 150  # of a meaning; JSON Schemas and arguments have about ten
MOST_COMPARED = 400  # recordings, of which the nearest is looked for
MOST_READ = 2000  # characters of a text that is compared for likeness
AROUND, MOST_SHOWN, MOST_DIFFERENCES = 20, 60, 2
Mask = Callable[[str], str]


def meaning_of(
    body: Mapping[str, Any], kind: str, mask: Mask = str, *, wire: str = "chat"
) -> dict[str, Any]:
    """Return the meaning of a request's body.

    Parameters
    ----------
    kind : str
        The kind of endpoint that is asked.
    mask : callable
        Takes keys, and what looks like one, out of a text.
    wire : str
        The API that is asked: an answer of one is not played to the other.
    """
    body = _numbered(body)
    own = ("model", "messages", "tools", *STREAMING)
    parameters = {name: value for name, value in body.items() if name not in own}
    meaning = {
        # A server without a name of its own may have another port each time.
        "endpoint": "custom" if "://" in kind else kind,
        "model": body.get("model"),
        "messages": _canonical(body.get("messages", []), mask),
        "tools": _canonical(body.get("tools", []), mask, schema=True),
        "parameters": _canonical(parameters, mask, schema=True),
        "wire": "" if wire == "chat" else wire,
    }
    return {name: value for name, value in meaning.items() if value or name == "messages"}


def cue_of(
    prompt: str, step: int, calls: Iterable[tuple[str, str]], part: str = "", mask: Mask = str
) -> dict[str, Any]:
    """Return what is the same where the same is asked with other inputs.

    Parameters
    ----------
    prompt : str
        As it was typed, before templates and summaries.
    step : int
        Of the turn, counted from 1.
    calls : iterable of (str, str)
        The calls that the turn has made, as names and arguments.
    part : str
        The part of a turn that asks several things of the same prompt.
    """
    made = [{"name": name, "arguments": _arguments(text)} for name, text in calls]
    cue: dict[str, Any] = {"prompt": prompt.strip(), "step": step, "calls": made, "part": part}
    return {k: _canonical(v, mask) for k, v in cue.items() if v}


def fingerprint(value: Any) -> str:
    """Return what is the same for the same meanings, or cues, and no others."""
    text = json.dumps(_plain_numbers(value), sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def frame_of(meaning: Mapping[str, Any], offered_in: Mapping[str, Any] | None = None) -> str:
    """Return what must be the same also where the inputs differ.

    That is whom is asked and how, and the system prompt: all but the conversation, and the wording
    of schemas, which libraries write. With ``offered_in``, another meaning, the tools are left out
    that are not offered there, too.
    """
    given = meaning.get("parameters")
    parameters = dict(given) if isinstance(given, Mapping) else {}
    form = parameters.pop("response_format", None)
    messages, tools = (
        value if isinstance(value := meaning.get(name), list) else []
        for name in ("messages", "tools")
    )
    system = [m for m in messages if isinstance(m, Mapping) and m.get("role") == "system"]
    kind = form.get("type") if isinstance(form, Mapping) else form
    names = [_name(tool) for tool in tools]
    if offered_in is not None:
        there = offered_in.get("tools")
        known = {_name(tool) for tool in there} if isinstance(there, list) else set()
        names = [name for name in names if name in known]
    about = [meaning.get("endpoint"), meaning.get("model"), parameters, kind, names, system]
    return fingerprint([*about, *filter(None, [meaning.get("wire")])])


def likeness(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return how much two meanings have in common, from 0 to 1."""
    left, right = _messages(one), _messages(other)
    if not (left and right):
        return 0.0
    pairs = zip(left, right, strict=False)
    shared = sum(_alike(a, b) for a, b in pairs) + _alike(left[-1], right[-1])
    same: list[bool] = [
        one.get(name) == other.get(name) for name in ("endpoint", "model", "parameters")
    ]
    return (shared / (max(len(left), len(right)) + 1) * 7 + sum(same)) / 10


def nearest(meaning: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the place of the meaning that is most like this one."""
    places = range(len(others))[-MOST_COMPARED:]
    return max(places, key=lambda place: likeness(meaning, others[place]), default=None)


def difference(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Return what differs between two meanings, as the lines of a short diff."""
    old, new = dict(_leaves(recorded)), dict(_leaves(asked))
    names = [name for name in (old | new) if old.get(name) != new.get(name)]
    lines = []
    for name in names[:MOST_DIFFERENCES]:
        before, after = _excerpts(old.get(name), new.get(name))
        lines += [f"{name}:", f"  - {before}", f"  + {after}"]
    if left := len(names) - MOST_DIFFERENCES:
        lines += [f"and {count(left, 'other place')}."] if left > 0 else []
    return lines


def is_deep(value: Any) -> bool:
    """Return True for data that nest deeper than functions may call themselves."""
    level = [value]
    for _ in range(MOST_LEVELS):
        below = [v.values() if isinstance(v, dict) else v for v in level]
        level = [v for items in below for v in items if isinstance(v, dict | list)]
        if not level:
            return False
    return True


def _numbered(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body with the ids of its calls numbered in the order in which they appear."""
    numbers: dict[str, str] = {}

    def number(value: Any, *, in_call: bool = False) -> Any:
        if isinstance(value, list | tuple):
            return [number(item, in_call=in_call) for item in value]
        if not isinstance(value, Mapping):
            return value
        is_call = in_call or value.get("type") == "tool_use"
        found = {}
        for name, item in value.items():
            is_id = name in _ID_KEYS or (name == "id" and is_call)
            if is_id and isinstance(item, str):
                found[name] = numbers.setdefault(item, f"call_{len(numbers) + 1}")
            else:
                found[name] = number(item, in_call=name == "tool_calls")
        return found

    return {name: number(v) if name == "messages" else v for name, v in body.items()}


def _canonical(value: Any, mask: Mask, *, schema: bool = False, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {
            str(key): _canonical(value[key], mask, schema=schema, name=str(key))
            for key in sorted(value, key=str)
        }
    if isinstance(value, list | tuple):
        return [_canonical(item, mask, schema=schema) for item in value]
    if not isinstance(value, str):
        return value
    if name == "arguments" and not schema:
        arguments = _arguments(value)
        return arguments if isinstance(arguments, str) else _canonical(arguments, mask)
    if schema and name in PROSE:
        value = " ".join(value.split())
    if found := _PICTURE.fullmatch(value):
        digest = sha256(found[2].encode()).hexdigest()
        return f"data:{found[1]};sha256,{digest[:32]}"
    return mend_surrogates(mask(value))


def _arguments(text: str) -> Any:
    """Return the arguments of a call as data; those that are no JSON object as their text."""
    with suppress(ValueError, RecursionError):
        data = json.loads(text)
        if isinstance(data, dict):
            return data
    return text


def _plain_numbers(value: Any) -> Any:
    """Return a value in which 1.0 is 1, as it is for every server."""
    if isinstance(value, Mapping):
        return {str(key): _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _name(offered: Any) -> str:
    function = offered.get("function", offered) if isinstance(offered, Mapping) else {}
    return str(function.get("name")) if isinstance(function, Mapping) else ""


def _messages(meaning: Mapping[str, Any]) -> list[str]:
    messages = meaning.get("messages")
    messages = messages if isinstance(messages, list) else []
    return [json.dumps(message, ensure_ascii=False)[:MOST_READ] for message in messages]


def _alike(one: str, other: str) -> float:
    if one == other:
        return 1.0
    return SequenceMatcher(None, one, other, autojunk=False).quick_ratio() * 0.9


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts and numbers of a meaning, each with its place in words."""
    if path in ("messages", "tools") and isinstance(value, list):
        for number, item in enumerate(value, 1):
            role = item.get("role") if isinstance(item, Mapping) else None
            kind = f"message {number} ({role})" if role else f"tool {_name(item) or number}"
            yield from _leaves(item, kind)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name not in ("role", "parameters", "content"):
                yield from _leaves(item, f"{path}.{name}".lstrip("."))
            elif name != "role":
                yield from _leaves(item, path)
    elif isinstance(value, list):
        for number, item in enumerate(value, 1):
            yield from _leaves(item, f"{path}.{number}")
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)


def _excerpts(before: str | None, after: str | None) -> tuple[str, str]:
    """Return two texts around the place where they begin to differ."""
    if before is None or after is None:
        return tuple(_shown(text) for text in (before, after))  # type: ignore[return-value]
    pairs = enumerate(zip_longest(before, after))
    at = next((place for place, (a, b) in pairs if a != b), 0)
    start = max(at - AROUND, 0)
    dots = "…" if start else ""
    return (
        _shown(before[start:], dots),
        _shown(after[start:], dots),
    )


def _shown(text: str | None, dots: str = "") -> str:
    if text is None:
        return "(nothing)"
    return dots + clip(" ".join(text.split()), MOST_SHOWN)
