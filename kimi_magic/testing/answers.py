"""Scripted replies, in the form that a request asks for and the dialect of a server."""

from __future__ import annotations

import codecs
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

from kimi_magic.testing.dialects import NOTHING, TEXT, Dialect, dig, dumps, items


class Pace(TypedDict, total=False):
    """Timing of an answer, and faults in it.

    Attributes
    ----------
    delay : float
        Seconds to wait before the headers.
    rate : float or None
        Deltas per second; None for the rate of the server.
    stall_after : int or None
        Send no more after this many deltas, but leave the connection open, until
        `ScriptedServer.go_on`.
    cut_after : int or None
        Cut the connection after this many deltas.
    """

    delay: float
    rate: float | None
    stall_after: int | None
    cut_after: int | None


Token = tuple[str | bytes, float] | tuple[str | bytes, float, Mapping[str, float]]
"""A token with its logprob, and the logprobs of others; bytes where it is a part of a character."""


class Answer(NamedTuple):
    """Bytes to send; a `Pace` counts the deltas."""

    deltas: Sequence[bytes] = ()
    opening: Sequence[bytes] = ()
    closing: Sequence[bytes] = ()
    status: int = 200
    headers: Mapping[str, str] = NOTHING
    joined: bool = False  # without a rate, everything goes out in one write


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] = NOTHING) -> Answer:
    data = dumps(value).encode()
    about = {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
    return Answer(closing=[data], status=status, headers=about)


@dataclass(frozen=True, slots=True)
class Reply:
    """A scripted completion, sent in the form that a request asks for."""

    flavour: Dialect
    text: str
    reasoning: str | None
    calls: Sequence[tuple[str | None, str, str]]  # id, name, arguments
    finish_reason: str | None
    usage: Mapping[str, Any] | None
    logprobs: bool | Sequence[Token] = False

    def answer(self, body: Mapping[str, Any], number: int) -> Answer:
        """Return the answer to the ``number``-th request of the server."""
        head = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1762387200}
        head |= {"model": body.get("model"), **self.flavour.chunk}
        calls = self._tool_calls(body, number)
        finish = self.finish_reason or ("tool_calls" if calls else "stop")
        usage = self.usage or self._count(body)
        if body.get("stream"):
            head["object"] = "chat.completion.chunk"
            return self._stream(head, body, calls, finish, usage)
        message = {**self.flavour.delta, "role": "assistant", "content": self.text}
        if self.reasoning is not None:
            message |= json.loads(dumps(self._thought()).replace(_HOLE, dumps(self.reasoning)))
        if calls:
            message |= {"content": self.text or None, "tool_calls": calls}
        choice = self._choice(finish, message=message)
        if self.logprobs and body.get("logprobs"):
            tokens = [*self._tokens(self.reasoning or ""), *self._tokens(self.text)]
            choice["logprobs"] = {"content": [_entry(t, body) for t in tokens]}
        return json_answer({**head, "choices": [choice], "usage": usage})

    def _stream(
        self, head: dict[str, Any], body: Mapping[str, Any], calls: Any, finish: str, usage: Any
    ) -> Answer:
        flavour = self.flavour
        asked = dig(body, "stream_options", "include_usage")
        last = [_event({**head, "choices": [], "usage": usage})] if asked else []

        def event(delta: Mapping[str, Any], end: str | None = None, **more: Any) -> str:
            count = {"usage": usage} if end and flavour.usage_in_choice else {}
            choice = self._choice(end, delta={**flavour.delta, **delta})
            return _event({**head, "choices": [{**choice, **count, **more}]})

        def events(delta: Mapping[str, Any], text: str) -> Iterator[str]:
            if self.logprobs and body.get("logprobs"):
                decoder = codecs.getincrementaldecoder("utf-8")()
                for token in self._tokens(text):
                    found = event(delta, logprobs={"content": [_entry(token, body)]})
                    yield found.replace(_HOLE, dumps(decoder.decode(_data(token[0]))))
                return
            parts = event(delta).split(_HOLE)
            yield from (dumps(piece).join(parts) for piece in _pieces(text))

        deltas = [*events(self._thought(), self.reasoning or "")]
        deltas += events({"content": TEXT}, self.text)
        deltas += (event({"tool_calls": [call]}) for call in self._call_deltas(calls))
        if flavour.fused_finish and deltas:
            end = f'"finish_reason":{dumps(finish)}'
            deltas[-1] = deltas[-1].replace('"finish_reason":null', end)
        else:
            last = [event({}, finish), *last]
        comment = flavour.comment
        return Answer(
            [comment * (i % 8 == 7) + delta.encode() for i, delta in enumerate(deltas)],
            [*([comment] * 2 if comment else []), event(flavour.opening).encode()],
            [*(chunk.encode() for chunk in last), b"data: [DONE]\n\n"],
            headers={"Content-Type": "text/event-stream; charset=utf-8"},
            joined=True,
        )

    def _tokens(self, text: str) -> Sequence[Token]:
        """Return the tokens of the answer or, made up, of any other text."""
        if isinstance(self.logprobs, Sequence) and text == self.text:
            return self.logprobs
        return [(piece, -0.25 * (i % 9), {"?": -3.0}) for i, piece in enumerate(_pieces(text))]

    def _thought(self) -> dict[str, Any]:
        return {self.flavour.reasoning: TEXT, **self.flavour.details}

    def _choice(self, finish: str | None, **content: Any) -> dict[str, Any]:
        choice = {"index": 0, **content, **self.flavour.choice, "finish_reason": finish}
        if "native_finish_reason" in choice:
            choice["native_finish_reason"] = finish
        return choice

    def _tool_calls(self, body: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
        # Kimi numbers its calls through the whole conversation.
        history = [items(dig(m, "tool_calls")) for _, m in items(body.get("messages"))]
        earlier = sum(1 for calls in history for _ in calls)
        numbered = []
        for index, (given, name, arguments) in enumerate(self.calls, earlier):
            unique = uuid.uuid5(uuid.NAMESPACE_OID, f"{number}:{index}").hex
            call_id = given or self.flavour.call_id.format(name=name, index=index, unique=unique)
            function = {"name": name, "arguments": arguments}
            numbered.append({"id": call_id, "type": "function", "function": function})
        return numbered

    def _call_deltas(self, calls: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if self.flavour.whole_calls:
            yield from calls
            return
        for index, call in enumerate(calls):
            eager = slice(0, int(self.flavour.eager_arguments))
            pieces = _pieces(call["function"]["arguments"])
            function = {"name": call["function"]["name"], "arguments": "".join(pieces[eager])}
            yield {"index": index, **call, "function": function}
            for piece in pieces[eager.stop :]:
                function = {**self.flavour.later_function, "arguments": piece}
                yield {"index": index, **self.flavour.later_call, "function": function}

    def _count(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Count words in place of tokens."""
        prompt = len(dumps(body.get("messages")).split())
        answer = len(f"{self.reasoning or ''} {self.text} {dumps(self.calls)}".split())
        total = prompt + answer
        usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": total}
        return {**usage, **self.flavour.cached}


def _data(token: str | bytes) -> bytes:
    return token if isinstance(token, bytes) else token.encode()


def _entry(token: Token, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a token as the API has it, with as many others as the request asks for."""
    text, logprob, others = token if len(token) == 3 else (*token, NOTHING)
    pairs = [(text, logprob), *others.items()]
    pairs.sort(key=lambda pair: -pair[1])
    top = [_token(*pair) for pair in pairs[: body.get("top_logprobs") or 0]]
    return {**_token(text, logprob), "top_logprobs": top}


def _token(token: str | bytes, logprob: float) -> dict[str, Any]:
    data = _data(token)
    return {"token": data.decode("utf-8", "replace"), "logprob": logprob, "bytes": [*data]}


def as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _event(chunk: Mapping[str, Any]) -> str:
    return f"data: {dumps(chunk)}\n\n"


_HOLE = dumps(TEXT)


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s*\S{1,12}|\s+", text)
