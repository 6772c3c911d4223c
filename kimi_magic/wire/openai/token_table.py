"""The logarithms of an answer's tokens, fitted to its texts.

Servers send them beside the text or in one list for all of it, and the two do not begin and end
together: there are tokens of tags, of calls, of the end, and text that the server's template began.
So the tokens are joined, and each stretch of text is looked for in them.
"""

from __future__ import annotations

import codecs
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from kimi_magic.core.messages import Alternative, TokenLogprob
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
TRIES = 20
HEAD = 16


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
        for runs in (whole, self._runs):
            for begun in (False, True):
                found = self._fit(texts, [run for run in runs if run[1]], begun=begun)
                if len(found) == len(made):
                    return found
                best = max(best, found, key=len)
        return best

    def _fit(
        self, texts: Mapping[Channel, str], runs: Iterable[tuple[Channel, int]], *, begun: bool
    ) -> dict[Channel, tuple[TokenLogprob, ...]]:
        """Look for the stretches in that order; the first may have ``begun`` before its tokens."""
        raw = b"".join(token.data for token in self._tokens)
        starts = list(accumulate((len(token.data) for token in self._tokens), initial=0))
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
            tokens += self._between(begin, at, starts)
        return {field: tuple(found) for field, found in fitted.items() if field not in lost}

    def _between(self, begin: int, end: int, starts: list[int]) -> Iterator[TokenLogprob]:
        """Yield the tokens of a stretch, cut where it begins or ends within one."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for number in range(bisect_right(starts, begin) - 1, bisect_left(starts, end)):
            token, start = self._tokens[number], starts[number]
            data = token.data[max(begin - start, 0) : max(end - start, 0)]
            yield TokenLogprob(decoder.decode(data), token.logprob, token.alternatives)

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
