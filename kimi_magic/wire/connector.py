"""From the name of an endpoint, or from none, to a client that is ready.

The connector knows the endpoints and the keys, starts the embedded engine, and holds one client
for each endpoint.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kimi_magic.config import Settings
from kimi_magic.core.errors import ConfigError, KimiError
from kimi_magic.core.interrupts import waiting
from kimi_magic.core.turn_record import EndpointFacts
from kimi_magic.secrets.keys import Key, KeyRing
from kimi_magic.secrets.redact import Redactor
from kimi_magic.wire.endpoints import (
    BUILT_IN,
    GUESSED_MODEL,
    LARGEST_CONTEXT,
    LATEST_MODEL,
    LOCAL,
    PREFERRED,
    STRICTNESSES,
    Catalogue,
    Endpoint,
    Strictness,
    from_environment,
)
from kimi_magic.wire.models import Model, ModelCatalogue, newest
from kimi_magic.wire.spending import Spending

if TYPE_CHECKING:
    from kimi_magic.wire.client import Client
    from kimi_magic.wire.local.process import LocalEngine
    from kimi_magic.wire.tape import Lead, TapeUse

__all__ = ["AskKey", "Connector", "Foreseen", "ResolvedEndpoint", "Target"]

NO_MODEL = (
    "No model is at hand: no key was found, and the embedded engine is not installed.\n"
    "Set NVIDIA_API_KEY (build.nvidia.com) or MOONSHOT_API_KEY (platform.kimi.ai), or install "
    'the practice model\'s engine with `pip install "kimi-magic[local]"`.'
)
# Each has a few sockets, with a parked thread each.
MOST_CLIENTS, UNUSED_SECONDS = 8, 300.0
# Of what servers list, for completion.
MOST_LISTED, LONGEST_MODEL = 10_000, 300
AskKey = Callable[[str], str]
LISTING_TIMEOUT = 5.0  # seconds for a list that is asked for before a turn


@dataclass(frozen=True, slots=True)
class Target:
    """The model that is asked, as its endpoint knows it, and what is known of it there."""

    endpoint: Endpoint
    model: str
    record: Model

    @property
    def is_default(self) -> bool:
        """True if nobody named the model: it stands in the built-in records alone."""
        return not _names_model(self.endpoint)

    @property
    def strictnesses(self) -> tuple[Strictness, ...]:
        """The ways to hold an answer to a schema, the strictest first."""
        strictest = "json_schema" if self.record.strict_schemas else self.endpoint.answers
        known = STRICTNESSES[STRICTNESSES.index(strictest) :]
        # The Messages API has no way to ask for any JSON.
        lacks = "json_object" if self.endpoint.wire == "messages" else ""
        return tuple(strictness for strictness in known if strictness != lacks)


@dataclass(frozen=True, slots=True)
class ResolvedEndpoint:
    """An endpoint made ready, and the model that is asked there."""

    target: Target
    client: Client
    practice: bool = False  # the embedded practice model answers


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The same before anything is made ready: a tape may answer."""

    target: Target
    practice: bool = False


