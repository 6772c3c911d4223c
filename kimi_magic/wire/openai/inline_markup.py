"""Tool calls and channels that arrive as text, from engines that do not parse their model's tokens.

Kimi K2 writes its calls between marker tokens (the model card, *Tool Call Guidance*; white space
may surround ids and arguments, the section's markers may be missing or in the singular)::

    <|tool_calls_section_begin|>
    <|tool_call_begin|>functions.NAME:IDX<|tool_call_argument_begin|>{…}<|tool_call_end|>
    <|tool_calls_section_end|><|im_end|>

Kimi K3 writes elements whose brackets are tokens (vLLM, ``kimi_k3_tool_parser.py``)::

    <|open|>think<|sep|>…<|close|>think<|sep|><|open|>response<|sep|>…<|close|>response<|sep|>
    <|open|>tools<|sep|><|open|>call tool="NAME" index="1"<|sep|>
    <|open|>argument key="city" type="string"<|sep|>Beijing<|close|>argument<|sep|>
    <|close|>call<|sep|><|close|>tools<|sep|><|close|>message<|sep|><|end_of_msg|>

A string is raw text, every other type is JSON; attributes escape ``&`` and ``"``. Arguments that
the model's own writer could not parse stand in one ``json`` element. The chat template writes the
first tag, so that a stream may begin inside ``think`` or ``response``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal, NamedTuple

__all__ = ["CallPart", "Channel", "MarkupSplitter", "Switch"]

Channel = Literal["reasoning", "content"]

_BEGIN, _ARGUMENTS = "<|tool_call_begin|>", "<|tool_call_argument_begin|>"
K2_MARKERS = (
    _BEGIN,
    _ARGUMENTS,
    "<|tool_call_end|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_section_begin|>",
    "<|tool_call_section_end|>",
)
K3_ELEMENTS = ("think", "response", "tools", "call", "argument", "json", "message")
END_TOKENS = ("<|im_end|>", "<|end_of_msg|>")
# No argument is open after one of these, unless they are raw text of its own.
ENDS_OF_CALLS = (("close", "call"), ("close", "tools"), ("close", "message"))

_WHOLE_TOKENS = (*K2_MARKERS, *END_TOKENS)
_TOKEN = re.compile(
    r"(?s)<\|(?P<edge>open|close)\|>\s*(?P<element>"
    + "|".join(K3_ELEMENTS)
    + r")\b(?P<attributes>(?:(?!<\|(?:open|close|sep)\|>).){0,1000}?)<\|sep\|>|"
    + "|".join(map(re.escape, _WHOLE_TOKENS))
)
_BEGUN_TAG = re.compile(r"(?s)<\|(?:open|close)\|>\s*(?P<name>[a-z]*)(?P<rest>.{0,1000})")
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_HEADER = re.compile(r"\s*(?P<id>(?:functions\.)?(?P<name>[\w.-]*)(?P<count>:\d*)?)\s*")
LONGEST_HEADER, LONGEST_BLANK = 200, 10_000
LONGEST_VALUE = 8_000_000  # characters of a value that is held back until it is whole
_QUOTES = "`'\""


class CallPart(NamedTuple):
    """A call's id, as the model wrote it, and name; or more of the last call's arguments."""

    id: str = ""
    name: str = ""
    arguments: str = ""


class Switch(NamedTuple):
    """The text that follows belongs to ``channel``; with ``retract``, all before was reasoning."""

    channel: Channel
    retract: bool = False


Found = str | CallPart | Switch
Token = re.Match[str]


class MarkupSplitter:
    """Splits one field of an answer into text, tool calls, and switches between channels.

    Parameters
    ----------
    field : "reasoning" or "content"
        The field that the server streams the text in.

    Notes
    -----
    No marker of K2 and no element of a call ever comes out as text. A token that ends a message is
    dropped at the end of the text and beside a call. Text that speaks of tokens is kept: a head
    without a call, and tags in quotes or in the midst of the text.
    """

    def __init__(self, field: Channel) -> None:
        # text; after a marker of K2: between, header, opening (no argument yet), arguments;
        # in K3's calls: tools, head, call, value
        self._state = "text"
        self._channel: Channel | None = "reasoning" if field == "reasoning" else None
        self._field = field
        self._held = ""  # the possible start of a token
        self._pending = ""  # text and tokens that matter only if more text follows
        self._header = ""
        self._begun = False  # True once there was more than white space
        self._after_think = False
        self._quoted = False  # True once a tag of ``think`` was opened as text
        self._call = _ElementCall("")
        # What follows an end inside a value: its own text, or the rest after one never closed.
        self._doubtful: list[str] = []
        self._doubtful_length = 0
        self._next_call = False  # True once a call was begun in it
        self.last = ""  # the last character handed on, which may be a quote

    @property
    def idle(self) -> bool:
        """True where a text without ``<`` would come out as it is, in the field's own channel."""
        return (
            self._state == "text"
            and self._begun
            and not (self._held or self._pending or self._after_think)
            and self.channel == self._field
        )

    @property
    def channel(self) -> Channel:
        """The channel that the text belongs to."""
        return self._channel or self._field

    @property
    def tagged(self) -> bool:
        """True once a tag of K3 told reasoning and answer apart in the content."""
        return self._field == "content" and self._channel is not None

    def feed(self, text: str) -> Iterator[Found]:
        """Take text; yield what it holds, text as ``str``."""
        if self.idle and "<" not in text:
            self.last = text[-1:] or self.last
            yield text
        else:
            yield from self._split(self._held + text)

    def finish(self, *, cut: bool = False) -> Iterator[Found]:
        """Release what was held back; no more text follows.

        ``cut`` says that the answer ended at its limit of tokens: a call is left as it is then.
        """
        held, self._held = self._held, ""
        if token := _TOKEN.fullmatch(held):
            yield from self._pass(token)
        elif self._state != "header":
            yield from self._take(held)
        if self._doubtful:
            yield from self._leave_unclosed()
        if self._state == "header":
            head = _HEADER.fullmatch(self._header)
            if head and head["count"] and head["name"]:
                yield CallPart(head["id"], head["name"])
        elif self._state == "head":
            yield from self._start_call()
        if self._state in ("call", "value"):
            yield from self._call.finish(cut=cut or self._state == "value")
        elif self._state == "text" and not self._begun:
            yield _TOKEN.sub("", self._pending)  # nothing but white space

    def _split(self, text: str) -> Iterator[Found]:
        at = 0
        for token in _TOKEN.finditer(text):
            yield from self._take(text[at : token.start()])
            at = token.end()
            if at == len(text) and self._ends_unopened(token):
                self._held = token[0]  # the next character tells whether it is in quotes
                return
            yield from self._pass(token, text[at : at + 1])
        rest = text[at:]
        self._held = _unfinished(rest)
        yield from self._take(rest.removesuffix(self._held))

    def _pass(self, token: Token, following: str = "") -> Iterator[Found]:
        """Go over a token, as what it means here."""
        if self._state == "value":
            yield from self._pass_in_value(token)
        elif token[0] in K2_MARKERS:
            yield from self._pass_marker(token[0])
        elif token["element"] in ("think", "response"):
            yield from self._pass_channel(token, following)
        elif token["element"] in ("tools", "call", "argument", "json"):
            yield from self._pass_element(token)
        elif token["edge"] == "open" and self._begun:
            yield from self._take(token[0])
        elif token["edge"] != "open":
            self._hold(token[0])

    def _pass_in_value(self, token: Token) -> Iterator[Found]:
        """Go over a token in a value: raw text may hold any token but its own end.

        The end of the whole call makes the rest doubtful. It is the value's own text if the value
        ends after all, unless an argument of another call begins before.
        """
        tag = (token["edge"], token["element"])
        if self._call.closes(token):
            yield from self._call.take(self._settle())
            yield from self._pass_element(token)
        elif self._doubtful or tag in ENDS_OF_CALLS or token[0] in END_TOKENS:
            self._doubt(token[0])
            if self._next_call and tag in (("open", "argument"), ("open", "json")):
                yield from self._leave_unclosed()
            self._next_call = self._next_call or tag == ("open", "call")
        else:
            yield from self._take(token[0])

    def _doubt(self, text: str) -> None:
        self._doubtful.append(text)
        self._doubtful_length += len(text)
        if self._doubtful_length > LONGEST_VALUE:
            raise ValueError("a value in a tool call is too long")

    def _settle(self) -> str:
        """Return the doubtful text; none is left."""
        text = "".join(self._doubtful)
        self._doubtful, self._doubtful_length, self._next_call = [], 0, False
        return text

    def _leave_unclosed(self) -> Iterator[Found]:
        """Give up a value that was never closed, and read what came after it.

        Its call keeps arguments that are no JSON: it fails, and the model is told why.
        """
        rest = self._settle()
        yield from self._call.finish(cut=True)
        self._state, self._pending = "tools", ""
        at = 0
        for token in _TOKEN.finditer(rest):
            yield from self._take(rest[at : token.start()])
            yield from self._pass(token)
            at = token.end()
        yield from self._take(rest[at:])

    def _pass_marker(self, marker: str) -> Iterator[Found]:
        """Go over a marker of K2; a head that no arguments follow is a call as well."""
        self._pending = ""
        if self._state == "header" and (head := _HEADER.fullmatch(self._header)) and head["name"]:
            yield CallPart(head["id"], head["name"])
            if marker == _ARGUMENTS:
                self._state = "opening"
                return
        self._state = "header" if marker == _BEGIN else "between"
        self._header = ""

    def _pass_channel(self, token: Token, following: str) -> Iterator[Found]:
        """Go over a tag of ``think`` or ``response``."""
        if (token["element"], token["edge"]) == ("response", "close"):
            self._hold(token[0])
        elif token["edge"] == "open":
            fits = not self._begun or (token["element"] == "response" and self._may_answer)
            if fits and token["element"] == "think":
                yield self._switch("reasoning")
            elif fits:
                yield self._switch("content")
            else:
                self._quoted = self._quoted or token["element"] == "think"
                yield from self._take(token[0])
        elif self._channel == "content" or self._quoted or self._in_quotes(following):
            yield from self._take(token[0])
        else:
            yield self._switch("content", retract=self._channel is None)
            self._after_think = True

    def _hold(self, token: str) -> None:
        if len(self._pending) < LONGEST_BLANK:  # a server may send tokens without end
            self._pending += token

    @property
    def _may_answer(self) -> bool:
        return self._after_think or self._channel == "reasoning"

    def _switch(self, channel: Channel, *, retract: bool = False) -> Switch:
        self._channel, self._pending, self._state = channel, "", "text"
        self._after_think = False
        return Switch(channel, retract)

    def _ends_unopened(self, token: Token) -> bool:
        """Return True for a tag that ends reasoning, unless it is quoted."""
        return (
            (token["element"], token["edge"]) == ("think", "close")
            and self._state == "text"
            and self._channel != "content"
        )

    def _in_quotes(self, following: str) -> bool:
        before = self._pending[-1:] or self.last
        return bool(following) and following in _QUOTES and following == before

    def _pass_element(self, token: Token) -> Iterator[Found]:
        """Go over an element of K3's calls; out of place it is text."""
        element, edge = token["element"], token["edge"]
        attributes = _attributes(token["attributes"])
        inside = self._state in ("head", "call")
        if element == "tools":
            if self._state == "call":
                yield from self._end_call()
            if edge == "open" or self._state == "tools" or "<|open|>tools" in self._pending:
                self._pending = self._pending + token[0] if self._state == "text" else ""
                self._state = "text"
            else:
                yield from self._take(token[0])
        elif element == "call" and edge == "open" and attributes.get("tool"):
            if self._state == "call":
                yield from self._end_call()
            self._call = _ElementCall(attributes["tool"])
            self._hold(token[0])
            self._state = "head"
        elif inside and element == "call":
            yield from self._start_call()
            yield from self._end_call()
        elif inside and edge == "open":
            yield from self._start_call()
            self._pending = ""
            yield from self._call.open(element, attributes)
            self._state = "value"
        elif self._state == "value":
            yield from self._call.close()
            self._state = "call"
        elif self._state != "tools" or element != "call":  # the end of a call that was given up
            yield from self._take(token[0])

    def _start_call(self) -> Iterator[Found]:
        if self._state == "head":
            self._pending, self._state = "", "call"
            yield CallPart(name=self._call.name)

    def _end_call(self) -> Iterator[Found]:
        self._pending, self._state = "", "tools"
        yield from self._call.finish()

    def _take(self, text: str) -> Iterator[Found]:
        """Take text that holds no token, or a token that is text."""
        if self._doubtful and text:
            self._doubt(text)
        elif self._state == "value":
            yield from self._call.take(text)
        elif self._state == "header":
            self._header += text
            if len(self._header) > LONGEST_HEADER or not _HEADER.fullmatch(self._header):
                self._state = "text"
                yield from self._take_text(self._header)
        elif self._state != "text" and (not text or text.isspace()):
            self._pending = (self._pending + text)[:LONGEST_BLANK]
        elif self._state in ("opening", "arguments"):
            text, self._pending = self._pending + text, ""
            body = text.rstrip()
            self._pending = text[len(body) :]
            yield CallPart(arguments=body.lstrip() if self._state == "opening" else body)
            self._state = "arguments"
        elif text:
            self._state = "text"
            yield from self._take_text(text)

    def _take_text(self, text: str) -> Iterator[Found]:
        if self._after_think:
            text = text.lstrip("\n")  # the blank lines after the tag belong to neither
            self._after_think = not text
        blank = not text or text.isspace()
        text, self._pending = self._pending + text, ""
        if blank and (not self._begun or not text.isspace()):
            self._pending = text[:LONGEST_BLANK]
        else:
            self._begun = True
            self.last = text[-1]
            yield text


