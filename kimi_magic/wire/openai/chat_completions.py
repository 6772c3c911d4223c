"""The chat-completions API, in every server's dialect: requests, errors, chunks → deltas.

One fold for all of them: the servers differ in names and places, not in kind. An answer that was
not streamed is folded as a single chunk whose ``message`` is the delta.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, get_args

from kimi_magic.core.events import ContentDelta, ReasoningDelta
from kimi_magic.core.messages import Completion, Message, Usage, as_reasoning
from kimi_magic.core.text import Pieces, text_of_html
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.stream import StreamRedactor
from kimi_magic.wire.chunks import as_mapping, as_string, is_count
from kimi_magic.wire.openai.inline_markup import CallPart, Channel, Found, MarkupSplitter, Switch
from kimi_magic.wire.openai.think_tags import Piece, ThinkSplitter
from kimi_magic.wire.openai.token_table import TokenTable
from kimi_magic.wire.openai.tool_call_deltas import CallTable
from kimi_magic.wire.protocols import Delta, Request, ServerError

__all__ = ["Accumulator", "ChatCompletions", "words_of"]

MAX_READ = 10_000
MAX_NAMED = 5
_STATUS = re.compile("[45][0-9][0-9]")
# How the error pages of proxies and web servers begin.
_PAGE = re.compile(r"(?i)\s*<(?:!doctype|!--|\?xml|/?(?:html|head|title|body|script|style)\b)")
# `json.dumps` makes one for each text.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
FIELDS: tuple[Channel, ...] = get_args(Channel)
NOTHING = Usage()


class ChatCompletions:
    """The `Wire` of OpenAI-compatible servers.

    Parameters
    ----------
    reasoning_key : str
        The field in which reasoning goes back that came in no field of its own.
    """

    models_path = "/models"

    def __init__(self, reasoning_key: str = "reasoning_content") -> None:
        self._reasoning_key = reasoning_key

    def headers(self, key: Key | None) -> dict[str, str]:
        """Return the SDK's headers, but none that the environment's ``OPENAI_*`` would add."""
        import httpx2
        import openai

        # Only its headers are wanted; a transport of its own would load all certificates.
        sdk = openai.OpenAI(
            base_url="http://127.0.0.1",
            api_key=key.value if key else "none",
            http_client=httpx2.Client(transport=httpx2.BaseTransport(), trust_env=False),
        )
        return {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": sdk.user_agent,
            **sdk.platform_headers(),
            **sdk.auth_headers,
        }

    def request(self, body: Mapping[str, Any]) -> Request:
        return Request("/chat/completions", _ENCODER.encode(body).encode())

    def fold(self, keys: Sequence[Key] = ()) -> Accumulator:
        return Accumulator(keys, default_key=self._reasoning_key)

    def is_end(self, data: bytes) -> bool:
        return data.strip() == b"[DONE]"

    def is_error(self, chunk: Mapping[str, Any]) -> bool:
        if chunk.get("error"):
            return True
        if "choices" in chunk:
            return False
        named = "error" in (chunk.get("object"), chunk.get("type"))
        return named or bool(chunk.get("detail")) or _status(chunk) is not None

    def read_error(self, body: object) -> ServerError:
        """Read an error in any of the servers' shapes; its code may be a status as a number."""
        words = words_of(body)
        if not isinstance(body, Mapping):
            return ServerError(words)
        inner = body.get("error")
        source = inner if isinstance(inner, Mapping) else body
        code = str(source.get("code") or source.get("status") or "")
        return ServerError(words, f"{source.get('type') or ''} {code}", _status(source))

    def read_models(self, body: Any) -> list[str]:
        ids = (model.get("id") for model in body["data"] if isinstance(model, dict))
        return sorted(name for name in ids if isinstance(name, str) and name)


