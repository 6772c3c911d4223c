"""Pure values: what is said in a chat, and what a turn gives back.

They know nothing of storage, of the network, or of how they are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from kimi_magic.core.errors import KimiError
from kimi_magic.core.text import mend_surrogates

__all__ = [
    "CodeBlock",
    "Completion",
    "Message",
    "Output",
    "Reply",
    "Role",
    "Step",
    "TextPart",
    "ToolCall",
    "ToolResult",
    "Usage",
    "as_content",
]

Role = Literal["system", "user", "assistant", "tool"]

_INLINE = re.compile(r"<think>(.*?)</think>(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of a message's content. Kimi K2 Thinking reads text only."""

    text: str

    def to_dict(self) -> dict[str, str]:
        return {"type": "text", "text": self.text}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that the model asks for; ``arguments`` is its JSON text as it arrived."""

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
    """One output of a cell: the same thing by MIME type, images in base64, and metadata."""

    data: dict[str, Any]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave: the text for the model, the live object, or the error.

    Attributes
    ----------
    stdout : str
        What the function printed, to stdout and to stderr, for the reader.
    outputs : tuple of Output
        What it displayed and then its value, as Jupyter shows them. Nothing in them is sanitised.
    traceback : str
        The user's frames of the exception that ended it.
    seconds : float
        How long the function ran.
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
    """One role's record.

    Parameters
    ----------
    reasoning_key : str
        The field in which the server sent the reasoning; it goes back under the same name.
        ``content``: it came inline, and goes back as ``<think>…</think>`` before the content of a
        message with tool calls. In a final answer it is left out: a chat template drops the
        reasoning of earlier answers from its own fields, but not from the content.
    partial : bool
        The model is to go on with this text of its own.
    """

    role: Role
    content: str | tuple[TextPart, ...] | None = None
    reasoning: str | None = None
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

    def to_dict(self) -> dict[str, Any]:
        """The message as the API knows it."""
        data: dict[str, Any] = {"role": self.role}
        parts, inline = self.content, self.reasoning_key == "content"
        if inline and self.tool_calls and self.reasoning is not None:
            parts = f"<think>{self.reasoning}</think>{self.text}"
        # Beside tool_calls an empty content is refused ("text content is empty").
        if parts or not self.tool_calls:
            data["content"] = (
                [part.to_dict() for part in parts] if isinstance(parts, tuple) else parts or ""
            )
        if self.reasoning is not None and not inline:
            data[self.reasoning_key] = self.reasoning
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
            reasoning=reasoning,
            reasoning_key=key,
            tool_calls=tuple(ToolCall.from_dict(call) for call in data.get("tool_calls") or ()),
            tool_call_id=data.get("tool_call_id"),
            name=data.get("name"),
            partial=data.get("partial") is True,
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """What one model call gave, whole or cut off."""

    message: Message
    finish_reason: str | None = None
    usage: Usage = Usage()
    model: str | None = None

    def __bool__(self) -> bool:
        """Whether anything at all arrived."""
        return bool(self.message.text or self.message.reasoning or self.message.tool_calls)


@dataclass(frozen=True, slots=True)
class Step:
    """One model call and the results of the tools that it asked for."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_results: tuple[ToolResult, ...] = ()
    usage: Usage = Usage()
    finish_reason: str | None = None

    @property
    def seconds(self) -> float:
        """The request's time, and what each of its tools took."""
        return self.usage.seconds + sum(result.seconds for result in self.tool_results)


class CodeBlock(NamedTuple):
    """A fenced block of the answer; ``language`` is "" where the fence names none."""

    language: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What a turn gives back.

    Attributes
    ----------
    text : str
        The final answer; ``str(reply)`` is the same.
    reasoning : str
        The reasoning of all steps, in order.
    steps : tuple of Step
    usage : Usage
        Summed over the steps.
    data : any
        The answer as the value that was asked for, with ``schema=`` or ``-f json``.
    messages : list of dict
        The conversation as the API knows it: what was sent, and the answer. Of a turn that
        brought nothing it ends with the prompt, which the chat does not keep.
    finish_reason : str or None
        ``stop``, ``length``, ``content_filter`` …; ``max_steps`` or ``repetition`` where the
        model had to conclude early; None where the turn did not come to its end.
    model : str
        The model that answered, by the server's word where it gives one.
    chat : str or None
        The chat's name; None for a one-off.
    error : BaseException or None
        Why the turn did not come to its end.
    shown_in : int or None
        The number of the cell in which a view showed it.
    request : dict
        What the turn's requests held beside their messages.
    asked : int
        How many of the messages the first request held; partial mode has the last two as one.
    endpoint : any
        The endpoint that was asked.
    functions : dict
        The functions that were offered, by the names of their tools.
    """

    text: str = ""
    reasoning: str = ""
    steps: tuple[Step, ...] = ()
    usage: Usage = Usage()
    data: Any = None
    conversation: tuple[Message, ...] = field(default=(), repr=False)
    finish_reason: str | None = None
    model: str = ""
    chat: str | None = None
    error: BaseException | None = None
    shown_in: int | None = field(default=None, repr=False)
    request: Mapping[str, Any] = field(default_factory=dict, repr=False)
    asked: int = field(default=0, repr=False)
    endpoint: Any = field(default=None, repr=False)
    functions: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [message.to_dict() for message in self.conversation]

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(call for step in self.steps for call in step.tool_calls)

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        return tuple(result for step in self.steps for result in step.tool_results)

    @property
    def code_blocks(self) -> tuple[CodeBlock, ...]:
        """The fenced code of the answer, in order."""
        from markdown_it import MarkdownIt

        tokens = MarkdownIt("commonmark").parse(self.text)
        return tuple(
            CodeBlock((token.info.split() or [""])[0], token.content)
            for token in tokens
            if token.type == "fence"
        )

    def to_pandas(self) -> Any:
        """The data as a ``pandas.DataFrame``, a row each.

        Raises
        ------
        KimiError
            The data are no records, or pandas is not installed.
        """
        from kimi_magic.core.tabular import to_pandas

        return to_pandas(self.data)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        state = f"error={self.error!r}" if self.error else f"finish_reason={self.finish_reason!r}"
        return (
            f"Reply({_shorten(self.text)!r}, reasoning={_shorten(self.reasoning)!r}, "
            f"steps={len(self.steps)}, model={self.model!r}, chat={self.chat!r}, {state})"
        )

    def _ipython_display_(self) -> None:
        """Show nothing in the cell whose view has shown it; elsewhere the usual repr.

        A terminal has written ``Out[n]:`` by then, and wants something behind it.
        """
        from IPython import get_ipython

        shell = get_ipython()
        if shell.execution_count != self.shown_in or getattr(shell, "kernel", None) is None:
            raise NotImplementedError


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
        f'{{"type": "text", "text": "…"}}; got {_shorten(repr(prompt), 80)}'
    )


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, Mapping)
        and part.get("type") == "text"
        and isinstance(part.get("text"), str)
    )


def _shorten(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
