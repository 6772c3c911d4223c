"""The logarithms of an answer's tokens, fitted to its texts.

Servers send them beside the text or in one list for all of it, and the two do not begin and end
together: there are tokens of tags, of calls, of the end, and text that the server's template began.
So the tokens are joined, and each stretch of text is looked for in them.
"""

from __future__ import annotations

import codecs
import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, product
from typing import Any, NamedTuple

from kimi_magic.core.likelihoods import Alternative, TokenLogprob
from kimi_magic.core.text import mend_surrogates
from kimi_magic.wire.openai.inline_markup import Channel

__all__ = ["TokenTable"]

# OpenAI sends it for whatever is very unlikely; JSON has no -inf.
LEAST = -9999.0
MOST_ALTERNATIVES = 20
DIGITS = 6
ROUNDING = 0.001  # a probability of 1 in half precision may come out larger
# Bytes that a token takes in memory, and an alternative; their texts are kept once.
TOKEN_BYTES, ALTERNATIVE_BYTES = 200, 100
# A text may also stand inside of tokens, where it is not the one that was written: so many places
# are looked at.
TRIES = 8
HEAD = 16
LONGEST_BROKEN = 64  # characters in a row
REPLACED = "\N{REPLACEMENT CHARACTER}".encode()


class _Token(NamedTuple):
    data: bytes
    logprob: float | None
    alternatives: tuple[Alternative, ...]


class TokenTable:
    """The tokens of one answer, in order, and the stretches of text that came of them."""

    def __init__(self) -> None:
        self.bytes = 0
        self.found = False  # True once any came
        self._tokens: list[_Token] = []
        self._texts: dict[str, str] = {}
        self._runs: list[tuple[Channel, int]] = []
        self._dropped = False

    def add(self, logprobs: Any) -> None:
        """Take the ``logprobs`` of a choice, whatever they are."""
        entries = logprobs.get("content") if isinstance(logprobs, dict) else None
        if not isinstance(entries, list) or not entries:
            return
        self.found = True
        if not self._dropped:
            self._tokens += filter(None, map(self._read, entries))

    def drop(self) -> None:
        """Forget them, and take no more."""
        self._dropped, self.bytes = True, 0
        self._tokens.clear()
        self._texts.clear()

    def note(self, field: Channel, length: int) -> None:
        """Note that so many characters of a text were handed on."""
        if self._runs and self._runs[-1][0] == field:
            length += self._runs.pop()[1]
        self._runs.append((field, length))

    def retract(self) -> None:
        """Take all text so far for reasoning."""
        contents = sum(length for field, length in self._runs if field == "content")
        self._runs = [("reasoning", contents)]

    def fitted(self, texts: Mapping[Channel, str]) -> dict[Channel, tuple[TokenLogprob, ...]]:
        """Return the tokens of each text that is made of them: joined they are that text.

        A text of which one stretch is not found has none.
        """
        if not self._tokens:
            return {}
        # As a rule the reasoning comes first. The end of a text that might become a key is handed
        # on late, when the other has begun: the stretches come second.
        whole: list[tuple[Channel, int]] = [("reasoning", len(texts["reasoning"]))]
        whole.append(("content", len(texts["content"])))
        best: dict[Channel, tuple[TokenLogprob, ...]] = {}
        made = [field for field, text in texts.items() if text]
        tables = [self._tokens]
        if any(REPLACED in token.data for token in self._tokens):
            tables.append(_mended(self._tokens, texts["reasoning"] + texts["content"]))
        for tokens, runs, begun in product(tables, (whole, self._runs), (False, True)):
            found = _fit(tokens, texts, [run for run in runs if run[1]], begun=begun)
            if len(found) == len(made):
                return found
            best = max(best, found, key=len)
        return best

    def _read(self, entry: Any) -> _Token | None:
        if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
            return None
        others = entry.get("top_logprobs")
        others = others[:MOST_ALTERNATIVES] if isinstance(others, list) else ()
        alternatives = tuple(filter(None, map(self._alternative, others)))
        data = _bytes_of(entry)
        self.bytes += TOKEN_BYTES + len(data) + ALTERNATIVE_BYTES * len(alternatives)
        return _Token(data, _logprob(entry), alternatives)

    def _alternative(self, entry: Any) -> Alternative | None:
        if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
            return None
        if (logprob := _logprob(entry)) is None:
            return None
        text = _text_of(entry)
        if (known := self._texts.get(text)) is None:
            known = self._texts[text] = text
            self.bytes += 4 * len(text)
        return Alternative(known, logprob)


