"""The endpoint of a tape, on a machine that does not know it.

A tape holds of it what shapes a request, and no address: nothing is sent where a file says.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from typing import Any

from kimi_magic.core.errors import ConfigError, KimiError
from kimi_magic.wire.addresses import host_of
from kimi_magic.wire.endpoints import BUILT_IN, STRICTNESSES, WIRES, Endpoint

__all__ = ["check_known", "endpoint_of", "facts_of"]

# A name that no server has (RFC 2606).
NOWHERE = "http://tape.invalid/v1"
_NUMBERS = ("context_window", "temperature", "top_p", "max_tokens", "seed", "max_concurrency")
_FACTS = (*_NUMBERS, "answers", "partial_mode", "like", "wire")
UNKNOWN = (
    "The tape was made at the endpoint {name}, which is not known here: nothing is sent.\n"
    "`-e NAME` asks another one, kimi.add_endpoint(name={name!r:.60}, base_url=…) adds it."
)


def facts_of(endpoint: Endpoint) -> dict[str, Any]:
    """Return what of an endpoint shapes its requests; nothing for those that everybody has."""
    if endpoint.kind in (known.name for known in BUILT_IN) and not endpoint.like:
        return {}
    defaults = {f.name: f.default for f in fields(Endpoint) if f.default is not MISSING}
    own = {name: getattr(endpoint, name) for name in _FACTS}
    return {name: value for name, value in own.items() if value != defaults[name]}


def endpoint_of(name: str, model: str, facts: Mapping[str, Any]) -> Endpoint:
    """Make an endpoint of the facts on a tape, which may be anything."""
    known: dict[str, Any] = {
        key: value
        for key in _NUMBERS
        if isinstance(value := facts.get(key), int | float) and not isinstance(value, bool)
    }
    if facts.get("answers") in STRICTNESSES:
        known["answers"] = facts["answers"]
    if facts.get("wire") in WIRES:
        known["wire"] = facts["wire"]
    if isinstance(like := facts.get("like"), str):
        known["like"] = like
    known["partial_mode"] = facts.get("partial_mode") is True
    with suppress(KimiError, TypeError, ValueError):
        return Endpoint(name, NOWHERE, model=model, lists_models=False, **known)
    return Endpoint(name, NOWHERE, model=model, lists_models=False)


def check_known(endpoint: Endpoint) -> None:
    """Refuse to send anything to an endpoint that only a tape knows.

    Raises
    ------
    ConfigError
        It names the endpoint.
    """
    if host_of(endpoint.base_url) == host_of(NOWHERE):
        raise ConfigError(UNKNOWN.format(name=endpoint.name))
