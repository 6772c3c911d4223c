"""Messages and their pieces, tool calls and results, steps, and token counts.

Pure values: they know nothing of storage, of the network, or of how they are shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from kimi_magic.core.errors import KimiError
from kimi_magic.core.likelihoods import TokenLogprob
from kimi_magic.core.shown import Shown, Words, short_html, short_repr
from kimi_magic.core.text import clip, count, mend_surrogates

__all__ = [
    "DECLINED",
    "INSISTED",
    "INTERRUPTED",
    "NOBODY",
    "NOT_MADE",
    "Completion",
    "ImagePart",
    "Message",
    "Outcome",
    "Output",
    "Part",
    "ReasoningPart",
    "Role",
    "Step",
    "TextPart",
    "Timings",
    "ToolCall",
    "ToolResult",
    "Usage",
    "as_content",
    "as_reasoning",
    "join_parts",
    "text_of",
]

Role = Literal["system", "user", "assistant", "tool"]
Outcome = Literal["done", "failed", "declined", "stopped"]

# Errors of calls that did not fail by themselves.
DECLINED = "The user declined this call"
NOBODY = "This tool needs the user's confirmation, and there was nobody to ask"
NOT_MADE = "cancelled"
INTERRUPTED = "interrupted"
INSISTED = "interrupted: it had caught the first interrupt and gone on"

_DATA_URL = re.compile(r"data:(image/(?:png|jpeg|webp|gif));base64,([A-Za-z0-9+/]+={0,2})")
_INLINE = re.compile(r"<think>(.*?)</think>(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, repr=False)
class TextPart(Shown):
    """A piece of text in a message's content."""

    text: str

    def to_dict(self) -> dict[str, str]:
        return {"type": "text", "text": self.text}


@dataclass(frozen=True, slots=True, repr=False)
class ImagePart(Shown):
    """A picture in a message's content.

    Attributes
    ----------
    data : str
        The image in base64.
    media_type : str
    width, height : int
        Pixels; 0 where they are not known.
    instead : str
        The text that stands in for it where a model does not see.
    """

    data: str = field(repr=False)
    media_type: str = "image/png"
    width: int = 0
    height: int = 0
    instead: str = ""

    @property
    def text(self) -> str:
        return self.instead or f"[{self}]"

    @property
    def tokens(self) -> int:
        """The tokens that it takes, about: one for each 28 × 28 pixels.

        Kimi's vision encoder reads patches of 14 × 14 in their native resolution and merges four
        into one (Kimi-VL technical report, 2504.07491).
        """
        return math.ceil((self.width or 1024) / 28) * math.ceil((self.height or 1024) / 28)

    def __str__(self) -> str:
        size = f", {self.width} × {self.height} pixels" if self.width else ""
        return f"picture{size}"

    def to_dict(self) -> dict[str, Any]:
        url = f"data:{self.media_type};base64,{self.data}"
        return {"type": "image_url", "image_url": {"url": url}}


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True, repr=False)
class ReasoningPart(Shown):
    """A stretch of a message's reasoning.

    Attributes
    ----------
    text : str
    signature : str or None
        Proof of origin that some APIs (Anthropic's) give with it and want back with it unchanged;
        Kimi's may be empty.
    before_call, before_text : int
        Counts of the message's tool calls, and of the characters of its text, that came before it.
    redacted : bool
        The server gave it encrypted, as the ``signature``; there is no text.
    """

    text: str
    signature: str | None = None
    before_call: int = 0
    before_text: int = 0
    redacted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the block of Anthropic's API, and its place in the message."""
        block: dict[str, Any] = {"type": "thinking", "thinking": self.text}
        if self.redacted:
            block = {"type": "redacted_thinking", "data": self.signature or ""}
        elif self.signature is not None:
            block["signature"] = self.signature
        return block | {"before_call": self.before_call, "before_text": self.before_text}


@dataclass(frozen=True, slots=True, repr=False)
class ToolCall(Shown):
    """A call that the model asks for; ``arguments`` is its JSON text as it arrived."""

    id: str
    name: str
    arguments: str

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})"

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

    def _facts(self) -> Iterator[tuple[str, Any]]:
        for kind, data in self.data.items():
            size = count(len(data), "character") if isinstance(data, str) else type(data).__name__
            is_text = kind == "text/plain" and isinstance(data, str)
            yield kind, data if is_text else Words(size)
        if self.metadata:
            yield "metadata", self.metadata

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        return short_html(self)


