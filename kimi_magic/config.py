"""Settings, the environment, and where a key comes from."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from traitlets import Bool, Enum, Float, Int, TraitError, Unicode
from traitlets.config import Configurable

from kimi_magic.core.errors import ConfigError
from kimi_magic.secrets.patterns import without_key

__all__ = ["APPROVE", "VIEWS", "Settings"]

APPROVE = ("auto", "ask", "yes", "no")
VIEWS = ("auto", "live", "record", "terminal", "plain")


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