class Accumulator:
    """The state of one model call, from its first chunk to its last.

    ``add`` may be followed by ``completion`` at any moment: what has arrived is always a message,
    so an interrupt or a broken connection loses nothing.

    The deltas add up to the message but for one dialect: where only ``</think>`` arrives, its
    reasoning was handed on as content before anybody could know. The message has it as reasoning;
    those who watched saw one text, with an empty line where the tag stood.
    """

    def __init__(self, keys: Sequence[Key] = (), *, default_key: str = "reasoning_content") -> None:
        self._default_key = default_key
        self._texts = {field: Pieces() for field in FIELDS}
        self._redactors = {field: StreamRedactor(keys) for field in FIELDS}
        self._markup = {field: MarkupSplitter(field) for field in FIELDS}
        self._think = ThinkSplitter()
        self._calls = CallTable(keys)
        self._tokens = TokenTable()
        self._reasoning_key: str | None = None
        self._usage = NOTHING
        self.finish_reason: str | None = None
        self.model: str | None = None

    @property
    def started(self) -> bool:
        return bool(self._texts["reasoning"] or self._texts["content"] or self._calls)

    @property
    def logprob_bytes(self) -> int:
        return self._tokens.bytes

    def drop_logprobs(self) -> None:
        self._tokens.drop()

    def add(self, chunks: Sequence[Mapping[str, Any]]) -> list[Delta]:
        deltas: list[Delta] = []
        run: list[str] = []
        run_field: Channel = "content"
        for chunk in chunks:
            plain = self._plain_text(chunk)
            if run and (plain is None or plain[0] != run_field):
                deltas += self._text(run_field, "".join(run))
                run.clear()
            if plain is None:
                deltas += self._chunk(chunk)
            else:
                run_field, text = plain
                run.append(text)
        return deltas + self._text(run_field, "".join(run)) if run else deltas

    def finish(self) -> list[Delta]:
        deltas: list[Delta] = []
        cut = self.finish_reason == "length"
        for field, markup in self._markup.items():
            deltas += self._take(field, markup.finish(cut=cut))
        deltas += self._pieces(self._think.finish())
        for field in FIELDS:
            deltas += self._masked(field, self._redactors[field].finish())
        return [*deltas, *self._calls.finish()]

    def completion(self, seconds: float = 0.0) -> Completion:
        texts = {field: "".join(pieces) for field, pieces in self._texts.items()}
        tokens = self._tokens.fitted(texts)
        return Completion(
            Message(
                "assistant",
                texts["content"],
                reasoning=as_reasoning(texts["reasoning"] or None),
                reasoning_key=self._reasoning_key
                or ("content" if self._think.found else self._default_key),
                tool_calls=self._calls.calls(),
            ),
            finish_reason=self.finish_reason,
            usage=Usage(requests=1, seconds=seconds) + self._usage,
            model=self.model,
            logprobs=tokens.get("content", ()),
            reasoning_logprobs=tokens.get("reasoning", ()),
            sent_logprobs=self._tokens.found,
        )

    def _plain_text(self, chunk: Mapping[str, Any]) -> tuple[Channel, str] | None:
        """Read a chunk that is a piece of text and nothing else, as nearly every one is.

        None for all others, and as long as a tag or a marker may be on its way.
        """
        choices = chunk.get("choices")
        if self._reasoning_key is None or not choices or len(choices) != 1 or chunk.get("usage"):
            return None
        choice = choices[0]
        if not isinstance(choice, dict) or choice.get("finish_reason") or choice.get("index"):
            return None
        delta = choice.get("delta")
        if not isinstance(delta, dict) or delta.get("tool_calls") or "reasoning_details" in delta:
            return None
        reasoning, content = delta.get(self._reasoning_key), delta.get("content")
        field: Channel = "reasoning" if reasoning else "content"
        text = reasoning or content
        if not isinstance(text, str) or not text or (reasoning and content) or "<" in text:
            return None
        markup = self._markup[field]
        if not markup.idle:
            return None
        markup.last = text[-1]
        self._tokens.add(choice.get("logprobs"))
        return field, text

    def _chunk(self, chunk: Mapping[str, Any]) -> Iterator[Delta]:
        self.model = as_string(chunk.get("model")) or self.model
        choice = _first_choice(chunk.get("choices"))
        self._tokens.add(choice.get("logprobs"))
        usage = _read_usage(as_mapping(chunk.get("usage")) or as_mapping(choice.get("usage")))
        if usage != NOTHING:
            self._usage = usage
        # The usage chunk may repeat the reason, and a late chunk may carry null.
        self.finish_reason = as_string(choice.get("finish_reason")) or self.finish_reason
        delta = as_mapping(choice.get("delta")) or as_mapping(choice.get("message"))
        if reasoning := self._reasoning_of(delta):
            yield from self._pieces(self._think.finish())
            yield from self._take("reasoning", self._markup["reasoning"].feed(reasoning))
        if content := _text_of(delta.get("content")):
            yield from self._take("content", self._markup["content"].feed(content))
        calls = delta.get("tool_calls")
        for entry in calls if isinstance(calls, list) else ():
            yield from self._calls.add(as_mapping(entry))

    def _reasoning_of(self, delta: Mapping[str, Any]) -> str:
        """Take the reasoning under one of its names: servers that send two send the same twice."""
        for key in ("reasoning_content", "reasoning_details", "reasoning"):
            if value := _text_of(delta.get(key)):
                # reasoning_details always comes beside the plain text, which is what goes back.
                self._reasoning_key = "reasoning" if key == "reasoning_details" else key
                return value
        return ""

    def _take(self, field: Channel, found: Iterator[Found]) -> Iterator[Delta]:
        """Take the texts between markers, the parts of calls written with them, and switches."""
        markup = self._markup[field]
        for part in found:
            if isinstance(part, CallPart):
                yield from self._calls.add_part(part)
            elif isinstance(part, Switch):
                yield from self._pieces([p for p in self._think.finish() if not p[1].isspace()])
                if part.retract:
                    yield from self._pieces([("retract", "")])
            elif field == "content" and self._reasoning_key is None and not markup.tagged:
                yield from self._pieces(self._think.feed(part))
            else:  # a server that parses the reasoning itself leaves no tags in the content
                yield from self._text(markup.channel, part)

    def _pieces(self, pieces: list[Piece]) -> Iterator[Delta]:
        for kind, piece in pieces:
            if kind == "retract":
                yield from self._masked("content", self._redactors["content"].finish())
                if content := self._texts["content"]:
                    yield ContentDelta("\n\n")
                self._texts = {"reasoning": content, "content": Pieces()}
                self._tokens.retract()
            else:
                yield from self._text(kind, piece)

    def _text(self, field: Channel, text: str) -> list[Delta]:
        return self._masked(field, self._redactors[field].feed(text))

    def _masked(self, field: Channel, text: str) -> list[Delta]:
        if not text:
            return []
        self._texts[field].append(text)
        self._tokens.note(field, len(text))
        return [ReasoningDelta(text) if field == "reasoning" else ContentDelta(text)]


