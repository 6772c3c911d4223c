"""Settings, their bounds, and the environment variables that set them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitlets import Bool, Dict, Enum, Float, Int, TraitError, Unicode, validate
from traitlets.config import Configurable

from kimi_magic.core.budget import Budget
from kimi_magic.core.errors import ConfigError
from kimi_magic.core.frontend import starting_folder
from kimi_magic.secrets.patterns import without_key

__all__ = [
    "APPROVE",
    "BOUNDS",
    "EFFORTS",
    "RESUME",
    "TAPE_MODES",
    "VIEWS",
    "Bounds",
    "Settings",
    "out_of_bounds",
]

APPROVE = ("auto", "ask", "yes", "no")
EFFORTS = ("low", "high", "max")
SUMMARY_VALUES = ("rows", "figures", "schema")
RESUME = ("ask", "always", "never")
TAPE_MODES = ("new", "none", "all")
VIEWS = ("auto", "live", "record", "terminal", "plain")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The smallest and the largest value of a number; None for no upper limit."""

    least: float
    most: float | None = None

    def __contains__(self, value: float) -> bool:
        # Written so that NaN, which compares false with everything, is outside.
        return value >= self.least and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.most is None:
            return f"a number of at least {self.least:g}"
        return f"a number from {self.least:g} to {self.most:g}"


BOUNDS: Mapping[str, Bounds] = {
    "temperature": Bounds(0, 2),
    "top_p": Bounds(0, 1),
    "max_tokens": Bounds(1),
    "max_steps": Bounds(1),
    "max_depth": Bounds(0, 32),
    "var_tokens": Bounds(1),
    "var_rows": Bounds(0, 1000),
    "summary_tokens": Bounds(50),
    "max_output_chars": Bounds(1000),
    "heavy": Bounds(2, 64),
    "until_agree": Bounds(2, 64),
    "max_concurrency": Bounds(1, 64),
    "retries": Bounds(0),
    "connect_timeout": Bounds(0.1),
    "first_token_timeout": Bounds(0.1),
    "stall_timeout": Bounds(0.1),
    "max_body_bytes": Bounds(100_000),
    "max_line_bytes": Bounds(100_000),
    "max_queue_bytes": Bounds(100_000),
    "max_turn_bytes": Bounds(100_000),
}
"""Bounds by the name of a setting, a keyword of ``kimi.ask`` or an option of ``%%kimi``."""


NO_SETTINGS = ("var_tokens", "var_rows", "heavy", "until_agree")


def out_of_bounds(name: str, value: Any, called: str) -> str:
    """Return the complaint about a number outside its bounds, or "" for None or one inside.

    ``called`` is the name as the user wrote it, such as ``--top-p`` or ``top_p=``.
    """
    bounds = BOUNDS.get(name)
    if bounds is None or value is None or value in bounds:
        return ""
    return f"{called} is {bounds}; got {value!s:.40}."


class _Json(Dict):
    """A mapping that the environment gives as JSON."""

    def from_string(self, s: str) -> Any:
        return json.loads(s)


