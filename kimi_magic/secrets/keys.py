"""API keys: where they are found, and which pieces of one count as a leak."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

from kimi_magic.core.errors import ConfigError, MissingKeyError
from kimi_magic.secrets.escapes import WIDEST, Unescaped

__all__ = ["KEYRING_SERVICE", "LEAK", "Key", "KeyRing"]

KEYRING_SERVICE = "kimi-magic"
# Characters of a key in a row that count as a leak; shorter values ("none", "EMPTY") are no keys.
LEAK, SHORTEST = 12, 8
# A shorter piece of a key may stand at the end of any text: a stream holds back no less.
BEGINNING = 6


class Key:
    """A key, the environment variable it goes by, and where it was found, in words for the user.

    Its repr shows only where it was found.
    """

    def __init__(self, value: str, source: str, name: str = "") -> None:
        self.value = value
        self.source = source
        self.name = name or source
        self._size = min(LEAK, len(value))
        # Each leak contains a piece of half its size that begins in the key at a multiple of that.
        # Looking for these few first keeps the text of a stream cheap.
        half = (self._size + 1) // 2
        ends = range(half, len(value) + 1, half) if self._size >= SHORTEST else ()
        self._probes = tuple(form[end - half : end] for form in self._forms for end in ends)

    def __repr__(self) -> str:
        return f"<key from {self.source}>"

    def is_near(self, text: Unescaped) -> bool:
        """Return False for a text that neither leaks the key nor ends in a beginning of a leak."""
        if self._begins(text.written) or self._is_in(text.written):
            return True
        return text.escaped and (
            bool(text.unfinished) or self._begins(text.text) or self._is_in(text.text)
        )

    def spans(self, text: Unescaped) -> list[tuple[int, int]]:
        """Find the stretches (start, end) of a text as written that leak the key."""
        found = self._leaks(text.written)
        if text.escaped:
            found += [(text.place(at), text.place(end)) for at, end in self._leaks(text.text)]
        return _merged(sorted(text.widened(start, stop) for start, stop in found))

    def unfinished(self, text: Unescaped) -> int:
        """Count the characters at the end of a text that may be the beginning of a leak."""
        written = text.written
        start = len(written) - self._beginning(written)
        if text.escaped:
            before = Unescaped(written[: len(written) - text.unfinished])
            place = before.place(len(before.text) - self._beginning(before.text))
            if len(written) - place <= WIDEST:
                start = min(start, place)
            start = min(start, len(before.written))
        return len(written) - text.widened(start, len(written))[0]

    def _begins(self, text: str) -> bool:
        return text[-BEGINNING:] in self._beginnings

    def _is_in(self, text: str) -> bool:
        for probe in self._probes:  # noqa: SIM110 - a generator for any() costs three times as much
            if probe in text:
                return True
        return False

    def _leaks(self, text: str) -> list[tuple[int, int]]:
        if not self._is_in(text):
            return []
        starts = sorted(at for piece in self._pieces for at in _places(text, piece))
        return _merged((start, start + self._size) for start in starts)

    def _beginning(self, text: str) -> int:
        if not self._begins(text):
            return 0
        sizes = range(min(self._size - 1, len(text)), BEGINNING - 1, -1)
        return next(size for size in sizes if any(text[-size:] in form for form in self._forms))

    @cached_property
    def _forms(self) -> tuple[str, ...]:
        """The key, and what is read of one that itself looks like an escape somewhere."""
        return tuple(dict.fromkeys((self.value, Unescaped(self.value).text)))

    @cached_property
    def _pieces(self) -> frozenset[str]:
        return frozenset().union(*(_windows(form, self._size) for form in self._forms))

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        if not self._probes:
            return frozenset()
        return frozenset().union(*(_windows(form, BEGINNING) for form in self._forms))


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans that overlap, in their order."""
    merged = list[tuple[int, int]]()
    for start, stop in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _windows(value: str, size: int) -> frozenset[str]:
    return frozenset(value[at : at + size] for at in range(len(value) - size + 1))


def _places(text: str, piece: str) -> Iterator[int]:
    at = text.find(piece)
    while at >= 0:
        yield at
        at = text.find(piece, at + 1)


class KeyRing:
    """Finds keys in the environment, in ``keyring``, and among those that a person typed.

    It remembers each key that it found, whatever endpoint the key is for, and each one that was
    replaced or refused since: redaction needs them all.

    A key of the environment or of ``keyring`` belongs to its variable, which the user named for an
    endpoint. One that was typed belongs to the address that it was typed for: another address that
    takes over the endpoint's name does not get it.
    """

    def __init__(self) -> None:
        self._typed: dict[tuple[str, str], Key] = {}
        self._found: dict[tuple[str, ...], Key] = {}

    def known(self, variables: Iterable[str]) -> list[Key]:
        """Return the keys found so far, and those that these environment variables hold now."""
        for name in variables:
            if name in os.environ:
                value, source = _from_environment(name)
                if value:
                    self._remember(value, source, name)
        return list(self._found.values())

    def remember(self, keys: Iterable[Key]) -> None:
        """Take in what is to be redacted as keys are."""
        for key in keys:
            self._found.setdefault((key.value, key.source, key.name), key)

    def find(self, variable: str, address: str) -> Key | None:
        """Find the key that goes by this name at an address, without asking anybody.

        One that holds a character that no HTTP header can carry raises a `ConfigError`.
        """
        value, source = _from_environment(variable)
        if not value and (typed := self._typed.get((variable, address))):
            return typed
        if not value:
            value, source = _from_keyring(variable), f"keyring ({KEYRING_SERVICE}, {variable})"
        return self._remember(_checked(value, variable), source, variable) if value else None

    def forget(self, key: Key) -> None:
        """Stop using a typed key that a server refused."""
        self._typed = {place: typed for place, typed in self._typed.items() if typed is not key}

    def ask(
        self, variable: str, endpoint: str, address: str, prompt: Callable[[str], str] | None
    ) -> Key:
        """Let a person type the key for an address; it stays in memory only.

        A `MissingKeyError` says that nobody can answer, or that the answer was empty.
        """
        place = endpoint if endpoint == address else f"{endpoint} at {address}"
        typed = prompt(f"{variable} for {place} (stays in memory): ").strip() if prompt else ""
        if not typed:
            raise MissingKeyError(
                f"The endpoint {endpoint} needs a key and {variable} is not set.\n"
                f"Set {variable} in the environment before Jupyter starts, or store it once with "
                f"`keyring set {KEYRING_SERVICE} {variable}`.\n"
                "Without a key: `-e local` asks the practice model."
            )
        source = "what you typed; run the cell again to type another"
        key = self._remember(_checked(typed, variable), source, variable)
        self._typed[variable, address] = key
        return key

    def _remember(self, value: str, source: str, name: str) -> Key:
        about = (value, source, name)
        return self._found.get(about) or self._found.setdefault(about, Key(*about))


def _from_environment(variable: str) -> tuple[str, str]:
    return os.environ.get(variable, "").strip(), f"the environment variable {variable}"


def _from_keyring(variable: str) -> str:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return ""
    try:
        return (keyring.get_password(KEYRING_SERVICE, variable) or "").strip()
    except KeyringError:  # no usable backend, or it is locked
        return ""


def _checked(value: str, variable: str) -> str:
    if value.isascii() and value.isprintable() and " " not in value:
        return value
    raise ConfigError(
        f"The key {variable} holds a blank, a line break or another character that no key has: "
        "copy it again."
    )