class Connector:
    """The endpoints of a session, and the ways to them."""

    def __init__(self) -> None:
        self.spending = Spending()
        self.introduced = False  # True once the user was told that the practice model answers
        self._told: set[str] = set()
        # The models that give no logprobs, each with the name and the address of its endpoint.
        self.without_logprobs: set[tuple[str, str, str]] = set()
        self.catalogue = Catalogue()
        self.model_records = ModelCatalogue()
        # By address, for those who name no model; "" where the list did not tell.
        self._defaults: dict[str, str] = {}
        self._listings: dict[str, _Listing] = {}  # under way, by address
        self._keys = KeyRing()
        self._listed: dict[str, None] = {}
        self._clients: dict[str, Client] = {}
        self._engine: LocalEngine | None = None
        self._lock = threading.Lock()

    def not_told(self, remarks: Mapping[str, str]) -> Iterator[str]:
        """Yield the remarks on things, by their names, of which none was told in this session."""
        for name, text in remarks.items():
            if name not in self._told:
                self._told.add(name)
                yield text

    def choose(
        self, endpoint: str | Endpoint | None, settings: Settings, tape: TapeUse | None = None
    ) -> Endpoint:
        """Return the endpoint to ask: the given one, itself or by name, else the first of these.

        The one that the settings name, the one that the environment describes, the one that the
        tape was made with, the first whose key is present, the embedded engine. A `ConfigError`
        says that there is none.
        """
        settings.read_environment()
        if isinstance(endpoint, Endpoint):
            return endpoint
        if name := endpoint or settings.endpoint:
            return self._named(name, tape)
        if own := from_environment():
            return own
        if tape is not None and (lead := tape.lead):
            return self._of_tape(lead)
        for preferred in map(self.catalogue.get, PREFERRED):
            if self.key_at_hand(preferred):
                return preferred
        from kimi_magic.wire.local.process import available

        if available():
            return LOCAL
        raise ConfigError(NO_MODEL)

    def _named(self, name: str, tape: TapeUse | None) -> Endpoint:
        try:
            return self.catalogue.get(name)
        except ConfigError:
            if tape is not None and (known := tape.tape.lead_at(name)):
                return self._of_tape(known)
            raise

    def lead(
        self, endpoint: str | Endpoint | None, settings: Settings, tape: TapeUse | None
    ) -> Lead | None:
        """Return whom the tape says to ask, at the endpoint where somebody names that."""
        if tape is None or not tape.leads:
            return None
        if named := endpoint or settings.endpoint or from_environment():
            return tape.tape.lead_at(named.name if isinstance(named, Endpoint) else named)
        return tape.lead

    def _of_tape(self, lead: Lead) -> Endpoint:
        """Return the endpoint here that has the name on a tape, else one of the tape's facts."""
        from kimi_magic.wire.tape_endpoint import endpoint_of

        known = self.catalogue.of(EndpointFacts(lead.endpoint))
        return known or endpoint_of(lead.endpoint, lead.model, lead.facts)

    def foresee(self, endpoint: Endpoint, model: str | None, settings: Settings) -> Foreseen | None:
        """Return what `connect` would make ready; nothing is asked or started.

        None where a server's list has to tell the model.
        """
        if endpoint.base_url:
            named = model or settings.model
            if not named and self._has_to_ask(endpoint):
                return None
            return Foreseen(self.target(endpoint, named))
        own = Path(settings.local_model).stem if settings.local_model else LOCAL.model
        name = model or own
        if name != LOCAL.model:
            endpoint = _without_defaults(endpoint, LARGEST_CONTEXT)
        return Foreseen(self.target(endpoint, name), name == LOCAL.model)

    def key_at_hand(self, endpoint: Endpoint) -> Key | None:
        """Return the endpoint's key, if it is found without asking the user.

        ``KIMI_API_KEY`` belongs to ``KIMI_BASE_URL``; without one, to ``KIMI_ENDPOINT``.
        """
        self._keys.remember(endpoint.own_headers.secrets())
        if not endpoint.key_env:
            return None
        named = os.environ.get("KIMI_ENDPOINT", "").strip() == endpoint.name
        own = named and not os.environ.get("KIMI_BASE_URL", "").strip()
        place = endpoint.base_url
        found = self._keys.find("KIMI_API_KEY", place) if own else None
        return found or self._keys.find(endpoint.key_env, place)

    def known_keys(self) -> list[Key]:
        """Return every key found so far, of endpoints that are not registered too, to redact.

        The values of the endpoints' own headers are among them.
        """
        self._keys.remember(self.catalogue.secrets)
        return self._keys.known(self.catalogue.key_names)

    def remember(self, keys: Iterable[Key]) -> None:
        """Redact these from now on as keys are, such as the secrets of a tool's server."""
        self._keys.remember(keys)

    def key(self, endpoint: Endpoint, ask_key: AskKey | None) -> Key | None:
        """Return the endpoint's key; the user types it, or a `MissingKeyError` asks for it.

        A `ConfigError` names a variable of the endpoint's own headers that is not set.
        """
        endpoint.own_headers.resolve()
        found = self.key_at_hand(endpoint)
        if endpoint.key_env is None:
            return None
        return found or self._keys.ask(endpoint.key_env, endpoint.name, endpoint.base_url, ask_key)

    def connect(
        self,
        endpoint: Endpoint,
        key: Key | None,
        model: str | None,
        settings: Settings,
        notice: Callable[[str], None],
    ) -> ResolvedEndpoint:
        """Make an endpoint ready; ``notice`` gets short lines while that takes time."""
        if endpoint.base_url:
            client = self._client(endpoint, endpoint.base_url, key, settings)
            named = model or settings.model
            if not named and self._has_to_ask(endpoint):
                notice(f"Asking {endpoint.name} for its models…")
                self._take_newest(endpoint, client)
            return ResolvedEndpoint(self.target(endpoint, named), client)
        from kimi_magic.wire.local.process import LocalEngine

        with self._lock:
            self._engine = self._engine or LocalEngine()
        with waiting():
            running = self._engine.start(settings.local_model, notice=notice)
        if model not in (None, running.model):
            raise ConfigError(
                f"The embedded engine runs {running.model}, not {model}.\n"
                "`%config KimiMagics.local_model = 'file.gguf'` gives it another; `-e NAME` asks "
                "another endpoint."
            )
        key = Key(running.key, "the embedded engine")
        if not running.practice:  # a model of the user's own: its server knows its defaults
            endpoint = _without_defaults(endpoint, running.context_window)
        client = self._client(endpoint, running.base_url, key, settings)
        target = self.target(endpoint, running.model)
        return ResolvedEndpoint(target, client, running.practice)

    def target(self, endpoint: Endpoint, model: str | None) -> Target:
        """Return what is asked at an endpoint: the named model, else the default there."""
        model = model or self.default_model(endpoint) or _guess(endpoint)
        record = self.model_records.get(model)
        if model == record.name:
            model = record.id_at(endpoint)
        return Target(endpoint, model, record.at(endpoint))

    def default_model(self, endpoint: Endpoint) -> str:
        """Return the model for those who name none; "" where the server's list has yet to tell."""
        if _names_model(endpoint):
            return endpoint.model
        known = self._defaults.get(endpoint.base_url) or endpoint.model
        return known or ("" if self._has_to_ask(endpoint) else _guess(endpoint))

    def may_see(self, endpoint: Endpoint, model: str | None) -> bool:
        """Return True if the model that would be asked reads images, or is not known yet."""
        return not (model or self.default_model(endpoint)) or (
            self.target(endpoint, model).record.sees
        )

    def _has_to_ask(self, endpoint: Endpoint) -> bool:
        """Return True where the server's list tells the default, and was not asked for yet."""
        open_to_it = endpoint.lists_models and not endpoint.model
        return open_to_it and endpoint.base_url not in self._defaults

    def replace_default(self, resolved: ResolvedEndpoint) -> ResolvedEndpoint | None:
        """Find another model in the place of a default that the server does not have.

        It is the newest Kimi that the server lists, or its only model, and stays the default of the
        session; None where there is none.
        """
        endpoint, gone = resolved.target.endpoint, resolved.target.model
        if self.is_replaced(resolved.target):
            return replace(resolved, target=self.target(endpoint, None))
        if not self._take_newest(endpoint, resolved.client, without=gone):
            return None
        return replace(resolved, target=self.target(endpoint, None))

    def is_replaced(self, target: Target) -> bool:
        """Return True if another model is the default by now: another turn has found it."""
        return self._defaults.get(target.endpoint.base_url) not in (None, "", target.model)

    def _take_newest(self, endpoint: Endpoint, client: Client, *, without: str = "") -> str:
        """Make the newest Kimi that the server lists the default; "" where it lists none.

        A list may still name the model that is gone, which ``without`` passes over. Turns in
        threads wait for the same list.
        """
        place = endpoint.base_url
        with self._lock:
            listing = self._listings.get(place)
            if listing is None:
                if not without and place in self._defaults:  # another turn took it since
                    return self._defaults[place]
                listing = self._listings[place] = _Listing(client)
                listing.start()
        try:
            with waiting():
                listing.join()
        except KeyboardInterrupt:
            self._end_listing(place, listing)
            raise
        found = newest([model for model in self._usable(listing.ids) if model != without])
        self._end_listing(place, listing, found)
        return found

    def _end_listing(self, place: str, listing: _Listing, found: str | None = None) -> None:
        """Forget a request for a list; None where it was not waited for."""
        with self._lock:
            if self._listings.get(place) is listing:
                del self._listings[place]
            if found is not None:
                self._defaults[place] = found or self._defaults.get(place, "")

    def models(
        self, endpoint: Endpoint, key: Key | None, settings: Settings, notice: Callable[[str], None]
    ) -> list[str]:
        """Return the ids of the models that an endpoint's server offers."""
        # With a model named, the list is not asked for to find one.
        named = GUESSED_MODEL if endpoint.base_url else None
        found = self._usable(self.connect(endpoint, key, named, settings, notice).client.models())
        if self._has_to_ask(endpoint):
            self._defaults[endpoint.base_url] = newest(found)
        self._listed |= dict.fromkeys(found)
        for name in list(self._listed)[:-MOST_LISTED]:
            del self._listed[name]
        return found

    def _usable(self, listed: list[str]) -> list[str]:
        """Return the ids of a server's list that can be shown and asked for, without keys."""
        redacted = Redactor(self.known_keys()).value(listed)
        fit = (name for name in redacted if name == name.strip() and len(name) <= LONGEST_MODEL)
        return [name for name in fit if name and name.isprintable()]

    def known_models(self) -> list[str]:
        """Return the ids of models: those of the endpoints, of the records, and of lists so far.

        The name of a record is taken at every endpoint.
        """
        own = [self.target(endpoint, None).model for endpoint in self.catalogue]
        return list(dict.fromkeys([*own, *(m.name for m in self.model_records), *self._listed]))

    def free(self, endpoint: Endpoint) -> None:
        """Have the embedded engine drop its work, if no other exchange waits for it.

        llama.cpp reads a prompt to its end although its client has gone.
        """
        client = self._clients.get(endpoint.name)
        if endpoint is LOCAL and self._engine and client and not client.busy:
            self._engine.stop()

    def ask_again(self, endpoint: Endpoint) -> None:
        """Have the next turn ask for the models again, if the list did not tell the default.

        It is for a server that was not reached, or refused the key.
        """
        if not self._defaults.get(endpoint.base_url):
            self._defaults.pop(endpoint.base_url, None)

    def forget(self, endpoint: Endpoint) -> None:
        """Forget a typed key that the endpoint refused."""
        if endpoint.key_env and (key := self._keys.find(endpoint.key_env, endpoint.base_url)):
            self._keys.forget(key)

    def close(self) -> None:
        """End the embedded engine and close idle connections."""
        for client in self._clients.values():
            client.close()
        if self._engine:
            self._engine.stop()

    def _client(
        self, endpoint: Endpoint, base_url: str, key: Key | None, settings: Settings
    ) -> Client:
        from kimi_magic.wire.client import Client

        with self._lock:
            client = self._clients.pop(endpoint.name, None)
            if client is None or not client.serves(endpoint, base_url, key):
                if client:
                    client.close()
                client = Client(endpoint, base_url, key, settings)
            client.settings = settings
            self._clients[endpoint.name] = client  # the latest used one is the last
            self._close_unused(client)
            return client

    def _close_unused(self, used: Client) -> None:
        """Close the clients that were not used for long, or are too many; one may be busy still."""
        now = used.used_at = time.monotonic()
        for name, client in list(self._clients.items()):
            old = now - client.used_at > UNUSED_SECONDS or len(self._clients) > MOST_CLIENTS
            if old and client is not used and not client.busy:
                del self._clients[name]
                client.close()


class _Listing(threading.Thread):
    """Asks a server for its models: an interrupt must not fall into the connection, or imports."""

    def __init__(self, client: Client) -> None:
        super().__init__(name="kimi-models", daemon=True)
        self.ids: list[str] = []
        self._client = client

    def run(self) -> None:
        with suppress(KimiError):  # the turn's own request tells better what is wrong
            self.ids = self._client.models(LISTING_TIMEOUT)


def _without_defaults(endpoint: Endpoint, context_window: int) -> Endpoint:
    """Return the embedded engine as it is with a model of the user's own."""
    return replace(
        endpoint, temperature=None, max_tokens=None, seed=None, context_window=context_window
    )


def _names_model(endpoint: Endpoint) -> bool:
    """Return True if the endpoint has a model of the user's choice."""
    own = (endpoint.kind, endpoint.model)
    return bool(endpoint.model) and own not in ((known.kind, known.model) for known in BUILT_IN)


def _guess(endpoint: Endpoint) -> str:
    """Return the model to ask for where nobody named one, and no list does."""
    known = any(endpoint.kind == known.kind for known in BUILT_IN)
    return LATEST_MODEL if known else GUESSED_MODEL
