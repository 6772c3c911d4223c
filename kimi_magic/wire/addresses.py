"""Addresses: what is one, and which of them are this machine."""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress

from kimi_magic.core.errors import ConfigError
from kimi_magic.secrets.patterns import without_key

__all__ = ["clean_url", "host_of", "is_this_machine"]

LONGEST = 2000
_ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[^]]*\]|[^][/:]+)(?::(?P<port>[0-9]{1,5}))?(?P<path>/.*)?",
    re.IGNORECASE,
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
_FOUR_NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
_ZONE = re.compile(r"[\w.~-]+", re.ASCII)
# RFC 6761, section 6.3, gives localhost and all names below it to this machine; the others stand in
# the hosts file of Linux distributions.
_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")


def clean_url(url: object) -> str:
    """Return an http(s) address without the path of a single call, or raise a `ConfigError`."""
    if not isinstance(url, str):
        raise ConfigError(f"An address is a text like https://host/v1; got {type(url).__name__}.")
    # Not only before the host: a slash in a password puts the mark behind what looks like one.
    if "@" in url:
        raise ConfigError(
            "An address must not hold a name and password: they would be saved with the notebook. "
            "Put the key into an environment variable and name that as key_env."
        )
    short = url.strip()[: LONGEST + 1]
    given = re.sub(r"(/chat/completions)?/*\Z", "", short)
    address = re.split("[?#]", given, maxsplit=1)[0]
    found = _ADDRESS.fullmatch(address) if address.isprintable() and " " not in address else None
    well_formed = len(short) <= LONGEST and found and _is_port(found["port"])
    if not found or not well_formed or not _is_host(found["host"]):
        raise _no_address(given)
    if address != given:
        raise ConfigError("An address has no query and no fragment; a key goes into key_env.")
    end = found.end("host")
    return address[:end].lower() + address[end:]


def _no_address(given: str) -> ConfigError:
    shown = given if len(given) <= 200 else f"{given[:199]}…"
    said = (
        f"{shown!r} is no address of a server; it looks like https://host/v1 or "
        "http://127.0.0.1:8000/v1."
    )
    return ConfigError(without_key(said, shown))


def host_of(url: str) -> str:
    """Return the host of an address as it is looked up: in ASCII and without brackets."""
    found = _ADDRESS.fullmatch(url)
    host = found["host"] if found else ""
    return (host if host.isascii() else _in_ascii(host)).strip("[]").lower()


def is_this_machine(url: str) -> bool:
    """Return True for an address on the loopback interface, in any of its spellings."""
    host = host_of(url).rstrip(".")
    if host in _LOCAL_NAMES or host.endswith(".localhost"):
        return True
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None
    with suppress(ValueError):
        address = ipaddress.IPv6Address(host)
        address = address.ipv4_mapped or address
    with suppress(OSError, ValueError):
        # As the resolver reads it: 127.1, 0x7f.1, 017700000001 and 2130706433 are one address.
        address = address or ipaddress.IPv4Address(socket.inet_aton(host))
    return address is not None and (address.is_loopback or address.is_unspecified)


def _is_port(port: str | None) -> bool:
    return port is None or 0 < int(port) <= 65535


def _is_host(host: str) -> bool:
    if host.startswith("["):
        number, mark, zone = host[1:-1].partition("%")
        with suppress(ValueError):
            return bool(ipaddress.IPv6Address(number)) and (not mark or bool(_ZONE.fullmatch(zone)))
        return False
    host = host if host.isascii() else _in_ascii(host)
    if _FOUR_NUMBERS.fullmatch(host):
        with suppress(ValueError):
            return bool(ipaddress.IPv4Address(host))
        return False
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)


def _in_ascii(host: str) -> str:
    """Return an international name as the HTTP library looks it up; "" where it cannot."""
    import httpx2

    try:
        return httpx2.URL(f"http://{host}").raw_host.decode()
    except (httpx2.InvalidURL, ValueError, IndexError):
        return ""