@dataclass(frozen=True, slots=True, repr=False)
class ToolResult(Shown):
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
    pictures : tuple of ImagePart
        Figures that it returned, drawn where no output shows them; for a model that sees.
    recorded : bool
        The tool was not called: this is its result from the tape that the turn was played from.
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
    pictures: tuple[ImagePart, ...] = field(default=(), repr=False)
    recorded: bool = False

    def _facts(self) -> Iterator[tuple[str, Any]]:
        yield "name", self.name
        yield "content", self.content
        if self.value is not None:
            yield "value", Words(f"<{type(self.value).__name__}>")
        for name in ("error", "stdout", "traceback"):
            if text := getattr(self, name):
                yield name, text
        kinds = [Words(kind) for output in self.outputs for kind in output.data]
        if kinds := list(dict.fromkeys(kinds)):
            yield "outputs", kinds

    @property
    def outcome(self) -> Outcome:
        """The end of the call in a word."""
        if not self.error:
            return "done"
        if self.error in (DECLINED, NOBODY):
            return "declined"
        return "stopped" if self.error in (NOT_MADE, INTERRUPTED, INSISTED) else "failed"


@dataclass(frozen=True, slots=True, repr=False)
class Usage(Shown):
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

    @property
    def steady(self) -> Usage:
        """The counts that a run with the same answers has as well."""
        return Usage(self.prompt_tokens, self.completion_tokens, self.reasoning_tokens)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cached_tokens + other.cached_tokens,
            self.requests + other.requests,
            self.seconds + other.seconds,
            self.cost + other.cost,
        )

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


