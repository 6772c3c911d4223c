"""Deltas of tool calls → whole calls, in every form that servers send them.

In the API's documentation the first delta of a call has its index, id and name, the later ones
have the index and more of the arguments. In the wild the index is missing or the same for all, ids
are repeated or come late, names are empty or null, and arguments are an object or precede the name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from kimi_magic.core.events import ToolCallDelta, ToolCallStarted
from kimi_magic.core.messages import ToolCall
from kimi_magic.core.text import Pieces, bytes_of, mend_surrogates
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.stream import StreamRedactor
from kimi_magic.wire.openai.inline_markup import CallPart

__all__ = ["CallTable"]

# Calls, ids, and arguments whose call has no name yet show in no delta, so nobody else counts them.
CALL_BYTES, MOST_UNSEEN_BYTES = 2000, 16_000_000


class _Call:
    """A tool call under construction; its place among the calls is given with its name."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self.id = ""
        self.name = ""
        self.arguments = Pieces()
        self.place = -1
        self.redactor = StreamRedactor(keys)

    def is_whole(self) -> bool:
        """Return True if its arguments are complete JSON."""
        with suppress(ValueError, RecursionError):
            json.loads("".join(self.arguments))
            return True
        return False

    def is_another(self, call_id: str, name: str) -> bool:
        """Return True if an entry with this id and name begins a call after this one."""
        if not name or not self.name:
            return False
        other_id = call_id and self.id and call_id != self.id
        return name != self.name or bool(other_id and self.is_whole())


class CallTable:
    """The tool calls of one model call.

    Calls are counted in the order in which their names became known, from 0: that is the index of
    the events and the place among the finished calls. Ids and names are taken when they are not
    empty and never joined; only arguments are.
    """

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._keys = keys
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._started: list[_Call] = []
        self._unseen_bytes = 0
        self._open = _Call(keys)

    def __bool__(self) -> bool:
        return bool(self._started)

    def add(self, entry: Mapping[str, Any]) -> Iterator[ToolCallStarted | ToolCallDelta]:
        """Take one entry of a delta's ``tool_calls``."""
        function = entry.get("function")
        if not isinstance(function, dict):
            function = {}
        call_id, name = _string(entry.get("id")), _string(function.get("name"))
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
        index = entry.get("index")
        if isinstance(index, int):
            call = self._at(index, call_id, name)
        else:
            call = self._without_index(call_id, name, arguments)
        yield from self._add(call, call_id, name, arguments)

    def add_part(self, part: CallPart) -> Iterator[ToolCallStarted | ToolCallDelta]:
        """Take a part of a call that was written into the text."""
        if part.name:
            self._open = self._new()
        yield from self._add(self._open, *part)

    def finish(self) -> Iterator[ToolCallStarted | ToolCallDelta]:
        """Release what was held back of arguments, and calls without a name; no entry follows."""
        for call in self._started:
            if rest := call.redactor.finish():
                call.arguments.append(rest)
                yield ToolCallDelta(call.place, rest)
        for call in self._calls:
            if call.place >= 0:
                continue
            call.arguments += filter(None, [call.redactor.finish()])
            if call.arguments:
                yield self._start(call)
                yield ToolCallDelta(call.place, "".join(call.arguments))

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the calls so far; one whose name never came is among them at the end only."""
        return tuple(
            ToolCall(call.id, call.name, "".join(call.arguments)) for call in self._started
        )

    def _add(
        self, call: _Call, call_id: str, name: str, arguments: str
    ) -> Iterator[ToolCallStarted | ToolCallDelta]:
        if call_id and call_id != call.id:
            call.id = call_id
            self._count(bytes_of(call_id))
        if not call.name:
            self._count(bytes_of(arguments))
        if arguments := call.redactor.feed(arguments):
            call.arguments.append(arguments)
        if name and not call.name:
            call.name = name
            yield self._start(call)
            arguments = "".join(call.arguments)  # they may have come before the name
        if arguments and call.name:
            yield ToolCallDelta(call.place, arguments)

    def _count(self, unseen: int) -> None:
        self._unseen_bytes += unseen
        if self._unseen_bytes > MOST_UNSEEN_BYTES:
            raise ValueError("too many tool calls, or too long ones without a name")

    def _start(self, call: _Call) -> ToolCallStarted:
        call.place = len(self._started)
        self._started.append(call)
        return ToolCallStarted(call.place, call.name)

    def _new(self) -> _Call:
        self._count(CALL_BYTES)
        self._calls.append(_Call(self._keys))
        return self._calls[-1]

    def _at(self, index: int, call_id: str, name: str) -> _Call:
        call = self._by_index.get(index)
        if call is None or call.is_another(call_id, name):  # some servers send index 0 for all
            call = self._by_index[index] = self._new()
        return call

    def _without_index(self, call_id: str, name: str, arguments: str) -> _Call:
        """Find the call by its id; else take the latest, unless that one is complete."""
        known = [call for call in self._calls if call_id and call.id == call_id]
        if not self._calls or (known or self._calls)[-1].is_another(call_id, name):
            return self._new()
        if known:
            return known[-1]
        latest = self._calls[-1]
        # Two whole calls of one function differ in nothing but that the first is complete.
        again = name and name == latest.name and arguments and latest.is_whole()
        return self._new() if again or (call_id and latest.id) else latest


def _string(value: Any) -> str:
    return mend_surrogates(value) if isinstance(value, str) else ""
