"""A text that arrives in pieces: its code points whole, and no key in it.

A model that was sent a key, or was told one by a tool, may repeat it. Its words go into notebooks,
which are shared: they are masked on arrival, before anybody sees or keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence

from kimi_magic.core.messages import mend_surrogates
from kimi_magic.secrets.keys import LEAK, MASK, Key

__all__ = ["StreamRedactor"]

# The beginning of a key that waits for what follows; less may stand at the end of any text.
BEGINNING = 6


class StreamRedactor:
    """Hands on what is whole; the first half of a code point beyond the BMP, which JSON escapes
    in two halves, and what may become a key wait for the rest.

    Parameters
    ----------
    keys : sequence of Key
        Of one that arrives less than ``BEGINNING`` characters may be handed on.
    """

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._keys = keys
        self._half = ""
        self._gone = ""  # the end of what was handed on, as it came
        self._held = ""
        self._masking = False

    def feed(self, text: str) -> str:
        """The text as far as it is whole; a half that stays alone becomes U+FFFD."""
        return self._told(self._whole(text))

    def finish(self) -> str:
        """What waited in vain."""
        return self._told("", final=True)

    def _whole(self, text: str) -> str:
        if not text or (text.isascii() and not self._half):
            return text
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return mend_surrogates(text)

    def _told(self, text: str, *, final: bool = False) -> str:
        if not self._keys:
            return text
        known = self._gone + self._held + text
        at, end = len(self._gone), len(known)
        if not final:
            end = max(end - max(_beginning(known, key) for key in self._keys), at)
        told = []
        for first, after in sorted(span for key in self._keys for span in key.spans(known)):
            if at < after and first < end:
                told.append(known[at : max(first, at)])
                if first >= at or not self._masking:
                    told.append(MASK)
                at, self._masking = min(after, end), True
        if at < end:
            told.append(known[at:end])
            self._masking = False
        self._gone, self._held = known[max(end - LEAK, 0) : end], known[end:]
        return "".join(told)


def _beginning(text: str, key: Key) -> int:
    """How much at the end of the text may be a piece of a key that goes on."""
    if text[-BEGINNING:] not in key.value:
        return 0
    sizes = range(min(LEAK, len(key.value)) - 1, BEGINNING - 1, -1)
    return next((size for size in sizes if text[-size:] in key.value), 0)
