"""Redact known keys from text, containers and streams, and what looks like a key from prompts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from itertools import zip_longest
from operator import is_
from typing import Any, TypeVar, cast

from kimi_magic.core.events import ContentDelta
from kimi_magic.core.messages import ImagePart, Message, TokenLogprob, ToolResult
from kimi_magic.core.sent import Sent
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.secrets.escapes import Unescaped
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.patterns import KEY, MASKED, mask_shapes
from kimi_magic.secrets.stream import StreamRedactor

__all__ = ["Redactor", "redact_logs"]

T = TypeVar("T")

_OURS = tuple(kind.__module__ for kind in (Message, ContentDelta, TurnRecord, Sent))
_LOGPROBS = ("logprobs", "reasoning_logprobs")  # the fields of a step, in a stored turn too
_NUMBERS = ("int", "float", "bool", "int | None", "float | None")  # annotations are texts
_OUR_WORDS = ("role", "reasoning_key")  # from a short list of our own, whatever a server sends

# Of the HTTP library: they log the headers of responses, and the words beside a status.
_LOGGERS = ("httpx2", "httpcore2.http11", "httpcore2.http2", "httpcore2.proxy", "httpcore2.socks")
_redact_log: Callable[[str], str] = str


class Redactor:
    """Puts ``[key]`` for each known key: every text that leaves the kernel passes one.

    With ``shapes`` it puts ``[masked]``, for what only looks like a key as well. That is for texts
    that the model reads: in what the reader sees, base64 images among them, it would hit too much.
    """

    def __init__(self, keys: Iterable[Key] = (), *, shapes: bool = False) -> None:
        self._keys = tuple(keys)
        self._shapes = shapes
        self._found: dict[str, None] = {}

    @property
    def found(self) -> tuple[str, ...]:
        """Descriptions of what was redacted so far, for the user; they hold nothing of it."""
        return tuple(self._found)

    def text(self, text: str) -> str:
        """Redact a text."""
        if not (self._keys or self._shapes):
            return text
        read = Unescaped(text)
        for key in self._keys:
            if spans := key.spans(read):
                self._found[f"the value of {key.name}"] = None
                text = _replaced(text, spans, MASKED if self._shapes else KEY)
                read = Unescaped(text)
        if self._shapes:
            text, found = mask_shapes(text)
            self._found |= dict.fromkeys(found)
        return text

    def value(self, value: T) -> T:
        """Redact each text in a message, an event, a result, a record, or a structure of these.

        Of a tool's result, the content is what the model reads: it is redacted by shapes too. The
        object that the tool returned stays as it is.
        """
        return cast("T", self._value(value))

    def stream(self) -> StreamRedactor:
        """Return a redactor of known keys for one text that arrives in pieces."""
        return StreamRedactor(self._keys)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, dict):
            return {
                self._value(name): self._tokens(item)
                if name in _LOGPROBS and isinstance(item, list | tuple)
                else self._value(item)
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return self._items(value)
        return self._result(value) if isinstance(value, ToolResult) else self._record(value)

    def _result(self, value: ToolResult) -> ToolResult:
        for_the_model = Redactor(self._keys, shapes=True)
        content = for_the_model.text(value.content)
        self._found |= for_the_model._found
        # Not the call's id: it ties the result to its call.
        names = ("error", "stdout", "outputs", "traceback")
        shown = {name: getattr(value, name) for name in names}
        return replace(value, content=content, **self._value(shown))

    def _record(self, value: Any) -> Any:
        """Redact a record of ours; one in which nothing changes stays as it is."""
        kind: Any = type(value)
        if kind.__module__ not in _OURS:
            return value
        changed = {}
        for name in _fields_with_texts(kind):
            item = getattr(value, name)
            is_token = name in _LOGPROBS and isinstance(item, list | tuple)
            made = self._tokens(item) if is_token else self._value(item)
            if made is not item:
                changed[name] = made
        return replace(value, **changed) if changed else value

    def _items(self, value: list[Any] | tuple[Any, ...]) -> Sequence[Any]:
        if value and isinstance(value[0], TokenLogprob):
            return self._tokens(value)
        items = [self._value(item) for item in value]
        if isinstance(value, tuple) and all(map(is_, items, value)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)

    def _tokens(self, tokens: Sequence[Any]) -> Sequence[Any]:
        """Return the tokens of a text, none if they spell a secret: no single one holds it.

        Neither may those that could have stood in their places.
        """
        columns = zip_longest(*map(_texts_of, tokens), fillvalue="")
        for column in columns:
            for text in ("".join(column), "\n".join(column)):
                if self.text(text) != text:
                    return type(tokens)()
        return tokens


@cache
def _fields_with_texts(kind: type[Any]) -> tuple[str, ...]:
    """Return the fields of a class of ours in which somebody else's text may be."""
    if not is_dataclass(kind):
        return ()
    # In a picture's base64 the search for shapes would hit by chance.
    opaque = {*_OUR_WORDS, "data"} if issubclass(kind, ImagePart) else _OUR_WORDS
    return tuple(f.name for f in fields(kind) if f.name not in opaque and f.type not in _NUMBERS)


def _texts_of(token: Any) -> list[str]:
    """Return the text of a token and those of its alternatives, as objects or as stored."""
    if isinstance(token, TokenLogprob):
        return [token.token, *(other.token for other in token.alternatives)]
    return [str(token.get("token")), *(str(other[0]) for other in token.get("alternatives", ()))]


def redact_logs(redact: Callable[[str], str]) -> None:
    """Pass what the HTTP library logs through this function: the session knows the keys."""
    global _redact_log  # noqa: PLW0603 - a process has one log
    _redact_log = redact
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_masked_record)  # no second time


def _masked_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = _redact_log(record.getMessage()), ()
    return True


def _replaced(text: str, spans: Iterable[tuple[int, int]], mark: str) -> str:
    pieces, end = [], 0
    for start, stop in spans:
        pieces += [text[end:start], mark]
        end = stop
    return "".join([*pieces, text[end:]])