class Settings(Configurable):
    """Defaults for every turn.

    Set a trait with ``%config KimiMagics.NAME = value``, ``c.KimiMagics.NAME`` in an IPython
    profile, ``kimi.settings.NAME = value``, or the environment variable ``KIMI_NAME``. The
    environment overrides the profile; a variable that changes later takes effect at the next turn.

    ``of_profile`` holds the values that an IPython profile gave.
    """

    endpoint = Unicode(
        "", help="Name or URL of the endpoint; empty: the first one with a key, else `local`."
    ).tag(config=True)
    model = Unicode(
        "", help="Model id; empty: the endpoint's default, or the newest Kimi that it offers."
    ).tag(config=True)
    local_model = Unicode(
        "", help="GGUF file for the endpoint `local`; empty: the practice model."
    ).tag(config=True)
    system = Unicode(
        None, allow_none=True, help="System prompt; unset: Kimi's own for Kimi models, else none."
    ).tag(config=True)
    effort = Enum(
        EFFORTS,
        None,
        allow_none=True,
        help="How hard the model reasons, where it has levels: low, high or max; unset: the "
        "model's default.",
    ).tag(config=True)
    temperature = Float(
        None, allow_none=True, help="Sampling temperature, 0 to 2; unset: the model's default."
    ).tag(config=True)
    top_p = Float(
        None, allow_none=True, help="Nucleus sampling, 0 to 1; unset: the model's default."
    ).tag(config=True)
    max_tokens = Int(
        None,
        allow_none=True,
        help="Token limit for reasoning and answer together; unset: the model's default.",
    ).tag(config=True)
    view = Enum(
        VIEWS,
        "auto",
        help="How a turn is shown: auto, live, record, terminal or plain (flushed text).",
    ).tag(config=True)
    keep_reasoning_open = Bool(
        default_value=False, help="Leave the reasoning open after the answer begins."
    ).tag(config=True)
    max_output_chars = Int(
        200_000,
        help="Characters of one turn that the notebook keeps, and 20 times as many for images; "
        "the reply has everything.",
    ).tag(config=True)
    max_steps = Int(
        50, help="Rounds of tool calls after which the model must give its answer."
    ).tag(config=True)
    max_depth = Int(
        8, help="How deep `kimi.ask` in a tool may lead to tools that ask again; 0: not at all."
    ).tag(config=True)
    approve = Enum(
        APPROVE,
        "auto",
        help="Approval of tool calls: auto (asks for tools with confirm=True), ask (asks for "
        "every call), yes (runs every call), no (refuses every call).",
    ).tag(config=True)
    retries = Int(3, help="How many times a failed request is sent again.").tag(config=True)
    connect_timeout = Float(10.0, help="Seconds to reach the server.").tag(config=True)
    first_token_timeout = Float(300.0, help="Seconds to wait for the first token.").tag(config=True)
    stall_timeout = Float(
        120.0,
        help="Seconds without data after which a stream counts as dead; comments and pings "
        "are no data.",
    ).tag(config=True)
    max_body_bytes = Int(
        16_000_000,
        help="Decoded bytes of an answer in one piece, or of a list of models, that are taken.",
    ).tag(config=True)
    max_line_bytes = Int(
        12_000_000, help="Bytes of one line, or one event, of a stream that are taken."
    ).tag(config=True)
    max_queue_bytes = Int(
        4_000_000, help="Bytes that a stream may be ahead of the turn; then the reader waits."
    ).tag(config=True)
    max_turn_bytes = Int(
        32_000_000, help="Bytes of memory that the text of one turn's answers may take."
    ).tag(config=True)
    max_concurrency = Int(
        8, help="Requests of one turn that may be under way at once, in heavy mode."
    ).tag(config=True)
    heavy_prompt = Unicode(
        None,
        allow_none=True,
        help="Prompt of the aggregation in heavy mode, with the places {count}, {problem} and "
        "{attempts}; unset: the one in the documents.",
    ).tag(config=True)
    journal = Unicode(
        None,
        allow_none=True,
        help="File in which turns are kept; unset: in the user's data folder; empty or `off`: "
        "they are not kept.",
    ).tag(config=True)
    resume = Enum(
        RESUME,
        "ask",
        help="The notebook's chat of an earlier kernel: ask (a line offers it), always (it goes "
        "on) or never.",
    ).tag(config=True)
    record_times = Bool(
        default_value=False,
        help="Keep in the notebook, with each turn, when it was made, how long it took, and counts "
        "that differ from run to run.",
    ).tag(config=True)
    tape = Unicode("", help="Tape whose recorded answers are played; empty: none.").tag(config=True)
    tape_mode = Enum(
        TAPE_MODES,
        "new",
        help="What a tape may do: new (play what is on it, record the rest), none (only play) or "
        "all (record anew).",
    ).tag(config=True)
    keep = Bool(
        default_value=False,
        help="Keep answers in `.kimi/NOTEBOOK.tape` beside the notebook: what was asked before is "
        "not sent again.",
    ).tag(config=True)
    mcp_servers = _Json(
        help="MCP servers by name, as `.mcp.json` has them: a command with args and env, or a url "
        "with headers; `${NAME}` is a variable of the environment.",
    ).tag(config=True)
    budget = Unicode(
        None,
        allow_none=True,
        help="The most that this session may spend, as in `2 USD` or `500k tokens`: a request that "
        "would pass it is not sent; unset: no limit.",
    ).tag(config=True)
    summary_tokens = Int(
        1500, help="Token limit for the summary of each variable in a prompt."
    ).tag(config=True)
    summary_values = Enum(
        SUMMARY_VALUES,
        "rows",
        help="Values in the summaries of variables and cells: rows, figures (ranges, means "
        "and counts alone) or schema (names, types and counts alone).",
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Copied, as %config writes into the configuration of everything.
        self.of_profile: dict[str, Any] = dict(self.config.get(type(self).__name__, {}))
        self._seen: dict[str, str] = {}
        self._without: dict[str, Any] = {}
        # Raised again at the first turn: a bad variable must not stop the extension from loading.
        with suppress(ConfigError):
            self.read_environment()

    @validate(*(name for name in BOUNDS if name not in NO_SETTINGS))
    def _validate_bounds(self, proposal: Any) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        if problem := out_of_bounds(name, value, name):
            raise TraitError(problem)
        return value

    @validate("budget")
    def _validate_budget(self, proposal: Any) -> Any:
        try:
            Budget.of(proposal["value"])
        except ValueError as error:
            raise TraitError(str(error)) from None
        return proposal["value"]

    @property
    def most_spent(self) -> Budget | None:
        """The most that the session may spend; None for no limit."""
        return Budget.of(self.budget)

    @property
    def journal_path(self) -> Path | None:
        """The file in which turns are kept; None where they are not."""
        if self.journal is not None and self.journal.strip().lower() in ("", "off"):
            return None
        if self.journal:
            # Path.expanduser raises where there is no such user; a cell may change the folder.
            return starting_folder() / os.path.expanduser(self.journal)  # noqa: PTH111
        from platformdirs import user_data_path

        return user_data_path("kimi-magic", appauthor=False) / "journal.sqlite3"

    @property
    def tape_path(self) -> Path | None:
        """The file of the tape that is on; None for none."""
        if not self.tape.strip():
            return None
        return starting_folder() / os.path.expanduser(self.tape)  # noqa: PTH111 - as above

    def adopt(self, other: Settings) -> None:
        """Take over the settings that were changed in another object."""
        for name, trait in Settings.class_traits(config=True).items():
            if (value := getattr(other, name)) != trait.default(other):
                setattr(self, name, value)

    def read_environment(self) -> None:
        """Apply each ``KIMI_NAME`` variable that appeared or changed since the last call.

        A variable that was removed gives way to the value from before it was set. ``ConfigError``
        is raised for a text that does not fit its setting.
        """
        # Each look costs, several times a turn, and few are set.
        ours = {each: os.environ.get(each, "") for each in os.environ if each.startswith("KIMI_")}
        for variable, name, trait in _VARIABLES:
            text = ours.get(variable, "")
            if text == self._seen.get(name, ""):
                continue
            before = self._without.setdefault(name, getattr(self, name))
            try:
                setattr(self, name, trait.from_string(text) if text else before)
            except (TraitError, ValueError) as error:
                message = f"{variable}={text!r} does not fit the setting {name}: {error}"
                raise ConfigError(without_key(message, text)) from None
            self._seen[name] = text
            if not text:
                del self._without[name]


# Listed once: traitlets takes as long to list its traits as the environment to be read, each turn.
_VARIABLES = [
    (f"KIMI_{name.upper()}", name, trait)
    for name, trait in Settings.class_traits(config=True).items()
]
