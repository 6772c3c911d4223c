"""Headers of an endpoint: what a gateway wants to see beside the key, as data of its record.

A value may name environment variables as ``${NAME}``. They are looked up for each request, so that
no value of theirs is in a record, a repr or a pickle.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from kimi_magic.core.errors import ConfigError
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.patterns import holds_key

__all__ = ["EndpointHeaders", "secret_in"]

# Narrower than a token of RFC 9110, so that a name is harmless in a program of any language.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,99})\}")
# The scheme of RFC 9110, section 11.4, and one variable.
_PUBLIC = re.compile(rf"(?:[A-Za-z][A-Za-z-]{{0,20}} )?{_REFERENCE.pattern}")
_SCHEME = re.compile(r"(?i)(?:bearer|basic|token|apikey|api-key|key) +")
_SECRET_NAME = re.compile(r"(?i)auth|cookie|credential|key|pass|secret|session|signature|token")
# Words and small numbers, as in application/json, 2023-06-01 and assistants=v2: to mask them would
# mask the same words in answers.
_WORDS = re.compile(
    r"(?:[A-Za-z]{1,15}|v?[0-9]{1,4})(?:[-_./=;,:+](?:[A-Za-z]{1,15}|v?[0-9]{1,4}))*"
)
# They belong to the connection, or to a proxy on the way.
_OURS = frozenset(
    "accept-encoding connection content-encoding content-length content-type expect host "
    "keep-alive proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split()
)


class EndpointHeaders(Mapping[str, str]):
    """Names and values, the values as they were given; its repr shows the names alone.

    Raises
    ------
    ConfigError
        A name or a value that cannot be sent.
    """

    __slots__ = ("_values",)

    def __init__(self, given: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        try:
            values = dict(given)
        except (TypeError, ValueError):
            raise ConfigError("headers takes a mapping of names to texts.") from None
        for name, value in values.items():
            _check(name, value)
        names = {name.lower() for name in values}
        if len(names) < len(values):
            raise ConfigError("headers names the same header twice; upper case makes no other.")
        self._values = values

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return f"<headers {', '.join(self._values) or 'none'}>"

    def has(self, name: str) -> bool:
        """Return True if the header is among them, in whatever case."""
        return name.lower() in map(str.lower, self._values)

    def resolve(self) -> dict[str, str]:
        """Return the values to send; a `ConfigError` names a variable that is not set."""
        return {name: _resolved(name, value) for name, value in self._values.items()}

    @property
    def variables(self) -> list[str]:
        """The environment variables that the values name."""
        return [name for value in self._values.values() for name in _REFERENCE.findall(value)]

    def filled_in(self, variables: Iterable[str]) -> dict[str, str]:
        """Return the values with these variables filled in, for a machine that lacks them.

        A `ConfigError` names one that is not set here either.
        """
        wanted = set(variables)

        def filled(name: str, value: str) -> str:
            return _REFERENCE.sub(
                lambda found: _resolved(name, found[0]) if found[1] in wanted else found[0], value
            )

        return {name: filled(name, value) for name, value in self._values.items()}

    def secrets(self) -> list[Key]:
        """Return the values as keys to mask, those of variables that are set now.

        A value that was written out is one too, unless it has blanks, is the address of a page, or
        is made of words under a name that tells of no secret.
        """
        found = []
        for name, value in self._values.items():
            variables = _REFERENCE.findall(value)
            for variable in variables:
                if held := os.environ.get(variable, "").strip():
                    source = f"the environment variable {variable}"
                    found.append(Key(_SCHEME.sub("", held, count=1), source, variable))
            if not variables and (secret := secret_in(name, value)):
                found.append(Key(secret, f"the header {name}"))
        return found

    def public(self) -> dict[str, str]:
        """Return the headers for a record: each value a variable to look up, and no text of it.

        A value that was written out gives way to a variable called like its header.
        """
        return {
            name: value if _PUBLIC.fullmatch(value) else f"${{{re.sub('[.-]', '_', name).upper()}}}"
            for name, value in self._values.items()
        }


def secret_in(name: str, value: str) -> str:
    """Return what is to be masked of a value that was written out; "" for words and addresses."""
    secret = _SCHEME.sub("", value.strip(), count=1)
    return "" if _is_public(name, value.strip(), secret) else secret


def _is_public(name: str, value: str, secret: str) -> bool:
    if " " in secret or re.match(r"https?://[^@?]*\Z", secret):
        return True
    is_plain = value == secret and not _SECRET_NAME.search(name)
    return is_plain and _WORDS.fullmatch(value) is not None


def _check(name: object, value: object) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        raise ConfigError("headers takes a mapping of names to texts.")
    if not _NAME.fullmatch(name) or holds_key(name):
        raise ConfigError("headers: a name is made of letters, digits and hyphens, like X-Team.")
    if name.lower() in _OURS:
        raise ConfigError(f"headers: {name} belongs to the connection and cannot be set.")
    if "${" in _REFERENCE.sub("", value):
        raise ConfigError(f"headers: a variable in {name} is written as ${{NAME}}.")
    _sendable(name, value)


def _sendable(name: str, value: str) -> str:
    if value.isascii() and value.isprintable():
        return value
    raise ConfigError(
        f"The value of the header {name} holds a line break or another character that no header "
        "can carry."
    )


def _resolved(name: str, value: str) -> str:
    def look_up(reference: re.Match[str]) -> str:
        if held := os.environ.get(reference[1], "").strip():
            return held
        raise ConfigError(
            f"The header {name} needs the environment variable {reference[1]}, which is not set."
        )

    return _sendable(name, _REFERENCE.sub(look_up, value).strip())
