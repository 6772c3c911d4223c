"""A reasoning model as a native part of the notebook.

``%load_ext kimi_magic`` brings ``%%kimi``; ``import kimi_magic as kimi`` the same for Python code.
All but the errors is loaded when it is first used, so loading the extension costs little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import (
    BadRequest,
    BadStream,
    BudgetSpent,
    ConfigError,
    ConnectionFailed,
    ContentFiltered,
    ContextTooLong,
    EndpointError,
    KeyRefused,
    KimiError,
    LocalEngineError,
    MagicError,
    MissingKeyError,
    NotFound,
    PromptError,
    QuotaExhausted,
    RateLimited,
    ServerFailed,
    TapeError,
    TimedOut,
    ToolInterrupted,
    TurnInterrupted,
    TurnLost,
)
from kimi_magic.core.interrupts import whole_imports

if TYPE_CHECKING:
    from kimi_magic.api import (
        add_endpoint,
        add_model,
        ask,
        chat,
        load,
        resume,
        save,
        snippet,
        stream,
        tape,
    )
    from kimi_magic.chats.journal import Journal
    from kimi_magic.config import Settings
    from kimi_magic.context.summaries.summary import summarize, summarizer
    from kimi_magic.core.reply import Reply
    from kimi_magic.lab.comparison import compare
    from kimi_magic.lab.sweep import sweep
    from kimi_magic.lab.sweep_plot import plot_sweep
    from kimi_magic.tools.decorator import tool
    from kimi_magic.tools.mcp_servers import mcp
    from kimi_magic.tools.toolset import Toolset
    from kimi_magic.wire.endpoints import Endpoint
    from kimi_magic.wire.models import Model

    journal: Journal
    last: Reply | None
    last_sweep: Any
    settings: Settings

__all__ = [
    "BadRequest",
    "BadStream",
    "BudgetSpent",
    "ConfigError",
    "ConnectionFailed",
    "ContentFiltered",
    "ContextTooLong",
    "Endpoint",
    "EndpointError",
    "KeyRefused",
    "KimiError",
    "LocalEngineError",
    "MagicError",
    "MissingKeyError",
    "Model",
    "NotFound",
    "PromptError",
    "QuotaExhausted",
    "RateLimited",
    "Reply",
    "ServerFailed",
    "TapeError",
    "TimedOut",
    "ToolInterrupted",
    "Toolset",
    "TurnInterrupted",
    "TurnLost",
    "add_endpoint",
    "add_model",
    "ask",
    "chat",
    "compare",
    "journal",
    "last",
    "last_sweep",
    "load",
    "mcp",
    "plot_sweep",
    "resume",
    "save",
    "settings",
    "snippet",
    "stream",
    "summarize",
    "summarizer",
    "sweep",
    "tape",
    "tool",
]

__version__ = "0.1.0"

_NAMES = {
    "batch.map": "map",
    "api": "add_endpoint add_model ask chat load resume save snippet stream tape",
    "context.summaries.summary": "summarize summarizer",
    "core.reply": "Reply",
    "lab.comparison": "compare",
    "lab.sweep": "sweep",
    "lab.sweep_plot": "plot_sweep",
    "tools.decorator": "tool",
    "tools.mcp_servers": "mcp",
    "tools.toolset": "Toolset",
    "wire.endpoints": "Endpoint",
    "wire.models": "Model",
}
_HOMES = {name: f"kimi_magic.{home}" for home, text in _NAMES.items() for name in text.split()}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with whole_imports():
            value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value
    if name in ("journal", "last", "last_sweep", "settings"):  # looked up each time, they change
        with whole_imports():
            from kimi_magic.session import current

        return getattr(current(), name)
    raise AttributeError(f"module 'kimi_magic' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def load_ipython_extension(shell: Any) -> None:
    """Register the magics, for ``%load_ext kimi_magic``."""
    with whole_imports():
        from kimi_magic.jupyter.magics import KimiMagics

        magics = KimiMagics.of(shell)
        shell.register_magics(magics)
        for hooks, ours in _hooks(shell):
            if ours not in hooks:
                hooks.append(ours)
        magics.notebook.figures.attach(shell.display_formatter)
        if shell.last_execution_result is not None:
            magics.cell_errors.record(shell.last_execution_result)  # for `%kimi fix` after it
        magics.offer_chats()


def unload_ipython_extension(shell: Any) -> None:
    """Remove the magics, for ``%unload_ext kimi_magic``; chats and settings stay."""
    from kimi_magic.jupyter.magics import KimiMagics

    for magics in shell.magics_manager.magics.values():
        magics.pop("kimi", None)
    for hooks, ours in _hooks(shell):
        if ours in hooks:
            hooks.remove(ours)
    KimiMagics.of(shell).notebook.figures.detach(shell.display_formatter)


def _hooks(shell: Any) -> list[tuple[list[Any], Any]]:
    """Return IPython's lists of hooks, each with our entry."""
    from kimi_magic.jupyter.completion import complete_kimi
    from kimi_magic.jupyter.input_transforms import (
        QuestionLine,
        cell_below_comments,
        cell_without_body,
    )
    from kimi_magic.jupyter.magics import KimiMagics

    manager, events = shell.input_transformer_manager, shell.events.callbacks
    magics = KimiMagics.of(shell)
    return [
        (events["pre_run_cell"], magics.cell_errors.begin),
        (events["post_run_cell"], magics.cell_errors.record),
        (events["post_run_cell"], magics.notebook.figures.record),
        (manager.cleanup_transforms, cell_below_comments),
        (manager.cleanup_transforms, cell_without_body),
        (manager.token_transformers, QuestionLine),
        (shell.Completer.custom_matchers, complete_kimi),
    ]
