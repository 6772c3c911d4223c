"""Code points beyond the BMP: JSON escapes one in two halves, which chunks may part."""

from __future__ import annotations

from kimi_magic.messages import mend_surrogates

__all__ = ["HalfKeeper"]


class HalfKeeper:
    """Keeps back the first half of a code point until the second arrives."""

    def __init__(self) -> None:
        self._half = ""

    @property
    def idle(self) -> bool:
        """Whether nothing is kept back."""
        return not self._half

    def feed(self, text: str) -> str:
        """The text as far as it is whole; a half that stays alone becomes U+FFFD."""
        if not text or (text.isascii() and not self._half):
            return text
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return mend_surrogates(text)