@dataclass(frozen=True, slots=True, repr=False)
class Message(Shown):
    """A message of a conversation.

    Attributes
    ----------
    role : str
    content : str, tuple of TextPart and ImagePart, or None
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
    failed : bool
        In a tool's message, the call failed or was not made.
    """

    role: Role
    content: str | tuple[Part, ...] | None = None
    reasoning: tuple[ReasoningPart, ...] | None = None
    reasoning_key: str = "reasoning_content"
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    partial: bool = False
    failed: bool = field(default=False, compare=False)

    @property
    def text(self) -> str:
        return text_of(self.content)

    @property
    def images(self) -> tuple[ImagePart, ...]:
        parts = self.content if isinstance(self.content, tuple) else ()
        return tuple(part for part in parts if isinstance(part, ImagePart))

    @property
    def reasoning_text(self) -> str | None:
        return _joined(self.reasoning)

    def to_dict(self, *, whole: bool = False) -> dict[str, Any]:
        """Return the message in the form of chat completions.

        With ``whole`` it has what other APIs need: the reasoning as ``thinking_blocks`` in place of
        its text, and ``is_error`` of a call that failed.
        """
        data: dict[str, Any] = {"role": self.role}
        parts, inline = self.content, self.reasoning_key == "content" and not whole
        reasoning = self.reasoning_text
        if inline and self.tool_calls and reasoning is not None:
            parts = f"<think>{reasoning}</think>{self.text}"
        # Beside tool_calls an empty content is refused ("text content is empty").
        if parts or not self.tool_calls:
            data["content"] = (
                [part.to_dict() for part in parts] if isinstance(parts, tuple) else parts or ""
            )
        if whole and self.reasoning is not None:
            data["thinking_blocks"] = [part.to_dict() for part in self.reasoning]
        elif reasoning is not None and not inline:
            data[self.reasoning_key] = reasoning
        if self.tool_calls:
            data["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        more = {"tool_call_id": self.tool_call_id, "name": self.name}
        data |= {key: value for key, value in more.items() if value is not None}
        data |= {"is_error": True} if whole and self.failed else {}
        return data | ({"partial": True} if self.partial else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """Read a message as the API knows it; unknown fields are left out."""
        content = data.get("content")
        if isinstance(content, list):
            content = tuple(part for part in map(_as_part, content) if part)
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


@dataclass(frozen=True, slots=True, repr=False)
class Timings(Shown):
    """Moments of one model call.

    Attributes
    ----------
    started : float
        Seconds of Unix time at which the request went out; 0 where it is not known.
    first_token, first_answer : float or None
        Seconds after that until anything of the answer came, and until its text did.
    """

    started: float = 0.0
    first_token: float | None = None
    first_answer: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Completion(Shown):
    """The answer of one model call, whole or cut off.

    ``sent_logprobs``: the server sent some, even if they do not fit the text.
    """

    message: Message
    finish_reason: str | None = None
    usage: Usage = Usage()
    model: str | None = None
    timings: Timings = Timings()
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning_logprobs: tuple[TokenLogprob, ...] = ()
    sent_logprobs: bool = False

    def __bool__(self) -> bool:
        """Return True if anything at all arrived."""
        return bool(self.message.text or self.message.reasoning or self.message.tool_calls)


@dataclass(frozen=True, slots=True, repr=False)
class Step(Shown):
    """One model call and the results of the tools that it asked for.

    ``logprobs`` are the tokens of its text, ``reasoning_logprobs`` those of its reasoning, where
    the server gave them: joined they are that text.
    """

    text: str = ""
    reasoning_parts: tuple[ReasoningPart, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_results: tuple[ToolResult, ...] = ()
    usage: Usage = Usage()
    finish_reason: str | None = None
    timings: Timings = Timings()
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning_logprobs: tuple[TokenLogprob, ...] = ()

    def _facts(self) -> Iterator[tuple[str, Any]]:
        yield "text", self.text
        if self.reasoning:
            yield "reasoning", self.reasoning
        if self.tool_calls:
            yield "tool_calls", [Words(call) for call in self.tool_calls]
        if self.tool_results:
            yield "tool_results", [Words(_outcome(result)) for result in self.tool_results]
        if self.usage.total_tokens:
            yield "tokens", self.usage.total_tokens
        yield "finish_reason", self.finish_reason

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


def _outcome(result: ToolResult) -> str:
    return f"failed: {result.error}" if result.error else result.content


def _joined(parts: tuple[ReasoningPart, ...] | None) -> str | None:
    return None if parts is None else "".join(part.text for part in parts)


def as_content(prompt: str | Sequence[Any]) -> str | tuple[Part, ...]:
    """Check a prompt: text, or a list of text and image parts as the API has them.

    Raises
    ------
    KimiError
        For anything else; the message says what was found.
    """
    if isinstance(prompt, str):
        return mend_surrogates(prompt)
    if isinstance(prompt, Iterable):
        parts = [_as_part(part) for part in prompt]
        if parts and all(parts):
            return tuple(part for part in parts if part)
    raise KimiError(
        "A prompt is a str or a list of text parts and images such as "
        f'{{"type": "text", "text": "…"}}; got {clip(repr(prompt), 80)}'
    )


def text_of(content: str | Sequence[Part] | None) -> str:
    """Return the text of a message's content, with what stands for its pictures."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)


def join_parts(pieces: Iterable[str | Part]) -> str | tuple[Part, ...]:
    """Join texts and pictures to a content: one text where there is nothing else."""
    pieces = list(pieces)
    texts = [piece for piece in pieces if isinstance(piece, str)]
    if len(texts) == len(pieces):
        return "".join(texts)
    parts: list[str | Part] = []
    for piece in pieces:
        if isinstance(piece, str) and parts and isinstance(parts[-1], str):
            parts[-1] += piece
        elif piece:
            parts.append(piece)
    return tuple(TextPart(part) if isinstance(part, str) else part for part in parts)


def _as_part(part: Any) -> Part | None:
    """Read a part as the API has it; None for anything else."""
    if isinstance(part, ImagePart):
        return part
    if isinstance(part, TextPart):
        return TextPart(mend_surrogates(part.text))
    if not isinstance(part, Mapping):
        return None
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return TextPart(mend_surrogates(part["text"]))
    url = part.get("image_url")
    url = url.get("url") if isinstance(url, Mapping) else url
    if part.get("type") != "image_url" or not isinstance(url, str):
        return None
    if found := _DATA_URL.fullmatch(url):
        return ImagePart(found[2], media_type=found[1])
    raise KimiError(
        "An image is sent as a data URL in base64, data:image/png;base64,…; servers fetch no "
        f"others. Got {clip(url, 60)}"
    )