def _fit(
    kept: list[_Token],
    texts: Mapping[Channel, str],
    runs: Iterable[tuple[Channel, int]],
    *,
    begun: bool,
) -> dict[Channel, tuple[TokenLogprob, ...]]:
    """Look for the stretches in that order; the first may have ``begun`` before its tokens."""
    raw = b"".join(token.data for token in kept)
    starts = list(accumulate((len(token.data) for token in kept), initial=0))
    fitted: dict[Channel, list[TokenLogprob]] = {}
    used = dict.fromkeys(texts, 0)
    lost: set[Channel] = set()
    at = 0
    for field, length in runs:
        text = texts[field][used[field] : used[field] + length].encode("utf-8", "replace")
        used[field] += length
        begin, unknown = _place(raw, text, at, starts, from_end=bool(lost)), 0
        # llama.cpp streams the words with which its template begins the reasoning: no token
        # has them.
        if begin < 0 and begun and not (at or lost) and (unknown := _prefix(raw, text)):
            begin = 0
        if begin < 0:
            lost.add(field)
            continue
        at = begin + len(text) - unknown
        tokens = fitted.setdefault(field, [])
        if unknown:
            tokens.append(TokenLogprob(text[:unknown].decode()))
        tokens += _between(kept, starts, begin, at)
    return {field: tuple(found) for field, found in fitted.items() if field not in lost}


def _between(kept: list[_Token], starts: list[int], begin: int, end: int) -> Iterator[TokenLogprob]:
    """Yield the tokens of a stretch, cut where it begins or ends within one."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    first = bisect_left(starts, begin)
    first -= starts[first] != begin
    for number in range(first, bisect_left(starts, end)):
        token, start = kept[number], starts[number]
        data = token.data[max(begin - start, 0) : max(end - start, 0)]
        yield TokenLogprob(decoder.decode(data), token.logprob, token.alternatives)


def _mended(tokens: list[_Token], text: str) -> list[_Token]:
    """Put parts of characters right that a server sent as U+FFFD, in the bytes too.

    SGLang and older versions of vLLM decode each token for itself. What the text has between the
    tokens around them is given to the last of several.
    """
    mended, broken, at, most = list(tokens), list[int](), 0, 0
    for number, token in enumerate(tokens):
        piece = token.data.decode("utf-8", "replace")
        if REPLACED in token.data:
            broken.append(number)
            most += len(piece)
            continue
        if broken and piece:
            end = text.find(piece, at + 1, at + min(most, LONGEST_BROKEN) + len(piece))
            if end < 0:
                continue
            _give(mended, broken, text[at:end])
            at, most = end, 0
        if text.startswith(piece, at):
            at += len(piece)
    if broken and len(text) - at <= most:
        _give(mended, broken, text[at:])
    return mended


def _give(tokens: list[_Token], numbers: list[int], text: str) -> None:
    """Give a text to the last of some tokens, none to the others, which are then done with."""
    last = numbers[-1]
    for number in numbers:
        data = text.encode("utf-8", "replace") if number == last else b""
        tokens[number] = tokens[number]._replace(data=data)
    numbers.clear()


def _place(raw: bytes, text: bytes, begin: int, starts: list[int], *, from_end: bool) -> int:
    """Find a stretch of text in the joined tokens; -1 where it is not there.

    A place that begins and ends with a token comes before one that only begins with one, and that
    before all others: `<` may be a token, or the beginning of a tag. Where an earlier stretch was
    not found, what precedes this one is not known: then the last place is taken, not the first.
    """
    at = best = raw.rfind(text, begin) if from_end else raw.find(text, begin)
    most = 0
    for _ in range(TRIES):
        if at < 0:
            break
        begins = starts[bisect_left(starts, at)] == at
        ends = starts[bisect_left(starts, at + len(text))] == at + len(text)
        if begins and ends:
            return at
        if begins > most:
            best, most = at, 1
        at = raw.rfind(text, begin, at + len(text) - 1) if from_end else raw.find(text, at + 1)
    return best


def _prefix(raw: bytes, text: bytes) -> int:
    """Return how many bytes of a text come before the first token; 0 where that cannot be."""
    at = 0
    for _ in range(TRIES):
        at = text.find(raw[:HEAD], at + 1)
        if at < 0 or at > (len(text) - at) * 2:
            return 0
        if raw.startswith(text[at:]) and text[at] & 0xC0 != 0x80:
            return at
    return 0


def _bytes_of(entry: Mapping[str, Any]) -> bytes:
    """Return the bytes of a token, which may be a part of a character."""
    values = entry.get("bytes")
    if isinstance(values, list):
        try:
            return bytes(values)
        except (TypeError, ValueError):
            pass
    return mend_surrogates(entry["token"]).encode()


def _text_of(entry: Mapping[str, Any]) -> str:
    """Return the text of a token that was not written; a part of a character as OpenAI names it."""
    text = mend_surrogates(entry["token"])
    if "\ufffd" not in text:
        return text
    data = _bytes_of(entry)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _logprob(entry: Mapping[str, Any]) -> float | None:
    """Return a logarithm that is one; None for what can be none."""
    value: Any = entry.get("logprob")
    if type(value) not in (float, int) or value > ROUNDING:
        return None
    value = float(max(value, LEAST))  # compared first: an integer may be larger than any float
    return None if math.isnan(value) else round(min(value, 0.0), DIGITS) or 0.0  # no -0.0
