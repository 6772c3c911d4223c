"""Answers without secrets, for tapes: no key, nothing that looks like one, and no account.

Known keys are masked in the bytes, also where they are spread over several events or written as
escapes or as numbers. What cannot be masked with certainty is found, and its place named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kimi_magic.core.likelihoods import TokenLogprob
from kimi_magic.core.messages import Completion
from kimi_magic.core.text import clip, encodable_json, is_json_bomb
from kimi_magic.secrets.escapes import Unescaped
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.patterns import ACCOUNT, KEY, mask_accounts, mask_shapes
from kimi_magic.wire.protocols import Wire
from kimi_magic.wire.recorded_answer import completion_of

__all__ = ["Pieces", "find_secret", "masked"]

Pieces = tuple[tuple[float, bytes], ...]
ACCOUNTS = ("account_id", "org_id", "organization", "organization_id", "project_id", "user_id")
LOGPROBS = "logprobs"
ERROR = 400
DEEPEST = 60
LEAST_BYTES = 8  # of a list of numbers that may spell a key
BODY = "the answer's bytes"
_LINE = re.compile(r"[^\r\n]*(?:\r\n|[\r\n])|[^\r\n]+")


class _Edit(NamedTuple):
    """A stretch of the text, and what takes its place."""

    start: int
    stop: int
    text: str


@dataclass(slots=True)
class _Event:
    """One document in the body, and where its JSON stands in the text."""

    start: int
    stop: int
    value: Any
    changed: bool = False


@dataclass(slots=True)
class _Stream:
    """The texts at one place of all events, in their order: together they are one text."""

    events: list[_Event] = field(default_factory=list)
    parents: list[Any] = field(default_factory=list)
    names: list[Any] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        pairs = zip(self.parents, self.names, strict=True)
        return [_text(parent[name]) for parent, name in pairs]


def masked(pieces: Pieces, keys: Sequence[Key], status: int = 200) -> Pieces:
    """Return the pieces of a body without known keys, and without the ids of accounts."""
    pieces = _on_boundaries(pieces)
    # The decoded texts first: the bytes may hold a part of what these hold whole.
    for edits in (_in_events, _in_text):
        pieces = _edited(pieces, edits(_decoded(pieces), keys))
    if status >= ERROR:
        text = _decoded(pieces)
        if (without := mask_accounts(text)) != text:
            pieces = ((pieces[0][0], _encoded(without)),)
    return pieces


def find_secret(pieces: Pieces, keys: Sequence[Key], wire: Wire) -> str:
    """Return the place of a key, or of something that looks like one; "" for none."""
    text = _decoded(pieces)
    completion = None
    with suppress(Exception):  # of a body that may be anything: the bytes are searched as well
        completion = completion_of(b"".join(data for _, data in pieces), wire)
    for place, said in _said(completion):
        if _is_secret(said, keys):
            return place
    for path, stream in _streams(_events(text)).items():
        if _is_secret("".join(stream.texts), keys):
            return _in_words(path)
    # The ids of calls and chunks are of many forms, and alone in the bytes.
    return BODY if _is_secret(text, keys) else ""


def _is_secret(text: str, keys: Sequence[Key]) -> bool:
    read = Unescaped(text)
    if any(key.spans(read) for key in keys):
        return True
    return any(mask_shapes(form)[0] != form for form in dict.fromkeys((text, read.text)))


def _said(completion: Completion | None) -> Iterator[tuple[str, str]]:
    """Yield what an answer says, each with its place in words."""
    if completion is None:
        return
    message = completion.message
    yield "the answer", message.text
    yield "the reasoning", message.reasoning_text or ""
    for call in message.tool_calls:
        yield f"the arguments of {clip(call.name, 40)}", call.arguments
        yield "the name of a call", call.name
    for tokens in (completion.logprobs, completion.reasoning_logprobs):
        for column in _columns(tokens):
            yield "the logprobs", column


def _columns(tokens: Sequence[TokenLogprob]) -> Iterator[str]:
    yield "".join(token.token for token in tokens)
    most = max((len(token.alternatives) for token in tokens), default=0)
    for place in range(most):
        yield "".join(
            token.alternatives[place].token if place < len(token.alternatives) else ""
            for token in tokens
        )


def _in_text(text: str, keys: Sequence[Key]) -> list[_Edit]:
    """Return the edits that mask keys which stand in the bytes as they are, or escaped."""
    read = Unescaped(text)
    spans = sorted(span for key in keys for span in key.spans(read))
    edits = list[_Edit]()
    for start, stop in spans:
        if edits and start < edits[-1].stop:
            edits[-1] = edits[-1]._replace(stop=max(stop, edits[-1].stop))
        else:
            edits.append(_Edit(start, stop, KEY))
    return edits


def _in_events(text: str, keys: Sequence[Key]) -> list[_Edit]:
    """Return the edits that mask keys which only the decoded texts hold, and accounts."""
    events = _events(text)
    found = False
    for path, stream in _streams(events).items():
        if path[-1] in ACCOUNTS:
            _replace(stream, lambda _: ACCOUNT)
            continue
        if (texts := stream.texts) and (new := _masked_texts(texts, keys)) != texts:
            found = True
            _put(stream, new)
    if found:  # single tokens spell what was masked, and their bytes as numbers
        for event in events:
            if _drop_logprobs(event.value):
                event.changed = True
    return [
        _Edit(event.start, event.stop, encodable_json(event.value, separators=(",", ":")))
        for event in events
        if event.changed
    ]


def _masked_texts(texts: list[str], keys: Sequence[Key]) -> list[str]:
    """Mask the keys in texts that are one text together."""
    whole = Unescaped("".join(texts))
    edits = [_Edit(*span, KEY) for key in keys for span in key.spans(whole)]
    return _apply(texts, sorted(edits)) if edits else texts


def _put(stream: _Stream, texts: list[str]) -> None:
    places = zip(stream.events, stream.parents, stream.names, stream.texts, texts, strict=True)
    for event, parent, name, before, after in places:
        if before != after:
            parent[name] = after if isinstance(parent[name], str) else []
            event.changed = True


def _replace(stream: _Stream, change: Callable[[str], str]) -> None:
    _put(stream, [change(text) if text else text for text in stream.texts])


def _events(text: str) -> list[_Event]:
    """Return the JSON documents of a body: the body itself, or one a line of data."""
    if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
        events = list(_event(text, 0, len(text)))
        if events:
            return events
    events, at = [], 0
    for line in _LINE.findall(text):
        name, colon, _ = line.partition(":")
        if colon and name.strip() == "data":
            events += _event(text, at + len(name) + 1, at + len(line.rstrip("\r\n")))
        at += len(line)
    return events


def _event(text: str, start: int, stop: int) -> Iterator[_Event]:
    data = text[start:stop]
    if is_json_bomb(data.encode("utf-8", "replace")):
        return
    with suppress(ValueError, RecursionError):
        value = json.loads(data)
        lead = len(data) - len(data.lstrip())
        yield _Event(start + lead, start + len(data.rstrip()), value)


def _streams(events: Iterable[_Event]) -> dict[tuple[Any, ...], _Stream]:
    """Return the texts of all events, by their places in them.

    An entry of a list that says its ``index`` is known by that: the calls of an answer arrive one
    at a time. A list of small numbers counts as the text that it spells, as the bytes of a token.
    """
    streams: dict[tuple[Any, ...], _Stream] = {}

    def walk(event: _Event, value: Any, path: tuple[Any, ...]) -> None:
        if len(path) > DEEPEST:
            return
        items: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list):
            items = enumerate(value)
        for name, item in items:
            own = item.get("index") if isinstance(value, list) and isinstance(item, dict) else None
            place = (*path, own if isinstance(own, int) else name)
            if isinstance(item, str) or _spells(item):
                stream = streams.setdefault(place, _Stream())
                stream.events.append(event)
                stream.parents.append(value)
                stream.names.append(name)
            else:
                walk(event, item, place)

    for event in events:
        index = event.value.get("index") if isinstance(event.value, dict) else None
        walk(event, event.value, (index,) if isinstance(index, int) else ())
    return streams


def _spells(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(item) is int and 0 < item < 128 for item in value)
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "".join(map(chr, value))


def _drop_logprobs(value: Any) -> bool:
    """Take the logarithms of the tokens out of a chunk; return True if there were any."""
    dropped = False
    if isinstance(value, dict):
        if value.get(LOGPROBS):
            value[LOGPROBS], dropped = None, True
        items = list(value.values())
    else:
        items = value if isinstance(value, list) else []
    return any([_drop_logprobs(item) for item in items]) or dropped  # noqa: C419 - each of them


def _in_words(path: tuple[Any, ...]) -> str:
    return f"its field {clip('.'.join(map(str, path)), 60)}"


def _on_boundaries(pieces: Pieces) -> Pieces:
    """Move the beginning of a character that was cut to the piece that ends it."""
    moved, rest = list[tuple[float, bytes]](), b""
    for at, data in pieces:
        data, rest = rest + data, b""  # noqa: PLW2901 - it is the next piece
        cut = _unfinished(data)
        if cut:
            data, rest = data[:-cut], data[-cut:]  # noqa: PLW2901
        if data:
            moved.append((at, data))
    if rest:
        moved.append((pieces[-1][0], rest))
    return tuple(moved)


def _unfinished(data: bytes) -> int:
    """Count the bytes at the end that are the beginning of a character."""
    for size in range(1, min(4, len(data) + 1)):
        byte = data[-size]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return size if size < needed else 0
        if byte < 0x80:
            return 0
    return 0


def _decoded(pieces: Pieces) -> str:
    return b"".join(data for _, data in pieces).decode("utf-8", "surrogateescape")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _edited(pieces: Pieces, edits: list[_Edit]) -> Pieces:
    """Apply edits of the whole text to its pieces; a new text stands where the old one began."""
    if not edits:
        return pieces
    texts = [data.decode("utf-8", "surrogateescape") for _, data in pieces]
    new = _apply(texts, edits)
    pairs = zip(pieces, new, strict=True)
    return tuple((at, _encoded(text)) for (at, _), text in pairs if text)


def _apply(texts: Sequence[str], edits: Sequence[_Edit]) -> list[str]:
    """Apply edits, in their order and apart from each other, to the pieces of a text."""
    new, at, todo = list[str](), 0, list(reversed(edits))
    skip = 0  # everything before this place is replaced already
    for text in texts:
        end, pieces, here = at + len(text), list[str](), at
        while True:
            here = min(max(here, skip), end)
            if not todo or todo[-1].start >= end:
                pieces.append(text[here - at :])
                break
            edit = todo.pop()
            if edit.start >= skip:
                pieces += [text[here - at : edit.start - at], edit.text]
            skip = max(skip, edit.stop)
        new.append("".join(pieces))
        at = end
    return new
