"""A key, and where it comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator

from kimi_magic.core.errors import ConfigError, MissingKeyError

__all__ = ["KEY_LIKE", "LEAK", "MASK", "Key", "KeyRing", "without_key"]

KEYRING_SERVICE = "kimi-magic"
# Characters of a key in a row that count as a leak; shorter keys ("none", "EMPTY") are no secrets.
LEAK, SHORTEST = 12, 8
MASK = "[key]"
KEY_LIKE = r"(?:(?:nvapi-|sk-|hf_)[\w-]{12,}|(?:gsk_|xai-)[A-Za-z0-9]{30,})"
"""What looks like a key wherever a name is meant, as a pattern."""
# What is told may be masked sooner than a name is refused.
_TOLD = re.compile(rf"{KEY_LIKE}|(?:gsk_|xai-)[\w-]{{12,}}")


class Key:
    """A secret and where it came from; its repr shows the latter alone."""

    __slots__ = ("source", "value")

    def __init__(self, value: str, source: str) -> None:
        self.value = value
        self.source = source

    def __repr__(self) -> str:
        return f"<key from {self.source}>"

    def mask(self, text: str, put: str = MASK) -> str:
        """Take the key out of a text, and every part of it that is long enough to be a leak: some
        servers echo it in their errors, whole or shortened."""
        kept, end = [], 0
        for first, after in self.spans(text):
            kept += [text[end:first], put]
            end = after
        return "".join([*kept, text[end:]])

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where in a text there is enough of the key to be a leak: from, to."""
        size = min(LEAK, len(self.value))
        if size < SHORTEST or not self._may_be_in(text, (size + 1) // 2):
            return []
        pieces = {self.value[at : at + size] for at in range(len(self.value) - size + 1)}
        found: list[tuple[int, int]] = []
        for at in sorted(at for piece in pieces for at in _places(text, piece)):
            if found and at < found[-1][1]:
                found[-1] = (found[-1][0], at + size)
            else:
                found.append((at, at + size))
        return found

    def _may_be_in(self, text: str, half: int) -> bool:
        """Whether a closer look is worth while: each leak holds a piece of half its size that
        begins in the key at a multiple of that."""
        ends = range(half, len(self.value) + 1, half)
        return any(self.value[end - half : end] in text for end in ends)


def without_key(said: str, given: str) -> str:
    """What is said of a text that was given, without it where it is a key in the wrong place."""
    return said.replace(given, MASK) if _TOLD.match(given) else said


def _places(text: str, piece: str) -> Iterator[int]:
    at = text.find(piece)
    while at >= 0:
        yield at
        at = text.find(piece, at + 1)


class KeyRing:
    """Finds keys: the environment, then ``keyring``, then what a person typed before."""

    def __init__(self) -> None:
        self._typed: dict[str, Key] = {}
        self._seen: dict[str, str] = {}

    def known(self, variables: Iterable[str]) -> dict[str, str]:
        """The keys that are known by now, by their variables: these, and what was found before."""
        here = {name: os.environ.get(name, "").strip() for name in variables}
        return self._seen | {name: value for name, value in here.items() if value}

    def find(self, variable: str) -> Key | None:
        """The key that goes by this environment variable's name, if there is one.

        Raises
        ------
        ConfigError
            It holds a character that no HTTP header can carry.
        """
        found = self._find(variable)
        if found:
            self._seen[variable] = found.value
        return found

    def _find(self, variable: str) -> Key | None:
        value = os.environ.get(variable, "").strip()
        if value:
            return Key(_checked(value, variable), f"the environment variable {variable}")
        return self._typed.get(variable) or _from_keyring(variable)

    def forget(self, key: Key) -> None:
        """Forget a key that a person typed and a server refused."""
        self._typed = {name: typed for name, typed in self._typed.items() if typed is not key}

    def ask(self, variable: str, endpoint: str, prompt: Callable[[str], str] | None) -> Key:
        """Let a person type the key; it stays in memory only.

        Raises
        ------
        MissingKeyError
            Nobody can answer (``prompt`` is None), or the answer was empty.
        """
        typed = prompt(f"{variable} for {endpoint} (stays in memory): ").strip() if prompt else ""
        if not typed:
            raise MissingKeyError(
                f"The endpoint {endpoint} wants a key and {variable} is not set.\n"
                f"Set {variable} in the environment before Jupyter starts, or store it once with "
                f"`keyring set {KEYRING_SERVICE} {variable}`.\n"
                "Without a key: `-e local` asks the practice model."
            )
        key = Key(_checked(typed, variable), "what you typed; run the cell again to type another")
        self._typed[variable], self._seen[variable] = key, key.value
        return key


def _from_keyring(variable: str) -> Key | None:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return None
    try:
        value = keyring.get_password(KEYRING_SERVICE, variable)
    except KeyringError:  # no usable backend, or it is locked
        return None
    if not value:
        return None
    return Key(_checked(value.strip(), variable), f"keyring ({KEYRING_SERVICE}, {variable})")


def _checked(value: str, variable: str) -> str:
    if value.isascii() and value.isprintable() and " " not in value:
        return value
    raise ConfigError(
        f"The key {variable} holds a blank, a line break or another character that no key has: "
        "copy it anew."
    )
