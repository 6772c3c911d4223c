"""The first request of a turn as data, ready to be written as a program."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from kimi_magic.core.errors import KimiError
from kimi_magic.core.reply import Reply
from kimi_magic.core.text import mend_surrogates
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.patterns import MASKED
from kimi_magic.secrets.redact import Redactor

__all__ = ["Encode", "Heavy", "OwnHeader", "Program", "program_of"]

# A server that holds the answer to a schema makes no calls, so its last request alone had one.
NO_SCHEMA = (
    "The answer was held to its schema in a request without tools: response_format is left out."
)
# The embedded engine has no address of its own; this is the default of llama.cpp's server.
PLACEHOLDER_URL = "http://127.0.0.1:8080/v1"
PRACTICE_MODEL = "The practice model lives in the kernel alone: set base_url and model to another."
NO_ADDRESS = "The answer came from a tape, which holds no address: set base_url to your server's."
# The top-level domain of hosts that do not exist (RFC 2606).
_NO_HOST = re.compile(r"https?://[^/]*\.invalid(?![^/:])")
_ANTHROPIC = re.compile(r"https://api\.anthropic\.com(?![^/:])", re.IGNORECASE)

OTHER_JUDGE = (
    "Another model aggregated the attempts: where they were asked is not kept, so base_url is its."
)

# A record may come from a notebook of somebody else: nothing else of it becomes source text.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_VALUE = re.compile(rf"((?:[A-Za-z][A-Za-z-]* )?)\$\{{({_VARIABLE.pattern})\}}")


Encode = Callable[[Mapping[str, Any]], dict[str, Any]]


class OwnHeader(NamedTuple):
    """A header of the endpoint's own: its name, its scheme if any, and the variable it is in."""

    name: str
    scheme: str
    variable: str


@dataclass(frozen=True, slots=True)
class Program:
    """A request, and what a program needs to send it."""

    body: Mapping[str, Any]  # the request as the API knows it
    base_url: str  # up to and including /v1
    key_env: str | None = None  # environment variable of the key; None if the server needs none
    provider: str = ""  # the endpoint's name
    # By tool name; None for a tool without a Python function.
    functions: Mapping[str, Callable[..., Any] | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # remarks for the opening comment
    headers: tuple[OwnHeader, ...] = ()
    heavy: Heavy | None = None  # where several attempts are aggregated
    confirmed: frozenset[str] = frozenset()  # the tools that ask a person before each call
    served: Mapping[str, str] = field(default_factory=dict)  # where tools of servers are, by name
    called: frozenset[str] = frozenset()  # texts in the arguments of the turn's calls
    encoded: Mapping[str, Any] | None = None  # the request in the Messages API, if it is for that

    def __post_init__(self) -> None:
        # Through JSON, so that the writers meet no type that JSON lacks.
        for name in ("body", "encoded"):
            text = json.dumps(getattr(self, name), ensure_ascii=False, default=dict)
            object.__setattr__(self, name, json.loads(mend_surrogates(text)))

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body["messages"])

    @property
    def tools(self) -> list[dict[str, Any]]:
        return list(self.body.get("tools") or ())

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def options(self) -> dict[str, Any]:
        """The fields of the body other than the messages and the tools."""
        return {k: v for k, v in self.body.items() if k not in ("messages", "tools")}

    @property
    def timeout(self) -> int:
        """Seconds of silence to accept: an answer in one piece is silent until it is whole."""
        return 600 if self.streams else 3600

    @property
    def key_headers(self) -> tuple[OwnHeader, ...]:
        """The headers that carry the key, that of the SDKs first; none where there is no key."""
        if not self.key_env:
            return ()
        bearer = OwnHeader("Authorization", "Bearer ", self.key_env)
        # Anthropic takes the key in one header; other servers of its API read either.
        if self.encoded is None or _ANTHROPIC.match(self.base_url):
            return (bearer,)
        return bearer, OwnHeader("X-Api-Key", "", self.key_env)

    def opening(
        self,
        client: str,
        install: str = "",
        *,
        runs_tools: bool = False,
        runs_attempts: bool = False,
    ) -> list[str]:
        """Return the paragraphs of the opening comment."""
        paragraphs = [f"{self.model} through {client}."]
        if install:
            paragraphs.append(f"Install: {install}")
        if self.key_env:
            paragraphs.append(f"Key: from the environment variable {self.key_env}")
        paragraphs += (
            f"Header {header.name}: from the environment variable {header.variable}"
            for header in self.headers
        )
        paragraphs += self.notes
        if self.heavy and runs_attempts and self.encoded is None:
            judge = "" if self.heavy.judge.model == self.model else f" by {self.heavy.judge.model}"
            paragraphs.append(
                f"Heavy mode: {self.heavy.count} attempts at once, and a request that aggregates "
                f"their answers{judge}."
            )
        elif self.heavy:
            paragraphs.append(self.heavy.note)
        if self.tools and not runs_tools:
            names = ", ".join(tool["function"]["name"] for tool in self.tools)
            paragraphs.append(
                f"Tools: {names}. The model's calls are shown, and the program ends there."
            )
        return paragraphs