class _ElementCall:
    """A call written in elements, turned into the text of a JSON object as it comes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._count = 0
        self._element = ""
        self._type = ""
        self._value: list[str] = []  # of a type that is known to be JSON only when it is whole
        self._length = 0

    def open(self, element: str, attributes: dict[str, str]) -> Iterator[CallPart]:
        self._element, self._value, self._length = element, [], 0
        self._type = "json" if element == "json" else attributes.get("type", "string")
        if element == "argument":
            quote = '"' if self._type == "string" else ""
            key = json.dumps(attributes.get("key", ""), ensure_ascii=False)
            yield CallPart(arguments=f"{', ' if self._count else '{'}{key}: {quote}")
        self._count += 1

    def closes(self, token: Token) -> bool:
        return (token["edge"], token["element"]) == ("close", self._element)

    def take(self, text: str) -> Iterator[CallPart]:
        if self._type == "string":
            yield CallPart(arguments=json.dumps(text, ensure_ascii=False)[1:-1])
        elif self._type == "json":
            yield CallPart(arguments=text)
        else:
            self._value.append(text)
            self._length += len(text)
            if self._length > LONGEST_VALUE:
                raise ValueError("a value in a tool call is too long")

    def close(self) -> Iterator[CallPart]:
        if self._type == "string":
            yield CallPart(arguments='"')
        elif self._type != "json":
            yield CallPart(arguments=_as_json("".join(self._value)))
        self._value = []

    def finish(self, *, cut: bool = False) -> Iterator[CallPart]:
        """End the arguments; those that were cut stay open, and are no JSON."""
        if cut:
            if self._value:
                yield CallPart(arguments="".join(self._value))
        elif not self._count:
            yield CallPart(arguments="{}")
        elif self._element != "json":
            yield CallPart(arguments="}")


def _as_json(text: str) -> str:
    with suppress(ValueError, RecursionError):
        json.loads(text)
        return text.strip()
    return json.dumps(text, ensure_ascii=False)


def _attributes(text: str) -> dict[str, str]:
    return {
        name: value.replace("&quot;", '"').replace("&amp;", "&")
        for name, value in _ATTRIBUTE.findall(text or "")
    }


def _unfinished(text: str) -> str:
    """Return the end of a text that may begin a token, or a tag that is not yet whole."""
    at = max(text.rfind("<|open|>"), text.rfind("<|close|>"))
    if at >= 0 and (tag := _BEGUN_TAG.fullmatch(text, at)):
        name, rest = tag["name"], tag["rest"]
        whole = name in K3_ELEMENTS and (rest[:1] in (" ", "<", "\n") or not rest)
        if whole or (not rest and any(element.startswith(name) for element in K3_ELEMENTS)):
            return text[at:]
    start = text.rfind("<")
    tail = text[start:] if start >= 0 else ""
    tokens = (*_WHOLE_TOKENS, "<|open|>", "<|close|>")
    return tail if any(token.startswith(tail) for token in tokens) else ""
