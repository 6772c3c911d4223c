"""One kernel's settings and chats, and the conductor of a turn.

It wires the rooms together: which endpoint and key, which history, the driver, the view, and what
is kept afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from getpass import getpass
from typing import TYPE_CHECKING, Any

from kimi_magic.approval import (
    Approval,
    Approved,
    AskPerson,
    ask_with_input,
    asking,
    confirming,
)
from kimi_magic.chats import Chat, ChatTurn
from kimi_magic.config import Key, Settings
from kimi_magic.connect import Connector, Line
from kimi_magic.driver import drive, watch
from kimi_magic.endpoints.catalogue import Catalogue, Endpoint
from kimi_magic.errors import KeyRefused, KimiError, TurnInterrupted
from kimi_magic.events import Event, Notice, Preparing, TurnFinished, TurnStarted
from kimi_magic.loop import Send, Turn
from kimi_magic.messages import Message, Reply, ToolCall, as_content
from kimi_magic.question import Question, request_body, system_prompt
from kimi_magic.view import Unseen, View, ViewOptions, can_answer, cell_number, open_view

if TYPE_CHECKING:
    from kimi_magic.endpoints.client import Exchange
    from kimi_magic.tools.toolset import Toolset

__all__ = ["Session", "current"]

HOW_TO_GET_KIMI = (
    "No key was found, so a small practice model answers; it is often wrong. For Kimi K2 Thinking "
    "set NVIDIA_API_KEY (build.nvidia.com) or MOONSHOT_API_KEY (platform.moonshot.ai)."
)
UNBUILT = ("variables", "schema")
Announce = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class _Job:
    """A question that nothing speaks against: who is asked with which key, and who hears of
    what takes its time before the first event."""

    question: Question
    prompt: Message
    endpoint: Endpoint
    key: Key | None
    toolset: Toolset | None
    shown: bool = False
    shown_in: int | None = None
    announce: Announce = lambda _: None
    ask: AskPerson = ask_with_input


class Session:
    """One kernel's settings, endpoints, keys and chats.

    Parameters
    ----------
    settings : Settings, optional
        The magics hand in themselves, so that ``%config KimiMagics`` sets what holds here.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.last: Reply | None = None
        self._chats: dict[str, Chat] = {}
        self._connector = Connector()
        self._lock = threading.Lock()
        self._here = threading.local()
        self._told_how_to_get_kimi = False

    def ask(
        self,
        question: Question,
        *,
        show: bool | None = None,
        options: ViewOptions | None = None,
    ) -> Reply:
        """Take one turn to its end, shown as it goes.

        Parameters
        ----------
        show : bool, optional
            By default a turn is shown in the main thread, unless it runs inside another one.

        Raises
        ------
        KimiError, TurnInterrupted
            After the view was frozen; ``error.reply`` is what had arrived.
        """
        depth = getattr(self._here, "depth", 0)
        if show is None:
            show = threading.current_thread() is threading.main_thread() and not depth
        try:
            job = self._prepare(question)
            view = self._open_view(options or ViewOptions()) if show else Unseen()
        except KeyboardInterrupt:
            raise TurnInterrupted("Stopped before anything was sent.") from None
        shown_in = cell_number() if show else None
        self._here.depth = depth + 1
        try:
            job = replace(
                job, shown=show, shown_in=shown_in, announce=view.handle, ask=asking(view)
            )
            return watch(self._turn(job), view)
        finally:
            self._here.depth = depth
            view.close()

    def _open_view(self, options: ViewOptions) -> View:
        kept = replace(options, keep_reasoning=self.settings.keep_reasoning_open)
        return open_view(self.settings.view, kept)

    def stream(self, question: Question) -> Iterator[Event]:
        """Yield one turn's events as they happen; the last is ``TurnFinished``."""
        for event in self._turn(self._prepare(question)):
            if event is not None:
                yield event

    def chat(self, name: str = "main") -> Chat:
        """The chat of that name, made where there is none."""
        with self._lock:
            if name not in self._chats:
                self._chats[name] = Chat(name, self._ask_in_chat)
            return self._chats[name]

    @property
    def catalogue(self) -> Catalogue:
        return self._connector.catalogue

    def choose_endpoint(self, name: str | Endpoint | None = None) -> Endpoint:
        """The endpoint itself, or by its name; else the configured, else the first that can answer.

        Raises
        ------
        ConfigError
            No such endpoint, or nobody to ask at all.
        """
        self.settings.read_environment()
        if isinstance(name, Endpoint):
            return name
        return self._connector.choose(name or self.settings.endpoint)

    def key_at_hand(self, endpoint: Endpoint) -> Key | None:
        """The endpoint's key, if it is found without asking anybody."""
        return self._connector.key_at_hand(endpoint)

    def models(self, endpoint: str | None = None) -> list[str]:
        """The ids of the models that an endpoint's server offers.

        Raises
        ------
        KimiError
            It cannot be asked.
        """
        chosen = self.choose_endpoint(endpoint)
        key = self._connector.key(chosen, getpass if can_answer() else None)
        line = self._connector.connect(chosen, key, None, self.settings, print)
        return line.client.models()

    def question(
        self,
        prompt: Any,
        *,
        chat: str | Chat | None = None,
        **how: Any,
    ) -> Question:
        """Make a question of what the public functions take.

        Raises
        ------
        KimiError
            A keyword has its place in the signature, but is not built yet.
        """
        for name in UNBUILT:
            if how.pop(name, None) is not None:
                raise KimiError(f"{name}= is not built yet in this version: leave it out.")
        if how.get("max_steps") is not None and how["max_steps"] < 1:
            raise KimiError(f"max_steps is at least 1; not {how['max_steps']}.")
        chat = chat.name if isinstance(chat, Chat) else chat
        return Question(prompt, chat=chat, **how)

    def close(self) -> None:
        """End the embedded engine and close idle connections."""
        self._connector.close()

    def _ask_in_chat(
        self, prompt: Any, *, chat: str, show: bool | None = None, **how: Any
    ) -> Reply:
        return self.ask(self.question(prompt, chat=chat, **how), show=show)

    def _prepare(self, question: Question) -> _Job:
        """All that can be refused before anything is shown."""
        prompt = Message("user", as_content(question.prompt))
        if not prompt.text.strip():
            raise KimiError("The prompt is empty: write what you want to ask.")
        toolset = self._toolset(question)
        endpoint = self.choose_endpoint(question.endpoint)
        key = self._connector.key(endpoint, getpass if can_answer() else None)
        return _Job(question, prompt, endpoint, key, toolset)

    def _toolset(self, question: Question) -> Toolset | None:
        """The tools that are offered, with confirmation as ``approve`` wants it."""
        if question.tools is None or question.tools == []:
            return None
        from kimi_magic.tools.toolset import Toolset

        toolset = Toolset(question.tools)
        return confirming(toolset, question.approve or self.settings.approve) if toolset else None

    def _turn(self, job: _Job) -> Generator[Event | None, None, None]:
        """The turn's events, ticks between them, and in the end its failure, if it failed."""
        question = job.question
        turn, model = Turn((), job.prompt, retries=0), question.model or job.endpoint.model
        error: KimiError | TurnInterrupted | None = None
        try:
            line = self._connect(job)
            model = line.model
            earlier = self.chat(question.chat).history if question.chat else ()
            turn = Turn(
                (*system_prompt(question, self.settings, model), *earlier),
                job.prompt,
                retries=self.settings.retries,
                tools=job.toolset is not None,
                max_steps=question.max_steps or self.settings.max_steps,
            )
            yield TurnStarted(model, line.endpoint.name, line.practice)
            yield from self._tell_how_to_get_kimi(job, line)
            yield from drive(turn, self._sender(job, line), self._caller(job))
        except KimiError as failure:
            error = failure
            if isinstance(failure, KeyRefused):
                self._connector.forget(job.endpoint)
        except GeneratorExit:
            self._keep(job, turn, model, TurnInterrupted("No more events were asked for."))
            raise
        except KeyboardInterrupt:
            error = TurnInterrupted("Stopped. What had arrived is kept in kimi.last.")
            if not (turn.partial or turn.calling):
                self._connector.free(job.endpoint)
        yield TurnFinished(self._keep(job, turn, model, error))
        if error is not None:
            raise error from None

    def _sender(self, job: _Job, line: Line) -> Callable[[Send], Exchange]:
        """How the turn's requests go out."""
        body = request_body(job.question, line, self.settings)
        tools = {"tools": job.toolset.schemas()} if job.toolset else {}

        def send(command: Send) -> Exchange:
            request = body | {"messages": [message.to_dict() for message in command.messages]}
            request |= tools if command.tools else {}
            if command.whole:
                request |= {"stream": False}
                request.pop("stream_options", None)
            # Each time anew: the embedded engine may have been ended since.
            return self._connect(job).client.chat(request)

        return send

    def _caller(self, job: _Job) -> Callable[[tuple[ToolCall, ...]], Iterator[Event | None]]:
        """How the calls of a step are made."""
        chat = job.question.chat
        approved: Approved = self.chat(chat).approved if chat else {}

        def call(calls: tuple[ToolCall, ...]) -> Iterator[Event | None]:
            from kimi_magic.tools.batch import run_batch

            assert job.toolset is not None, "only what was offered is called"
            if (job.question.approve or self.settings.approve) == "no":
                return run_batch(job.toolset, calls, lambda *_: False)
            asks = Approval(job.toolset.namespace, approved, job.ask, job.announce)
            return run_batch(job.toolset, calls, asks if can_answer() else None)

        return call

    def _connect(self, job: _Job) -> Line:
        return self._connector.connect(
            job.endpoint,
            job.key,
            job.question.model,
            self.settings,
            lambda text: job.announce(Preparing(text)),
        )

    def _keep(
        self, job: _Job, turn: Turn, model: str, error: KimiError | TurnInterrupted | None
    ) -> Reply:
        name = job.question.chat
        reply = turn.reply(model=model, chat=name, error=error)
        reply = replace(reply, shown_in=job.shown_in)
        if error is not None:
            error.reply = reply
        self.last = reply
        if name and (messages := turn.messages()):
            self.chat(name).append(ChatTurn(messages[0].text, reply, messages))
        return reply

    def _tell_how_to_get_kimi(self, job: _Job, line: Line) -> Iterator[Event]:
        """Once, where the practice model answers though nobody chose it."""
        chosen = job.question.endpoint or self.settings.endpoint
        if line.practice and job.shown and not chosen and not self._told_how_to_get_kimi:
            self._told_how_to_get_kimi = True
            yield Notice(HOW_TO_GET_KIMI)


_current: Session | None = None
_current_lock = threading.Lock()


def current(settings: Settings | None = None) -> Session:
    """This kernel's session, made when it is first wanted.

    Parameters
    ----------
    settings : Settings, optional
        Take these over as the session's settings.
    """
    global _current  # noqa: PLW0603 - one session a process is what a kernel is
    with _current_lock:
        if _current is None:
            _current = Session(settings)
        elif settings is not None:
            _current.settings = settings
        return _current