@dataclass(frozen=True, slots=True)
class Heavy:
    """The aggregation of a program's attempts.

    Attributes
    ----------
    count : int
        Attempts.
    judge : Program
        The request that aggregates them; its messages are those of the attempts.
    prompt : str
        With the places ``{count}``, ``{problem}`` and ``{attempts}``.
    chars : int
        Characters that the attempts may take in it.
    """

    count: int
    judge: Program
    prompt: str
    chars: int

    @property
    def enough(self) -> int:
        """The number of attempts that have to come to an answer."""
        return -(-self.count // 2)

    @property
    def note(self) -> str:
        """The paragraph of a form that takes one attempt alone."""
        has_them = "" if self.judge.encoded else "; the form python has them"
        return (
            f"This is one of the {self.count} attempts of heavy mode. The others, and the request "
            f"that aggregates their answers, are left out{has_them}."
        )


def program_of(
    reply: Reply,
    keys: Sequence[Key],
    *,
    prompt: str = "",
    chars: int = 0,
    encode: Encode | None = None,
) -> Program:
    """Return the program that sends the first request of a turn again.

    The messages are redacted: of the keys, and of everything that looks like one. Partial mode is
    left out: the request ends with the words that asked to continue. In heavy mode it is the
    request of the attempts, with the ``prompt`` that aggregates them and the room for them in it.
    ``encode`` writes a request in the Messages API, where the endpoint speaks that.
    """
    record = reply.record
    if not (reply.trajectories and prompt):
        return _program_of(record, reply, keys, encode)
    sent = ((n, each.record) for n, each in enumerate(reply.trajectories) if each.record.parameters)
    number, first = next(sent, (0, None))
    notes: list[str] = []
    if first is None:  # of a stored turn, which has the request that gave its answer
        first = record
        answered_by = next((each.model for each in reply.trajectories if each.model), record.model)
        if answered_by != record.model:
            first = replace(record, parameters={**record.parameters, "model": answered_by})
            notes.append(OTHER_JUDGE)
    if isinstance(first.parameters.get("seed"), int):
        seed = first.parameters["seed"] - number
        first = replace(first, parameters={**first.parameters, "seed": seed})
    alone = {name: value for name, value in record.parameters.items() if name != "tools"}
    judge = _program_of(replace(record, parameters=alone), reply, keys, encode)
    program = _program_of(first, reply, keys, encode)
    return replace(
        program,
        heavy=Heavy(len(reply.trajectories), judge, prompt, chars),
        notes=(*program.notes, *notes),
    )


def _program_of(
    record: TurnRecord, reply: Reply, keys: Sequence[Key], encode: Encode | None
) -> Program:
    endpoint = record.endpoint
    if not record.parameters or endpoint is None:
        raise KimiError("This turn sent nothing, so there is no program to write.")
    notes, base_url = list[str](), endpoint.base_url
    if not base_url or _NO_HOST.match(base_url):
        notes = [NO_ADDRESS if base_url else PRACTICE_MODEL]
        base_url = PLACEHOLDER_URL.removesuffix("/v1" if encode else "")
    masks = Redactor(keys, shapes=True)
    sent = record.messages[: record.sent]
    if encode:  # a signature is dropped with the text that it signs
        messages = [message.to_dict(whole=True) for message in map(masks.value, sent)]
    else:
        messages = masks.value([message.to_dict() for message in sent])
    notes += (
        f"messages[{index}] holds {MASKED} in the place of a secret."
        for index, message in enumerate(messages)
        if MASKED in json.dumps(message)
    )
    headers = tuple(
        OwnHeader(name, *found.groups())
        for name, value in endpoint.headers.items()
        if _HEADER.fullmatch(name) and (found := _VALUE.fullmatch(value))
    )
    if endpoint.key_env and not _VARIABLE.fullmatch(endpoint.key_env):
        raise KimiError("This turn's record names no variable for its key; it was changed.")
    parameters = dict(record.parameters)
    if parameters.get("tools") and parameters.pop("response_format", None):
        notes.append(NO_SCHEMA)
    body = parameters | {"messages": messages}
    return Program(
        body,
        base_url,
        endpoint.key_env,
        endpoint.name,
        dict(reply.functions),
        tuple(notes),
        headers,
        called=frozenset(_texts_in_calls(record)),
        encoded=encode(body) if encode else None,
    )


def _texts_in_calls(record: TurnRecord) -> Iterator[str]:
    for message in record.messages[record.sent :]:
        for call in message.tool_calls:
            with suppress(ValueError, RecursionError):
                yield from _texts_in(json.loads(call.arguments or "null"))


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.strip()
    inner = value.values() if isinstance(value, dict) else value
    for item in inner if isinstance(value, dict | list) else ():
        yield from _texts_in(item)
