"""Models as data: the facts that are true of a model wherever it is served.

Sources: the model card of Kimi K2 Thinking; Moonshot's guides (platform.kimi.ai); models.dev and
the reports that cite them. A model that is not listed gets a neutral record: what it takes is left
to the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from kimi_magic.config import EFFORTS
from kimi_magic.core.errors import ConfigError, KimiError
from kimi_magic.core.messages import Usage
from kimi_magic.core.shown import Shown

if TYPE_CHECKING:
    from kimi_magic.wire.endpoints import Endpoint

__all__ = ["KIMI_SYSTEM", "Model", "ModelCatalogue", "is_kimi", "newest"]

KIMI_SYSTEM = "You are Kimi, an AI assistant created by Moonshot AI."
Fields = Mapping[str, Any]
Prices = tuple[float, ...]
ANYWHERE = ""  # the endpoint of a fact that holds wherever nothing else is known
# Facts of a model that an endpoint may set for itself.
OWN_FACTS = ("context_window", "max_tokens", "temperature", "top_p", "prices")


@dataclass(frozen=True, slots=True, repr=False)
class Model(Shown):
    """A model's facts. Those that differ between endpoints are mappings from an endpoint's name.

    Parameters
    ----------
    name : str
        The id at its makers, in lower case; ids at other servers are recognised by it.
    ids : mapping, optional
        By endpoint the id there, where it is another than the name.
    context_window : int
        Tokens.
    max_tokens : int, optional
        The limit of tokens for reasoning and answer that is sent by default; None sends none.
    largest_output : int, optional
        The highest limit that servers take.
    inputs : tuple of str
        ``text``, ``image``, ``video``.
    reasoning : str
        ``always``, ``switchable``, or ``unknown``.
    efforts : mapping, optional
        By endpoint (``""`` for all others) the fields of a request for each of `EFFORTS`; empty
        where there are none. None sends ``reasoning_effort`` and lets the server judge.
    temperature, top_p : float, optional
        Sent unless the user or the endpoint sets another.
    fixed_sampling : bool
        True where the server refuses a temperature or top_p of the user's.
    limit_field : str
        The name of the limit: ``max_tokens`` or ``max_completion_tokens``.
    tool_choice : tuple of str
        The values that are taken beside tools.
    strict_schemas : bool
        True where an answer in ``json_schema`` is held to it.
    past_reasoning : str
        The reasoning that goes back: that of the running tool ``loop``, or ``all``.
    call_ids : str
        ``functions`` where calls need ids of the form ``functions.NAME:IDX``, else ``server``.
    prices : mapping, or tuple of float, optional
        US dollars for a million tokens: prompt, completion, and cached prompt where that costs
        less. By endpoint, or the same everywhere.
    system : str, optional
        The system prompt where the user sets none.
    markup : str
        The family of its raw tokens: ``k2``, ``k3``, or empty.
    ended : mapping
        By endpoint the day (ISO 8601) since which it is no longer served.
    """

    name: str
    ids: Mapping[str, str] = field(default_factory=dict)
    context_window: int = 262_144
    max_tokens: int | None = None
    largest_output: int | None = None
    inputs: tuple[str, ...] = ("text",)
    reasoning: Literal["always", "switchable", "unknown"] = "unknown"
    efforts: Mapping[str, Mapping[str, Fields]] | None = None
    temperature: float | None = None
    top_p: float | None = None
    fixed_sampling: bool = False
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    tool_choice: tuple[str, ...] = ("auto", "none")
    strict_schemas: bool = False
    past_reasoning: Literal["loop", "all"] = "loop"
    call_ids: Literal["functions", "server"] = "functions"
    prices: Mapping[str, Prices] | Prices = field(default_factory=dict)
    system: str | None = None
    markup: Literal["k2", "k3", ""] = ""
    ended: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            raise ConfigError("A model's name is its id, such as 'kimi-k3'.")
        prices = self.prices if isinstance(self.prices, Mapping) else {ANYWHERE: self.prices}
        object.__setattr__(self, "prices", {name: check_prices(p) for name, p in prices.items()})

    def at(self, endpoint: Endpoint) -> Model:
        """Return the facts as they hold at an endpoint, whose own settings go first."""
        facts = {name: getattr(endpoint, name) for name in OWN_FACTS}
        own = {name: value for name, value in facts.items() if value is not None}
        return replace(self, **own) if own else self

    @property
    def sees(self) -> bool:
        """True for a model that is known to read images."""
        return "image" in self.inputs

    def id_at(self, endpoint: Endpoint) -> str:
        """Return the id under which an endpoint knows the model."""
        return self.ids.get(endpoint.kind, self.name)

    def effort(self, effort: str, endpoint: Endpoint) -> Fields:
        """Return the fields of a request that ask for an effort.

        Raises
        ------
        KimiError
            The model has no such effort.
        """
        if self.efforts is None:
            return {"reasoning_effort": effort}
        known = self.efforts_at(endpoint)
        if effort in known:
            return known[effort]
        has = f"has the efforts {', '.join(known)}" if known else "has no levels of effort"
        raise KimiError(f"{self.name} {has}: leave out --effort {effort}, or ask another model.")

    def efforts_at(self, endpoint: Endpoint) -> Mapping[str, Fields]:
        """Return the fields of a request for each effort that is known at an endpoint."""
        efforts = self.efforts or {}
        return efforts.get(endpoint.kind, efforts.get(ANYWHERE, {}))

    def prices_at(self, endpoint: Endpoint) -> Prices:
        """Return the prices of prompt, completion and cached prompt; () where they are unknown."""
        assert isinstance(self.prices, Mapping)
        prices = self.prices.get(endpoint.kind) or self.prices.get(ANYWHERE, ())
        return (*prices, prices[0])[:3] if prices else ()

    def priced(self, usage: Usage, endpoint: Endpoint) -> Usage:
        """Return the usage with its cost, where the prices at the endpoint are known."""
        prices = self.prices_at(endpoint)
        if not prices:
            return usage
        sent, answered, cached = prices
        fresh = max(usage.prompt_tokens - usage.cached_tokens, 0)
        cost = fresh * sent + usage.cached_tokens * cached + usage.completion_tokens * answered
        return replace(usage, cost=cost / 1_000_000)


def check_prices(prices: Sequence[float]) -> Prices:
    """Return prices as a tuple, or raise a `ConfigError`."""
    if len(prices) not in (2, 3):
        raise ConfigError("prices are two or three numbers: prompt, completion, cached prompt.")
    return tuple(prices)


def _ids(name: str) -> dict[str, str]:
    prefixed = f"moonshotai/{name}"
    together = f"moonshotai/{name.title()}"
    return {"nvidia": prefixed, "openrouter": prefixed, "together": together}


def _k3(name: str, **facts: Any) -> Model:
    """Return a record with the rules that K3 and K3.1 share."""
    by_effort = {effort: {"reasoning_effort": effort} for effort in EFFORTS}
    thinking = {"chat_template_kwargs": {"thinking": True}}
    return Model(
        name,
        _ids(name),
        context_window=1_048_576,
        max_tokens=131_072,
        largest_output=131_072,
        inputs=("text", "image", "video"),
        reasoning="always",
        efforts={
            ANYWHERE: by_effort,
            "nvidia": {effort: fields | thinking for effort, fields in by_effort.items()},
        },
        fixed_sampling=True,
        limit_field="max_completion_tokens",
        tool_choice=("auto", "none", "required"),
        strict_schemas=True,
        past_reasoning="all",
        call_ids="server",
        system=KIMI_SYSTEM,
        markup="k3",
        **facts,
    )


def _k2(name: str, *, switchable: bool = True, **facts: Any) -> Model:
    """Return a record with the rules that the models of K2 share."""
    on, off = {"type": "enabled"}, {"type": "disabled"}
    template = {"chat_template_kwargs": {"thinking": True}}
    switch: dict[str, dict[str, Fields]] = {
        "moonshot": {"low": {"thinking": off}, "high": {"thinking": on}, "max": {"thinking": on}},
        # openrouter.ai/docs, *Reasoning Tokens*: it drops what it does not know.
        "openrouter": {effort: {"reasoning": {"enabled": effort != "low"}} for effort in EFFORTS},
        ANYWHERE: {
            "low": {"chat_template_kwargs": {"thinking": False}},
            "high": template,
            "max": template,
        },
    }
    return Model(
        name,
        _ids(name),
        max_tokens=32_768 if switchable else 16_384,
        largest_output=262_144,
        reasoning="switchable" if switchable else "always",
        efforts=switch if switchable else {},
        system=KIMI_SYSTEM,
        markup="k2",
        **facts,
    )


SEES = ("text", "image", "video")
THINKING_ENDED = {"moonshot": "2026-05-25", "nvidia": "2026-07-07"}
BUILT_IN = (
    _k3("kimi-k3.1-pro"),
    _k3("kimi-k3.1-pro-highspeed"),
    _k3("kimi-k3", prices=dict.fromkeys(("moonshot", "openrouter"), (3.0, 15.0, 0.3))),
    _k2("kimi-k2.7-code", inputs=SEES),
    _k2("kimi-k2.7-code-highspeed", inputs=SEES),
    _k2("kimi-k2.6", inputs=SEES, ended={"nvidia": "2026-07-07"}),
    _k2("kimi-k2.5", inputs=SEES, ended={"moonshot": "2026-08-31", "nvidia": "2026-05-31"}),
    _k2(
        "kimi-k2-thinking",
        switchable=False,
        temperature=1.0,
        prices={"moonshot": (0.6, 2.5, 0.15)},
        ended=THINKING_ENDED,
    ),
    _k2("kimi-k2-thinking-turbo", switchable=False, temperature=1.0, ended=THINKING_ENDED),
)
# Another Kimi, such as one that is newer than this list: only its name is known.
_OTHER_KIMI = Model("kimi", reasoning="always", system=KIMI_SYSTEM)
_NEUTRAL = Model("other")

_VERSION = re.compile(r"kimi-?k(\d+(?:\.\d+)?)", re.IGNORECASE)
# Variants that nobody gets who named no model: without reasoning, for one purpose, or dearer.
_SPECIAL = re.compile(
    r"instruct|code|turbo|highspeed|fast|base|preview|vl|:free|-\d{4}", re.IGNORECASE
)


class ModelCatalogue:
    """The models of a session: the built-in records, and those added."""

    def __init__(self) -> None:
        self._named = {model.name: model for model in BUILT_IN}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._named.values())

    def add(self, model: Model) -> None:
        """Add a model; one of the same name is replaced."""
        self._named[model.name] = model

    def get(self, model_id: str) -> Model:
        """Return the record of an id: its own, that of the model it is a version of, or neutral.

        ``moonshotai/Kimi-K3:free`` is ``kimi-k3``; ``kimi-k3.1`` is not.
        """
        if model_id in self._named:
            return self._named[model_id]
        bare = re.split(r"[/~]", model_id.lower())[-1].partition(":")[0]
        for name in sorted(self._named, key=len, reverse=True):
            if bare == name.lower() or bare.startswith(f"{name.lower()}-"):
                return self._named[name]
        return replace(_OTHER_KIMI if is_kimi(model_id) else _NEUTRAL, name=model_id or "other")


def is_kimi(model_id: str) -> bool:
    """Return True for the id of a Kimi model; others must not be told that they are Kimi."""
    return "kimi" in model_id.lower()


def newest(ids: Sequence[str]) -> str:
    """Return the newest Kimi of a server's list, else the only model of the list, else ``""``."""

    def rank(model_id: str) -> tuple[bool, float, bool]:
        version = _VERSION.search(model_id)
        assert version
        return not _SPECIAL.search(model_id), float(version[1]), "thinking" in model_id.lower()

    kimis = [model_id for model_id in ids if _VERSION.search(model_id)]
    if kimis:
        return max(kimis, key=rank)
    return ids[0] if len(ids) == 1 else ""
