"""The functions that Python code calls: ``kimi.ask``, ``kimi.stream``, ``kimi.chat``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kimi_magic.chats.chat import Chat
from kimi_magic.core.events import Event
from kimi_magic.core.reply import Reply
from kimi_magic.session import current
from kimi_magic.turn.request import TurnRequest, make_request
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.models import Model

if TYPE_CHECKING:
    from kimi_magic.wire.tape import TapeUse

__all__ = [
    "add_endpoint",
    "add_model",
    "ask",
    "chat",
    "load",
    "resume",
    "save",
    "snippet",
    "stream",
    "tape",
]


def ask(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    tools: Any = None,
    variables: Any = None,
    system: str | None = None,
    model: str | None = None,
    endpoint: str | Endpoint | None = None,
    chat: str | Chat | None = None,
    schema: Any = None,
    effort: str | None = None,
    heavy: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] | None = None,
    max_steps: int | None = None,
    approve: str | None = None,
    show: bool | None = None,
    judge: str | None = None,
    until_agree: int | None = None,
    equal: Callable[[Any, Any], bool] | None = None,
    logprobs: bool | None = None,
) -> Reply:
    """Ask the model.

    Parameters
    ----------
    prompt : str or list of dict
        The text, or parts as the API has them: ``{"type": "text", "text": "…"}``, and pictures as
        data URLs, ``{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}``. It is
        sent as it is; ``{{ }}`` is not expanded.
    system : str, optional
        System prompt; "" for none. By default Kimi's own for Kimi models, none for others.
    model : str, optional
        Model id; by default the setting's, else the endpoint's.
    endpoint : str or Endpoint, optional
        A name of ``%kimi endpoints`` or a URL up to ``/v1``.
    chat : str or Chat, optional
        The chat that goes on; by default a one-off, which is safe in loops, threads and tools.
    effort : str, optional
        How hard the model reasons, where it has levels: ``low``, ``high`` or ``max``.
    heavy : int, optional
        Ask so many times at once (8, say), then have the answers aggregated into one.
        ``reply.trajectories`` and ``reply.agreement`` tell of them.
    judge : str, optional
        The model that aggregates: ``MODEL``, ``MODEL@ENDPOINT`` or ``@ENDPOINT``.
    until_agree : int, optional
        Stop when so many came to the same answer.
    equal : callable, optional
        ``(a, b) -> bool``, to compare two answers: their data with ``schema``, else their texts.
    temperature : float, optional
        0 to 2; Kimi's makers recommend 1.0.
    top_p : float, optional
        0 to 1.
    max_tokens : int, optional
        Tokens for reasoning and answer together.
    seed : int, optional
    stop : str or sequence of str, optional
        Texts at which the answer ends.
    show : bool, optional
        By default the turn is shown when called in the main thread and silent elsewhere.
    tools : callable, str, mapping, or iterable of these, optional
        What the model may call, as ``Toolset`` takes it; by default nothing.
    max_steps : int, optional
        After how many rounds of tool calls the model must conclude.
    approve : str, optional
        Who says yes to calls: ``auto`` (asks for tools with ``confirm=True``), ``ask`` (asks for
        each), ``yes`` (asks for none), ``no`` (refuses each).
    logprobs : bool, optional
        Ask how likely each token was, where the server tells: the record marks them, and
        ``reply.logprobs`` is a frame.
    variables : sequence of str or mapping, optional
        Names of the notebook's variables, or names and values: their summaries go along. Behind a
        name, ``:schema`` sends names, types and counts alone, ``:figures`` figures, too.
    schema : type, dict or str, optional
        What the answer is to hold: a pydantic model, dataclass, TypedDict, ``list[Model]``, a JSON
        Schema, or fields such as ``"name, age int, tags list"`` or ``"list[name, age int]"``.
        ``reply.data`` is the value.

    Returns
    -------
    Reply

    Raises
    ------
    KimiError
        The request failed, or nobody can be asked; ``error.reply`` is what had arrived.
    TurnInterrupted
        A ``KeyboardInterrupt``, with the same ``reply``.
    """
    return current().ask(_request(**locals()), show=show)


def stream(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    tools: Any = None,
    variables: Any = None,
    system: str | None = None,
    model: str | None = None,
    endpoint: str | Endpoint | None = None,
    chat: str | Chat | None = None,
    schema: Any = None,
    effort: str | None = None,
    heavy: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] | None = None,
    max_steps: int | None = None,
    approve: str | None = None,
    show: bool | None = None,
    judge: str | None = None,
    until_agree: int | None = None,
    equal: Callable[[Any, Any], bool] | None = None,
    logprobs: bool | None = None,
) -> Iterator[Event]:
    """Ask the model and yield the turn's events as they happen.

    Takes what ``ask`` takes; nothing is shown, since whoever takes the events shows them.

    Yields
    ------
    Event
        One of ``kimi_magic.core.events``; the last is ``TurnFinished`` with the reply, also for a
        turn that fails, whose error is raised after it.
    """
    return current().stream(_request(**locals()))


def _request(*, show: bool | None, **arguments: Any) -> TurnRequest:  # noqa: ARG001 - no field
    """Make the request of all arguments of `ask` or `stream`, but for ``show``."""
    return make_request(**arguments)


def chat(name: str = "main") -> Chat:
    """The chat of that name, made where there is none.

    Parameters
    ----------
    name : str
        ``main`` is the one that ``%%kimi`` cells go on with.
    """
    return current().chats.get(name)


def resume(chat: str = "main") -> Chat:
    """Go on with a chat of this notebook that an earlier kernel left, and return it.

    Its turns are tied to their cells as before: a cell that is run again goes back to before its
    own turn. A turn that was under way when its kernel ended is kept as far as it had come.

    Parameters
    ----------
    chat : str
        ``main`` is the one that ``%%kimi`` cells go on with.

    Raises
    ------
    KimiError
        The journal has no such chat of this notebook, or one of that name has turns here.
    """
    return current().resume(chat)


def load(path: str | os.PathLike[str]) -> list[Chat]:
    """Rebuild the chats whose turns a notebook carries, in the order of its cells.

    Nothing of the notebook runs. A cell of it that is run again goes back to before its own turn.

    Parameters
    ----------
    path : str or path
        A notebook in which ``%%kimi`` cells have run, or that ``kimi.save`` wrote.

    Returns
    -------
    list of Chat

    Raises
    ------
    KimiError
        The file is no notebook or carries no turns, or one of its chats has turns here.
    """
    return current().load(path)


def save(path: str | os.PathLike[str], chat: str | Chat = "main", *, force: bool = False) -> Path:
    """Write a chat as a notebook: its prompts as ``%%kimi`` cells, its records as their outputs.

    Parameters
    ----------
    path : str or path
        The notebook to write.
    chat : str or Chat
    force : bool
        Replace a file that exists.

    Returns
    -------
    Path

    Raises
    ------
    KimiError
        There is no such chat or it has no turns, or the file exists or cannot be written.
    """
    return current().save(path, chat, force=force)


def snippet(
    reply: Reply, form: str = "python", *, chat: bool = False, with_data: bool = False
) -> str:
    """The turn as a program, which sends the same request and prints what comes.

    Parameters
    ----------
    reply : Reply
        As ``kimi.ask`` and ``%%kimi`` give it, or ``kimi.last``.
    form : str
        ``python`` (OpenAI's SDK, or Anthropic's for an endpoint that speaks its API),
        ``langchain``, ``node`` or ``curl``.
    chat : bool
        Send the turns of its chat before it, too; else its own prompt alone.
    with_data : bool
        Write summaries of variables, outputs of cells and results of tools into the program; else
        a placeholder stands for each.

    Raises
    ------
    KimiError
        No such form, or a reply of a turn that sent nothing.
    """
    return current().snippet(reply, form, chat=chat, with_data=with_data)


@contextmanager
def tape(
    path: str | os.PathLike[str],
    *,
    mode: str = "new",
    speed: float | str = "max",
    strict: bool = False,
    frozen_tools: bool = False,
) -> Iterator[TapeUse]:
    """Play recorded answers inside the block, and record those that are not on the tape.

    It holds in the thread that begins it, inside of tools, and, in the main thread, for every
    thread. The innermost block counts.

    Parameters
    ----------
    path : str or path
        The tape's file; compressed where its name ends in ``.gz``. It need not exist yet.
    mode : str
        ``new`` plays what is there and records the rest, ``none`` sends nothing, ``all`` records
        anew. ``new`` gives way to the setting ``tape_mode``, so that ``KIMI_TAPE_MODE=none`` holds
        for a whole program.
    speed : str or float
        ``max``: at once; ``real``, or a number of times faster than it was recorded.
    strict : bool
        Refuse answers to the same prompt with other inputs.
    frozen_tools : bool
        Take the results of tools from the tape; they do not run.

    Yields
    ------
    TapeUse
        Its ``counts`` tell what was played and recorded.

    Raises
    ------
    TapeError
        The file cannot be read, or an option is none.
    """
    session = current()
    choices = {"speed": speed, "strict": strict, "frozen_tools": frozen_tools}
    use = session.tapes.use_of(path, mode, **choices)
    leave = session.tapes.enter(use)
    try:
        yield use
    finally:
        leave()


def add_endpoint(endpoint: Endpoint | None = None, /, **fields: Any) -> Endpoint:
    """Add an endpoint, to be asked with ``-e NAME``; one of the same name is replaced.

    Parameters
    ----------
    endpoint : Endpoint, optional
        Or its fields as keywords: ``add_endpoint(name="lab", base_url="http://gpu1:8000/v1")``.
        ``like="moonshot"`` takes the facts of a known endpoint for all other fields, except its
        key.
        A gateway's own headers are ``headers={"X-Team": "${TEAM_TOKEN}"}``: ``${NAME}`` stands for
        an environment variable.
        ``wire="messages"`` is for a server that speaks Anthropic's API, such as
        ``add_endpoint(name="anthropic", base_url="https://api.anthropic.com",
        key_env="ANTHROPIC_API_KEY", wire="messages")``.

    Returns
    -------
    Endpoint
        The one that was added.

    Raises
    ------
    ConfigError
        The address is none, or a header cannot be sent.
    """
    catalogue = current().connector.catalogue
    if endpoint is None:
        like = fields.pop("like", "")
        endpoint = catalogue.resemble(like, fields) if like else Endpoint(**fields)
    catalogue.add(endpoint)
    return endpoint


def add_model(model: Model | None = None, /, **fields: Any) -> Model:
    """Add a model's facts; those of a model of the same name are replaced.

    Parameters
    ----------
    model : Model, optional
        Or its fields as keywords: ``add_model(name="our-model", context_window=32_768)``.

    Returns
    -------
    Model
        The one that was added.

    Raises
    ------
    ConfigError
        It has no name, or prices that are none.
    """
    model = model or Model(**fields)
    current().connector.model_records.add(model)
    return model
