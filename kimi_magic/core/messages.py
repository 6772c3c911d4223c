"""Messages and their pieces, tool calls and results, steps, and token counts.

Pure values: they know nothing of storage, of the network, or of how they are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from kimi_magic.core.errors import KimiError
from kimi_magic.core.text import clip, mend_surrogates

__all__ = [
    "Completion",
    "Message",
    "Output",
    "ReasoningPart",
    "Role",
    "Step",
    "TextPart",
    "ToolCall",
    "ToolResult",
    "Usage",
    "as_content",
    "as_reasoning",
]

Role = Literal["system", "user", "assistant", "tool"]

_INLINE = re.compile(r"<think>(.*?)</think>(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text in a message's content."""

    text: str

    def to_dict(self) -> dict[str, str]:
        return {"type": "text", "text": self.text}


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """A stretch of a message's reasoning.

    Attributes
    ----------
    text : str
    signature : str or None
        Proof of origin that some APIs (Anthropic's) give with it and want back with it unchanged.
    before_call : int
        Count of the message's tool calls that came before it: reasoning may stand between calls.
    """

    text: str
    signature: str | None = None
    before_call: int = 0


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for; ``arguments`` is its JSON text as it arrived."""

    id: str
    name: str
    arguments: str

    def to_dict(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ToolCall:
        function = data["function"]
        return cls(data["id"], function["name"], function.get("arguments") or "")


class Output(NamedTuple):
    """One output of a cell: its representations by MIME type (images in base64), and metadata."""

    data: dict[str, Any]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool call.

    Attributes
    ----------
    name : str
        The tool's name.
    content : str
        The text for the model.
    value : any
        The live object that the function returned.
    error : str or None
        The reason why the call was not made or failed.
    call_id : str
    stdout : str
        Text that the function printed, to stdout and to stderr.
    outputs : tuple of Output
        Everything that it displayed, then its value, as Jupyter shows them. Nothing in them is
        sanitised.
    traceback : str
        The user's frames of the exception that ended it.
    seconds : float
        Run time of the function.
    """

    name: str
    content: str
    value: Any = field(default=None, repr=False)
    error: str | None = None
    call_id: str = ""
    stdout: str = ""
    outputs: tuple[Output, ...] = ()
    traceback: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counted them, requests, wall time in seconds, and US dollars.

    ``reasoning_tokens`` are part of ``completion_tokens``, ``cached_tokens`` of ``prompt_tokens``
    (OpenAI API reference, *usage*). ``cost`` is 0 where the endpoint's prices are not known.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    requests: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        names = [f.name for f in fields(Usage)]
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def __str__(self) -> str:
        details = [f"{self.prompt_tokens:,} tokens in"]
        if self.cached_tokens:
            details[0] += f" ({self.cached_tokens:,} cached)"
        details.append(f"{self.completion_tokens:,} out")
        if self.reasoning_tokens:
            details[1] += f" ({self.reasoning_tokens:,} reasoning)"
        if self.cost:
            details.append(f"${self.cost:.4f}")
        details.append(f"{self.requests} request{'' if self.requests == 1 else 's'}")
        details.append(f"{self.seconds:.1f} s")
        return " · ".join(details)


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation.

    Attributes
    ----------
    role : str
    content : str, tuple of TextPart, or None
    reasoning : tuple of ReasoningPart, or None
        None: the message has no reasoning field. An empty tuple is sent as empty text, which some
        servers want beside tool calls.
    reasoning_key : str
        The field in which the server sent the reasoning; it goes back under the same name.
        ``content``: it came inline, and goes back as ``<think>…</think>`` before the content of a
        message with tool calls. In a final answer it is left out: chat templates drop the
        reasoning of earlier answers from its own fields, but not from the content.
    tool_calls : tuple of ToolCall
    tool_call_id, name : str or None
        In a tool's message, the call that it answers and the tool.
    partial : bool
        The model is to continue this text, which is its own.
    """

    role: Role
    content: str | tuple[TextPart, ...] | None = None
    reasoning: tuple[ReasoningPart, ...] | None = None
    reasoning_key: str = "reasoning_content"
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    partial: bool = False

    @property
    def text(self) -> str:
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content)

    @property
    def reasoning_text(self) -> str | None:
        return _joined(self.reasoning)

    def to_dict(self) -> dict[str, Any]:
        """Return the message as the API knows it."""
        data: dict[str, Any] = {"role": self.role}
        parts, inline = self.content, self.reasoning_key == "content"
        reasoning = self.reasoning_text
        if inline and self.tool_calls and reasoning is not None:
            parts = f"<think>{reasoning}</think>{self.text}"
        # Beside tool_calls an empty content is refused ("text content is empty").
        if parts or not self.tool_calls:
            data["content"] = (
                [part.to_dict() for part in parts] if isinstance(parts, tuple) else parts or ""
            )
        if reasoning is not None and not inline:
            data[self.reasoning_key] = reasoning
        if self.tool_calls:
            data["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        more = {"tool_call_id": self.tool_call_id, "name": self.name}
        data |= {key: value for key, value in more.items() if value is not None}
        return data | ({"partial": True} if self.partial else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """Read a message as the API knows it; unknown fields are left out."""
        content = data.get("content")
        if isinstance(content, list):
            content = tuple(TextPart(part["text"]) for part in content)
        keys = [key for key in ("reasoning_content", "reasoning") if data.get(key) is not None]
        key = keys[0] if keys else "reasoning_content"
        reasoning = data.get(key)
        if data.get("tool_calls") and (found := _INLINE.match(str(data.get("content")))):
            key, reasoning, content = "content", found[1], found[2]
        return cls(
            role=data["role"],
            content=content,
            reasoning=as_reasoning(reasoning),
            reasoning_key=key,
            tool_calls=tuple(ToolCall.from_dict(call) for call in data.get("tool_calls") or ()),
            tool_call_id=data.get("tool_call_id"),
            name=data.get("name"),
            partial=data.get("partial") is True,
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer of one model call, whole or cut off."""

    message: Message
    finish_reason: str | None = None
    usage: Usage = Usage()
    model: str | None = None

    def __bool__(self) -> bool:
        """Return True if anything at all arrived."""
        return bool(self.message.text or self.message.reasoning or self.message.tool_calls)