def words_of(body: object, depth: int = 4) -> str:
    """Return the server's own words in an error body of any shape."""
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        # Only pages hold tags: Moonshot puts its details between < and >.
        body = body[:MAX_READ]
        return text_of_html(body) if _PAGE.match(body) else " ".join(body.split())
    if not depth or not body:
        return ""
    if isinstance(body, list):
        return "; ".join(words_of(item, depth - 1) for item in body[:MAX_NAMED])
    if not isinstance(body, Mapping):
        return str(body)
    if body.get("error"):
        return words_of(body["error"], depth - 1)
    named = [body.get(name) for name in ("title", "message", "msg", "detail")]
    if isinstance(about := body.get("metadata"), Mapping):  # OpenRouter: what its provider said
        named.append(about.get("raw"))
    words = ": ".join(words_of(value, depth - 1) for value in named if value)
    with suppress(RecursionError):
        words = words or json.dumps(body, ensure_ascii=False)
    return words


def _first_choice(choices: Any) -> Mapping[str, Any]:
    """Return the choice of index 0: nobody asked for another one."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return {}


def _read_usage(usage: Mapping[str, Any]) -> Usage:
    """Read the counts from each of the places where servers put them."""
    if not usage:
        return NOTHING
    sent = _count(usage, "prompt_tokens")
    cached = _count(usage, "cached_tokens") or _count(
        usage.get("prompt_tokens_details"), "cached_tokens"
    )
    return Usage(
        prompt_tokens=sent,
        completion_tokens=_count(usage, "completion_tokens"),
        reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens"),
        # A part of those that were sent: a larger count would make the turn's cost negative.
        cached_tokens=cached if cached <= sent else 0,
    )


def _count(counts: Any, name: str) -> int:
    """Return a count of tokens; 0, as for one that is not known, for what can be none."""
    value = as_mapping(counts).get(name)
    return value if is_count(value) else 0


def _status(source: Mapping[str, Any]) -> int | None:
    """Return the status that an error's code is, where it is one."""
    code = str(source.get("code") or source.get("status") or "")
    return int(code) if _STATUS.fullmatch(code) else None


def _text_of(value: Any) -> str:
    """Return a text, or the texts of a list of parts, as the API has them for messages."""
    if isinstance(value, list):
        return "".join(as_string(as_mapping(part).get("text")) for part in value)
    return as_string(value)
