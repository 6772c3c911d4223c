"""Endpoints as data: where a model is reached and what its server expects.

A new provider is one more record. What depends on the model is left to its record
(``wire/models.py``) unless an endpoint sets it for itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

from kimi_magic.core.errors import ConfigError
from kimi_magic.core.shown import Shown
from kimi_magic.core.turn_record import EndpointFacts
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.patterns import without_key
from kimi_magic.wire.addresses import clean_url
from kimi_magic.wire.headers import EndpointHeaders
from kimi_magic.wire.models import check_prices

__all__ = ["GUESSED_MODEL", "LATEST_MODEL", "LOCAL", "Catalogue", "Endpoint"]

Strictness = Literal["json_schema", "json_object", "text"]
Api = Literal["chat", "messages"]
STRICTNESSES: tuple[Strictness, ...] = ("json_schema", "json_object", "text")
WIRES: tuple[Api, ...] = ("chat", "messages")
DEFAULT_LIMIT = 16_384  # tokens of an answer where nobody set a limit, and the API wants one
# Asked for where nobody named a model and no list does: at an address that nobody knows, and else.
GUESSED_MODEL, LATEST_MODEL = "kimi-k2-thinking", "kimi-k3"
LARGEST_CONTEXT = 8192  # of the embedded engine with a model of the user's own
EMBEDDED = "local"  # the endpoint of the engine in this kernel, which has no address of its own

_MESSAGES_URL = re.compile(
    r"(?://api\.anthropic\.com|/anthropic|/v1/messages)/*\s*\Z", re.IGNORECASE
)
_MESSAGES_PATH = re.compile(r"(/v1)?(/messages)?/*\Z")
_REASONING_KEYS = {
    **dict.fromkeys(("moonshot", "nvidia", "sglang"), "reasoning_content"),
    **dict.fromkeys(("vllm", "openrouter"), "reasoning"),
}
# platform.kimi.ai/docs/pricing/batch
_BATCH_PRICES = {"moonshot": 0.6}


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint(Shown):
    """A server that answers, and the facts of its wire.

    Parameters
    ----------
    name : str
        The name that ``-e`` takes.
    base_url : str
        The address, with ``/v1`` at its end if ``wire`` is ``chat`` and without it if ``wire`` is
        ``messages``. Only the endpoint ``local``, the embedded engine, has none until it starts.
    key_env : str or None
        The environment variable that holds the key; None if the server needs no key.
    model : str
        The model id asked for by default; empty for the newest Kimi that the server lists.
    context_window : int, optional
        Tokens; None for the model's own.
    temperature, top_p, max_tokens, seed : optional
        Sent unless the user sets another; None leaves it to the model's record, then to the server.
    prices : tuple of float, optional
        US dollars for a million tokens: prompt, completion, and prompt tokens read from the cache.
        Leave out the third if cached tokens cost as much as others. None for the prices of the
        model's record.
    answers : str
        How strictly the server holds an answer to a schema: ``json_schema``, ``json_object`` (any
        JSON) or ``text`` (not at all).
    stream_usage : bool
        True where ``stream_options: {"include_usage": true}`` is understood.
    docs : str
        The provider's page on keys and models.
    partial_mode : bool
        True where a last assistant message with ``"partial": true`` is the beginning of the answer
        (Moonshot's partial mode, platform.kimi.ai/docs/api/partial).
    lists_models : bool
        True where the server is asked for its models before the first turn of a session, if
        neither the endpoint nor the user names one.
    max_concurrency : int, optional
        Requests that the server takes at once; None where that is not known.
    requests_per_minute, tokens_per_minute : int, optional
        The server's limits, which ``kimi.map`` keeps to; None if they are not known.
    batch : bool
        True where the server has the Batch API (``/batches``, ``/files``) for
        ``kimi.map(…, engine="batch")``.
    like : str
        The built-in endpoint whose rules the server follows, for a gateway or a proxy.
    headers : mapping of str to str
        Headers that each request carries beside our own, such as ``{"X-Team": "${TEAM_TOKEN}"}``.
        ``${NAME}`` stands for an environment variable, which must be set when a request is made.
        An ``Authorization`` header takes the place of the key, so there can be no ``key_env`` then.
        The values are masked as keys are.
    wire : str
        The API that the server speaks: ``chat`` for OpenAI's chat completions, ``messages`` for
        Anthropic's Messages API, which takes no seed and gives no logprobs. That needs
        ``pip install "kimi-magic[anthropic]"``. Anthropic's own server is
        ``Endpoint("anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY",
        wire="messages")``.
    """

    name: str
    base_url: str
    key_env: str | None = None
    model: str = ""
    context_window: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    prices: tuple[float, ...] | None = None
    answers: Strictness = "json_object"
    stream_usage: bool = True
    docs: str = ""
    partial_mode: bool = False
    lists_models: bool = True
    max_concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    batch: bool = False
    like: str = ""
    headers: Mapping[str, str] = field(default_factory=EndpointHeaders)
    wire: Api = "chat"

    def __post_init__(self) -> None:
        if not str(self.name).strip():
            raise ConfigError("An endpoint has a name, the one that -e takes.")
        if self.wire not in WIRES:
            raise ConfigError(f"wire is one of {', '.join(WIRES)}; got {self.wire!r:.60}.")
        if self.base_url != "" or self.name != EMBEDDED:
            object.__setattr__(self, "base_url", clean_url(self.base_url))
        if self.wire == "messages":
            self._fit_messages()
        object.__setattr__(self, "headers", EndpointHeaders(self.headers))
        if self.key_env is not None and not re.fullmatch(r"[A-Za-z_]\w{0,63}", str(self.key_env)):
            raise ConfigError(
                "key_env takes the name of the environment variable that holds the key, such as "
                "'LAB_API_KEY', and not the key."
            )
        own_key = ["Authorization", *["X-Api-Key"] * (self.wire == "messages")]
        if self.key_env is not None and (own := [*filter(self.own_headers.has, own_key)]):
            raise ConfigError(
                f"An endpoint has a key_env or an {own[0]} header of its own, not both."
            )
        for name in ("requests_per_minute", "tokens_per_minute"):
            limit = getattr(self, name)
            if limit is not None and (type(limit) is not int or limit < 1):
                raise ConfigError(f"{name} is a whole number from 1 on; got {limit!r:.60}.")
        if self.prices is not None:
            object.__setattr__(self, "prices", check_prices(self.prices))

    def _fit_messages(self) -> None:
        """Turn off what the Messages API lacks, and end the address where its SDK expects it."""
        if self.batch:
            raise ConfigError("batch=True needs wire='chat': the Batch API is OpenAI's.")
        url = _MESSAGES_PATH.sub("", self.base_url)
        for name, value in {"base_url": url, "partial_mode": False, "stream_usage": False}.items():
            object.__setattr__(self, name, value)

    @property
    def kind(self) -> str:
        """The name under which models know the endpoint."""
        return self.like or self.name

    @property
    def reasoning_key(self) -> str:
        """The field in which the server reads past reasoning; "" where that is not known."""
        return _REASONING_KEYS.get(self.kind, "")

    @property
    def batch_price(self) -> float:
        """The share of its prices that an answer in a batch costs; 1 where that is not known."""
        return _BATCH_PRICES.get(self.kind, 1.0)

    @property
    def facts(self) -> EndpointFacts:
        """The facts of it that stand in the record of a turn."""
        public = self.own_headers.public()
        return EndpointFacts(self.name, self.base_url, self.key_env, public, self.wire)

    @property
    def default_limit(self) -> int | None:
        """The limit of an answer's tokens where nobody sets one; None: it may be left out."""
        return DEFAULT_LIMIT if self.wire == "messages" else None

    @property
    def own_headers(self) -> EndpointHeaders:
        """The headers, which a record always holds in this form."""
        assert isinstance(self.headers, EndpointHeaders), "__post_init__ sees to it"
        return self.headers


def _self_hosted(name: str, port: int, docs: str, answers: Strictness = "json_schema") -> Endpoint:
    url = f"http://127.0.0.1:{port}/v1"
    return Endpoint(name, url, answers=answers, docs=docs)


# Measured: the practice model makes sense only when it is sampled greedily and kept short.
LOCAL = Endpoint(
    EMBEDDED,
    "",
    model="smollm2-135m-practice",
    context_window=4096,
    temperature=0.0,
    max_tokens=256,
    seed=0,
    answers="json_schema",
    max_concurrency=1,
)

BUILT_IN = (
    Endpoint(
        "nvidia",
        "https://integrate.api.nvidia.com/v1",
        "NVIDIA_API_KEY",
        "moonshotai/kimi-k3",
        top_p=0.9,
        answers="text",
        docs="https://build.nvidia.com/moonshotai/kimi-k3",
    ),
    Endpoint(
        "moonshot",
        "https://api.moonshot.ai/v1",
        "MOONSHOT_API_KEY",
        "kimi-k3",
        answers="json_schema",
        partial_mode=True,
        batch=True,
        docs="https://platform.kimi.ai/docs",
    ),
    Endpoint(
        "moonshot-cn",
        "https://api.moonshot.cn/v1",
        "MOONSHOT_API_KEY",
        "kimi-k3",
        answers="json_schema",
        partial_mode=True,
        batch=True,
        docs="https://platform.moonshot.cn/docs",
        like="moonshot",
    ),
    Endpoint(
        "moonshot-anthropic",
        "https://api.moonshot.ai/anthropic",
        "MOONSHOT_API_KEY",
        "kimi-k3",
        answers="json_schema",
        docs="https://platform.kimi.ai/docs",
        like="moonshot",
        wire="messages",
    ),
    Endpoint(
        "openrouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        answers="json_schema",
        docs="https://openrouter.ai/moonshotai",
    ),
    Endpoint(
        "together",
        "https://api.together.xyz/v1",
        "TOGETHER_API_KEY",
        answers="json_schema",
        docs="https://docs.together.ai",
    ),
    _self_hosted("vllm", 8000, "https://docs.vllm.ai"),
    _self_hosted("sglang", 30000, "https://docs.sglang.ai"),
    _self_hosted("ktransformers", 10002, "https://kvcache-ai.github.io/ktransformers", "text"),
    _self_hosted("llamacpp", 8080, "https://github.com/ggml-org/llama.cpp"),
    LOCAL,
)

# Where the user chose none, the first of these whose key is present answers.
PREFERRED = ("nvidia", "moonshot", "openrouter")
OWN = "custom"  # the name of the endpoint that the environment describes


class Catalogue:
    """The endpoints of a session: the built-in ones, the environment's, and those added.

    Iterating never raises: an endpoint of the environment that cannot be used is left out, and
    `problem` says why.

    Attributes
    ----------
    key_names : tuple of str
        The variables that hold keys, of every endpoint.
    """

    def __init__(self) -> None:
        self._named = {endpoint.name: endpoint for endpoint in BUILT_IN}
        self._note_keys()

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._all().values())

    @property
    def problem(self) -> str:
        """The reason why ``KIMI_BASE_URL`` cannot be used; empty where it can, or is not set."""
        try:
            from_environment()
        except ConfigError as error:
            return str(error)
        return ""

    @property
    def secrets(self) -> list[Key]:
        """The values of the endpoints' own headers, to mask."""
        return [secret for headers in self._headers for secret in headers.secrets()]

    def add(self, endpoint: Endpoint) -> None:
        """Add an endpoint; one of the same name is replaced."""
        self._named[endpoint.name] = endpoint
        self._note_keys()

    def _note_keys(self) -> None:
        """Note where keys are: they are looked for several times a turn."""
        known = self._named.values()
        names = dict.fromkeys(e.key_env for e in known if e.key_env)
        self.key_names = (*names, "KIMI_API_KEY")
        self._headers = [e.own_headers for e in known if e.headers]

    def resemble(self, like: str, fields: Mapping[str, Any]) -> Endpoint:
        """Make an endpoint of its own fields and the facts of a known one.

        The known one's key and headers stay with its own address.
        """
        known = self.get(like)
        own = {"key_env": None, "headers": {}, "like": known.kind, **fields}
        if own.get("wire") == "messages":  # which has no Batch API here
            own.setdefault("batch", False)
        return replace(known, **own)

    def get(self, name: str) -> Endpoint:
        """Look up an endpoint by its name, or make one of a URL.

        A `ConfigError` names the nearest, or says why ``KIMI_BASE_URL`` cannot be used.
        """
        if name in self._named:
            return self._named[name]
        if name == OWN and (own := from_environment()):
            return own
        known = self._all()
        if "://" in name or "@" in name:  # the latter is refused in words that do not quote it
            url = clean_url(name)
            own = Endpoint(url, url, wire=_wire_of_url(url))
            same = [each for each in known.values() if each.base_url == own.base_url]
            return same[0] if same else own
        near = get_close_matches(name, known, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        said = (
            f"No endpoint is named {name!r}.{guess}\n"
            f"Known: {', '.join(known)}; or give a URL such as http://127.0.0.1:8000/v1."
        )
        raise ConfigError(without_key(said, name))

    def of(self, facts: EndpointFacts | None) -> Endpoint | None:
        """Return the endpoint of a record by its name; the record's address is not trusted."""
        return self._all().get(facts.name) if facts else None

    def _all(self) -> dict[str, Endpoint]:
        """Return all by name, the environment's first unless one was added under its name."""
        own = None
        with suppress(ConfigError):
            own = from_environment()
        return ({OWN: own} if own else {}) | self._named


def _wire_of_url(url: str) -> Api:
    """Guess the API from an address: providers serve Anthropic's at /anthropic."""
    return "messages" if _MESSAGES_URL.search(url) else "chat"


def from_environment() -> Endpoint | None:
    """Return the endpoint that ``KIMI_BASE_URL`` and ``KIMI_API_KEY`` describe, if they do.

    The address of a built-in endpoint keeps that one's defaults; one that cannot be used raises a
    `ConfigError`.
    """
    url = os.environ.get("KIMI_BASE_URL", "").strip()
    if not url:
        return None
    key_env = "KIMI_API_KEY" if os.environ.get("KIMI_API_KEY", "").strip() else None
    try:
        own = Endpoint(OWN, url, key_env, wire=_wire_of_url(url))
    except ConfigError as error:
        raise ConfigError(f"KIMI_BASE_URL: {error}") from None
    for endpoint in BUILT_IN:
        if endpoint.base_url == own.base_url:
            like = endpoint.kind
            return replace(endpoint, name=OWN, key_env=key_env or endpoint.key_env, like=like)
    return own
