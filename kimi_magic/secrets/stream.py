"""Redaction of text that arrives in pieces.

A model that was sent a key, or read one in a tool's result, may repeat it. Its words go into
notebooks, which are shared: they are redacted on arrival, before anybody sees or stores them.
"""

from __future__ import annotations

from collections.abc import Iterable

from kimi_magic.core.text import mend_surrogates
from kimi_magic.secrets.escapes import Unescaped
from kimi_magic.secrets.keys import LEAK, Key
from kimi_magic.secrets.patterns import KEY

__all__ = ["StreamRedactor"]


class StreamRedactor:
    """Passes text on as soon as it is known to be complete.

    What may become a key waits for the characters that decide it. So does the first half of a
    code point beyond the BMP: JSON escapes such a code point as two halves, and servers split
    their chunks between them.
    """

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)
        self._half = ""
        self._passed = ""  # the end of what was passed on, before redaction
        self._held = ""
        self._redacting = False

    def feed(self, text: str) -> str:
        """Return what can be passed on; half a code point that stays alone becomes U+FFFD."""
        if not text.isascii() or self._half:
            text = self._whole(text)
        if not self._keys:
            return text
        if not self._held:
            near = Unescaped(self._passed + text)
            for key in self._keys:
                if key.is_near(near):
                    break
            else:
                self._passed, self._redacting = near.last(LEAK), False
                return text
        return self._redacted(text)

    def finish(self) -> str:
        """Return what was held back: nothing follows that could make it a key."""
        return self._redacted("", final=True) if self._held else ""

    def _whole(self, text: str) -> str:
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return mend_surrogates(text)

    def _redacted(self, text: str, *, final: bool = False) -> str:
        known = self._passed + self._held + text
        read = Unescaped(known)
        at, end = len(self._passed), len(known)
        if not final:
            end = max(end - max(key.unfinished(read) for key in self._keys), at)
        pieces = []
        for start, stop in sorted(span for key in self._keys for span in key.spans(read)):
            if at < stop and start < end:
                pieces.append(known[at : max(start, at)])
                # A span that began in what was passed on has its mark already.
                if start >= at or not self._redacting:
                    pieces.append(KEY)
                at, self._redacting = min(stop, end), True
        if at < end:
            pieces.append(known[at:end])
            self._redacting = False
        self._passed, self._held = Unescaped(known[:end]).last(LEAK), known[end:]
        return "".join(pieces)
