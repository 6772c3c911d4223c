"""Settings, the environment, and where a key comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from traitlets import Bool, Enum, Float, Int, TraitError, Unicode
from traitlets.config import Configurable

from kimi_magic.errors import ConfigError, MissingKeyError

__all__ = [
    "APPROVE",
    "KEY_LIKE",
    "LEAK",
    "MASK",
    "VIEWS",
    "Key",
    "KeyRing",
    "Settings",
    "without_key",
]

APPROVE = ("auto", "ask", "yes", "no")
VIEWS = ("auto", "live", "record", "terminal", "plain")
KEYRING_SERVICE = "kimi-magic"
# Characters of a key in a row that count as a leak; shorter keys ("none", "EMPTY") are no secrets.
LEAK, SHORTEST = 12, 8
MASK = "[key]"
KEY_LIKE = r"(?:(?:nvapi-|sk-|hf_)[\w-]{12,}|(?:gsk_|xai-)[A-Za-z0-9]{30,})"
"""What looks like a key wherever a name is meant, as a pattern."""
# What is told may be masked sooner than a name is refused.
_TOLD = re.compile(rf"{KEY_LIKE}|(?:gsk_|xai-)[\w-]{{12,}}")


class Settings(Configurable):
    """What holds for every turn until it is changed.

    Set a trait with ``%config KimiMagics.NAME = value``, ``c.KimiMagics.NAME`` in an IPython
    profile, ``kimi.settings.NAME = value``, or the environment variable ``KIMI_NAME``. The
    environment goes before the profile; a variable that changes later is seen at the next turn.
    """

    endpoint = Unicode(
        "", help="Name or URL of the endpoint; empty: the first whose key is present, else local."
    ).tag(config=True)
    model = Unicode("", help="Model id; empty: the endpoint's default.").tag(config=True)
    local_model = Unicode(
        "", help="A GGUF file for the endpoint `local`; empty: the practice model."
    ).tag(config=True)
    system = Unicode(
        None, allow_none=True, help="System prompt; unset: Kimi's own for Kimi models, else none."
    ).tag(config=True)
    temperature = Float(
        None, allow_none=True, min=0.0, max=2.0, help="Unset: the endpoint's default."
    ).tag(config=True)
    top_p = Float(
        None, allow_none=True, min=0.0, max=1.0, help="Unset: the endpoint's default."
    ).tag(config=True)
    max_tokens = Int(
        None,
        allow_none=True,
        min=1,
        help="Tokens for reasoning and answer together; unset: the endpoint's default.",
    ).tag(config=True)
    view = Enum(
        VIEWS,
        "auto",
        help="How a turn is shown: auto, live, record, terminal or plain (flushed text).",
    ).tag(config=True)
    keep_reasoning_open = Bool(
        default_value=False, help="Leave the reasoning open when something else starts."
    ).tag(config=True)
    max_output_chars = Int(
        200_000,
        min=1000,
        help="Characters of one turn that the notebook keeps, and 20 times as many of images; the "
        "reply has all of it.",
    ).tag(config=True)
    max_steps = Int(
        50, min=1, help="After how many rounds of tool calls the model must conclude."
    ).tag(config=True)
    approve = Enum(
        APPROVE,
        "auto",
        help="Who says yes to tool calls: auto (what you offered runs, confirm=True asks), ask "
        "(each call asks), yes (nothing asks), no (nothing runs).",
    ).tag(config=True)
    retries = Int(3, min=0, help="How often a failed request goes out again.").tag(config=True)
    connect_timeout = Float(10.0, min=0.1, help="Seconds to reach the server.").tag(config=True)
    first_token_timeout = Float(
        300.0, min=0.1, help="Seconds to wait for the first token of an answer."
    ).tag(config=True)
    stall_timeout = Float(
        120.0, min=0.1, help="Seconds without a byte before a stream counts as dead."
    ).tag(config=True)

    summary_tokens = Int(
        1500, min=50, help="Tokens for the summary of a variable that goes into a prompt."
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._seen: dict[str, str] = {}
        self._without: dict[str, Any] = {}
        with suppress(ConfigError):  # said at the first turn: a bad variable must not bar the door
            self.read_environment()

    def read_environment(self) -> None:
        """Take over each ``KIMI_NAME`` variable that appeared or changed since last time; where
        one went, what was set before it came holds again.

        Raises
        ------
        ConfigError
            A variable's text does not fit its setting.
        """
        for name, trait in Settings.class_traits(config=True).items():
            text = os.environ.get(f"KIMI_{name.upper()}", "")
            if text == self._seen.get(name, ""):
                continue
            before = self._without.setdefault(name, getattr(self, name))
            try:
                setattr(self, name, trait.from_string(text) if text else before)
            except (TraitError, ValueError) as error:
                said = f"KIMI_{name.upper()}={text!r} does not fit the setting {name}: {error}"
                raise ConfigError(without_key(said, text)) from None
            self._seen[name] = text
            if not text:
                del self._without[name]


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