@dataclass(frozen=True, slots=True)
class Step:
    """One model call and the results of the tools that it asked for."""

    text: str = ""
    reasoning_parts: tuple[ReasoningPart, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_results: tuple[ToolResult, ...] = ()
    usage: Usage = Usage()
    finish_reason: str | None = None

    @property
    def reasoning(self) -> str:
        return _joined(self.reasoning_parts) or ""

    @property
    def seconds(self) -> float:
        """Time of the request and of each of its tools."""
        return self.usage.seconds + sum(result.seconds for result in self.tool_results)


def as_reasoning(text: str | None) -> tuple[ReasoningPart, ...] | None:
    """Return reasoning that came as one text in the form that a message keeps."""
    if text is None:
        return None
    return (ReasoningPart(text),) if text else ()


def _joined(parts: tuple[ReasoningPart, ...] | None) -> str | None:
    return None if parts is None else "".join(part.text for part in parts)


def as_content(prompt: str | Sequence[Any]) -> str | tuple[TextPart, ...]:
    """Check a prompt: text, or a list of text parts as the API has them.

    Raises
    ------
    KimiError
        For anything else; the message says what was found.
    """
    if isinstance(prompt, str):
        return mend_surrogates(prompt)
    if isinstance(prompt, Iterable):
        parts = list(prompt)
        if parts and all(_is_text_part(part) for part in parts):
            return tuple(TextPart(mend_surrogates(part["text"])) for part in parts)
    raise KimiError(
        "A prompt is a str or a list of text parts such as "
        f'{{"type": "text", "text": "…"}}; got {clip(repr(prompt), 80)}'
    )


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, Mapping)
        and part.get("type") == "text"
        and isinstance(part.get("text"), str)
    )
